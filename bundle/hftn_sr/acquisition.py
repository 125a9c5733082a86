r"""What a scan kept of the image that it could have measured, axis by axis, and everything that follows from it.

An acquisition A takes an image x on the result's grid to the target y = A x on the scan's own grid. Along each axis it keeps all
(`Full`), the central n of N samples of k-space (`KSpace`), or slices of some thickness at some spacing (`Slices`). It is linear, real,
separable, and a constant stays the same constant. With Z for `Acquisition.interpolate`, along axes of k-space

.. math::
    A Z = 1, \qquad A (x - Z A x) = 0, \qquad A (x + Z (y - A x)) = y .

Both grids have the same field of view. Along an axis of k-space their samples 0 lie at the same place, as in `hftn_sr.kspace`; across
slices the outer faces of the first and of the last one do, so that six slices of 4 mm cover twenty-four of 1 mm.

Images are real tensors, float32 or float64, in any intensity unit. An acquisition acts on their last axes, as many as it has; the axes
before are a batch. Magnitudes, as a scanner stores them, are the caller's `abs()`. Thickness and spacing count in voxels of the result's
grid, since a tensor knows no millimetres; `inference.acquired` comes from millimetres and `Acquisition.describe` goes back to them.
These functions know whole images only: a patch is no image (see `hftn_sr.kspace`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from operator import index
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hftn_sr.errors import UsageFault
from hftn_sr.kspace import FWHM_TO_SIGMA

__all__ = ["Acquisition", "Axis", "Full", "KSpace", "Profile", "Slices", "parse_sizes"]

Profile = Literal["gaussian", "box"]

LOBES = 3  # of the windowed sinc between slices, measured beside linear, cubic and other lobes (docs/design-log.md)
REACH = 5  # standard deviations after which a Gaussian profile is cut off
DAMPING = 0.1  # of a back-projection, as a share of a slice's own weight in it
WHOLE = 1e-6  # of a slice, by which the slices may miss the field of view


@dataclass(frozen=True)
class Full:
    """An axis along which nothing is lost."""

    def count(self, size: int) -> int:
        """Samples that are kept of `size`."""
        return size

    def first(self, size: int) -> float:
        """Place of the first kept sample among `size`, as an index."""
        return 0.0

    def simulate(self, image: Tensor, dim: int) -> Tensor:
        """What the scan keeps of `image` along its axis `dim`."""
        return image

    def interpolate(self, measured: Tensor, dim: int, size: int) -> Tensor:
        """`measured` on `size` samples along its axis `dim`."""
        return measured


@dataclass(frozen=True)
class KSpace:
    """An axis of which the central samples of k-space were measured.

    Args:
        samples: number n of the N samples, 1 to N, odd or even.

    Raises:
        ValueError: not a whole number, or below 1.
    """

    samples: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", _whole("number of k-space samples", self.samples))

    def count(self, size: int) -> int:
        """Samples that are kept of `size`."""
        if self.samples > size:
            raise ValueError(f"expected at most {size} samples of k-space, as many as the image has, got {self.samples}")
        return self.samples

    def first(self, size: int) -> float:
        """Place of the first kept sample among `size`, as an index."""
        return 0.0

    def simulate(self, image: Tensor, dim: int) -> Tensor:
        """What the scan keeps of `image` along its axis `dim`.

        An even number's Nyquist bin is the sum of the two bins at plus and minus that frequency, as in `kspace.truncate`.
        """
        size, kept = image.shape[dim], self.count(image.shape[dim])
        if kept == size:
            return image
        spectrum = torch.fft.rfft(image, dim=dim).narrow(dim, 0, kept // 2 + 1)
        low: Tensor = torch.fft.irfft(_times_nyquist(spectrum, dim, kept, 2), n=kept, dim=dim)
        return low * (kept / size)

    def interpolate(self, measured: Tensor, dim: int, size: int) -> Tensor:
        """`measured` on `size` samples along its axis `dim`, by zeros around its k-space.

        An even number's Nyquist bin is halved between plus and minus that frequency, as in `kspace.zero_fill`.
        """
        kept = self.count(size)
        if kept == size:
            return measured
        spectrum = _times_nyquist(torch.fft.rfft(measured, dim=dim), dim, kept, 0.5)
        filled: Tensor = torch.fft.irfft(spectrum, n=size, dim=dim)
        return filled * (size / kept)


@dataclass(frozen=True)
class Slices:
    """An axis across slices, each the mean of the image under its profile. Beyond its outer faces the image goes on as its mirror image.

    Args:
        thickness: full width at half maximum of the profile, in voxels of the result.
        spacing: from one slice to the next, in voxels of the result; more than the thickness leaves gaps, less lets slices overlap.
        profile: `gaussian`, or `box`, which is the same all over the slice.

    Raises:
        ValueError: a thickness that is not positive, a spacing below one voxel, or an unknown profile.
    """

    thickness: float
    spacing: float
    profile: Profile = "gaussian"

    def __post_init__(self) -> None:
        object.__setattr__(self, "thickness", _size("slice thickness", self.thickness))
        object.__setattr__(self, "spacing", _size("slice spacing", self.spacing))
        if self.spacing < 1:
            raise ValueError(f"expected a slice spacing of at least one voxel of the result, got {self.spacing:g}")
        if self.profile not in get_args(Profile):
            raise ValueError(f"expected a slice profile 'gaussian' or 'box', got {self.profile!r}")

    def count(self, size: int) -> int:
        """Slices over `size` voxels."""
        count = round(size / self.spacing)
        if count < 1 or abs(size / self.spacing - count) > WHOLE * count:
            raise ValueError(f"expected a whole number of slices every {self.spacing:g} voxels, got {size} voxels")
        return count

    def first(self, size: int) -> float:
        """Place of the centre of the first slice among `size` voxels, as an index."""
        return (size / self.count(size) - 1) / 2

    def simulate(self, image: Tensor, dim: int) -> Tensor:
        """The slices of `image` along its axis `dim`."""
        return _along(_profiles(self, image.shape[dim]), image, dim)

    def interpolate(self, measured: Tensor, dim: int, size: int) -> Tensor:
        """`measured` on `size` voxels along its axis `dim`, by a windowed sinc."""
        return _along(_between(self.count(size), size), measured, dim)

    def back_project(self, off: Tensor, dim: int, size: int, dims: int, limit: Tensor, steps: int) -> Tensor:
        """What to add to an image of `size` voxels along `dim`, of which the slices are `off` too low.

        Every step solves for the least change that mends the slices, damped: what is left of them shrinks in each direction, most in those
        that the profile passes well. Source: Landweber's iteration, preconditioned; iterated Tikhonov regularisation.

        Args:
            off: (..., m along `dim`, ...), of which the last `dims` axes are one image.
            dim: the axis across the slices.
            size: voxels along it.
            dims: number of axes of an image.
            limit: norm of `off` at which an image is done, with the axes of an image kept at size 1.
            steps: that are taken at most.
        """
        profiles = _profiles(self, size)
        damping, solve = _damped(self, size)
        change = torch.zeros_like(off)
        for _ in range(steps):
            if bool((_norm(off, dims) <= limit).all()):
                break
            step = _along(solve, off, dim)
            change = change + step
            off = damping * step
        return _along(profiles.T, change, dim)


Axis = Full | KSpace | Slices
KINDS: dict[str, type[Axis]] = {"full": Full, "kspace": KSpace, "slices": Slices}


@dataclass(frozen=True)
class Acquisition:
    """What a scan keeps, for each of the last axes of an image.

    Args:
        axes: in the order of the image's last axes.

    Raises:
        ValueError: no axis, or slices along more than one.
    """

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        if not self.axes or not all(isinstance(axis, Axis) for axis in self.axes):
            raise ValueError(f"expected at least one axis, each Full, KSpace or Slices, got {self.axes}")
        if sum(isinstance(axis, Slices) for axis in self.axes) > 1:
            raise ValueError("expected slices along one axis at most")

    @classmethod
    def from_scale(cls, scale: float | Sequence[float], shape: Sequence[int]) -> Acquisition:
        """K-space with a `scale` less samples than the result has.

        Args:
            scale: at least 1, for all axes or one for each: 2, (1, 2), 1.6.
            shape: sizes of the result; each axis keeps the whole number next to size / scale.

        Raises:
            ValueError: a scale below 1 or of which no sample is left, or as many scales as axes are missing.
        """
        scales = [scale] * len(shape) if isinstance(scale, (int, float)) else list(scale)
        if len(scales) != len(shape) or not all(math.isfinite(each) and each >= 1 for each in scales):
            raise ValueError(f"expected a scale of at least 1 for each of {len(shape)} axes, got {_by(scales)}")
        return cls.from_matrix([round(size / each) for size, each in zip(shape, scales, strict=True)], shape)

    @classmethod
    def from_matrix(cls, matrix: Sequence[int], shape: Sequence[int]) -> Acquisition:
        """K-space of which a central matrix was measured, axes that keep all of it being `Full`.

        Args:
            matrix: samples along each axis, as in (256, 205).
            shape: sizes of the result.

        Raises:
            ValueError: not one size for each axis, one below 1 or above the result's.
        """
        if len(matrix) != len(shape) or any(kept > size for kept, size in zip(matrix, shape, strict=False)):
            raise ValueError(f"expected a matrix within {_by(shape)}, got {_by(matrix)}")
        kept = [KSpace(samples) for samples in matrix]
        return cls(tuple(Full() if axis.samples == size else axis for axis, size in zip(kept, shape, strict=True)))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Acquisition:
        """The acquisition that `as_dict` described.

        Raises:
            ValueError: it describes none.
        """
        try:
            return cls(tuple(KINDS[axis["kind"]](**{key: axis[key] for key in axis if key != "kind"}) for axis in record["axes"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected the record of an acquisition, got {record!r}") from error

    def as_dict(self) -> dict[str, Any]:
        """For a JSON record."""
        names = {kind: name for name, kind in KINDS.items()}
        return {"axes": [{"kind": names[type(axis)], **asdict(axis)} for axis in self.axes]}

    def select(self, dims: Sequence[int]) -> Acquisition:
        """The acquisition of some axes, in another order: of the planes of a volume, or of a volume whose axes are permuted."""
        return Acquisition(tuple(self.axes[dim] for dim in dims))

    def measured_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Sizes of the target, from those of the result.

        Raises:
            ValueError: more k-space than the result has, slices that miss its outer faces, or another number of axes.
        """
        if len(shape) != len(self.axes):
            raise ValueError(f"expected {len(self.axes)} sizes, got {_by(shape)}")
        return tuple(axis.count(size) for axis, size in zip(self.axes, shape, strict=True))

    def ratios(self, shape: Sequence[int]) -> tuple[float, ...]:
        """Samples of the result for each of the target, axis by axis."""
        return tuple(size / kept for size, kept in zip(shape, self.measured_shape(shape), strict=True))

    def factor(self, shape: Sequence[int]) -> int:
        """The whole factor by which k-space lost samples along every axis, for networks that know no other loss.

        Raises:
            ValueError: there is none.
        """
        kept = self.measured_shape(shape)
        factor = shape[0] // kept[0]
        same = all(size == factor * samples for size, samples in zip(shape, kept, strict=True))
        if factor < 2 or not same or not all(isinstance(axis, KSpace) for axis in self.axes):
            raise ValueError(f"expected k-space smaller by the same whole factor along every axis, got {self.describe(shape)}")
        return factor

    def describe(self, shape: Sequence[int] | None = None, voxel: float | None = None) -> str:
        """In words: "measured 256 x 205 of 512 x 512, 4 mm slices every 5 mm".

        Args:
            shape: sizes of the result, if known.
            voxel: voxel size of the result across the slices in mm; without it thickness and spacing are given in voxels.
        """
        sizes = self.axes if shape is None else tuple(shape)
        lines = [(axis, size) for axis, size in zip(self.axes, sizes, strict=True) if not isinstance(axis, Slices)]
        parts = []
        if any(isinstance(axis, KSpace) for axis, _ in lines):
            kept = [axis.samples if isinstance(axis, KSpace) else "all" if shape is None else size for axis, size in lines]
            parts.append(f"measured {_by(kept)}" + ("" if shape is None else f" of {_by([size for _, size in lines])}"))
        for axis in self.axes:
            if isinstance(axis, Slices):
                thickness, spacing = (f"{length * (voxel or 1):.4g}" for length in (axis.thickness, axis.spacing))
                words = "{}-voxel slices every {} voxels" if voxel is None else "{} mm slices every {} mm"
                parts.append(words.format(thickness, spacing))
        return ", ".join(parts) or "nothing lost"

    def simulate(self, image: Tensor) -> Tensor:
        """y = A x, the target that this scan gives of an image.

        Args:
            image: (..., *shape), on the result's grid.

        Returns:
            (..., *measured_shape(shape)), real and signed: the small negative ringing stays.
        """
        self.measured_shape(self._shape(image))
        for dim, axis in self._dims():
            image = axis.simulate(image, dim)
        return image

    def interpolate(self, measured: Tensor, shape: Sequence[int]) -> Tensor:
        """z, the target on the result's grid: zeros around its k-space, a windowed sinc between its slices.

        Args:
            measured: (..., *measured_shape(shape)).
            shape: sizes of the result.

        Returns:
            (..., *shape).
        """
        if self._shape(measured) != self.measured_shape(shape):
            raise ValueError(f"expected a target of {_by(self.measured_shape(shape))}, got {_by(self._shape(measured))}")
        for dim, axis in self._dims():
            measured = axis.interpolate(measured, dim, shape[dim])
        return measured

    def split(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """The reference as this scan would show it, and the rest; both (..., *shape).

        Source: HFTN-SR, high-low frequency decomposition (section 2.2), for any loss of resolution.
        """
        low = self.interpolate(self.simulate(reference), self._shape(reference))
        return low, reference - low

    def project(self, image: Tensor, measured: Tensor, tolerance: float = 1e-3, steps: int = 100) -> Tensor:
        """The least change of `image` after which the scan would give the measured target.

        Along axes of k-space the measured band replaces the image's, exactly. Slices are back-projected until they agree to the
        tolerance, and no further. Where they overlap, back-projection undoes a blur and multiplies their noise: one step then takes most of
        the gain and little of the noise (docs/design-log.md).

        Args:
            image: (..., *shape).
            measured: (..., *measured_shape(shape)).
            tolerance: L2 distance from the measured slices at which to stop, relative to their norm, for each image of a batch.
            steps: of back-projection at most. Three are enough without overlap; slices that overlap by more than half may need more
                than the default, and `residual` tells.

        Returns:
            (..., *shape). The residual falls from step to step.
        """
        shape = self._shape(image)
        if self._shape(measured) != self.measured_shape(shape):
            raise ValueError(f"expected a target of {_by(self.measured_shape(shape))}, got {_by(self._shape(measured))}")
        change = measured - self.simulate(image)
        limit = tolerance * _norm(measured, len(shape))
        for dim, axis in sorted(self._dims(), key=lambda each: not isinstance(each[1], Slices)):  # slices first: the limit is the target's
            if isinstance(axis, Slices):
                change = axis.back_project(change, dim, shape[dim], len(shape), limit, steps)
            else:
                change = axis.interpolate(change, dim, shape[dim])
        return image + change

    def residual(self, image: Tensor, measured: Tensor) -> float:
        """Relative L2 distance between what the scan gives of `image` and the measured target; 0 is consistent."""
        norm = torch.linalg.vector_norm(measured.double())
        off = torch.linalg.vector_norm((self.simulate(image) - measured).double())
        return float(off / norm.clamp_min(torch.finfo(torch.float64).tiny))

    def index_map(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """(d + 1, d + 1), index on the target's grid to index on the result's grid of d axes and sizes `shape`."""
        matrix = np.diag([*self.ratios(shape), 1.0])
        matrix[:-1, -1] = [axis.first(size) for axis, size in zip(self.axes, shape, strict=True)]
        return matrix

    def measured_affine(self, affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
        """Affine of the target, from that of the result and its sizes."""
        return affine @ self.index_map(shape)

    def result_affine(self, affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
        """Affine of the result of sizes `shape`, from that of the target."""
        return affine @ np.linalg.inv(self.index_map(shape))

    def _dims(self) -> Iterator[tuple[int, Axis]]:
        return zip(range(-len(self.axes), 0), self.axes, strict=True)

    def _shape(self, image: Tensor) -> tuple[int, ...]:
        if image.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"expected a real image in float32 or float64, got {image.dtype}")
        if image.ndim < len(self.axes):
            raise ValueError(f"expected an image of at least {len(self.axes)} axes, got {image.ndim}")
        return tuple(image.shape[-len(self.axes) :])


def parse_sizes(option: str, text: str) -> tuple[float, ...]:
    """The numbers of an option such as `--scale 1x2`, `--acquired "256 x 205"` or `--voxel 0.5x0.5x1`.

    Raises:
        UsageFault: anything but one to three positive numbers with an x between them.
    """
    try:
        sizes = tuple(float(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        sizes = ()
    if not 1 <= len(sizes) <= 3 or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise UsageFault(option, f"{text!r} (need one to three positive numbers with an x between them)", f"{option} 2 or {option} 1x2")
    return sizes


def _whole(name: str, value: int) -> int:
    try:
        number = 0 if isinstance(value, bool) else index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"expected a {name} of at least 1, got {value!r}")
    return number


def _size(name: str, value: float) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except TypeError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"expected a positive {name}, got {value!r}")
    return number


def _by(sizes: Sequence[object]) -> str:
    return " x ".join(f"{size:g}" if isinstance(size, float) else str(size) for size in sizes)


def _norm(image: Tensor, dims: int) -> Tensor:
    """L2 norm over the last axes, which stay with size 1; without gradient."""
    return torch.linalg.vector_norm(image.detach(), dim=tuple(range(-dims, 0)), keepdim=True)


def _times_nyquist(spectrum: Tensor, dim: int, size: int, weight: float) -> Tensor:
    """The half spectrum of `size` samples along `dim`, its Nyquist bin weighted where there is one."""
    if size % 2:
        return spectrum
    return torch.cat([spectrum.narrow(dim, 0, size // 2), spectrum.narrow(dim, size // 2, 1) * weight], dim)


def _along(matrix: Tensor, image: Tensor, dim: int) -> Tensor:
    """A matrix (out, in) applied along axis `dim`, counted from the last, of an image."""
    matrix = matrix.to(image, copy=True)  # one that was first made in inference mode could not be differentiated through
    if dim == -1:
        return image @ matrix.T
    behind = image.shape[dim + 1 :]
    return (matrix @ image.flatten(dim + 1)).unflatten(-1, behind)


@lru_cache(maxsize=32)
def _profiles(axis: Slices, size: int) -> Tensor:
    """(m, size), weights of the voxels in each slice; float64, rows add up to 1."""
    count = axis.count(size)
    centres = (torch.arange(count, dtype=torch.float64)[:, None] + 0.5) * (size / count)
    sigma = max(math.sqrt(max((axis.thickness * FWHM_TO_SIGMA) ** 2 - 1 / 12, 0)), 1e-6)  # a voxel's own width is in it already
    reach = math.ceil(axis.thickness / 2 if axis.profile == "box" else REACH * sigma) + 1
    voxels = torch.arange(-reach, size + reach)
    offsets = torch.arange(-reach, size + reach + 1) - centres  # of the faces between voxels
    if axis.profile == "box":
        passed = offsets.clamp(-axis.thickness / 2, axis.thickness / 2)
    else:
        passed = torch.special.erf(offsets / (sigma * math.sqrt(2)))
    return _folded(passed.diff(dim=1), voxels, size)


@lru_cache(maxsize=32)
def _between(count: int, size: int) -> Tensor:
    """(size, count), a windowed sinc through slices that cover the same field of view as `size` voxels; float64, rows add up to 1.

    Source: Lanczos' window, as in Duchon 1979, doi 10.1175/1520-0450(1979)018<1016:LFIOAT>2.0.CO;2.
    """
    positions = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * (count / size) - 0.5
    slices = torch.arange(-LOBES, count + LOBES)
    offsets = (positions - slices).clamp(-LOBES, LOBES)
    return _folded(torch.sinc(offsets) * torch.sinc(offsets / LOBES), slices, count)


def _folded(weights: Tensor, places: Tensor, size: int) -> Tensor:
    """Weights (rows, places) as a matrix (rows, size), for an axis that goes on as its mirror image behind both outer faces."""
    inside = places % (2 * size)
    inside = torch.minimum(inside, 2 * size - 1 - inside)
    matrix = weights.new_zeros(len(weights), size).index_add(1, inside, weights)
    return matrix / matrix.sum(1, keepdim=True)


@lru_cache(maxsize=32)
def _damped(axis: Slices, size: int) -> tuple[float, Tensor]:
    """The damping of a back-projection, and the (m, m) matrix of a step, from what slices lack to how much of each profile is added."""
    profiles = _profiles(axis, size)
    gram = profiles @ profiles.T
    damping = DAMPING * float(gram.diagonal().mean())
    return damping, torch.linalg.inv(gram + damping * torch.eye(len(gram), dtype=gram.dtype))
