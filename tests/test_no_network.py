"""Nothing is sent and nothing fetched while the program runs, but by `hftn-sr data`: the interpreter itself catches each attempt."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import run

import hftn_sr
from hftn_sr.volumes.nifti import read_nifti, save_nifti

PACKAGE = Path(hftn_sr.__file__).parent
CONFIGS = PACKAGE.parent / "configs"
# Audit events of CPython, which no import order and no library can go round: sockets, name look-ups, urllib.
EVENTS = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.sendto",
    "socket.sendmsg",
    "urllib.Request",
)
BLOCKER = f"""
import sys
EVENTS = {EVENTS!r}
def blocked(event, arguments):
    if event in EVENTS and not (event == "socket.connect" and isinstance(arguments[1], (str, bytes))):  # a path: between processes here
        sys.stderr.write(f"NETWORK {{event}} {{arguments}}\\n")
        raise OSError(f"no network here: {{event}}")
sys.addaudithook(blocked)
"""


@pytest.fixture(scope="session")
def attempts():
    """What the hook of this process caught; a list that is None while all is allowed. A hook stays until the process ends."""
    state = {"caught": None}

    def hook(event, arguments):
        if event in EVENTS and state["caught"] is not None:
            if event == "socket.connect" and isinstance(arguments[1], (str, bytes)):
                return
            state["caught"].append((event, arguments))
            raise OSError(f"no network here: {event}")

    sys.addaudithook(hook)
    return state


@pytest.fixture
def offline(attempts):
    attempts["caught"] = []
    yield attempts["caught"]
    attempts["caught"] = None


def test_the_hook_catches_what_it_should(offline):
    import socket
    import urllib.request

    for attempt in (lambda: socket.create_connection(("127.0.0.1", 9), 1), lambda: urllib.request.urlopen("http://127.0.0.1:9")):
        with pytest.raises(OSError, match="no network here"):
            attempt()
    assert {event for event, _ in offline} == {"socket.getaddrinfo", "urllib.Request"}


def test_the_commands_use_no_network(offline, tmp_path, put_case, command, weights):
    target, reference = put_case(tmp_path / "cases" / "one", shape=(72, 80, 4))
    pair = ("--target", target, "--reference", reference)
    for arguments in (
        ("--help",), ("super-resolve", "--help"), ("doctor",),
        ("super-resolve", "--cases", tmp_path / "cases", "--output", tmp_path / "out", "--model", weights[2], "--device", "cpu"),
        ("super-resolve", *pair, "--output", tmp_path / "sr.nii", "--register", "rigid", "--scale", 2, "--model", weights[2]),
        ("evaluate", "--prediction", tmp_path / "sr.nii", "--truth", reference, "--target", target),
        ("report", "--results", tmp_path / "out", "--cases", tmp_path / "cases"),
        ("export", "--model", weights[2], "--scale", 2, "--format", "torchscript", "--output", tmp_path / "tiny.ts"),
    ):  # fmt: skip
        done = command(*arguments)
        assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "report.html").is_file()
    assert offline == []


@pytest.fixture
def dataset(tmp_path):
    """Sections of copies of one small pair, and the pair as a case."""
    whole = read_nifti(PACKAGE / "sample" / "synthetic_target.nii.gz")
    part = whole.on(whole.grid.cropped((70, 80, 2), (48, 56, 3)), whole.data[70:118, 80:136, 2:5].copy())
    lists = []
    for section in ("training", "validation", "testing"):
        save_nifti(tmp_path / f"{section}.nii.gz", part, "synthetic")
        shutil.copy(PACKAGE / "sample" / "synthetic_reference.nii.gz", tmp_path / f"{section}_reference.nii.gz")
        lists.append(f'"{section}": [{{"case": "{section}", "target": "{section}.nii.gz", "reference": "{section}_reference.nii.gz"}}]')
    (tmp_path / "datalist.json").write_text(f"{{{', '.join(lists)}}}")
    hftn_sr.degrade(tmp_path / "testing.nii.gz", tmp_path / "cases" / "one" / "target.nii.gz", scale=2)
    shutil.copy(tmp_path / "testing_reference.nii.gz", tmp_path / "cases" / "one" / "reference.nii.gz")
    return tmp_path


def test_the_workflows_use_no_network(offline, dataset):
    run(config_file=str(CONFIGS / "inference.yaml"), dataset_dir=str(dataset / "cases"), output_dir=str(dataset / "eval"))
    assert (dataset / "eval" / "one" / "target_sr.nii.gz").is_file()
    tiny = {"options": {"channels": 16}, "epochs": 1, "epoch_cases": 2, "val_interval": 1, "crop_size": 32, "threads": 1}
    run("training", config_file=str(CONFIGS / "train.yaml"), dataset_dir=str(dataset), output_dir=str(dataset / "run"), **tiny)
    assert (dataset / "run" / "best.safetensors").is_file()
    assert offline == []


def test_a_start_uses_no_network(tmp_path):
    """From the first line of Python on, in a process of its own."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    done = subprocess.run(
        [sys.executable, "-m", "hftn_sr.cli", "doctor"],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "all is well" in done.stdout and "NETWORK" not in done.stderr, done.stderr
    blocked = subprocess.run(
        [sys.executable, "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"],
        env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "NETWORK urllib.Request" in blocked.stderr
