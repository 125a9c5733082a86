"""The training task: the bundle's own workflow on the pairs of the datastore, in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from hftn_sr._bundle import BUNDLE
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.pairs.split import PATIENT
from hftn_sr_label.pairing import name_rules
from hftn_sr_label.parameters import choice, fraction, refuse_misspelt, text, whole
from hftn_sr_label.training_data import check_settings, training_data, write_training_data

__all__ = ["TrainPairs"]

WORKFLOW = "import json, sys; from monai.bundle import run; run('training', **json.loads(sys.argv[1]))"
NUMBERS = {"epochs": 20, "epoch_cases": 500, "crop_size": 64, "validation_slices": 6, "val_interval": 5, "seed": 0}  # as in train.yaml

logger = logging.getLogger(__name__)


class TrainPairs(TrainTask):
    """Train on the high-resolution pairs of the datastore; their low resolution is simulated.

    A run has a name and a folder. Asked for again with the same settings, it goes on from its last complete epoch.

    Args:
        names: the name rules, as text, which a request may replace.
        runs: folder of the runs.
    """

    def __init__(self, names: str, runs: Path) -> None:
        super().__init__("Train on the pairs of the datastore; asked for again, a run goes on where it was stopped")
        self.names, self.runs = names, runs

    def config(self) -> dict[str, Any]:
        """Parameters with their choices, the default first."""
        own = {"run": "", "names": self.names, "scale": ["2", "4"], "patient": PATIENT, "validation_share": "0.1"}
        return {**own, **NUMBERS}

    def stats(self) -> dict[str, Any]:
        """Settings of each run, and whether it has weights to offer."""
        runs = {}
        for path in sorted(self.runs.glob("*/settings.json")):
            try:
                settings = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            runs[path.parent.name] = {**settings, "weights": (path.parent / "best.safetensors").is_file()}
        return {"runs": runs} if runs else {}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train until the epochs asked for are done.

        Returns:
            the run, its folder, the number of cases, what was left out and the weights.

        Raises:
            Fault: a parameter or a file that cannot be used, or the workflow failed.
        """
        refuse_misspelt(request, self.config())
        scale = int(choice(request, "scale", ("2", "4")))
        folder = self.runs / _run_name(text(request, "run", f"x{scale}"))
        numbers = {name: whole(request, name, default, least=int(name != "seed")) for name, default in NUMBERS.items()}
        share, patient = fraction(request, "validation_share", 0.1), text(request, "patient", PATIENT)
        rules = name_rules(text(request, "names", self.names))
        data = training_data(datastore, rules)
        for finding in data.left_out:
            logger.warning("left out: %s", finding)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                check_settings(folder, {"scale": scale, **numbers})
                counts = write_training_data(folder, data, share, numbers["seed"], patient)
                logger.info("run %s in %s: %s", folder.name, folder, counts)
                _train(folder, {"scale": scale, **numbers})
        except Timeout:
            raise Fault(folder, "this run is being trained", "wait for it, or stop it by DELETE /train/") from None
        return {"run": folder.name, "cases": counts, "left_out": data.left_out, "weights": str(folder / "best.safetensors")}


def _run_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise UsageFault("run", f"{name!r} is no name (letters, digits, _ and -, at most 64)", "run mine")
    return name


def _train(folder: Path, options: dict[str, Any]) -> None:
    """Run train.yaml: in a process that shares nothing with the server but its output, which MONAI Label shows as the task's status."""
    config = BUNDLE / "configs" / "train.yaml"
    arguments = {"config_file": str(config), "dataset_dir": str(folder), "output_dir": str(folder), **options}
    path = os.pathsep.join(filter(None, [str(BUNDLE), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-c", WORKFLOW, json.dumps(arguments)]
    code = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
    if code:
        raise Fault(folder, f"training ended with exit code {code}", "its last lines, above or in the server's log, say why")
