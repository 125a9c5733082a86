"""Try the wheel as a stranger does: a fresh environment, another folder, the voxels of the clone.

python scripts/check_wheel.py

builds the wheel, installs it with the versions of constraints.txt, and runs `doctor`, `super-resolve` on the built-in pair and the
inference workflow from an empty folder. Takes some minutes, most of them pip's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from hftn_sr.volumes.nifti import read_nifti

ROOT = Path(__file__).absolute().parents[1]
SAMPLE = ROOT / "bundle" / "hftn_sr" / "sample"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def main() -> None:
    """Build, install, run, compare; the first step that fails ends it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = folder / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
        away = folder / "away"
        away.mkdir()
        _run(ROOT, sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        sys.stdout.write(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB\n")
        _run(folder, sys.executable, "-m", "venv", folder / "environment")
        constraints = ("--constraint", ROOT / "constraints.txt")
        _run(folder, python, *PIP, "install", *constraints, "torch")
        _run(folder, python, *PIP, "install", *constraints, wheel)
        sys.stdout.write(_run(away, python.with_name("hftn-sr"), "doctor"))
        pair = _pair(away)
        for program, result in (
            ([python.with_name("hftn-sr")], away / "sr.nii.gz"),
            ([sys.executable, "-m", "hftn_sr.cli"], folder / "sr.nii.gz"),
        ):
            _run(away, *program, "super-resolve", *pair, "--output", result, "--no-report")
        _same(away / "sr.nii.gz", folder / "sr.nii.gz")
        (away / "data" / "cases" / "one").mkdir(parents=True)
        for name in ("target", "reference"):
            shutil.copy(away / f"{name}.nii.gz", away / "data" / "cases" / "one")
        config = _run(away, python, "-c", "from hftn_sr._bundle import BUNDLE; print(BUNDLE / 'configs' / 'inference.yaml')").strip()
        _run(away, python, "-m", "monai.bundle", "run", "--config_file", config)
        _same(away / "eval" / "one" / "target_sr.nii.gz", folder / "sr.nii.gz")
    sys.stdout.write("the wheel gives the clone's voxels\n")


def _pair(folder: Path) -> list[str | Path]:
    """The options that name the built-in pair, its target degraded by 2."""
    import hftn_sr

    shutil.copy(SAMPLE / "synthetic_reference.nii.gz", folder / "reference.nii.gz")
    hftn_sr.degrade(SAMPLE / "synthetic_target.nii.gz", folder / "target.nii.gz", scale=2)
    return ["--target", folder / "target.nii.gz", "--reference", folder / "reference.nii.gz", "--scale", "2"]


def _run(folder: Path, *command: str | Path) -> str:
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    if Path(command[0]) == Path(sys.executable):
        environment["PYTHONPATH"] = str(ROOT / "bundle")
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def _same(one: Path, other: Path) -> None:
    if not np.array_equal(read_nifti(one).data, read_nifti(other).data):
        raise SystemExit(f"{one} and {other} differ")


if __name__ == "__main__":
    main()
