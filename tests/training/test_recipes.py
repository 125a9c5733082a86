"""Each recipe of docs/recipes.md, run as it stands there on a tiny dataset, with a tiny network and few steps."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sqlite3

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from training_process import CONFIGS, perform, train

from hftn_sr.networks.weights import load_model
from hftn_sr.pairs.datalist import load_datalist

TEXT = (CONFIGS.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
TINY = "--method small --options \"{'channels': 8}\" --crop_size 32 --epoch_cases 2 --threads 1 --amp False"
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="needs the extra [export]"
)


def blocks(recipe, language=""):
    """The fenced blocks of a recipe in one language; commands have none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", RECIPES[recipe], re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


@pytest.fixture(scope="module")
def work(dataset, tmp_path_factory):
    """A folder as the repository's root: bundle/, data/, and a first run in runs/mine."""
    folder = tmp_path_factory.mktemp("root")
    shutil.copytree(
        CONFIGS.parent, folder / "bundle", ignore=shutil.ignore_patterns("runs", "data", "eval", "docs", "models", "__pycache__")
    )
    (folder / "data").symlink_to(dataset)
    options = {"method": "small", "options": {"channels": 8}, "crop_size": 32, "epochs": 1, "epoch_cases": 2, "amp": False}
    to = {"dataset_dir": dataset, "output_dir": folder / "runs" / "mine", "log": folder / "first"}
    assert train(**to, **options) == [0], (folder / "first.0").read_text()
    return folder


@pytest.fixture
def run(work):
    """Runs the commands of a recipe, with its overlay written, in the folder; gives what they printed."""

    def of(recipe, options="", which=slice(None)):
        for overlay in blocks(recipe, "yaml"):
            (work / re.search(r"`(\w+\.yaml)`", RECIPES[recipe])[1]).write_text(overlay)
        told = []
        for command in blocks(recipe)[which]:
            code = perform(f"{command.strip()} {options}", work, work / "log")
            told.append((work / "log").read_text())
            assert code == 0, told[-1][-3000:]
        return "\n".join(told)

    return of


def test_early_stopping_ends_after_three_validations_without_a_better_score(run):
    told = run("Early stopping", f"{TINY} --epochs 6 --val_interval 1 --learning_rate 1e-12 --adam_learning_rate 1e-12")
    assert "stopping after epoch 4: 3 validations without a better score" in told
    assert "epoch 4/6: mean loss" in told and "epoch 5/6" not in told


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_tracks_loss_rates_and_scores(run, work):
    run("MLflow", f"{TINY} --epochs 1")
    with sqlite3.connect(work / "runs" / "tracked" / "mlflow.db") as database:
        tracked = {name for (name,) in database.execute("select distinct key from metrics")}
    assert {"Loss", "lr_group_0", "psnr", "psnr_gain", "ssim"} <= tracked


def test_the_overlay_for_mlflow_is_sound_where_it_is_not_installed():
    (overlay,) = blocks("MLflow", "yaml")
    assert set(yaml.safe_load(overlay)) == {"+train#handlers", "+validate#handlers"}


def test_a_longer_training_begins_with_the_weights_of_the_first(run, work):
    run("Longer training", f"{TINY} --epochs 1")
    start = load_model(str(work / "runs" / "mine" / "best.safetensors"), 2)
    assert load_model(str(work / "runs" / "longer" / "best.safetensors"), 2).record["start"]["sha256"] == start.sha256


@pytest.mark.parametrize(("acquisition", "scale"), [("paper", 2), ("any", None)])
def test_a_training_without_validation_cases_keeps_the_last_weights_and_says_so(acquisition, scale, dataset, tmp_path):
    lists = json.loads((dataset / "datalist.json").read_text())
    for entry in lists["training"]:
        entry.update({role: str(dataset / entry[role]) for role in ("target", "reference")})
    (tmp_path / "datalist.json").write_text(json.dumps({"training": lists["training"]}))
    to = {"dataset_dir": tmp_path, "output_dir": tmp_path / "run", "log": tmp_path / "log"}
    options = {"method": "small", "options": {"channels": 8}, "crop_size": 32, "epochs": 2, "epoch_cases": 2, "amp": False}
    assert train(**to, **options, acquisition=acquisition) == [0], (tmp_path / "log.0").read_text()
    told = (tmp_path / "log.0").read_text()
    assert "no validation case: nothing is scored, and best.safetensors holds the weights of the last epoch" in told
    assert "resuming" not in told and "starting at epoch 1/2, 1 steps per epoch, 2 in all" in told
    model = load_model(str(tmp_path / "run" / "best.safetensors"), scale)
    assert (model.record["epoch"], model.record["validation"], "psnr_gain" in model.record) == (2, [], False)
    torch.testing.assert_close(model.network.state_dict(), torch.load(tmp_path / "run" / "latest.pt", weights_only=True)["network"])


def test_predictions_lie_where_the_target_lies_in_its_intensities(run, work, dataset):
    told = run("Predictions as files", "--threads 1")
    assert "starting, cases 1" in told and "resuming" not in told
    target, pred = nib.load(dataset / "last.nii.gz"), nib.load(work / "predictions" / "last.nii.gz")
    np.testing.assert_allclose(pred.affine, target.affine, atol=1e-5)
    assert pred.shape == target.shape
    truth, found = target.get_fdata(), pred.get_fdata()
    assert np.abs(found - truth).mean() < 0.1 * truth.mean()


@needs_onnx
def test_own_weights_are_exported_by_the_command_and_by_monai_with_batches(run, work):
    import onnxruntime

    run("Export of your weights")
    network = load_model(str(work / "runs" / "mine" / "best.safetensors"), 2).network
    images = torch.rand(3, 3, 40, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images).numpy()
        traced = [torch.jit.load(work / name)(images[:1]).numpy() for name in ("mine.ts", "mine_monai.ts")]
    batched = onnxruntime.InferenceSession(work / "mine.onnx").run(None, {"image": images.numpy()})[0]
    for found in (*traced, batched):
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)


def test_load_takes_any_shipped_weights(work):
    (code,) = blocks("`monai.bundle.load`", "python")
    code += (
        "torch.save(network.state_dict(), 'loaded.pt')\nassert type(network).__name__ == 'GatedUNet' and network.options['scale'] == 4\n"
    )
    assert perform(code, work, work / "log") == 0, (work / "log").read_text()
    expected = load_model("small", 4).network.state_dict()
    torch.testing.assert_close(torch.load(work / "loaded.pt", weights_only=True), expected)


def test_the_entry_that_says_how_to_read_is_one_that_is_read(tmp_path):
    (entry,) = (json.loads(block) for block in blocks("Files without a single right reading", "json"))
    for role in ("target", "reference"):
        (tmp_path / entry[role]).parent.mkdir(exist_ok=True)
        (tmp_path / entry[role]).touch()
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [entry]}))
    assert load_datalist(tmp_path, "training")[0]["read"] == {"nan_to_num": True}
