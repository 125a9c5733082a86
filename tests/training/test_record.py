"""The record of a training tells what was used, whatever a configuration overrides; so do its schedule and its length."""

import json

import pytest
import torch
from monai.bundle import ConfigParser
from training_process import CONFIGS

from hftn_sr.training.record import describe, run_differences, training_record
from hftn_sr.training.transforms import RandGammaContrastd

TINY = {"method": "small", "options": {"channels": 8}, "epochs": 3, "epoch_cases": 6}
UNREAD = {  # no volume is read before it is asked for
    f"{part}#dataset": {"_target_": "monai.data.Dataset", "data": f"@{part}#cases", "transform": f"@{part}#preprocessing"}
    for part in ("train", "validate")
}
ADAMW = {"_target_": "torch.optim.AdamW", "params": "$@network.parameters()", "lr": 3e-4}


@pytest.fixture
def workflow(dataset, tmp_path):
    """The training workflow with overrides, not run."""

    def build(**overrides):
        parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "train.yaml"))
        parser.update({"dataset_dir": str(dataset), "output_dir": str(tmp_path), **TINY, **UNREAD, **overrides})
        return parser

    return build


def record_of(parser):
    parts = (parser.get_parsed_content(name) for name in ("train#trainer", "network", "optimizer", "lr_scheduler"))
    return json.loads(json.dumps(training_record(*parts)))


def test_the_record_of_the_default_training(workflow):
    record = record_of(workflow(crop_size=32))
    assert (record["network"]["name"], record["network"]["channels"], record["network"]["scale"]) == ("gated_unet", 8, 2)
    assert record["loss"] == {"class": "torch.nn.modules.loss.L1Loss", "reduction": "mean"}
    assert record["optimizer"]["class"] == "hftn_sr.training.optimizers.Muon"
    assert (record["optimizer"]["lr"], record["optimizer"]["momentum"]) == ([0.01, 0.001], 0.95)
    assert record["lr_scheduler"]["T_max"] == 9
    assert (record["decomposition"], record["protocol"], record["cases_per_step"]) == ("band", "corrected", 2)
    assert record["transforms"][-1]["size"] == 32
    assert record["software"].keys() == {"hftn_sr", "torch", "monai"}


OVERRIDES = {
    "loss": ({"loss": {"_target_": "torch.nn.HuberLoss", "delta": 0.1}}, ["loss", "delta"], 0.1),
    "optimizer": ({"optimizer": ADAMW}, ["optimizer", "lr"], 3e-4),
    "schedule": ({"lr_scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "optimizer": "@optimizer", "step_size": 7}},
                 ["lr_scheduler", "step_size"], 7),
    "network": ({"network_def": {"_target_": "hftn_sr.networks.build_network", "method": "edsr", "scale": 2, "options": {"channels": 8}}},
                ["network", "name"], "edsr"),
    "learning rate": ({"optimizer#lr": 0.5}, ["optimizer", "lr"], [0.5, 0.001]),
    "crop size": ({"train#preprocessing#transforms#12#size": 48}, ["transforms", 10, "size"], 48),
    "decomposition": ({"train#preprocessing#transforms#11#decomposition": "gaussian"}, ["decomposition"], "gaussian"),
    "precision": ({"train#inferer#enabled": False}, ["inferer", "enabled"], False),
}  # fmt: skip


@pytest.mark.parametrize(("override", "path", "value"), OVERRIDES.values(), ids=OVERRIDES)
def test_an_override_of_a_part_is_in_the_record_and_tells_the_run_from_the_default_one(override, path, value, workflow):
    default, changed = record_of(workflow()), record_of(workflow(**override))
    found = changed
    for name in path:
        found = found[name]
    assert found == value
    assert any(path[0] in finding for finding in run_differences(default, changed))
    assert run_differences(changed, changed) == []


def test_the_record_is_of_the_start_of_a_run_however_far_it_is(workflow):
    parser = workflow()
    before = record_of(parser)
    for _ in range(5):
        parser.get_parsed_content("optimizer").step()
        parser.get_parsed_content("lr_scheduler").step()
    assert record_of(parser) == before


def test_a_transform_more_or_in_another_place_is_a_difference():
    one, two = ({"class": f"room.{name}", "prob": 0.5} for name in ("One", "Two"))
    assert run_differences({"transforms": [one, two]}, {"transforms": [two, one]}) == ["transforms One, Two, now Two, One"]
    assert run_differences({"transforms": [one]}, {"transforms": [one, two]}) == ["transforms One, now One, Two"]
    again = {**one, "prob": 0.1}
    assert run_differences({"transforms": [one, one]}, {"transforms": [one, again]}) == ["transforms.One 2.prob 0.5, now 0.1"]


def test_settings_that_only_one_record_holds_and_versions_of_software_are_no_difference():
    earlier = {"optimizer": {"lr": 0.1}, "software": {"torch": "2.8"}, "seed": 0}
    own = {"optimizer": {"lr": 0.1, "new_in_torch": False}, "software": {"torch": "2.13"}, "loss": {"class": "L1Loss"}}
    assert run_differences(earlier, own) == []


def test_what_is_no_setting_is_left_out_and_a_function_has_its_name():
    transform = RandGammaContrastd("reference", prob=0.3, gamma=(0.7, 1.4))
    assert describe(transform) == {
        "class": "hftn_sr.training.transforms.augmentation.RandGammaContrastd",
        "keys": ["reference"],
        "prob": 0.3,
        "gamma": [0.7, 1.4],
    }
    weighted = torch.nn.CrossEntropyLoss(weight=torch.ones(2), label_smoothing=0.1)
    assert "weight" not in describe(weighted) and describe(weighted)["label_smoothing"] == 0.1
    assert describe(torch.nn.functional.l1_loss) == {"class": "torch.nn.functional.l1_loss"}


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ({}, 9),
        ({"epochs": 5}, 15),
        ({"cases_per_step": 3}, 6),
        ({"train#trainer#max_epochs": 4}, 12),
        ({"train#trainer#epoch_length": 7}, 21),
        ({"train#sampler#num_samples": 8}, 12),
    ],
    ids=str,
)
def test_the_learning_rate_falls_to_zero_over_the_steps_of_the_trainer_whatever_sets_them(overrides, steps, workflow):
    parser = workflow(**overrides)
    state = parser.get_parsed_content("train#trainer").state
    assert parser.get_parsed_content("lr_scheduler").T_max == state.max_epochs * state.epoch_length == steps
