"""What a result holds beyond what was measured: the detail that the network added."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hftn_sr.acquisition import Acquisition, Full, Slices
from hftn_sr.inference.acquired import Acquired

__all__ = ["added_detail"]


def added_detail(image: NDArray[np.float32], acquired: Acquired, into: NDArray[np.float32]) -> None:
    r"""Fill `into` with the part of an image that its scan does not show, of the result or of its reference.

    .. math:: x - Z A x

    Along axes of k-space that is everything outside the measured band; across slices it is what the slices, interpolated again, do not
    show. `into` and what the scan shows add up to the image, to the rounding of float32.

    Args:
        image: (X, Y, Z), in any unit.
        acquired: what the scan kept of its axes.
        into: of the same shape, in the same unit.
    """
    through, first, second = acquired.axes
    across: list[Slices | Full] = [axis if isinstance(axis, Slices) else Full() for axis in acquired.kept.axes]
    in_plane = acquired.kept.select([first, second])
    source = image
    if acquired.thick:
        _shown(source, Acquisition(tuple(across)).select([through, second]), first, (through, second), into)
        source = into
    if acquired.in_plane:
        _shown(source, in_plane, through, (first, second), into)
    for index in range(image.shape[through]):
        place = tuple(index if axis == through else slice(None) for axis in range(3))
        into[place] = image[place] - (into[place] if acquired.thick or acquired.in_plane else image[place])


def _shown(image: NDArray[np.float32], kept: Acquisition, fixed: int, axes: tuple[int, int], into: NDArray[np.float32]) -> None:
    """What a scan shows of each plane of `image`; `into` may be the image itself."""
    planes, places = image.transpose(fixed, *axes), into.transpose(fixed, *axes)
    for index in range(len(planes)):
        plane = torch.from_numpy(np.ascontiguousarray(planes[index])).double()
        places[index] = kept.split(plane)[0].float().numpy()
