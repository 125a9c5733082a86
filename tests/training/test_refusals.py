"""What a training cannot be begun with ends it before its first step: one line with the case or the option and a cure that works."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.transforms import Compose
from own_parts import OwnNet
from training_process import CONFIGS, train

from hftn_sr.errors import Fault, UsageFault, check_overrides, errors_in_one_line
from hftn_sr.networks.weights import load_weights
from hftn_sr.pairs.datalist import load_datalist, workflow_shares
from hftn_sr.training.dataset import CachedCases
from hftn_sr.training.start import check_network
from hftn_sr.training.transforms import LoadPaird

TINY = {"method": "small", "options": {"channels": 8}, "crop_size": 32, "epochs": 1, "epoch_cases": 2, "amp": False, "val_interval": 1}
OWN = {
    "network_def": {"_target_": "own_parts.OwnNet"},
    "loss": {"_target_": "own_parts.OwnLoss"},
    "optimizer": {"_target_": "own_parts.OwnOptimizer", "params": "$@network.parameters()", "lr": 0.01},
}


@pytest.fixture
def ended(dataset, tmp_path, capsys, monkeypatch):
    """Takes a training as far as its first step, where it must have ended; gives its line, the exit code in front."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)

    def run(folder=dataset, overlays=(), **options):
        parser = ConfigParser(ConfigParser.load_config_files([CONFIGS / name for name in ("train.yaml", *overlays)]))
        parser.update({"dataset_dir": str(folder), "output_dir": str(tmp_path / "run"), **TINY, **options})
        own = [f"run#{index}" for index, step in enumerate(parser["run"]) if step.startswith("$hftn_sr.") and "keep_freed" not in step]
        with pytest.raises(SystemExit) as caught:
            try:
                for part in ("checks", *own, "train#trainer"):
                    parser.get_parsed_content(part)
            except Exception:
                sys.excepthook(*sys.exc_info())
        (line,) = capsys.readouterr().err.splitlines()
        return f"{caught.value.code} {line}"

    return run


SETTINGS = {
    "scale": ({"scale": 3}, "2 ERROR --scale: scale 3 (need 2 or 4). Fix: --scale 2 or --scale 4."),
    "crop": ({"crop_size": 50}, "2 ERROR --crop_size: 50 is no multiple of 4 (twice the scale). Fix: --crop_size 48."),
    "crop text": ({"crop_size": "x"}, "2 ERROR --crop_size: 'x' (need a whole number above 0). Fix: --crop_size 1, or more."),
    "protocol's crop": (
        {"protocol_crop": 32},
        "2 ERROR --protocol_crop: 32, but the protocol corrected takes whole slices. Fix: leave it out.",
    ),
    "method": ({"method": "bsae"}, "Fix: --method base."),
    "protocol": ({"protocol": "sant"}, "2 ERROR --protocol: 'sant' is not known (need one of corrected, sanet). Fix: --protocol sanet."),
    "decomposition": ({"decomposition": "bnd"}, "Fix: --decomposition band."),
    "epochs": ({"epochs": 1.5}, "2 ERROR --epochs: 1.5 (need a whole number above 0). Fix: --epochs 1, or more."),
    "interval": ({"val_interval": 0}, "2 ERROR --val_interval: 0 (need a whole number above 0)"),
    "cuda": ({"device": "cuda:0"}, "2 ERROR --device: cuda:0 was asked for, PyTorch sees none. Fix: --device cpu, or install a CUDA build"),
    "device": ({"device": "gpu"}, "2 ERROR --device: 'gpu' is no device. Fix: --device cpu"),
    "option": ({"options": {"chanels": 8}}, "1 ERROR hftn_sr.networks.build_network: TypeError: GatedUNet.__init__() got an unexpected"),
    "rate": ({"learning_rate": -1}, "1 ERROR hftn_sr.training.optimizers.Muon: ValueError: expected positive learning rates, got -1"),
    "loss": ({"loss": {"_target_": "torch.nn.L2Loss"}}, "1 ERROR torch.nn.L2Loss: ModuleNotFoundError: Cannot locate class"),
    "reference": ({"loss": "@los"}, "1 ERROR @los: "),
    "slices": ({"protocol": "sanet"}, "9 ERROR all: expected slices of at least 320 x 320 voxels, got "),
    "slices, cured": ({"protocol": "sanet"}, ". Fix: --protocol_crop 48, or take the case out of datalist.json."),
    "crop too large": (
        {"crop_size": 64},
        "9 ERROR all: slices of 48 x 56 voxels are smaller than a crop of 64 x 64. Fix: --crop_size 48, or",
    ),
    "network of another input": (
        {"network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}},
        "9 ERROR torch.nn.modules.conv.Conv2d: fails on an input of (1, 3, 32, 32) (RuntimeError: ",
    ),
    "network of another output": (
        {"network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 2, "kernel_size": 1}},
        "9 ERROR torch.nn.modules.conv.Conv2d: gives (1, 2, 32, 32) for an input of (1, 3, 32, 32) (need (1, 1, 32, 32)). Fix: the network",
    ),
}


ANY = {
    "misspelt": ({"acquisition": "all"}, "2 ERROR --acquisition: 'all' is not known (need one of paper, any). Fix: --acquisition "),
    "method": (
        {"method": "hftn"},
        "2 ERROR --acquisition: the method hftn knows x2 and x4 alone. Fix: --method base or small, or --acquisition paper.",
    ),
    "protocol": (
        {"protocol": "sanet"},
        "2 ERROR --protocol: sanet knows x2 and x4 alone. Fix: --protocol corrected, or --acquisition paper.",
    ),
    "no protocol": ({"protocol": "sant"}, "2 ERROR --protocol: 'sant' is not known"),
    "decomposition": ({"decomposition": "taper"}, "2 ERROR --decomposition: taper knows x2 and x4 alone. Fix: --decomposition band, or"),
    "no decomposition": ({"decomposition": "bnd"}, "2 ERROR --decomposition: 'bnd' is not known"),
    "protocol's crop": ({"protocol_crop": 32}, "2 ERROR --protocol_crop: 32, but the protocol corrected takes whole slices."),
    "crop": ({"crop_size": 50, "scale": 4}, "2 ERROR --crop_size: 50 is no multiple of 4. Fix: --crop_size 48."),
    "crop too large": (
        {"crop_size": 60, "scale": 3},
        "9 ERROR all: slices of 48 x 56 voxels are smaller than a crop of 60 x 60. Fix: --crop_size 48, or",
    ),
    "weights": (
        {"initial_weights": "none.safetensors"},
        "9 ERROR none.safetensors: weights cannot be read (No such file or directory). Fix: check --initial_weights.",
    ),
    "weights of another network": ({"initial_weights": "hftn"}, "hftn_x4.safetensors: weights of another network"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
@pytest.mark.parametrize(("options", "finding"), ANY.values(), ids=ANY)
def test_a_setting_that_cannot_be_meant_for_any_acquisition_is_refused_by_its_name(options, finding, ended):
    assert finding in ended(**{"acquisition": "any", **options})


def test_the_overlay_of_a_search_is_refused_where_options_leave_the_search_out(ended):
    options = {"overlays": ["train_correspondence.yaml"], "method": "correspondence_small", "options": {"searching": False}}
    assert ended(**options).startswith("2 ERROR --options: without a search there is none to train. Fix: leave searching out of --options")


@pytest.mark.parametrize(("method", "refused"), {"small": True, "correspondence_small": False}.items())
def test_the_overlay_of_a_search_is_refused_for_a_method_without_one(method, refused, ended):
    line = "2 ERROR --method: small has no search to train. Fix: --method correspondence or correspondence_small, or leave out train_corr"
    assert ended(overlays=["train_correspondence.yaml"], method=method, initial_unet="none.safetensors").startswith(
        line if refused else "9 ERROR none.safetensors: weights cannot be read"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
@pytest.mark.parametrize(("options", "finding"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_cannot_be_meant_is_refused_by_its_name(options, finding, ended):
    assert finding in ended(**options)


def altered(folder, name, change):
    """A file of the dataset with other voxels or another affine."""
    image = nib.load(folder / f"{name}.nii.gz")
    voxels, affine = image.get_fdata(dtype=np.float32), image.affine.copy()
    change(voxels, affine)
    new = nib.Nifti1Image(voxels, affine)
    new.set_sform(affine, 1), new.set_qform(affine, 1)
    nib.save(new, folder / f"{name}.nii.gz")


@pytest.fixture
def damaged(dataset, tmp_path):
    """Writes a copy of the dataset in which one file is altered."""

    def damage(name, change):
        folder = tmp_path / "pairs"
        folder.mkdir()
        for path in dataset.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        altered(folder, name, change)
        return folder

    return damage


def nan(voxels, affine):
    voxels[3, 4, 1] = np.nan


def far(voxels, affine):
    affine[:3, 3] += 500


@pytest.mark.parametrize("acquisition", ["paper", "any"])
@pytest.mark.parametrize("case", ["all", "left"])
def test_a_nan_voxel_is_refused_by_its_case_and_the_cure_works(case, acquisition, ended, damaged):
    folder = damaged(case, nan)
    assert ended(folder=folder, acquisition=acquisition) == (
        f"9 ERROR {case} {folder / case}.nii.gz: 1 of {48 * 56 * (4 if case == 'all' else 2)} voxels are NaN or infinite. "
        'Fix: "read": {"nan_to_num": true} in its entry of datalist.json to take 0 for them.'
    )
    datalist = (folder / "datalist.json").read_text().replace(f'"case": "{case}"', f'"read": {{"nan_to_num": true}}, "case": "{case}"')
    (folder / "datalist.json").write_text(datalist)
    section = "training" if case == "all" else "validation"
    loaded = LoadPaird(2 if acquisition == "paper" else None)(load_datalist(folder, section)[0])
    assert torch.isfinite(loaded["label"]).all() and "read" not in loaded


def test_a_reference_far_away_is_refused_by_its_case(ended, damaged):
    folder = damaged("all_reference", far)
    found = f"9 ERROR all {folder}/all_reference.nii.gz: lies wholly outside the target. Fix: check that both files belong to one patient"
    assert found in ended(folder=folder)


def test_a_case_in_two_sections_is_refused(ended, damaged):
    folder = damaged("all", lambda *_: None)
    lists = json.loads((folder / "datalist.json").read_text())
    lists["validation"].append(lists["training"][0])
    (folder / "datalist.json").write_text(json.dumps(lists))
    found = (
        f"9 ERROR {folder / 'datalist.json'}: all.nii.gz stands in training (case all) and in validation (case all). Fix: keep all images"
    )
    assert found in ended(folder=folder)


def test_monai_s_command_refuses_in_one_line(dataset, tmp_path):
    options = ["--dataset_dir", dataset, "--output_dir", tmp_path / "run", "--crop_size", 64]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", CONFIGS / "train.yaml", *options]
    done = subprocess.run(
        list(map(str, command)),
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 9
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("parsing config_file") and line]
    finding, fix = line.split(" Fix: ")
    assert finding == "ERROR all: slices of 48 x 56 voxels are smaller than a crop of 64 x 64."
    assert fix == "--crop_size 48, or take the case out of datalist.json."
    assert "training cases 1, validation cases 2, device cpu" in done.stdout


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("--epoch 3", "--epoch: no such key in .*, nothing would read it. Fix: did you mean --epochs."),
        ("--epoch=3", "--epoch: .* did you mean --epochs."),
        ("--datset-dir data", "--datset_dir: .* did you mean --dataset_dir."),
        ("--train#epochs 3", "--train#epochs: .* did you mean --train#KEY, one of the configuration's own."),
        ("--tran#trainer#max_epochs 3", "--tran: .* did you mean --train."),
        ("--validate::evalator::amp True", "--validate#evalator: .* did you mean --validate#evaluator."),
        ("--run_name x", "--run_name: "),
        ("--epochs 3 --train#trainer#max_epochs 3 --options#channels 8 --optimizer#momentum 0.9 --seed=1", ""),
        ("--run_id training --tracking mlflow --run_name x", ""),
        ("--network_def @own --own {}", ""),
    ],
)
@pytest.mark.parametrize("files", ["{0}/train.yaml", "['{0}/train.yaml','{0}/evaluate.yaml']"])
def test_a_misspelt_key_of_monai_s_command_is_refused(words, refused, files):
    command = ["/env/monai/bundle/__main__.py", "run", "training", "--config_file", files.format(CONFIGS), *words.split()]
    if not refused:
        check_overrides(command)
        return
    with pytest.raises(UsageFault, match=refused):
        check_overrides(command)


def test_other_commands_are_not_read_as_monai_s():
    check_overrides(["pytest", "run", "--config_file", str(CONFIGS / "train.yaml"), "--epoch", "3"])
    check_overrides(["/env/monai/bundle/__main__.py", "ckpt_export", "--epoch", "3"])


@pytest.mark.parametrize(("debug", "shown"), [(True, True), ("true", True), (False, False), ("false", False)])
def test_the_traceback_is_shown_when_asked_for(debug, shown, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", None)
    errors_in_one_line(debug)
    assert (sys.excepthook is sys.__excepthook__) == shown


def test_a_fault_of_an_expression_that_monai_shows_in_single_quotes_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", None)
    errors_in_one_line()
    parser = ConfigParser({"imports": ["$import hftn_sr", "$import hftn_sr.errors"], "check": "$hftn_sr.errors.check_scale(3)"})
    with pytest.raises(SystemExit) as caught:
        try:
            parser.get_parsed_content("check")
        except Exception:
            sys.excepthook(*sys.exc_info())
    assert (caught.value.code, capsys.readouterr().err) == (2, "ERROR --scale: scale 3 (need 2 or 4). Fix: --scale 2 or --scale 4.\n")


def test_an_error_that_comes_from_no_workflow_is_shown_as_before(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", None)
    errors_in_one_line()
    sys.excepthook(KeyError, KeyError("own"), None)
    assert capsys.readouterr().err == "KeyError: 'own'\n"


def test_several_processes_check_before_they_meet():
    overlay = ConfigParser.load_config_file(CONFIGS / "multi_gpu_train.yaml")
    assert ConfigParser.load_config_file(CONFIGS / "train.yaml")["run"][0] == "@checks"
    steps = overlay["initialize"]
    (meeting,) = (place for place, step in enumerate(steps) if "init_process_group" in step)
    (refusal,) = (place for place, step in enumerate(steps) if step.startswith("$hftn_sr.training.start.started_processes"))
    assert refusal < steps.index("@checks") < meeting


def test_own_network_loss_and_optimizer_train_save_and_go_on_only_with_their_like(dataset, tmp_path):
    def own(log, **changes):
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({**OWN, **changes}))
        to = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / log}
        (code,) = train(tmp_path / "own.yaml", **to, **TINY)
        return code, (tmp_path / f"{log}.0").read_text()

    assert own("first")[0] == 0
    state = torch.load(tmp_path / "run" / "latest.pt", weights_only=True)
    names = {part: state["run"][part].get("name", state["run"][part].get("class")) for part in ("network", "loss", "optimizer")}
    assert names == {"network": "own_parts.OwnNet", "loss": "own_parts.OwnLoss", "optimizer": "own_parts.OwnOptimizer"}
    trained = load_weights(OwnNet(), tmp_path / "run" / "best.safetensors")
    torch.testing.assert_close(trained.state_dict(), state["network"])

    code, text = own("second", network_def={"_target_": "own_parts.OwnNet", "hidden": 8}, loss={"_target_": "own_parts.OwnLoss"})
    (line,) = [line for line in text.splitlines() if line.startswith("ERROR")]
    assert (code, "Traceback" in text) == (9, False)
    assert line.startswith(f"ERROR {tmp_path / 'run' / 'latest.pt'}: is of a run with another network (Error")
    assert "Fix: name another --output_dir" in line


def test_a_network_is_checked_as_it_evaluates_and_left_as_it_was():
    class Seen(torch.nn.Module):
        def forward(self, image):
            assert not self.training
            return image[:, :1]

    network = Seen().train()
    check_network(network, 16)
    assert network.training
    with pytest.raises(Fault, match=r"Flatten: gives \(1, 768\) for an input of \(1, 3, 16, 16\)"):
        check_network(torch.nn.Flatten(), 16)


def test_the_inference_workflow_has_its_checks_before_anything_else():
    checks = ConfigParser.load_config_file(Path(CONFIGS) / "inference.yaml")["checks"]
    assert checks[0] == "$hftn_sr.errors.errors_in_one_line(@debug)"
    assert [
        name for name in ("check_scale(@scale)", "check_batch_size(@dataloader#batch_size)") if not any(name in each for each in checks)
    ] == []


def test_reading_many_cases_says_how_far_it_is_at_plain_intervals(monkeypatch, caplog):
    monkeypatch.setattr("hftn_sr.training.dataset.INTERVAL", 0.0)
    with caplog.at_level(logging.INFO, "hftn_sr.training"):
        cases = CachedCases([{"x": torch.zeros(1)}] * 3, Compose([]), copy_cache=False)
    assert [record.message for record in caplog.records] == [f"read {number} of 3 cases" for number in (1, 2, 3)]
    assert len(cases) == 3 and cases[0] == {"x": torch.zeros(1)}


def test_several_processes_without_a_validation_case_are_refused(tmp_path, capsys):
    workflow_shares(tmp_path, [], 1)
    with pytest.raises(SystemExit):
        workflow_shares(tmp_path, [], 2)
    assert "no validation case in it. Fix: list one for each process, or train in a single process." in capsys.readouterr().err
