"""Rigid registration of a reference to a target of the same patient, for pairs whose headers disagree by a movement."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - as all its users call it
from numpy.typing import NDArray

from hftn_sr.volumes.placement import LPS_TO_RAS, similarity
from hftn_sr.volumes.volume import Volume

__all__ = ["Registration", "register_rigid"]

# Voxel size in mm, whether only the inner part counts, and the shortest step in mm. Coarse levels only have to bring the next one near.
LEVELS = ((8.0, False, 5e-2), (4.0, False, 5e-2), (2.0, True, 1e-4), (1.0, True, 1e-4))
INNER = 0.7  # size of the inner part relative to the whole: of a head, the brain without skull and scalp
BINS = 32  # for the ten thousands of voxels of the coarse levels
ITERATIONS = 100
LONGEST_STEP = 0.5  # in voxels of the level
POLL = 0.1  # seconds between two requests to stop


@dataclass(frozen=True)
class Registration:
    """How a reference lies relative to a target.

    Args:
        matrix: (4, 4), target point to reference point in RAS+ mm, for `Volume.moved`; the identity where nothing was gained.
        similarity_before: normalised mutual information where the headers place the reference.
        similarity_after: normalised mutual information with the transform that the registration found, kept or not.
        kept: whether the registration made the two more alike, so that `matrix` is what it found.
        centre: (3,), centre of the target's grid, RAS+ mm.
    """

    matrix: NDArray[np.float64]
    similarity_before: float
    similarity_after: float
    kept: bool
    centre: NDArray[np.float64]

    @property
    def translation(self) -> float:
        """How far the target's centre is moved, in mm."""
        return float(np.linalg.norm(self.matrix[:3, :3] @ self.centre + self.matrix[:3, 3] - self.centre))

    @property
    def rotation(self) -> float:
        """Angle of the rotation in degrees, 0 to 180."""
        rotation = self.matrix[:3, :3]
        sine = np.linalg.norm(rotation - rotation.T) / np.sqrt(8)  # exact at small angles, where the cosine is not
        return float(np.rad2deg(np.arctan2(sine, (np.trace(rotation) - 1) / 2)))


def register_rigid(target: Volume, reference: Volume) -> Registration:
    """Find the rotation and translation that make the reference most alike to the target, from where the headers place it.

    Mutual information after Mattes et al. 2003 (doi 10.1109/TMI.2003.809072) is climbed from 8 mm down to 1 mm voxels. From 2 mm on only
    the inner part of the target counts: scalp, skull and background, which a chemical shift of fat may displace in each contrast
    differently, drew T2w brains up to 0.6 mm away from FLAIR. No random numbers and one thread: the result repeats exactly.

    By SimpleITK: the Python package itk loads all its classes of transforms and metrics first, 9 s of CPU and 700 MB for the same optimum.

    Args:
        target: low or high resolution, any spacing.
        reference: another contrast of the same patient, at most about 1 cm and 10 degrees away.
    """
    before = similarity(target, reference)
    matrix = _found(target, reference) if before > 1.0 else np.eye(4)
    after = similarity(target, reference.moved(matrix))
    kept = after > before
    return Registration(matrix if kept else np.eye(4), before, after, kept, _centre(target))


def _found(target: Volume, reference: Volume) -> NDArray[np.float64]:
    """(4, 4) RAS+ matrix of the registration, the identity where the search left the overlap of the two."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # several add up in a new order each time
    transform = sitk.Euler3DTransform()
    transform.SetCenter((LPS_TO_RAS[:3, :3] @ _centre(target)).tolist())
    try:
        for voxel, only_inner, shortest_step in LEVELS:
            _climb(_averaged(target, voxel), _averaged(reference, voxel), transform, LONGEST_STEP * voxel, shortest_step, only_inner)
    except RuntimeError:  # SimpleITK's word for no sample being left inside the reference
        return np.eye(4)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return LPS_TO_RAS @ matrix @ LPS_TO_RAS


def _climb(
    target: Volume, reference: Volume, transform: sitk.Euler3DTransform, longest_step: float, shortest_step: float, only_inner: bool
) -> None:
    """Improve the transform in place at one level of resolution.

    Gradient descent takes steps that move no part of the target further than `longest_step` mm, halves them at each turn, and ends when
    they are shorter than `shortest_step` mm.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    method.SetMetricSamplingStrategy(method.NONE)  # all voxels
    if only_inner:
        target, inner = _inner_part(target)
        method.SetMetricFixedMask(_image(target, inner.astype(np.uint8)))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=shortest_step,
        numberOfIterations=ITERATIONS,
        relaxationFactor=0.5,
        gradientMagnitudeTolerance=1e-8,
        estimateLearningRate=method.Once,
        maximumStepSizeInPhysicalUnits=longest_step,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    _execute(method, _image(target), _image(reference))


def _execute(method: sitk.ImageRegistrationMethod, target: sitk.Image, reference: sitk.Image) -> None:
    """Run a registration in a thread of its own: this one, which SimpleITK would keep for minutes, hears Ctrl-C and SIGTERM meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(method.Execute, target, reference)
        try:
            running.result()
        except BaseException:
            while not running.done():  # heard between two steps, of which the first may still be to come
                method.StopRegistration()
                wait([running], POLL)
            raise


def _averaged(volume: Volume, voxel: float) -> Volume:
    """The volume in blocks of voxels of about the given size in mm, which smooths it as well."""
    data, affine = volume.data, volume.affine.copy()
    blocks = np.maximum(1, np.minimum(np.round(voxel / volume.grid.spacing), data.shape)).astype(int)
    for axis, block in enumerate(blocks):
        count = data.shape[axis] // block
        whole = np.take(data, np.arange(count * block), axis=axis)
        data = whole.reshape(*data.shape[:axis], count, block, *data.shape[axis + 1 :]).mean(axis=axis + 1)
    affine[:3, 3] += affine[:3, :3] @ ((blocks - 1) / 2)
    affine[:3, :3] *= blocks
    return Volume(data, affine)


def _inner_part(target: Volume) -> tuple[Volume, NDArray[np.bool_]]:
    """The inner part of the target, an ellipsoid with the position and shape of its bright voxels made smaller, and the box around it."""
    bright = np.argwhere(target.data > target.data.mean())
    middle = bright.mean(axis=0)
    spread = np.linalg.pinv(np.cov((bright - middle).T))
    x, y, z = np.ogrid[tuple(slice(0, size) for size in target.data.shape)]
    x, y, z = x - middle[0], y - middle[1], z - middle[2]
    distance = spread[0, 0] * x * x + spread[1, 1] * y * y + 2 * spread[0, 1] * x * y
    distance = distance + z * (spread[2, 2] * z + 2 * spread[0, 2] * x + 2 * spread[1, 2] * y)
    inner = distance < 5 * INNER**2  # squared; 5 at the surface of a solid ellipsoid
    places = np.argwhere(inner)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    box = tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
    grid = target.grid.cropped((box[0].start, box[1].start, box[2].start), inner[box].shape)
    return target.on(grid, target.data[box]), inner[box]


def _image(volume: Volume, data: NDArray[Any] | None = None) -> sitk.Image:
    """The volume, or other voxels on its grid, for SimpleITK."""
    voxels = volume.data.astype(np.float32) if data is None else data
    affine, spacing = LPS_TO_RAS @ volume.affine, volume.grid.spacing
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def _centre(volume: Volume) -> NDArray[np.float64]:
    """(3,) centre of the grid, RAS+ mm."""
    centre: NDArray[np.float64] = volume.affine[:3, :3] @ (np.subtract(volume.data.shape, 1) / 2) + volume.affine[:3, 3]
    return centre
