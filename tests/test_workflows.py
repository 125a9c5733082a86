"""The MONAI workflows: run as a user runs them, from where a user runs them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, load, verify_metadata, verify_net_in_out

import hftn_sr
from hftn_sr.volumes.nifti import read_nifti, save_nifti

PACKAGE = Path(hftn_sr.__file__).parent
BUNDLE = PACKAGE.parent
CONFIGS = BUNDLE / "configs"
SCHEMA = Path(__file__).parent / "meta_schema_20240725.json"
TINY = ["--options", "{'channels': 16}", "--epochs", "2", "--epoch_cases", "4", "--val_interval", "1", "--threads", "1"]


def monai_bundle(*arguments, folder, **environment):
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.fixture(scope="session")
def four_slices(tmp_path_factory):
    """A dataset of one pair with four slices, and the same pair as a case at half resolution."""
    folder = tmp_path_factory.mktemp("four slices")
    sample = PACKAGE / "sample"
    whole = read_nifti(sample / "synthetic_target.nii.gz")
    part = whole.on(whole.grid.cropped((50, 60, 2), (96, 96, 4)), np.ascontiguousarray(whole.data[50:146, 60:156, 2:6]))
    save_nifti(folder / "target.nii.gz", part, "synthetic")
    shutil.copy(sample / "synthetic_reference.nii.gz", folder / "reference.nii.gz")
    lists = {"testing": [{"case": "synthetic", "target": "target.nii.gz", "reference": "reference.nii.gz"}]}
    for section in ("training", "validation"):  # copies: no file may stand in two sections
        names = {role: f"{section}_{role}.nii.gz" for role in ("target", "reference")}
        for role, name in names.items():
            shutil.copy(folder / f"{role}.nii.gz", folder / name)
        lists[section] = [{"case": section, **names}]
    (folder / "datalist.json").write_text(json.dumps(lists))
    hftn_sr.degrade(folder / "target.nii.gz", folder / "cases" / "one" / "target.nii.gz", scale=2)
    shutil.copy(folder / "reference.nii.gz", folder / "cases" / "one" / "reference.nii.gz")
    return folder


@pytest.fixture(scope="session")
def unzipped(tmp_path_factory):
    """The bundle folder as it comes out of an archive, elsewhere."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(BUNDLE, folder / "source", ignore=shutil.ignore_patterns("runs", "data", "eval", "__pycache__"))
    archive = shutil.make_archive(str(folder / "bundle"), "zip", folder / "source")
    shutil.unpack_archive(archive, folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.parametrize("where", ["bundle", "root", "copy"])
def test_training_runs_from_the_bundle_from_the_root_and_from_an_unzipped_copy(where, four_slices, unzipped, tmp_path):
    folder, config = {
        "bundle": (BUNDLE, "configs/train.yaml"),
        "root": (BUNDLE.parent, "bundle/configs/train.yaml"),
        "copy": (unzipped.parent, unzipped / "configs" / "train.yaml"),
    }[where]
    output = [] if where == "copy" else ["--output_dir", tmp_path / "run"]
    done = monai_bundle("run", "training", "--config_file", config, "--dataset_dir", four_slices, *output, *TINY, folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    results = unzipped / "runs" / "x2" if where == "copy" else tmp_path / "run"  # an unzipped copy keeps its results to itself
    state = torch.load(results / "latest.pt", weights_only=True)
    assert (state["epoch"], state["iteration"]) == (2, 4)
    assert np.isfinite(state["best_score"])
    assert (results / "best.safetensors").is_file()


def test_training_without_a_dataset_says_in_one_line_what_is_missing_and_how_to_get_it(tmp_path):
    done = monai_bundle("run", "training", "--config_file", "configs/train.yaml", "--dataset_dir", tmp_path / "none", folder=BUNDLE)
    assert done.returncode == 9
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert "datalist.json: no such file" in line and "hftn-sr data open-ms --output" in line
    assert "Traceback" not in done.stderr


def test_the_inference_workflow_and_the_command_line_give_the_same_voxels(four_slices, tmp_path):
    done = monai_bundle(
        "run", "--config_file", "configs/inference.yaml", "--dataset_dir", four_slices / "cases", "--output_dir", tmp_path / "workflow",
        folder=BUNDLE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "case 1/1 done, one, left 0:00:00" in done.stdout + done.stderr
    one = four_slices / "cases" / "one"
    hftn_sr.super_resolve(one / "target.nii.gz", one / "reference.nii.gz", tmp_path / "command.nii.gz", scale=2)
    workflow, command = (nib.load(path) for path in (tmp_path / "workflow/one/target_sr.nii.gz", tmp_path / "command.nii.gz"))
    np.testing.assert_allclose(workflow.get_fdata(), command.get_fdata(), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(workflow.affine, command.affine)
    record = json.loads((tmp_path / "workflow/one/target_sr.json").read_text())
    assert record["model"]["sha256"] == json.loads((tmp_path / "command.json").read_text())["model"]["sha256"]


def test_training_and_evaluation_follow_the_protocol_asked_for(four_slices, tmp_path):
    protocol = ["--protocol", "sanet", "--protocol_crop", "96", "--method", "early_fusion", "--options", "{'channels': 8, 'groups': 1}"]
    config = ["--config_file", CONFIGS / "train.yaml", "--dataset_dir", four_slices, "--output_dir", tmp_path / "run"]
    done = monai_bundle("run", "training", *config, *TINY, *protocol, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    configs = f"['{CONFIGS / 'train.yaml'}','{CONFIGS / 'evaluate.yaml'}']"
    weights = ["--weights", tmp_path / "run" / "best.safetensors"]
    done = monai_bundle("run", "evaluating", "--config_file", configs, "--dataset_dir", four_slices, *weights, *protocol, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    psnr = float(re.search(r"psnr: (-?[0-9.]+)", done.stdout + done.stderr)[1])
    assert -5 < psnr < 15  # the low-resolution target is twice too bright, and so is what the network starts from


def test_the_evaluation_overlay_scores_the_test_cases(four_slices, tmp_path):
    configs = f"['{CONFIGS / 'train.yaml'}','{CONFIGS / 'evaluate.yaml'}']"
    done = monai_bundle("run", "evaluating", "--config_file", configs, "--dataset_dir", four_slices, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "psnr_gain" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "names", [("train",), ("train", "paper_schedule"), ("train", "train_correspondence"), ("inference",)], ids=" + ".join
)
def test_the_workflows_have_every_property_that_monai_knows(names, four_slices, tmp_path):
    kind, dataset = ("train", four_slices) if names[0] == "train" else ("infer", four_slices / "cases")
    folders = {"dataset_dir": str(dataset), "output_dir": str(tmp_path)}
    files = [CONFIGS / f"{name}.yaml" for name in names]
    workflow = ConfigWorkflow(files, meta_file=CONFIGS / "metadata.json", workflow_type=kind, **folders)
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("scale", [2, 4])
def test_the_network_takes_and_gives_what_the_metadata_promises(scale):
    files = {"meta_file": str(CONFIGS / "metadata.json"), "config_file": str(CONFIGS / "inference.yaml")}
    verify_net_in_out(net_id="network_def", **files, device="cpu", scale=scale)
    parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "metadata.json"))
    assert parser["network_data_format#inputs#image#num_channels"] == len(parser["network_data_format#inputs#image#channel_def"]) == 3


def test_the_metadata_fit_their_schema_and_the_package():
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(SCHEMA))
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    assert metadata["version"] == hftn_sr.__version__
    assert hftn_sr.__version__ in metadata["changelog"]


@pytest.mark.parametrize("source", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_workflow_has_a_json_twin(source):
    assert json.loads(source.with_suffix(".json").read_text()) == ConfigParser.load_config_file(source)


def test_the_inference_network_is_the_one_of_the_shipped_weights():
    for scale in (2, 4):
        parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "inference.yaml"))
        parser["scale"] = scale
        assert parser.get_parsed_content("network_def").options == hftn_sr.networks.weights.load_model("base", scale).network.options


def test_monai_bundle_load_gives_the_shipped_network(tmp_path):
    shutil.copytree(BUNDLE, tmp_path / "hftn", ignore=shutil.ignore_patterns("runs", "data", "eval", "__pycache__"))
    network = load(name="hftn", bundle_dir=tmp_path, source="local", device="cpu")
    expected = hftn_sr.networks.weights.load_model("base", 2).network.state_dict()
    assert network.keys() == expected.keys() if isinstance(network, dict) else network.state_dict().keys() == expected.keys()
    state = network if isinstance(network, dict) else network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
