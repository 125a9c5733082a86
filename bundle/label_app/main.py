"""MONAI Label app of this bundle: monailabel start_server --app <bundle>/label_app --studies <folder of images>."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parents[1]
if (BUNDLE / "hftn_sr").is_dir():  # not so where pip installed the package
    sys.path.insert(0, str(BUNDLE))  # the package of this very bundle, from wherever it was unpacked

# ruff: noqa: E402 - the path must be there first
from fastapi import HTTPException
from hftn_sr_label.choosing import BatchOfPairs, NextTarget
from hftn_sr_label.infer import SuperResolve
from hftn_sr_label.pairing import NAMES, Forbidden, NotFound, find_pair, name_rules
from hftn_sr_label.parameters import refuse_misspelt, switch, text
from hftn_sr_label.train import TrainPairs
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

import hftn_sr
from hftn_sr._bundle import BUNDLE as LOADED
from hftn_sr.errors import Fault, UsageFault

MODEL = "hftn_sr"

logger = logging.getLogger(__name__)


class Kept(Fault):
    """A label exists and may not be replaced."""


class SuperResolutionApp(MONAILabelApp):
    """Super-resolution of an image with the help of another contrast.

    Args:
        app_dir: this folder.
        studies: folder of images.
        conf: settings: `names`, rules for the names of references, see `pairing.name_rules`; `runs`, folder of trained runs, by default
            `model/runs` of this folder.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        if LOADED.resolve() != BUNDLE:
            finding = f"{BUNDLE}: this process already runs the hftn_sr of {LOADED}. Fix: serve each copy of the bundle by its own server."
            raise MONAILabelException(MONAILabelError.APP_INIT_ERROR, finding)
        self.names = conf.get("names", NAMES)
        name_rules(self.names)  # a wrong one ends the start, not every request
        self.runs = Path(conf.get("runs") or Path(app_dir) / "model" / "runs").absolute()
        super().__init__(
            app_dir,
            studies,
            conf,
            name="HFTN-SR",
            description="Multi-contrast super-resolution of MR images. Research use only. Not for clinical use.",
            version=hftn_sr.__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """The inference task."""
        return {MODEL: SuperResolve(self.names, self.runs)}

    def init_trainers(self) -> dict[str, TrainTask]:
        """The training task."""
        return {MODEL: TrainPairs(self.names, self.runs)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Choice of the next image, which is never a reference."""
        return {"next_target": NextTarget(self.names)}

    def init_batch_infer(self) -> BatchOfPairs:
        """Inference on all targets."""
        return BatchOfPairs(self.names)

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Super-resolve a pair; a failure is an HTTP error with one line that names file, finding and cure.

        Raises:
            HTTPException: 400 wrong parameter, 403 path outside of the datastore, 404 no such model, image or reference, 409 a saved label
                would be lost, 422 files that cannot be used, 500 internal fault.
        """
        if request.get("model") not in self._infers:
            raise HTTPException(404, f"{request.get('model')}: no such model (there is {MODEL}). Fix: POST /infer/{MODEL}.")
        try:
            return self._infer(request, datastore or self.datastore())
        except Fault as fault:
            logger.warning("refused: %s", fault)
            raise HTTPException(_status(fault), str(fault)) from None
        except HTTPException:
            raise
        except Exception as error:
            logger.exception("inference failed")
            detail = f"{request.get('image')}: internal fault, {type(error).__name__}: {error}. Fix: see the server's log and report it."
            raise HTTPException(500, detail) from None

    def _infer(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        refuse_misspelt(request, self._infers[MODEL].config())
        image = request.get("image")
        if not isinstance(image, str) or not image:
            raise UsageFault("image", "is missing, or its session is over", f"POST /infer/{MODEL}?image=ID")
        roots = [Path(self.studies)] if Path(self.studies).is_dir() else []
        if request.get("session") and self.sessions() is not None:
            roots.append(Path(self.sessions().store_path))
        rules = name_rules(text(request, "names", self.names))
        pair = find_pair(datastore, image, text(request, "reference", ""), rules, roots)
        save, tag = switch(request, "save_label", False), text(request, "label_tag", DefaultLabelTag.ORIGINAL.value)
        if save:
            self._check_label(datastore, image, tag, switch(request, "overwrite", False))
        # The path makes MONAI Label leave the saving to us: it would copy over a label that is there.
        result = super().infer({**request, "image": str(pair.target), "pair": pair}, datastore)
        if save:
            info = {"model": MODEL, "params": result["params"]}
            result |= {"label": datastore.save_label(image, result["file"], tag, info), "tag": tag}
        return result

    def _check_label(self, datastore: Datastore, image: str, tag: str, overwrite: bool) -> None:
        if not datastore.get_image_uri(image):
            raise UsageFault("save_label", f"{image} is no ID of the datastore", "give an ID as image, or leave save_label out")
        if tag in datastore.get_labels_by_image_id(image) and not overwrite:
            raise Kept(image, f"has a label of tag {tag} already", "give overwrite true, or another label_tag")

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Train; a failure is one line in the task's status, or in the answer if the client waits for it."""
        try:
            return super().train(request)
        except Fault as fault:
            if self._server_mode:
                raise HTTPException(_status(fault), str(fault)) from None
            sys.stderr.write(f"ERROR {fault}\n")
            raise SystemExit(fault.exit_code) from None


def _status(fault: Fault) -> int:
    kinds = {NotFound: 404, Forbidden: 403, Kept: 409, UsageFault: 400}
    return next((status for kind, status in kinds.items() if isinstance(fault, kind)), 422)
