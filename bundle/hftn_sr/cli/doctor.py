"""The command `hftn-sr doctor`: what this installation is made of, and whether it is whole."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from hftn_sr.cli.faults import Debug, one_line_errors

__all__ = ["doctor"]

PACKAGES = ("torch", "monai", "itk", "nibabel", "pydicom", "numpy", "pytorch-ignite", "fire", "h5py")
EXTRAS = {"train": "tensorboard", "export": "onnx"}  # of pyproject.toml, each by a package that it brings


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Show versions, processor, memory and weights.

    Names the precision that is used, and a cure for what is broken.
    """
    with one_line_errors(debug):
        findings = {"installation": _installation(), "machine": _machine(), "weights": _weights()}
        faults = [fault for fault in (*_package_faults(findings["installation"]), *_weight_faults(findings["weights"])) if fault]
        if as_json:
            typer.echo(json.dumps({**findings, "faults": faults}, indent=2))
        else:
            for title, rows in findings.items():
                typer.echo(title)
                for name, value in rows.items():
                    typer.echo(f"  {name:<22} {value}")
        for fault in faults:
            typer.echo(f"ERROR {fault}", err=True)
        if not as_json and not faults:
            typer.echo("all is well")
        if faults:
            raise typer.Exit(9)


def _installation() -> dict[str, str]:
    from importlib.util import find_spec

    from hftn_sr._bundle import BUNDLE, INSTALLED
    from hftn_sr._version import __version__

    rows = {"hftn-sr": f"{__version__} ({'installed' if INSTALLED else 'run from the bundle'})", "Python": platform.python_version()}
    rows |= {name: _version_of(name) for name in PACKAGES}
    rows |= {
        f"extra [{extra}]": "there" if find_spec(package) else f"absent: pip install 'hftn-sr[{extra}]'"
        for extra, package in EXTRAS.items()
    }
    return {**rows, "bundle": str(BUNDLE), "configurations": str(BUNDLE / "configs"), "program": sys.executable}


def _version_of(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _machine() -> dict[str, str]:
    import torch

    from hftn_sr.inference.memory import available
    from hftn_sr.networks.precision import choose_precision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    free = available()
    features = {
        "AVX2": torch.cpu._is_avx2_supported(),
        "AVX-512": torch.cpu._is_avx512_supported(),
        "bfloat16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": ", ".join(name for name, there in features.items() if there) or "none of AVX2, AVX-512, bfloat16, AMX",
        "threads": str(torch.get_num_threads()),
        "memory free": "unknown" if free is None else f"{free / 1e9:.1f} GB",
        "GPU": torch.cuda.get_device_name() if device == "cuda" else "none that PyTorch sees",
        "device by default": device,
        "precision by default": choose_precision("auto", device, "base"),
    }


def _weights() -> dict[str, str]:
    from hftn_sr.networks.weights import MODELS_FOLDER, shipped_models
    from hftn_sr.volumes.files import sha256_of

    def state(name: str, sha256: str) -> str:
        path = MODELS_FOLDER / name
        if not path.is_file():
            return "missing"
        return f"verified, {path.stat().st_size / 1e6:.1f} MB" if sha256_of(path) == sha256 else "damaged or replaced"

    return {name: state(name, sha256) for name, sha256 in shipped_models().items()}


def _package_faults(rows: dict[str, str]) -> Iterator[str]:
    for name in PACKAGES:
        if rows[name] == "missing":
            yield f"{name}: not installed. Fix: pip install --force-reinstall hftn-sr."


def _weight_faults(rows: dict[str, Any]) -> Iterator[str]:
    from hftn_sr.networks.weights import MODELS_FOLDER

    if not rows:
        yield f"{MODELS_FOLDER}: no weights. Fix: install hftn-sr again, or restore the folder from the release."
    for name, state in rows.items():
        if not state.startswith("verified"):
            yield f"{MODELS_FOLDER / name}: {state}. Fix: install hftn-sr again, or restore the file from the release."
