"""Images for a person or a batch: targets with a reference, never references."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.strategy import Strategy

from hftn_sr_label.pairing import name_rules, paired_images
from hftn_sr_label.parameters import text

__all__ = ["BatchOfPairs", "NextTarget"]

logger = logging.getLogger(__name__)


class NextTarget(Strategy):
    """The first target, by name, that has a reference and no result yet.

    Args:
        names: the name rules, as text, which a request may replace.
    """

    def __init__(self, names: str) -> None:
        super().__init__("The next target that has a reference and no result yet")
        self.names = names

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, str] | None:
        """Its ID; None where there is none left."""
        pairs = paired_images(datastore, name_rules(text(request, "names", self.names)))
        left = sorted(image_id for image_id in pairs if not datastore.get_labels_by_image_id(image_id))
        return {"id": left[0]} if left else None


class BatchOfPairs(BatchInferTask):
    """All targets that have a reference; one that cannot be used does not stop the rest.

    Args:
        names: the name rules, as text, which a request may replace.
    """

    def __init__(self, names: str) -> None:
        self.names = names

    def get_images(self, request: Mapping[str, Any], datastore: Datastore) -> list[str]:
        """IDs of the targets among the images that MONAI Label would take."""
        pairs = paired_images(datastore, name_rules(text(request, "names", self.names)))
        return [image_id for image_id in super().get_images(request, datastore) if image_id in pairs]

    def __call__(self, request: Mapping[str, Any], datastore: Datastore, infer: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        """Result by ID; of a failed one, `error`."""

        def tolerant(one: Mapping[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                return infer(one, store)
            except HTTPException as error:
                logger.error("%s", error.detail)
                return {"error": error.detail}

        if not torch.cuda.is_available():
            request = {**request, "multi_gpu": False}  # its default divides the images among no GPUs
        result: dict[str, Any] = super().__call__(request, datastore, tolerant)
        return result
