"""Try the packaged bundle as a stranger does: in an empty folder, with the pip packages that its metadata names and nothing else.

python scripts/check_package.py

packs the bundle twice and compares the bytes, unpacks it, makes an environment, checks the Model Zoo's rules, and runs from the bundle's
own folder what its model card says: training, evaluation, inference, `monai.bundle.load`, exports to TorchScript and ONNX, whose voxels are
compared; last the unit test in the zoo's form. The first step that fails ends it. Takes some minutes, most of them pip's.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hftn_sr.errors import Fault
from package_bundle import NAME, ROOT, package
from zoo_rules import requirements

SCRIPTS = ROOT / "scripts"
SCHEMA = ROOT / "tests" / "meta_schema_20240725.json"
NETWORK = ("--net_id", "network_def", "--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json")
AXES = {0: "batch", 2: "height", 3: "width"}
ONNX = {"input_names": ["image"], "output_names": ["pred"], "dynamic_axes": {"image": AXES, "pred": AXES}}
EVALUATION = "['configs/train.json','configs/evaluate.json']"
TINY = ("--options", "{'channels': 16}", "--epochs", "2", "--epoch_cases", "4", "--val_interval", "1")
LOAD = f"from monai.bundle import load; print(type(load('{NAME}', bundle_dir='..', source='local')).__name__)"
SAMPLE = """
import json, pathlib, shutil, sys, hftn_sr
sample, folder = pathlib.Path(hftn_sr.__file__).parent / "sample", pathlib.Path(sys.argv[1])
(folder / "cases" / "one").mkdir(parents=True)
for name in ("target", "reference"):
    shutil.copy(sample / f"synthetic_{name}.nii.gz", folder / f"{name}.nii.gz")
shutil.copy(folder / "reference.nii.gz", folder / "cases" / "one")
hftn_sr.degrade(folder / "target.nii.gz", folder / "cases" / "one" / "target.nii.gz", scale=2)
lists = {}
for section in ("training", "validation", "testing"):  # copies: no file may stand in two sections
    names = {role: f"{section}_{role}.nii.gz" for role in ("target", "reference")}
    lists[section] = [{"case": section, **names}]
    for role, name in names.items():
        shutil.copy(folder / f"{role}.nii.gz", folder / name)
(folder / "datalist.json").write_text(json.dumps(lists))
"""


class Trial:
    """A folder away from the repository with the unpacked bundle, an environment and a tiny dataset.

    Args:
        folder: empty.
        console: where the steps are told.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.console = folder, console
        self.bundle = folder / "zoo" / "models" / NAME
        self.python = folder / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(self, title: str, *arguments: str | Path, folder: Path | None = None, path: str | None = None) -> str:
        """Run Python of the environment in `folder`, by default the bundle's; what it printed. Ends the trial where it fails."""
        hidden = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        if path:
            environment["PYTHONPATH"] = path
        started = time.monotonic()
        with self.console.status(title):
            done = subprocess.run(
                [self.python, *map(str, arguments)], cwd=folder or self.bundle, env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
            )  # fmt: skip
        if done.returncode:
            self.console.print(done.stdout[-4000:], markup=False)
            self.console.print(f"[red]failed[/red] {title}")
            raise SystemExit(1)
        self.console.print(f"[green]passed[/green] {title} ({time.monotonic() - started:.0f} s)")
        return done.stdout

    def log(self, pattern: str, told: str) -> None:
        """Print what `pattern` finds in the output of a step."""
        for found in re.findall(pattern, told):
            self.console.print(f"       {found}", markup=False, soft_wrap=True)

    def bundle_command(self, title: str, *arguments: str | Path) -> str:
        """`python -m monai.bundle`, from the bundle's own folder."""
        return self.run(title, "-m", "monai.bundle", *arguments)

    def prepare(self) -> None:
        """Pack, compare, unpack, make the environment."""
        first, second = (package(ROOT, self.folder / name) for name in ("first", "second"))
        if not filecmp.cmp(first, second, shallow=False):
            raise SystemExit("two archives of the same files differ")
        with zipfile.ZipFile(first) as zipped:
            zipped.extractall(self.bundle.parent)
        subprocess.run([sys.executable, "-m", "venv", self.folder / "environment"], check=True)
        needed = requirements(self.bundle)
        self.run(f"pip install {' '.join(needed)}", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needed)
        absent = "import importlib.util as u; raise SystemExit(u.find_spec('hftn_sr') is not None)"
        self.run("the environment does not have hftn_sr", "-c", absent, folder=self.folder)

    def check_rules(self) -> None:
        """The zoo's program, on a copy: it leaves files in the bundle."""
        copy = self.folder / "verified" / NAME
        shutil.copytree(self.bundle, copy)
        told = self.run("rules of the Model Zoo", SCRIPTS / "zoo_rules.py", copy.parent, NAME, SCHEMA, folder=self.folder)
        self.log(r"zoo rule holds.*", told)

    def use(self) -> None:
        """What the model card says, with relative paths where it has them."""
        data, results = self.folder / "data", self.folder / "results"
        (self.bundle / "eval").mkdir()
        shutil.copyfile(SCHEMA, self.bundle / "eval" / "schema.json")
        self.bundle_command("verify_metadata", "verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", "eval/schema.json")
        self.bundle_command("verify_net_in_out", "verify_net_in_out", *NETWORK)
        self.run("a tiny dataset from the sample", "-c", SAMPLE, data)
        run = ("run", "--dataset_dir", data)
        self.bundle_command("training, 2 epochs", *run, "--config_file", "configs/train.json", *TINY)
        if not (self.bundle / "runs" / "x2" / "best.safetensors").is_file():
            raise SystemExit("training left no weights in runs/x2")
        told = self.bundle_command("evaluation of the shipped weights", *run, "--config_file", EVALUATION)
        self.log(r"psnr: .*", told)
        cases = ("run", "--dataset_dir", data / "cases", "--output_dir", results)
        self.bundle_command("inference", *cases, "--config_file", "configs/inference.json")
        config = ("--config_file", self.bundle / "configs" / "inference.json")
        self.run("inference from another folder", "-m", "monai.bundle", *cases[:-1], self.folder / "again", *config, folder=self.folder)
        if (results / "one" / "target_sr.nii.gz").read_bytes() != (self.folder / "again" / "one" / "target_sr.nii.gz").read_bytes():
            raise SystemExit("inference from another folder gave other bytes")
        record = json.loads((results / "one" / "target_sr.json").read_text(encoding="utf-8"))
        self.console.print(f"       one/target_sr.nii.gz, weights {record['model']['sha256'][:12]}", markup=False)
        self.run("monai.bundle.load", "-c", LOAD)
        checkpoint = ("--ckpt_file", "models/model.pt", *NETWORK)
        self.bundle_command("ckpt_export", "ckpt_export", "--filepath", "models/model.ts", *checkpoint)
        self.bundle_command("onnx_export", "onnx_export", "--filepath", "models/model.onnx", "--converter_kwargs", str(ONNX), *checkpoint)
        told = self.run("same voxels", SCRIPTS / "compare_exports.py", "models/model.ts", "models/model.onnx", path=str(self.bundle))
        self.log(r".* off by .*", told)

    def unit_test(self) -> None:
        """As the zoo runs it, from the zoo's root."""
        test = shutil.copy(SCRIPTS / "zoo" / f"test_{NAME}.py", self.bundle.parents[1])
        self.run("unit test in the zoo's form", test, folder=self.bundle.parents[1], path=str(self.bundle.parents[1]))


def main(keep: Annotated[Path | None, typer.Option(help="Folder to work in, which stays afterwards; must not exist.")] = None) -> None:
    """Pack the bundle and try it in a fresh environment."""
    console = Console(width=140, highlight=False)
    if keep and keep.exists():
        raise SystemExit(f"{keep}: exists already, name another folder")
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep.absolute() if keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trial = Trial(folder, console)
        try:
            for part in (trial.prepare, trial.check_rules, trial.use, trial.unit_test):
                part()
        except Fault as fault:  # the bundle cannot be packed
            sys.stderr.write(f"ERROR {fault}\n")
            raise SystemExit(fault.exit_code) from None
    console.print("the package is fit for the Model Zoo")


if __name__ == "__main__":
    typer.run(main)
