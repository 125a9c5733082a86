"""Exported files: the same voxels as the network, at any size, in a process that does not have this package."""

import functools
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import load_net_with_metadata

from hftn_sr.networks import NETWORKS
from hftn_sr.networks.export import LARGEST_PATCHES, export_model, exported_bytes, largest_voxels
from hftn_sr.networks.weights import load_model
from hftn_sr.volumes.simulation import stack_channels
from phantoms import phantom
from test_workflows import CONFIGS, monai_bundle
from tiny import tiny_network

SIZES = [(96, 80), (61, 75), (128, 144)]  # none is the one that was traced; one that the scale does not divide
FORMATS = {"torchscript": "ts", "onnx": "onnx"}

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="needs the extra [export]"
)
each_format = pytest.mark.parametrize("form", ["torchscript", pytest.param("onnx", marks=needs_onnx)])
each_scale = pytest.mark.parametrize("scale", [2, 4])

ELSEWHERE = """
import importlib.util, sys
sys.path[:0] = PATHS
assert importlib.util.find_spec("hftn_sr") is None
import numpy as np
images = np.load("images.npz")
if FILE.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(FILE)
    result = {name: session.run(None, {"image": image})[0] for name, image in images.items()}
else:
    import torch
    network = torch.jit.load(FILE)
    with torch.inference_mode():
        result = {name: network(torch.from_numpy(image)).numpy() for name, image in images.items()}
np.savez("results.npz", **result)
"""


def images(scale):
    """Phantoms of three sizes as the network sees them."""
    found = {}
    for height, width in SIZES:
        target, reference = (
            torch.from_numpy(phantom((height, width, 1), kind=kind).data[None, ..., 0]) for kind in ("target", "reference")
        )
        whole = (height // scale * scale, width // scale * scale)
        target, reference = (image[..., : whole[0], : whole[1]] / image.max() for image in (target, reference))
        low = torch.nn.functional.avg_pool2d(target[None], scale)[0]
        image = stack_channels(low, reference, scale).movedim(0, 1).float()
        image = torch.nn.functional.pad(image, (0, width - whole[1], 0, height - whole[0]), mode="replicate")
        found[f"{height}x{width}"] = image.numpy()
    return found


def elsewhere(file, given, folder):
    """What an exported file gives in a process without this package."""
    np.savez(folder / "images.npz", **given)
    paths = [path for path in sys.path if path.endswith("site-packages")]
    code = f"FILE = {str(file)!r}\nPATHS = {paths!r}\n{ELSEWHERE}"
    # -S: the .pth file that makes an editable installation importable is not read.
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(folder / "results.npz"))


def compare(network, given, results):
    for name, image in given.items():
        with torch.inference_mode():
            expected = network(torch.from_numpy(image)).numpy()
        assert np.abs(expected - image[:, :1]).max() > 1e-3  # not zero-filling
        assert results[name].shape == expected.shape
        assert np.abs(results[name] - expected).max() <= 1e-4 * np.ptp(expected), name


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    """(form, scale) to the model, its file and the metadata that were written."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def of(form, scale):
        model, file = load_model(str(weights[scale]), scale), folder / f"x{scale}.{FORMATS[form]}"
        return model, file, export_model(model, form, file)

    return of


@each_scale
@each_format
def test_an_exported_file_gives_the_network_s_voxels_at_three_sizes_without_this_package(form, scale, exported, tmp_path):
    model, file, _ = exported(form, scale)
    given = images(scale)
    compare(model.network, given, elsewhere(file, given, tmp_path))


@each_scale
@each_format
def test_the_shipped_weights_exported_give_their_voxels_at_three_sizes_without_this_package(form, scale, tmp_path):
    model, file = load_model("base", scale), tmp_path / f"network.{FORMATS[form]}"
    metadata = export_model(model, form, file)
    assert (metadata["network"], metadata["largest_voxels"]) == ("gated_unet", None)
    given = images(scale)
    compare(model.network, given, elsewhere(file, given, tmp_path))


def test_torchscript_tells_what_it_is_where_monai_looks_for_it(exported):
    model, file, written = exported("torchscript", 2)
    _, metadata, _ = load_net_with_metadata(str(file))
    assert metadata == json.loads(json.dumps(written))
    assert (metadata["scale"], metadata["weights_sha256"], metadata["options"]) == (2, model.sha256, model.network.options)
    assert metadata["notice"] == "Research use only. Not for clinical use."
    assert metadata["licence"] == "Apache-2.0"


@needs_onnx
def test_onnx_tells_what_it_is_in_its_properties(exported):
    import onnx

    _, file, written = exported("onnx", 2)
    proto = onnx.load(file)
    onnx.checker.check_model(proto)
    assert {each.key: json.loads(each.value) for each in proto.metadata_props} == json.loads(json.dumps(written))
    assert "Research use only" in proto.doc_string


def test_torchscript_refuses_a_slice_above_the_stated_limit_and_another_shape(monkeypatch):
    monkeypatch.setattr("hftn_sr.networks.export.LARGEST_PATCHES", 16 * 16)
    network = tiny_network(2)
    assert largest_voxels(network) == 64 * 64
    loaded = torch.jit.load(io.BytesIO(exported_bytes(network, "torchscript", {})))
    assert loaded(torch.rand(1, 3, 64, 64)).shape == (1, 1, 64, 64)
    with pytest.raises(torch.jit.Error, match="66 x 64 voxels is too large"):
        loaded(torch.rand(1, 3, 66, 64))
    with pytest.raises(torch.jit.Error, match=r"expected \(B, 3, H, W\), found \[3, 64, 64\]"):
        loaded(torch.rand(3, 64, 64))


def test_the_limit_is_that_of_a_correlation_matrix_of_one_gibibyte():
    assert LARGEST_PATCHES**2 * 4 == 1 << 30
    assert largest_voxels(tiny_network(4)) == 1024 * 1024
    assert largest_voxels(NETWORKS["edsr"](2, channels=8, blocks=1)) is None
    assert largest_voxels(NETWORKS["hftn"](2, channels=16, stages=1, blocks=1, transfer="none")) is None


def test_the_command_writes_the_file_and_states_the_limit(command, weights, tmp_path):
    done = command("export", "--model", weights[2], "--scale", 2, "--output", tmp_path / "network.ts")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == f"{tmp_path / 'network.ts'} (slices of at most {512 * 512} voxels)"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--scale", 3, "--output", "a.ts"], "--scale: scale 3"),
        (["--scale", 2, "--output", "a.onnx"], "a.onnx: does not end as a file of the format torchscript does. Fix: --output FILE.ts"),
        (["--scale", 2, "--output", "a.ts", "--format", "onnx"], "Fix: --output FILE.onnx"),
        (["--scale", 2, "--output", "there.ts"], "there.ts: exists already"),
        (["--scale", 4, "--output", "a.ts"], "these weights are for scale 2, scale 4 is needed"),
    ],
)
def test_the_command_refuses_in_one_line(command, weights, tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    Path("there.ts").write_bytes(b"mine")
    done = command("export", "--model", weights[2], *arguments)
    assert done.exit_code in (2, 9)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("ERROR") and text in line
    assert Path("there.ts").read_bytes() == b"mine"


def test_without_onnx_the_cure_is_named(weights, tmp_path, monkeypatch, command):
    monkeypatch.setattr("hftn_sr.networks.export.find_spec", lambda name: None)
    done = command("export", "--model", weights[2], "--scale", 2, "--format", "onnx", "--output", tmp_path / "network.onnx")
    assert done.exit_code != 0
    assert "the package onnx is missing. Fix: pip install 'hftn-sr[export]'" in done.stderr
    assert not (tmp_path / "network.onnx").exists()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    torch.save(tiny_network(2).state_dict(), path)
    return path


def of_monai(command, checkpoint, file, *arguments, folder):
    network = {"_target_": "hftn_sr.networks.HFTNSR", "scale": 2, "channels": 16, "stages": 1, "blocks": 1, "embedding": 8}
    files = [
        "--filepath",
        file,
        "--ckpt_file",
        checkpoint,
        "--config_file",
        CONFIGS / "inference.yaml",
        "--meta_file",
        CONFIGS / "metadata.json",
    ]
    options = ["--net_id", "network_def", "--network_def", json.dumps(network), "--use_trace", "True", "--input_shape", "[1,3,64,48]"]
    done = monai_bundle(command, *files, *options, *arguments, folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]


def test_monai_s_ckpt_export_keeps_voxels_and_metadata(checkpoint, tmp_path):
    of_monai("ckpt_export", checkpoint, tmp_path / "model.ts", folder=tmp_path)
    _, metadata, _ = load_net_with_metadata(str(tmp_path / "model.ts"))
    assert metadata["network_data_format"]["inputs"]["image"]["num_channels"] == 3
    given = images(2)
    compare(tiny_network(2), given, elsewhere(tmp_path / "model.ts", given, tmp_path))


@needs_onnx
def test_monai_s_onnx_export_keeps_voxels_with_dynamic_sizes(checkpoint, tmp_path):
    axes = "{'image': {2: 'height', 3: 'width'}, 'pred': {2: 'height', 3: 'width'}}"
    converter = f"{{'input_names': ['image'], 'output_names': ['pred'], 'dynamic_axes': {axes}}}"
    of_monai("onnx_export", checkpoint, tmp_path / "model.onnx", "--converter_kwargs", converter, folder=tmp_path)
    given = images(2)
    compare(tiny_network(2), given, elsewhere(tmp_path / "model.onnx", given, tmp_path))
