"""Weights are checked before they are believed, and never replaced by random ones."""

from __future__ import annotations

import hashlib
import json
import pickle
import re

import pytest
import safetensors.torch
import torch

from hftn_sr.errors import Fault, UsageFault
from hftn_sr.networks import NETWORKS, build_network
from hftn_sr.networks import weights as weights_module
from hftn_sr.networks.weights import check_model, load_model, load_weights, save_weights, shipped_file, shipped_models
from tiny import tiny_network


@pytest.fixture
def file(tmp_path):
    save_weights(tmp_path / "w.safetensors", tiny_network(2), {"iterations": 7})
    return tmp_path / "w.safetensors"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A models folder with base_x2 and its hash."""
    save_weights(tmp_path / "base_x2.safetensors", tiny_network(2), {})
    sha256 = hashlib.sha256((tmp_path / "base_x2.safetensors").read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{sha256}  base_x2.safetensors\n", encoding="utf-8")
    monkeypatch.setattr(weights_module, "MODELS_FOLDER", tmp_path)
    monkeypatch.setattr(weights_module, "HASHES", tmp_path / "SHA256SUMS")
    return tmp_path / "base_x2.safetensors", sha256


def stored(path, change=None, **metadata):
    """Save a tiny network as save_weights does, but for a change of its tensors and other metadata."""
    network = tiny_network(2)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(
        change(state) if change else state, path, {"network": "hftn", "options": json.dumps(network.options), "record": "{}"} | metadata
    )
    return path


def test_a_network_comes_back_as_it_was_saved(file):
    model = load_model(str(file), 2)
    assert (model.scale, model.record, model.path) == (2, {"iterations": 7}, file)
    assert model.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not model.network.training
    image = torch.rand(1, 3, 12, 16)
    torch.testing.assert_close(model.network(image), tiny_network(2)(image))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_registered_network_comes_back_from_its_file(name, tmp_path):
    own = {
        "hftn": {"channels": 8, "stages": 1, "blocks": 1},
        "gated_unet": {"channels": 8},
        "correspondence": {"channels": 8, "embedding": 8, "radius": 2},
        "zero_filling": {},
        "cubic": {},
    }
    options = own.get(name, {"channels": 4})
    network = NETWORKS[name](scale=2, **options).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    save_weights(tmp_path / "w.safetensors", network, {})
    loaded = load_model(str(tmp_path / "w.safetensors"), 2).network
    assert type(loaded) is type(network)
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(loaded(image), network(image))


def test_weights_of_version_0_1_name_their_network_by_its_class(tmp_path):
    path = stored(tmp_path / "w.safetensors", network="HFTNSR")
    assert type(load_model(str(path), 2).network) is NETWORKS["hftn"]


def test_half_precision_on_disk_is_loaded_as_single(tmp_path):
    path = stored(tmp_path / "w.safetensors", lambda state: {name: tensor.half() for name, tensor in state.items()})
    assert {parameter.dtype for parameter in load_model(str(path), 2).network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "content", [b"", b"<html>404 Not Found</html>", pickle.dumps({"a": 1}), bytes(4000)], ids=["empty", "html", "pickle", "zeros"]
)
def test_what_is_not_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(Fault, match=r"w\.safetensors: not a safetensors file, or damaged .*Fix: fetch the file again"):
        load_model(str(path), 2)


def test_a_truncated_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(Fault, match="not a safetensors file, or damaged"):
        load_model(str(file), 2)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ts", ".bin"])
def test_formats_that_can_run_code_are_refused_unread(tmp_path, suffix):
    with pytest.raises(UsageFault, match=r"could run code, a \.safetensors file is needed"):
        load_model(str(tmp_path / f"model{suffix}"), 2)


def test_a_pickle_that_runs_code_is_never_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return open, (str(tmp_path / "pwned"), "w")

    torch.save({"a": Malicious()}, tmp_path / "model.pt")
    with pytest.raises(Fault, match=r"model\.pt: not a plain state dict \(UnpicklingError\)"):
        load_weights(tiny_network(2), tmp_path / "model.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_plain_state_dict_is_loaded_for_training(tmp_path):
    torch.save(tiny_network(2).state_dict(), tmp_path / "model.pt")
    network = tiny_network(2, zero=True)
    load_weights(network, tmp_path / "model.pt")
    torch.testing.assert_close(network.output.weight, tiny_network(2).output.weight)


@pytest.mark.parametrize("name", ["missing.pt", "missing.safetensors"])
def test_missing_weights_never_leave_a_network_as_it_was(tmp_path, name):
    with pytest.raises(Fault, match=r"missing\.(pt|safetensors): weights cannot be read"):
        load_weights(tiny_network(2), tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(Fault, match=r"weights cannot be read \(No such file or directory\). Fix: check --model"):
        load_model(str(tmp_path / "w.safetensors"), 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {name: tensor for name, tensor in state.items() if name != "output.weight"},
        lambda state: state | {"extra.weight": torch.zeros(3)},
        lambda state: state | {"output.weight": torch.zeros(1, 8, 3, 3)},
    ],
    ids=["missing", "extra", "shape"],
)
def test_weights_that_do_not_fit_their_network_are_refused(tmp_path, change):
    with pytest.raises(Fault, match=r"weights of another network \(.*(output|extra)\.weight"):
        load_model(str(stored(tmp_path / "w.safetensors", change)), 2)


def test_weights_of_a_smaller_network_are_refused_in_one_short_line(tmp_path):
    with pytest.raises(Fault, match=r"weights of another network \(Missing key\(s\) in state_dict: .* \.\.\.\)") as caught:
        load_model(str(stored(tmp_path / "w.safetensors", options='{"scale": 2, "channels": 16}')), 2)
    assert len(caught.value.finding) < 200


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    path = stored(tmp_path / "w.safetensors", lambda state: state | {"output.bias": torch.tensor([bad])})
    with pytest.raises(Fault, match="holds weights that are NaN or infinite"):
        load_model(str(path), 2)


@pytest.mark.parametrize("options", ["[1]", "{}", "no JSON", '{"scale": 3}', '{"scale": 2, "surprise": 1}', '{"scale": 2, "channels": -4}'])
def test_weights_that_do_not_say_which_network_they_are_for_are_refused(tmp_path, options):
    with pytest.raises(Fault, match=r"does not say which network it is for .*Fix: use a file that save_weights wrote"):
        load_model(str(stored(tmp_path / "w.safetensors", options=options)), 2)


def test_weights_of_a_network_of_another_version_name_it_and_those_there_are(tmp_path):
    with pytest.raises(Fault, match=r"holds a network 'gone', which this version does not have \(it has .*gated_unet.*Fix: use the "):
        load_model(str(stored(tmp_path / "w.safetensors", network="gone")), 2)


def test_weights_without_metadata_are_refused(tmp_path):
    safetensors.torch.save_file(tiny_network(2).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(Fault, match="does not say which network it is for"):
        load_model(str(tmp_path / "w.safetensors"), 2)


def test_weights_of_another_scale_are_refused(file):
    with pytest.raises(UsageFault, match=r"these weights are for scale 2, scale 4 is needed\. Fix: --scale 2"):
        load_model(str(file), 4)


def test_a_shipped_model_is_found_by_name_and_checked(shipped):
    path, sha256 = shipped
    assert shipped_models() == {"base_x2.safetensors": sha256}
    model = load_model("base", 2)
    assert (model.path, model.sha256, model.name) == (path, sha256, "base x2")


def test_a_shipped_model_that_was_replaced_is_refused_with_the_hash_that_is_expected(shipped):
    path, sha256 = shipped
    save_weights(path, tiny_network(2, zero=True), {})
    other = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(
        Fault, match=re.escape(f"damaged or replaced (sha256 {other}, need {sha256}). Fix: restore the file from the release")
    ):
        load_model("base", 2)


@pytest.mark.parametrize("name", ["base_x2.safetensors", "model.pt", "mine.safetensors"])
def test_no_way_to_load_shipped_weights_goes_past_their_hash(shipped, name, monkeypatch):
    """The workflows' way, by a path as they are given it; a file that the list does not name is not the release's either."""
    folder = shipped[0].parent
    torch.save(tiny_network(2).state_dict(), folder / "model.pt")
    save_weights(folder / "mine.safetensors", tiny_network(2), {})
    if name == "base_x2.safetensors":
        save_weights(folder / name, tiny_network(2, zero=True), {})
    monkeypatch.chdir(folder)
    with pytest.raises(Fault, match=rf"{name}: damaged or replaced .*keep weights of your own in another folder"):
        load_weights(tiny_network(2), name)


def test_a_name_that_is_not_shipped_is_refused_with_those_that_are(shipped):
    with pytest.raises(UsageFault, match=r"--model: no model 'bas' for scale 2 \(shipped: base\)"):
        load_model("bas", 2)
    with pytest.raises(UsageFault, match="initial_weights: no model 'bas'"):
        load_model("bas", 2, option="initial_weights")


def test_where_base_has_no_weights_correspondence_serves():
    found = {(name, scale): shipped_file(name, scale).name for name in ("base", "small") for scale in (4, None)}
    assert found[("base", 4)] == "base_x4.safetensors" and found[("small", 4)] == "small_x4.safetensors"
    assert found[("base", None)] == "correspondence_any.safetensors" and found[("small", None)] == "small_any.safetensors"


def test_a_model_is_looked_for_before_any_case_is_read(shipped, file):
    check_model("base")
    check_model(str(file))
    for wrong, finding in (
        ("bas", "no model 'bas'"),
        (str(file) + "x/y.safetensors", "no such weights file"),
        ("model.pt", "could run code"),
    ):
        with pytest.raises(UsageFault, match=finding):
            check_model(wrong)


def test_without_shipped_models_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "MODELS_FOLDER", tmp_path)
    monkeypatch.setattr(weights_module, "HASHES", tmp_path / "SHA256SUMS")
    assert shipped_models() == {}
    with pytest.raises(UsageFault, match="shipped: none"):
        load_model("base", 2)


def test_weights_for_any_acquisition_serve_every_scale(tmp_path):
    network = build_network("small", None, {"channels": 4, "levels": 2})
    save_weights(tmp_path / "w.safetensors", network, {})
    for scale in (2, 4, None):
        model = load_model(str(tmp_path / "w.safetensors"), scale)
        assert (model.scale, model.name) == (None, "w any")


def test_weights_of_a_scale_are_not_taken_for_another_loss(tmp_path):
    save_weights(tmp_path / "w.safetensors", build_network("small", 2, {"channels": 4, "levels": 2}), {})
    with pytest.raises(UsageFault, match=r"are for scale 2 along both in-plane axes.*Fix: weights for any acquisition"):
        load_model(str(tmp_path / "w.safetensors"), None)


@pytest.mark.parametrize("method", ["hftn", "edsr", "sanet"])
def test_networks_that_need_a_scale_say_so(method):
    with pytest.raises(ValueError, match="expected a scale of 2 or 4 for the method"):
        build_network(method, None)


def test_weights_of_the_study_name_their_channels_by_the_earlier_word(tmp_path):
    network = NETWORKS["neu"](2, channels=4)
    metadata = {"network": "neu", "options": json.dumps({"scale": 2, "width": 4}), "record": "{}"}
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors", metadata)
    assert load_model(str(tmp_path / "w.safetensors"), 2).network.options == {"scale": 2, "channels": 4}
