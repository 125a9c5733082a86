"""Memory that a case will need, from headers alone, and memory that there is."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hftn_sr.allocator import MMAP_THRESHOLD, TRIM_THRESHOLD, set_allocator
from hftn_sr.errors import Fault
from hftn_sr.networks.transfer_attention import TransferAttention
from hftn_sr.volumes.nifti import VolumeHeader
from hftn_sr.volumes.resampling import plan, same_grid
from hftn_sr.volumes.scratch import BLOCK, IN_MEMORY
from hftn_sr.volumes.volume import Grid

__all__ = [
    "Demand",
    "available",
    "check_memory",
    "check_room",
    "demand",
    "limit_memory",
    "measured_peak",
    "network_bytes",
    "reset_peak",
    "reuse_freed_memory",
]

# Measured on volumes of 0.1 to 200 million voxels, with both shipped networks, at both scales (tests/inference/test_memory.py).
LIBRARIES = 128 << 20  # bytes that libraries take on their first use, and the heap, whose blocks below 32 MB are freed in pieces
SPARE = 1.1  # what the allocator holds beyond what is asked for
OF_BOX, OF_BLOCK = 20, 12  # bytes for each voxel of the reference and of the grid that are resampled at a time
SITK_REGISTRATION = 110 << 20  # bytes that SimpleITK takes when it is loaded, and keeps
OF_REGISTRATION = 60  # bytes for each voxel of target and reference that rigid registration looks at
IN_PIECES = 1.2  # what the allocator holds beyond a network's features, freed in pieces that later ones do not fit
SCRATCH = 3.2  # times as much of a network with a search: in bfloat16 1024 x 1024 voxels take 2.18 GB, of which 0.70 GB are live tensors
OF_WEIGHTS = 2  # copies of a network's weights, as convolutions lay them out for themselves
OF_FFT = 48  # bytes for each voxel of the slice that is in hand: spectra in double precision
PROBES = (128, 192)  # sides of the slices at which a network's memory is measured; on smaller ones, weights outweigh features
LARGEST_REUSED = 32 << 20  # bytes; larger tensors go back to the system at once, as glibc has it by itself
NEAR = 0.8  # share of the memory available from which on the user is warned


@dataclass(frozen=True)
class Demand:
    """Memory that a case needs, in bytes.

    Args:
        peak: peak of the whole process.
        more: part of the peak that the process does not have yet.
        available: memory that it can still get; None where unknown.
    """

    peak: int
    more: int
    available: int | None

    @property
    def fits(self) -> bool:
        """Whether there is as much, as far as is known."""
        return self.available is None or self.more <= self.available

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the user."""
        if self.available is None or self.more <= NEAR * self.available:
            return ()
        return (f"this case needs {_gb(self.more)} more memory and {_gb(self.available)} is free; close other programs if it is slow",)


def demand(
    target: VolumeHeader, reference: VolumeHeader | None, grid: Grid, slice_size: tuple[int, int], network: nn.Module, device: str
) -> tuple[Demand, Demand]:
    """Peak memory of a case whose voxels are not read yet, without and with registration of the reference.

    Args:
        target: low-resolution header.
        reference: high-resolution header; None for none.
        grid: grid of the result.
        slice_size: (H, W) of a slice of the result.
        network: network as it will be applied, on its device.
        device: device of the network; only memory of the CPU counts.
    """
    low, result = 4 * _count(target.grid), 4 * _count(grid)
    kept = result if result <= IN_MEMORY else BLOCK
    pixels = slice_size[0] * slice_size[1]
    placing = registering = of_reference = of_sitk = 0
    if reference:
        resampling = BLOCK
        if not same_grid(reference.grid, grid):
            resampling = max(OF_BOX * _voxels(box) + OF_BLOCK * _voxels(place) for place, box in plan(reference.grid, grid))
        high, of_reference = 4 * _count(reference.grid), kept
        placing = high + kept + resampling
        registering = high + OF_REGISTRATION * _registered(target.grid, reference.grid)
        of_sitk = 0 if "SimpleITK" in sys.modules else SITK_REGISTRATION
    of_network = network_bytes(network, *slice_size) if torch.device(device).type == "cpu" else 0
    later = kept + of_reference + max(of_network + OF_FFT * pixels, 2 * BLOCK)
    free, used = available(), _status("VmRSS")

    def at_peak(of_placing: int, of_libraries: int) -> Demand:
        more = int(SPARE * (low + max(of_placing, later))) + of_libraries
        return Demand(used + more, more, free)

    return at_peak(placing, LIBRARIES), at_peak(max(placing, registering), LIBRARIES + of_sitk)


def check_memory(path: Path, needed: Demand) -> None:
    """Refuse a case that does not fit the memory.

    Raises:
        Fault: it needs more memory than there is.
    """
    if not needed.fits:
        finding = f"too large for the memory (needs {_gb(needed.more)}, {_gb(needed.available or 0)} is free)"
        raise Fault(path, finding, _cure())


def _cure() -> str:
    fewer = "" if _share is None else "fewer workers at a time, "
    return f"{fewer}close other programs, use a machine with more memory, or crop both images to the part of interest"


def check_room(target: VolumeHeader) -> None:
    """Refuse a target, before its voxels are read, whose voxels alone do not fit the memory.

    Raises:
        Fault: it needs more memory than there is.
    """
    check_memory(target.path, Demand(0, 4 * _count(target.grid), available()))


def network_bytes(network: nn.Module, height: int, width: int) -> int:
    """Memory of a network for one slice: measured on two small slices and extrapolated in proportion to the number of voxels."""
    parameter = next(network.parameters(), torch.zeros(0))
    small, large = (_live_bytes(network, torch.zeros(1, 3, side, side, device=parameter.device)) for side in PROBES)
    each = (large - small) / (PROBES[1] ** 2 - PROBES[0] ** 2)
    weights = sum(tensor.nbytes for tensor in network.parameters())
    scratch = SCRATCH if any(isinstance(module, TransferAttention) for module in network.modules()) else 1.0
    return int(scratch * IN_PIECES * max(each * height * width + small - each * PROBES[0] ** 2, 0)) + OF_WEIGHTS * weights


def available() -> int | None:
    """Bytes that this process can still get from the machine and from its control group; None if unknown."""
    found = [value for value in (_of_machine(), *map(_of_group, GROUPS), _of_share()) if value is not None]
    return min(found, default=None)


_share: int | None = None  # bytes that this process may have in all; None for no limit


def reuse_freed_memory() -> bool:
    """Set the allocator of this process to the limits that glibc finds by itself for large tensors, whatever the environment asks for.

    Dask starts its workers with `MALLOC_TRIM_THRESHOLD_`, which also ends glibc's own adaptation: each tensor then is memory that the
    system hands out anew, page by page, each filled with zeros (docs/scaling.md).

    Returns:
        True where that was done: with glibc (Linux).
    """
    return set_allocator((MMAP_THRESHOLD, LARGEST_REUSED), (TRIM_THRESHOLD, 2 * LARGEST_REUSED))


def limit_memory(share: int | None) -> None:
    """From now on this process counts on so many bytes in all, because others run beside it; None for no limit."""
    global _share
    _share = share


def _of_share() -> int | None:
    return None if _share is None else max(_share - _status("VmRSS"), 0)


def reset_peak() -> None:
    """Restart `measured_peak`, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def measured_peak() -> int | None:
    """Largest resident memory of this process since `reset_peak`, or since its start, in bytes; None where unknown."""
    if peak := _status("VmHWM"):
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


GROUPS: tuple[tuple[str, str], ...] = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to exclude it from compilation, torch would import its compiler, which takes longer than some cases."""
        return False

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def _live_bytes(network: nn.Module, image: torch.Tensor) -> int:
    with torch.inference_mode(), _Live() as live:
        network(image.clone())
    return live.peak


def _count(grid: Grid) -> int:
    x, y, z = grid.shape
    return x * y * z


def _voxels(place: tuple[slice, slice, slice]) -> int:
    x, y, z = (part.stop - part.start for part in place)
    return x * y * z


def _registered(target: Grid, reference: Grid) -> int:
    """Voxels of both at the finest level of the registration, 1 mm."""
    return sum(int(_count(grid) * min(1.0, float(grid.spacing.prod()))) for grid in (target, reference))


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_group(files: tuple[str, str]) -> int | None:
    try:
        limit, used = (Path(file).read_text(encoding="ascii").strip() for file in files)
        return max(int(limit) - int(used), 0)
    except (OSError, ValueError):  # no control group, or "max": no limit
        return None


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
