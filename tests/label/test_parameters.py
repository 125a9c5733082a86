"""Parameters of a request to the MONAI Label app, as clients send them."""

import pytest
from hftn_sr_label.parameters import choice, fraction, refuse_misspelt, switch, text, whole

from hftn_sr.errors import UsageFault

SCALES = ("auto", "2", "4")


@pytest.mark.parametrize(
    ("sent", "meant"), [({}, "auto"), ({"scale": 2}, "2"), ({"scale": "4"}, "4"), ({"scale": ["auto", "2", "4"]}, "auto")]
)
def test_a_choice_is_read_from_numbers_texts_and_lists(sent, meant):
    assert choice(sent, "scale", SCALES) == meant


@pytest.mark.parametrize("sent", [3, "two", ["8"], {"scale": 2}])
def test_a_wrong_choice_is_refused(sent):
    with pytest.raises(UsageFault, match="scale: "):
        choice({"scale": sent}, "scale", SCALES)


@pytest.mark.parametrize(("sent", "meant"), [(True, True), ("true", True), ("False", False), (None, False), ("", False)])
def test_a_switch_is_read_from_truth_values_and_texts(sent, meant):
    assert switch({"data_consistency": sent}, "data_consistency", False) is meant


def test_a_switch_that_is_neither_is_refused():
    with pytest.raises(UsageFault, match="data_consistency: 'perhaps' is not known"):
        switch({"data_consistency": "perhaps"}, "data_consistency", False)


def test_numbers_have_limits():
    assert whole({"epochs": "3"}, "epochs", 20, least=1) == 3
    assert fraction({}, "validation_share", 0.1) == 0.1
    for wrong in ("0", "-1", "three", 1.5):
        with pytest.raises(UsageFault, match=r"epochs: .* is not a whole number of at least 1"):
            whole({"epochs": wrong}, "epochs", 20, least=1)
    for wrong in (0, 1, "half", "nan"):
        with pytest.raises(UsageFault, match=r"validation_share: .* is not a number between 0 and 1"):
            fraction({"validation_share": wrong}, "validation_share", 0.1)


def test_an_empty_field_of_a_form_is_the_default():
    assert text({"reference": ""}, "reference", "given") == "given"


def test_a_misspelt_parameter_is_refused_and_what_clients_add_is_not():
    own = ["reference", "names", "scale", "weights", "register", "data_consistency", "run", "patient", "validation_share", "epochs", "seed"]
    added = (
        "model image session device description result_extension client_id save_label label_tag overwrite labels images logging name gpus"
    )
    refuse_misspelt(dict.fromkeys([*added.split(), "local_rank", "multi_gpu", "max_workers", "timeout", "anything_else"]), own)
    with pytest.raises(UsageFault, match=r"refrence: is not a parameter\. Fix: write reference"):
        refuse_misspelt({"refrence": "x"}, own)
