"""What the MONAI Model Zoo's program (ci/verify_bundle.py of Project-MONAI/model-zoo) and its contribution guide ask of a bundle.

python scripts/zoo_rules.py MODELS_FOLDER BUNDLE_NAME SCHEMA

Needs only MONAI and the packages that the bundle's metadata names: it runs in an environment without this repository. Like the zoo's
program it puts the bundle first on sys.path; the bundle folder gets eval/schema.json and models/verify_model.ts.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out

LARGEST = 25_000_000  # bytes of a file
NECESSARY = ("LICENSE", "configs/metadata.json", "docs/README.md", "docs/data_license.txt", "models/model.pt")
KEYS = {
    "inference": ("bundle_root", "device", "network_def", "inferer", "output_dir"),
    "train": (
        *("bundle_root", "device", "dataset_dir", "output_dir", "val_interval"),
        *("train#trainer", "train#trainer#max_epochs", "train#dataset", "train#dataset#data", "train#handlers"),
        *("train#preprocessing", "train#postprocessing", "train#inferer"),
        *("validate#evaluator", "validate#handlers", "validate#dataset", "validate#dataset#data"),
        *("validate#preprocessing", "validate#postprocessing", "validate#inferer", "validate#key_metric"),
    ),
}
README = ("# Model Overview", "## Data", "### Preprocessing", "## Training configuration", "### Input", "### Output", "## Performance",
          "## MONAI Bundle Commands", "# References", "# License")  # fmt: skip


def check_files(bundle: Path) -> None:
    """Necessary files are there, none is too large, none is a link. Raises ValueError."""
    missing = [name for name in NECESSARY if not (bundle / name).is_file()]
    if not inference_config(bundle):
        missing.append("configs/inference.json")
    if missing:
        raise ValueError(f"{bundle}: {', '.join(missing)} missing")
    for path in bundle.rglob("*"):
        if path.is_symlink():
            raise ValueError(f"{path}: a symbolic link")
        if path.is_file() and path.stat().st_size > LARGEST:
            raise ValueError(f"{path}: {path.stat().st_size} bytes, at most {LARGEST}")


def check_version(bundle: Path) -> None:
    """Version and changelog fit. Raises ValueError."""
    metadata = read_metadata(bundle)
    version = metadata["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version) or version not in metadata["changelog"]:
        raise ValueError(f"version {version} is no version or has no changelog entry")


def check_requirements(bundle: Path) -> None:
    """Every requirement is one that pip takes, as the zoo's ci/get_bundle_requirements.py writes it. Raises ValueError."""
    if "optional_packages_version" in read_metadata(bundle):
        raise ValueError("optional_packages_version: MONAI puts it in the place of required_packages_version")
    for line in requirements(bundle):
        if not re.fullmatch(r"[\w.-]+(==|>=|<=|<|>)\d[\w.,<>=]*", line):
            raise ValueError(f"{line!r} is no requirement")


def check_metadata(bundle: Path, schema: Path) -> None:
    """The metadata fit their schema, without the network. Raises what jsonschema raises."""
    (bundle / "eval").mkdir(exist_ok=True)
    shutil.copyfile(schema, bundle / "eval" / "schema.json")
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(bundle / "eval" / "schema.json"))


def check_keys(bundle: Path) -> None:
    """The configurations have the IDs that the zoo's guide names. Raises ValueError."""
    for name, keys in KEYS.items():
        parser = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / f"{name}.json"))
        missing = [key for key in keys if key not in parser]
        if missing:
            raise ValueError(f"configs/{name}.json: no {', '.join(missing)}")


def check_readme(bundle: Path) -> None:
    """docs/README.md has the sections of the zoo's bundles, in their order. Raises ValueError."""
    lines = (bundle / "docs" / "README.md").read_text(encoding="utf-8").splitlines()
    found = [line.strip() for line in lines if line.strip() in README]
    if found != list(README):
        raise ValueError(f"docs/README.md: sections {found}, need {list(README)}")


def check_shapes(bundle: Path) -> None:
    """The network takes and gives what the metadata say. Raises ValueError."""
    verify_net_in_out(net_id="network_def", **_files(bundle))


def check_torchscript(bundle: Path) -> None:
    """models/model.pt becomes a TorchScript file that loads and knows its metadata. Raises ValueError."""
    path = bundle / "models" / "verify_model.ts"
    ckpt_export(net_id="network_def", filepath=str(path), ckpt_file=str(bundle / "models" / "model.pt"), **_files(bundle))
    extra = {"metadata.json": ""}
    torch.jit.load(path, map_location="cpu", _extra_files=extra)
    if json.loads(extra["metadata.json"] or "{}").get("version") != read_metadata(bundle)["version"]:
        raise ValueError(f"{path}: the metadata inside are not the bundle's")


def verify(bundle: Path, schema: Path, log: Callable[[str], object]) -> None:
    """Every check, one after the other; the first that fails raises."""
    sys.path.insert(0, str(bundle))
    check_files(bundle)
    log("files")
    check_version(bundle)
    log("version and changelog")
    check_requirements(bundle)
    log("requirements")
    check_metadata(bundle, schema)
    log("metadata against the schema")
    check_keys(bundle)
    log("keys of the configurations")
    check_readme(bundle)
    log("sections of docs/README.md")
    check_shapes(bundle)
    log("network input and output")
    check_torchscript(bundle)
    log("TorchScript")


def requirements(bundle: Path) -> list[str]:
    """The lines of the requirements file that the zoo makes of the metadata."""
    metadata = read_metadata(bundle)
    versions = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"], "numpy": metadata["numpy_version"]}
    versions |= metadata["required_packages_version"]
    return [f"{name}{'' if version[0] in '<>=' else '=='}{version}" for name, version in versions.items()]


def read_metadata(bundle: Path) -> dict[str, Any]:
    """configs/metadata.json."""
    found: dict[str, Any] = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return found


def inference_config(bundle: Path) -> Path | None:
    """The inference configuration that the zoo's program takes: of several, YAML before JSON."""
    found = [path for suffix in ("yml", "yaml", "json") if (path := bundle / "configs" / f"inference.{suffix}").is_file()]
    return found[0] if found else None


def _files(bundle: Path) -> dict[str, str]:
    meta, config = bundle / "configs" / "metadata.json", inference_config(bundle)
    return {"meta_file": str(meta), "config_file": str(config), "bundle_root": str(bundle)}


if __name__ == "__main__":
    models, name, schema = sys.argv[1:]
    verify(Path(models, name), Path(schema), lambda what: sys.stdout.write(f"zoo rule holds: {what}\n"))
