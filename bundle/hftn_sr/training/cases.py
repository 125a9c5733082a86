"""The cases that a training is scored on."""

from __future__ import annotations

from typing import Any

from monai.data import CacheDataset

from hftn_sr.training.acquisitions import VALIDATED
from hftn_sr.training.transforms import AcquirePaird

__all__ = ["EachAcquisition"]


class EachAcquisition(CacheDataset):
    """CacheDataset that gives each case once for each of `VALIDATED`, with the name as `acquisition`; as it is if not `expand`.

    Volumes are kept in memory once; the low-resolution targets are simulated when they are asked for, see `AcquirePaird`.

    Args:
        data: cases.
        transform: up to `label` and `reference` (1, H, W, D); if not `expand`, all of the preprocessing.
        expand: False for training and scoring at one scale.
        options: of CacheDataset.
    """

    def __init__(self, data: Any, transform: Any, expand: bool, **options: Any) -> None:
        self.names = list(VALIDATED) if expand else []
        super().__init__(data, transform, **options)

    def __len__(self) -> int:
        return len(self.data) * max(len(self.names), 1)

    def __getitem__(self, index: Any) -> Any:
        if not self.names:
            return super().__getitem__(index)
        place, which = divmod(range(len(self))[index], len(self.names))
        case, name = super().__getitem__(place), self.names[which]
        return {**AcquirePaird(VALIDATED[name](case["label"].shape[1:3]))(case), "acquisition": name}
