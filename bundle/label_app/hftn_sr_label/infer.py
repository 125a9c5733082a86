"""The inference task: a pair of files becomes a high-resolution one, as on the command line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from hftn_sr.api import super_resolve
from hftn_sr.errors import SCALES
from hftn_sr.inference.options import Register
from hftn_sr.networks.weights import shipped_names
from hftn_sr_label.pairing import Pair
from hftn_sr_label.parameters import choice, switch

__all__ = ["SuperResolve"]


class SuperResolve(InferTask):
    """Super-resolve a target with its reference; the result lies on the target's high-resolution grid.

    Its type is `others`: a client must load the result as an image, not as a segmentation.

    Args:
        names: the name rules, as text, which a request may replace.
        runs: folder of the trained runs, whose weights are offered beside the shipped ones.
    """

    def __init__(self, names: str, runs: Path) -> None:
        super().__init__(InferType.OTHERS, [], 3, "Multi-contrast super-resolution of MR images. Research use only. Not for clinical use.")
        self.names, self.runs = names, runs

    def is_valid(self) -> bool:
        """Whether it can be offered to clients."""
        return True

    def weights(self) -> dict[str, str]:
        """Choices of `weights`, shipped models and trained runs, and the `--model` of each; `base` first."""
        names = {name for scale in SCALES for name in shipped_names(scale)}
        shipped = sorted(names, key=lambda name: (name != "base", name))
        trained = {f"run:{path.parent.name}": str(path) for path in sorted(self.runs.glob("*/best.safetensors"))}
        return {**{name: name for name in shipped}, **trained}

    def config(self) -> dict[str, Any]:
        """Parameters with their choices, the default first."""
        return {
            "reference": "",
            "names": self.names,
            "scale": ["auto", "2", "4"],
            "weights": list(self.weights()),
            "register": list(get_args(Register)),
            "data_consistency": True,
        }

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Super-resolve the `Pair` in request["pair"].

        Returns:
            path of a temporary NIfTI file, which belongs to the caller, and what was done.

        Raises:
            Fault: a parameter or a file that cannot be used.
        """
        pair: Pair = request["pair"]
        scale = choice(request, "scale", ("auto", "2", "4"))
        weights = self.weights()
        register = choice(request, "register", get_args(Register))
        device, warnings = _device(request)
        with tempfile.TemporaryDirectory() as folder:
            outcome = super_resolve(
                pair.target,
                pair.reference,
                Path(folder) / "result.nii.gz",
                scale=None if scale == "auto" else int(scale),  # type: ignore[arg-type]
                model=weights[choice(request, "weights", weights)],
                device=device,  # type: ignore[arg-type]
                register=register,  # type: ignore[arg-type]
                data_consistency=switch(request, "data_consistency", True),
                preview=False,
            )
            handle, path = tempfile.mkstemp(prefix=f"{pair.name[:100]}_sr_", suffix=".nii.gz")
            os.close(handle)
            Path(path).write_bytes(outcome.output.read_bytes())
        if request.get("result_extension") not in (None, "", ".nii.gz"):
            warnings.append(f"result_extension {request['result_extension']} was asked for, results are .nii.gz")
        reference = {"file": pair.reference.name, "found": pair.how}
        return path, {"warnings": [*outcome.warnings, *warnings], "reference": reference, "record": outcome.record}


def _device(request: Mapping[str, Any]) -> tuple[str, list[str]]:
    """`auto`, `cpu` or `cuda`, with warnings. MONAI Label's clients ask for `cuda` by default, so that a missing one cannot be an error."""
    asked = str(request.get("device") or "auto").partition(":")[0]
    if asked == "cuda" and not torch.cuda.is_available():
        return "cpu", ["device cuda was asked for, there is none: computed on the CPU"]
    return choice({"device": asked}, "device", ("auto", "cpu", "cuda")), []
