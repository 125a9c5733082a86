"""What a case will need is known before its voxels are read, never too little and not much too much."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hftn_sr
from hftn_sr.errors import Fault
from hftn_sr.inference import memory, workflow
from hftn_sr.inference import run as run_module
from hftn_sr.inference.case import Case, side_files
from hftn_sr.inference.memory import Demand, check_memory, network_bytes
from hftn_sr.inference.options import RunOptions, run_options
from hftn_sr.inference.plan import plan_pair
from hftn_sr.inference.run import run_case
from hftn_sr.inference.workflow import PreparePaird
from hftn_sr.networks import build_network
from hftn_sr.networks.precision import has_bfloat16
from hftn_sr.networks.weights import load_model, save_weights
from hftn_sr.volumes import scratch
from hftn_sr.volumes.nifti import read_nifti
from phantoms import oblique, write

BUNDLE = str(Path(hftn_sr.__file__).parents[1])
CHILD = """
import sys
import torch
torch.set_num_threads(1)
import hftn_sr
target, reference, output, scale, model, precision, in_memory, register = sys.argv[1:]
from hftn_sr.volumes import scratch
from hftn_sr.inference import memory
scratch.IN_MEMORY = memory.IN_MEMORY = int(in_memory)
options = {"register": register, "unfit_reference": "use"} if register else {}
hftn_sr.super_resolve(target, reference if register else None, output, scale=int(scale), model=model, precision=precision, **options)
"""


def noise(shape):
    """A bright disc with noise, int16, of any size at little cost."""
    x, y = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    plane = 800 * np.exp(-3 * (x**2 + y**2)) * (1 + 0.3 * np.sin(9 * x) * np.cos(7 * y))
    rough = np.random.default_rng(0).normal(0, 10, plane.shape)
    return np.stack([plane + np.roll(rough, 37 * index) + index % 7 for index in range(shape[2])], -1).astype(np.int16)


def put_pair(folder, shape, scale, turned, first=False):
    """Files of a pair whose result has this shape; the reference is turned against the target by so many degrees.

    Slices come last, as in most files, or `first`.
    """
    order = [2, 0, 1] if first else [0, 1, 2]

    def put(name, shape, spacing, angles):
        shape_, spacing_, angles_ = ([values[axis] for axis in order] for values in (shape, spacing, angles))
        return write(folder / name, noise(shape).transpose(order), oblique(spacing_, angles_, shape_))

    return (
        put("t.nii", (shape[0] // scale, shape[1] // scale, shape[2]), (0.5 * scale, 0.5 * scale, 3), (0, 0, 0)),
        put("r.nii", (*shape[:2], shape[2] + 4), (0.53, 0.53, 3.1), (turned, 0, 0)),
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell how much memory a process had")
@pytest.mark.parametrize(
    ("method", "scale", "shape", "turned", "in_memory", "register"),
    [
        ("small", 2, (320, 320, 12), 0, 1 << 28, "none"),
        ("small", 4, (320, 256, 64), 2, 1 << 28, "none"),
        ("base", 2, (768, 768, 3), 0, 0, "none"),
        ("base", 4, (512, 512, 4), 2, 0, "none"),
        ("small", 4, (768, 768, 3), 0, 1 << 28, "none"),
        ("small", 4, (320, 256, 64), 2, 1 << 28, "auto"),
        ("small", 2, (320, 320, 12), 0, 1 << 28, ""),  # and no reference
    ],
)
def test_the_prediction_is_never_below_the_true_peak_and_at_most_half_above_it(
    tmp_path, method, scale, shape, turned, in_memory, register
):  # fmt: skip
    """Never below in any try, at most half above in one of three.

    What the allocator holds at a time differs by a fifth from process to process (541 to 666 MB of `small` at x4, 768 x 768), and on a
    busy machine the system takes back pages of libraries, 125 MB here, which the prediction found in memory.
    """
    save_weights(tmp_path / "w.safetensors", build_network(method, scale), {})
    pair = put_pair(tmp_path, shape, scale, turned)
    precision = "bfloat16" if has_bfloat16() else "float32"
    arguments = (*pair, tmp_path / "out.nii.gz", scale, tmp_path / "w.safetensors", precision, in_memory, register)
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": BUNDLE, "OMP_NUM_THREADS": "1"}
    above = []
    while not above or (above[-1] > 1.5 and len(above) < 3):
        (tmp_path / "out.nii.gz").unlink(missing_ok=True)
        subprocess.run(command, env=environment, check=True, timeout=300)
        whole = json.loads((tmp_path / "out.json").read_text())
        assert ("registration" in (whole["placement"] or {})) is (register == "auto")
        above.append(whole["memory"]["peak_predicted_gb"] / whole["memory"]["peak_measured_gb"])
        assert above[-1] >= 1
    assert min(above) <= 1.5, above


def test_the_memory_of_a_network_is_that_of_its_tensors_that_live_at_once():
    class Doubling(nn.Module):
        def forward(self, image):
            wide = image.repeat(1, 10, 1, 1)
            return wide.relu().sum(1, keepdim=True)

    assert network_bytes(Doubling(), 1000, 500) == pytest.approx(memory.IN_PIECES * 4 * (3 + 30 + 30) * 1000 * 500, rel=0.05)


LOOKED_AT = """
import numpy as np
from hftn_sr.inference import findings, memory, pair
from hftn_sr.volumes.volume import Volume
data = np.random.default_rng(0).random((768, 768, 96), np.float32).transpose(AXES)
target = Volume(np.asfortranarray(data), np.eye(4))
memory.reset_peak()
before = memory._status("VmRSS")
pair._unit(target)
findings.measured_samples(target, AXES.index(2))
print((memory.measured_peak() - before) / data.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell how much memory a process had")
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_a_target_is_looked_at_without_a_copy_of_it(axes):
    environment = {**os.environ, "PYTHONPATH": BUNDLE, "OMP_NUM_THREADS": "1"}
    code = LOOKED_AT.replace("AXES", str(axes))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.7  # most of it blocks of 32 MB and spectra, the same for larger ones; a copy takes 1


def test_measuring_a_network_does_not_load_the_compiler():
    code = "import sys, torch; from hftn_sr.inference.memory import network_bytes; network_bytes(torch.nn.Conv2d(3, 1, 1), 9, 9)"
    environment = {**os.environ, "PYTHONPATH": BUNDLE}
    done = subprocess.run([sys.executable, "-c", f"{code}; print('torch._dynamo' in sys.modules)"], env=environment, capture_output=True)
    assert done.stdout.strip() == b"False", done.stderr


def test_a_case_whose_reference_lies_in_place_does_not_load_itk(tmp_path, put_case):
    target, reference = put_case(tmp_path)
    code = "import sys; from hftn_sr import api; api.use_threads(1); api.super_resolve(*sys.argv[1:], scale=2, model='small')"
    command = [sys.executable, "-c", f"{code}; print('itk' in sys.modules)", target, reference, tmp_path / "o.nii"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": BUNDLE}, capture_output=True)
    assert done.stdout.strip() == b"False", done.stderr


@pytest.fixture
def case(tmp_path, put_case):
    return Case("one", *put_case(tmp_path), tmp_path / "out" / "result.nii.gz")


def run(case, weights, **options):
    options = RunOptions(str(weights[2]), preview=False, **options)
    return run_case(case, options, lambda scale: load_model(str(weights[scale]), scale))


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_case_too_large_for_the_memory_is_refused_before_its_voxels_are_read(case, weights, monkeypatch, dry_run):
    monkeypatch.setattr(memory, "available", lambda: 100 << 20)
    monkeypatch.setattr(run_module, "prepare_pair", None)
    with pytest.raises(Fault, match=r"target\.nii\.gz: too large for the memory \(needs 0\.\d GB, 0\.1 GB is free\)\. Fix: close other"):
        run(case, weights, dry_run=dry_run)
    assert not case.output.exists()


def test_the_inference_workflow_counts_the_whole_case_that_it_holds(case, weights, monkeypatch, capsys):
    network = load_model(str(weights[2]), 2).network
    prepare = PreparePaird(run_options(str(weights[2]), "cpu", scale=2), network)
    assert prepare({"case": case})["image"].shape[0] == 3
    streamed = plan_pair(case.target, case.reference, prepare.options.pair).demand(network, "cpu")[0].more
    monkeypatch.setattr(memory, "available", lambda: streamed + 1000)  # enough for the command line
    monkeypatch.setattr(workflow, "prepare_pair", None)
    with pytest.raises(SystemExit, match="9"):
        prepare({"case": case})
    assert re.match(r"ERROR .*target\.nii\.gz: too large for the memory \(needs", capsys.readouterr().err)


def test_a_header_that_promises_more_than_any_memory_is_refused_by_it(tmp_path, weights):
    sparse = []
    for name, shape, spacing in (("t", (30000, 30000, 100), 2.0), ("r", (30000, 30000, 400), 1.0)):
        sizes = {"dim": [3, *shape, 1, 1, 1, 1]}
        sparse.append(write(tmp_path / f"{name}.nii", np.zeros((1, 1, 1), np.int16), oblique((spacing, spacing, 4)), **sizes))
        with sparse[-1].open("r+b") as file:
            file.truncate(352 + 2 * int(np.prod(shape, dtype=np.int64)))
    with pytest.raises(Fault, match=r"t\.nii: too large for the memory \(needs \d{3}\.\d GB"):
        run(Case("one", *sparse, tmp_path / "o.nii"), weights)


def test_a_case_that_nearly_fills_the_memory_is_warned_of(case, weights, monkeypatch):
    needed = run(case, weights).record["memory"]["peak_predicted_gb"]
    assert needed > 0.1
    monkeypatch.setattr(memory, "available", lambda: int(1e9 * needed))
    monkeypatch.setattr(memory, "NEAR", 0.01)
    outcome = run(case, weights, overwrite="always")
    assert any("more memory and" in warning for warning in outcome.warnings)
    assert json.loads(side_files(case.output)[0].read_text())["warnings"] == list(outcome.warnings)


def test_where_the_system_does_not_tell_nothing_is_refused(tmp_path):
    check_memory(tmp_path, Demand(1 << 60, 1 << 60, None))
    assert Demand(1 << 60, 1 << 60, None).warnings == ()


def test_a_control_group_s_limit_counts(tmp_path, monkeypatch):
    (tmp_path / "max").write_text("5000\n")
    (tmp_path / "current").write_text("3000\n")
    monkeypatch.setattr(memory, "GROUPS", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    assert memory.available() == 2000
    (tmp_path / "max").write_text("max\n")
    assert memory.available() != 2000


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_volume_too_large_for_memory_comes_out_the_same(tmp_path, pair, weights, monkeypatch, order):
    target, reference = pair(2)
    files = []
    for name, volume in (("t", target), ("r", reference)):
        files.append(write(tmp_path / f"{name}.nii", np.ascontiguousarray(volume.data.transpose(order)), volume.affine[:, [*order, 3]]))
    run(Case("one", *files, tmp_path / "plain.nii.gz"), weights)
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    monkeypatch.setattr(scratch, "BLOCK", 5000)
    run(Case("one", *files, tmp_path / "streamed.nii.gz"), weights)
    plain, streamed = (read_nifti(tmp_path / f"{name}.nii.gz").data for name in ("plain", "streamed"))
    np.testing.assert_array_equal(plain, streamed)
    assert {path.name for path in tmp_path.iterdir()} == {
        "t.nii", "r.nii", "plain.nii.gz", "plain.json", "streamed.nii.gz", "streamed.json"
    }  # fmt: skip


def test_a_disk_too_small_for_the_result_is_found_before_the_network_runs(case, weights, monkeypatch):
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    monkeypatch.setattr(run_module, "apply_network", None)
    with pytest.raises(Fault, match=r"result\.nii\.gz: not enough space left on its disk \(needs 1 MB, 0 MB are free\)"):
        run(case, weights)
    assert not case.output.exists()


def test_a_run_that_is_killed_while_it_streams_leaves_nothing(case, weights):
    code = """
import os, signal, sys
from hftn_sr.volumes import scratch
scratch.IN_MEMORY = 0
from hftn_sr.acquisition import KSpace
import hftn_sr
simulate = KSpace.simulate
def killed(*arguments):
    killed.calls = getattr(killed, "calls", 0) + 1
    if killed.calls == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return simulate(*arguments)
KSpace.simulate = killed
hftn_sr.super_resolve(*sys.argv[1:4], scale=2, model=sys.argv[4])
"""
    arguments = map(str, (case.target, case.reference, case.output, weights[2]))
    done = subprocess.run([sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": BUNDLE}, timeout=120, check=False)
    assert done.returncode == -9
    assert [path.name for path in case.output.parent.iterdir()] == [f".{case.output.name}.lock"]
    assert run(case, weights).status == "done"
    assert torch.isfinite(torch.from_numpy(read_nifti(case.output).data)).all()


REUSED = """
import resource, torch
from hftn_sr.inference.memory import reuse_freed_memory

def faults():
    for _ in range(20):
        torch.ones(500_000), torch.ones(5_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

counts = [faults(), faults()]
assert reuse_freed_memory()
counts += [faults(), faults()]
print(counts[1] - counts[0], counts[3] - counts[2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_worker_that_dask_starts_is_not_given_the_same_pages_again_and_again():
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}  # as Dask's nanny sets it
    done = subprocess.run([sys.executable, "-c", REUSED], check=True, capture_output=True, text=True, env=environment)
    plain, kept = map(int, done.stdout.split())
    assert kept < plain / 10
