"""The cases of a training, read once and kept in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from monai.data import CacheDataset

from hftn_sr.training.acquisitions import VALIDATED
from hftn_sr.training.transforms import AcquirePaird

__all__ = ["CachedCases"]

INTERVAL = 60.0  # seconds between two log lines


class CachedCases(CacheDataset):
    """MONAI's CacheDataset with a plain log line each minute while it reads, rather than a bar that fills a log file.

    For a validation of any acquisition it gives each case once for each of `VALIDATED`, with the name as `acquisition`. Volumes are kept
    in memory once; the low-resolution targets are simulated when they are asked for, see `AcquirePaird`.

    Args:
        data: cases.
        transform: their transforms; those up to the first random one are applied once.
        each_acquisition: give each case for each acquisition; `transform` then ends with `label` and `reference` (1, H, W, D).
        options: of CacheDataset.
    """

    def __init__(self, data: Any, transform: Any, each_acquisition: bool = False, **options: Any) -> None:
        self.told = time.monotonic()
        self.names = list(VALIDATED) if each_acquisition else []
        super().__init__(data, transform, progress=False, **options)

    def __len__(self) -> int:
        return len(self.data) * max(len(self.names), 1)

    def __getitem__(self, index: Any) -> Any:
        if not self.names or isinstance(index, (slice, Sequence)):
            return super().__getitem__(index)
        place, which = divmod(range(len(self))[index], len(self.names))
        case, name = super().__getitem__(place), self.names[which]
        return {**AcquirePaird(VALIDATED[name](case["label"].shape[1:3]))(case), "acquisition": name}

    def _load_cache_item(self, idx: int) -> Any:
        item = super()._load_cache_item(idx)
        if time.monotonic() - self.told >= INTERVAL:
            self.told = time.monotonic()
            logging.getLogger("hftn_sr.training").info(f"read {idx + 1} of {len(self.data)} cases")
        return item
