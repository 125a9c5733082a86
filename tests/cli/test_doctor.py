"""`hftn-sr doctor` says what is there, and fails where something is broken."""

import json
import subprocess
import sys

import pytest

from hftn_sr._version import __version__
from hftn_sr.networks import weights as weights_module
from hftn_sr.networks.precision import choose_precision
from hftn_sr.networks.weights import shipped_models


def test_a_whole_installation_is_called_well(command):
    done = command("doctor")
    assert done.exit_code == 0
    assert f"{__version__} (run from the bundle)" in done.stdout
    assert done.stdout.endswith("all is well\n")
    assert done.stdout.count("verified, ") == len(shipped_models())


def test_json_says_the_same(command):
    told = json.loads(command("doctor", "--json").stdout)
    assert told["faults"] == []
    assert set(told["weights"]) == set(shipped_models())
    assert told["machine"]["precision by default"] == choose_precision("auto", told["machine"]["device by default"], "base")


@pytest.mark.parametrize(("content", "state"), [(None, "missing"), (b"other", "damaged or replaced")])
def test_weights_that_are_not_the_shipped_ones_are_named_with_a_cure(command, tmp_path, monkeypatch, content, state):
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  base_x2.safetensors\n", encoding="utf-8")
    monkeypatch.setattr(weights_module, "MODELS_FOLDER", tmp_path)
    monkeypatch.setattr(weights_module, "HASHES", tmp_path / "SHA256SUMS")
    if content:
        (tmp_path / "base_x2.safetensors").write_bytes(content)
    done = command("doctor")
    assert done.exit_code == 9
    assert f"base_x2.safetensors: {state}. Fix: install hftn-sr again" in done.stderr


def test_an_installation_without_weights_is_broken(command, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "HASHES", tmp_path / "SHA256SUMS")
    done = command("doctor")
    assert done.exit_code == 9
    assert "no weights. Fix: install hftn-sr again" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["super-resolve", "--help"]])
def test_what_needs_no_network_loads_none(arguments):
    code = f"import sys; sys.argv[1:] = {arguments}\nfrom hftn_sr.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'monai', 'itk', 'nibabel', 'matplotlib', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
