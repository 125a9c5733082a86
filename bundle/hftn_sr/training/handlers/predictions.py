"""Predictions of an evaluation as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from hftn_sr._version import NOTICE
from hftn_sr.errors import UsageFault
from hftn_sr.volumes.nifti import save_nifti
from hftn_sr.volumes.volume import Volume

__all__ = ["SavePredictions"]


class SavePredictions:
    """Write each `pred` (1, 1, H, W, D) as a NIfTI file that lies where the case's target lies, in the target's intensities.

    The first two axes of the file are in-plane, the third is through-plane. Its case is its name, followed by the acquisition where a case
    has several; an existing file is replaced.

    Args:
        folder: for the files; made if missing.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def attach(self, engine: Engine) -> None:
        """Act after each case. Attach to an evaluator whose `LoadPaird` has `placed: true`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write one file.

        Raises:
            UsageFault: the cases were read without their position.
        """
        batch: Any = engine.state.batch
        if "affine" not in batch:
            finding = "the cases were read without their position"
            raise UsageFault("SavePredictions", finding, "--validate#preprocessing#transforms#0#placed True")
        pred = engine.state.output["pred"][0, 0].float().cpu().numpy() * float(batch["unit"][0])
        volume = Volume(np.ascontiguousarray(pred, np.float32), batch["affine"][0].numpy())
        name = "_".join(batch[key][0] for key in ("case", "acquisition") if key in batch)
        save_nifti(self.folder / f"{name}.nii.gz", volume, NOTICE)
