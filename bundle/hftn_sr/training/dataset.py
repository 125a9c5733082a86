"""The cases of a training, read once and kept in memory."""

from __future__ import annotations

import logging
import time
from typing import Any

from monai.data import CacheDataset

__all__ = ["CachedCases"]

INTERVAL = 60.0  # seconds between two log lines


class CachedCases(CacheDataset):
    """MONAI's CacheDataset with a plain log line each minute while it reads, rather than a bar that fills a log file.

    Args:
        data: cases.
        transform: their transforms; those up to the first random one are applied once.
        options: of CacheDataset.
    """

    def __init__(self, data: Any, transform: Any, **options: Any) -> None:
        self.told = time.monotonic()
        super().__init__(data, transform, progress=False, **options)

    def _load_cache_item(self, idx: int) -> Any:
        item = super()._load_cache_item(idx)
        if time.monotonic() - self.told >= INTERVAL:
            self.told = time.monotonic()
            logging.getLogger("hftn_sr.training").info(f"read {idx + 1} of {len(self.data)} cases")
        return item
