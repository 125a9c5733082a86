"""Make the synthetic sample pair of the bundle: a FLAIR-like target and a T2-like reference of one invented head.

    pip install -e .[sample]
    python scripts/make_sample_pair.py --output bundle/hftn_sr/sample

The anatomy starts from the tissue maps of the MNI ICBM152 2009a template that the Python package nilearn carries; nothing is downloaded.
They are averages over many people, so they are first made into somebody: a random warp breaks the symmetry, a sharpening turns fuzzy
probabilities into tissue borders, fields of random texture give detail to recover. Skull and scalp are shells around the brain.
Two scanners are then imitated, each with its grid, contrast, coil shading, slice profile and Rician noise.

Positions are in mm, RAS+, in template space unless said otherwise; arrays are (X, Y, Z). The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]
Triple = tuple[float, float, float]

DEFAULT_OUTPUT = Path(__file__).parents[1] / "bundle" / "hftn_sr" / "sample"
DESCRIPTION = "synthetic, hftn-sr sample"
SCANNER_OFFSET = np.array([2.3, 21.7, -38.4])  # template origin in scanner coordinates: heads do not lie at the isocentre

PHANTOM_STEP = np.array([0.5, 0.5, 1.0])  # finer than both scans, so that their grids play no part in the anatomy
PHANTOM_START = np.array([-94.0, -128.0, -8.0])
PHANTOM_SHAPE = (377, 445, 51)

SHARPENING = 4.0  # power applied to the tissue probabilities: 1 keeps the fuzzy average, larger is nearer to a hard segmentation
SULCUS_WIDENING = 1.6  # favours CSF where probabilities tie: averaging over people closes the sulci

# outer radius of each layer around the brain's hull in mm, then air
SHELLS = (("csf", 1.5), ("dura", 2.2), ("bone", 3.7), ("marrow", 5.7), ("bone", 7.0), ("fat", 10.0), ("skin", 11.5))

# The template's terms ask for this notice in every copy. nilearn carries the maps without it; the wording is from nibabel's COPYING.
NOTICE = """\
synthetic_target.nii.gz and synthetic_reference.nii.gz are synthetic: their anatomy was derived, by a random warp, sharpening, invented
contrasts, texture, lesions and noise, from the grey matter, white matter and brain maps of the MNI ICBM152 2009a nonlinear template
(files mni_icbm152_{gm,wm,t1}_tal_nlin_sym_09a of the Python package nilearn). The template has the following license, where "software"
refers to the images:

Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre,
Montreal Neurological Institute, McGill University.

Permission to use, copy, modify, and distribute this software and its
documentation for any purpose and without fee is hereby granted, provided
that the above copyright notice appear in all copies.  The authors and
McGill University make no representations about the suitability of this
software for any purpose.  It is provided "as is" without express or
implied warranty.  The authors are not responsible for any data loss,
equipment damage, property loss, or injury to subjects or patients
resulting from the use or misuse of this software package.
"""


@dataclass(frozen=True)
class Contrast:
    """How a sequence shows the tissues.

    Args:
        signal: tissue name to signal in scanner units; air is 0. Kept low, as on clinical images, because noise compresses badly.
        texture: relative depth of the fine texture within a tissue.
        lesion: signal of lesions that this sequence shows.
        spaces: signal of fluid-filled perivascular spaces.
        snr: signal of white matter over the noise's standard deviation per channel.
    """

    signal: dict[str, float]
    texture: float
    lesion: float
    spaces: float
    snr: float


@dataclass(frozen=True)
class Scan:
    """The grid of one acquisition.

    Args:
        shape: voxels along left, anterior, superior.
        spacing: distance of voxel centres in mm.
        thickness: of a slice in mm; the rest of the slice distance is a gap.
        centre: of the field of view, template space in mm.
    """

    shape: tuple[int, int, int]
    spacing: Triple
    thickness: float
    centre: Triple

    @property
    def affine(self) -> Matrix:
        """(4, 4), voxel index to template space; the first axis points left, as converters from DICOM leave it."""
        axes = np.diag([-1.0, 1.0, 1.0]) * self.spacing
        affine = np.eye(4)
        affine[:3, :3] = axes
        affine[:3, 3] = np.asarray(self.centre) - axes @ ((np.asarray(self.shape) - 1) / 2)
        return affine


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid: centre and radii in mm, and the contrasts that show it."""

    centre: Triple
    radii: Triple
    contrasts: tuple[str, ...]


CONTRASTS = {
    "target": Contrast(
        signal={"csf": 18, "gm": 120, "wm": 90, "dura": 60, "bone": 11, "marrow": 48, "fat": 96, "skin": 76},
        texture=0.055,
        lesion=155,
        spaces=42,
        snr=45,
    ),
    "reference": Contrast(
        signal={"csf": 220, "gm": 120, "wm": 83, "dura": 35, "bone": 9, "marrow": 55, "fat": 108, "skin": 60},
        texture=0.06,
        lesion=168,
        spaces=190,
        snr=50,
    ),
}
SCANS = {
    "target": Scan((224, 272, 8), (0.8, 0.8, 4.0), 3.2, (0.0, -17.0, 16.0)),
    "reference": Scan((244, 296, 9), (0.75, 0.75, 4.0), 3.2, (0.37, -17.6, 17.6)),
}
BOTH = ("target", "reference")
LESIONS = (
    Lesion((-27.0, -28.0, 27.0), (4.0, 5.0, 4.0), BOTH),
    Lesion((25.0, 14.0, 26.0), (2.0, 2.4, 4.0), BOTH),
    Lesion((27.0, -42.0, 22.0), (2.6, 1.8, 4.0), BOTH),
    Lesion((-26.0, 30.0, 14.0), (1.8, 1.8, 4.0), BOTH),
    Lesion((-28.0, 2.0, 26.0), (2.2, 2.2, 4.0), ("target",)),
    Lesion((26.0, -14.0, 30.0), (2.2, 2.2, 4.0), ("reference",)),
)


def main() -> None:
    """Command line: write the pair and the notice of its source."""
    parser = argparse.ArgumentParser(description="Make the synthetic sample pair (FLAIR-like target, T2-like reference).")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write to (default: the bundle's sample folder)")
    parser.add_argument("--seed", type=int, default=20, help="of the invented person and of the noise (default: 20)")
    arguments = parser.parse_args()
    write_pair(arguments.output, arguments.seed)


def write_pair(output: Path, seed: int) -> None:
    """Write synthetic_target.nii.gz, synthetic_reference.nii.gz and LICENSE.txt into the folder `output`."""
    rng = np.random.default_rng(seed)
    tissues = make_tissues(rng)
    signals = make_signals(tissues, rng)
    output.mkdir(parents=True, exist_ok=True)
    for name, signal in signals.items():
        scan, contrast = SCANS[name], CONTRASTS[name]
        motion = misalignment(scan.centre) if name == "reference" else np.eye(4)
        image = acquire(signal, scan, motion) * shading(scan.shape, rng)
        noisy = add_rician_noise(image, contrast.signal["wm"] / contrast.snr, rng)
        write_image(output / f"synthetic_{name}.nii.gz", noisy, scan.affine)
    (output / "LICENSE.txt").write_text(NOTICE, encoding="utf-8", newline="\n")


def load_maps() -> tuple[Array, Array, Array, Matrix]:
    """Grey matter, white matter and brain (0 or 1) of the template at 1 mm, each (X, Y, Z), and their (4, 4) affine.

    Raises:
        SystemExit: nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        raise SystemExit("nilearn is needed to make the sample pair: pip install -e .[sample]") from error
    grey, white, t1 = (
        load(resolution=1) for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template, datasets.load_mni152_template)
    )
    arrays = [np.asarray(image.get_fdata(), dtype=np.float32) for image in (grey, white, t1)]
    return arrays[0], arrays[1], (arrays[2] > 0).astype(np.float32), np.asarray(grey.affine, dtype=np.float64)


def make_tissues(rng: Generator) -> dict[str, Array]:
    """Share of each tissue, 0 to 1, in each voxel of the phantom; air is what is missing to 1."""
    grey, white, brain, affine = load_maps()
    points = warped_points(rng)
    hull_distance = sample(distance_from_hull(brain), points, affine, order=1)
    hull_distance += 0.4 * random_field(rng, (20, 20, 20))
    shares = sharpen(sample(grey, points, affine, order=3), sample(white, points, affine, order=3), rng)
    inside = hull_distance <= 0
    tissues = {name: np.where(inside, share, 0).astype(np.float32) for name, share in shares.items()}
    return add_shells(tissues, hull_distance)


def warped_points(rng: Generator) -> Array:
    """Template position (3, X, Y, Z) of every phantom voxel: a smooth warp of some mm gives a person, a fine one gives gyri their bends."""
    axes = [start + step * np.arange(size) for start, step, size in zip(PHANTOM_START, PHANTOM_STEP, PHANTOM_SHAPE, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    for axis in range(3):
        points[axis] += 2.0 * random_field(rng, (40, 40, 40)) + 0.6 * random_field(rng, (9, 9, 9))
    return points


def sharpen(grey: Array, white: Array, rng: Generator) -> dict[str, Array]:
    r"""Shares of CSF, grey and white matter, nearer to a segmentation than the template's probabilities p.

    .. math:: q_k \propto (w_k p_k e^{n_k})^\gamma

    with :math:`\gamma` the sharpening, w > 1 for CSF, and n a small random field that roughens the borders.
    """
    grey, white = grey.clip(0, 1), white.clip(0, 1)
    fluid = SULCUS_WIDENING * (1 - grey - white).clip(0, 1)
    weights = {
        name: (share * np.exp(0.2 * random_field(rng, (1.6, 1.6, 4)))) ** SHARPENING
        for name, share in (("csf", fluid), ("gm", grey), ("wm", white))
    }
    total = np.maximum(sum(weights.values()), np.float32(1e-6))
    return {name: (weight / total).astype(np.float32) for name, weight in weights.items()}


def distance_from_hull(brain: Array) -> Array:
    """Distance in mm from the brain's smooth hull, negative inside; `brain` is (X, Y, Z) at 1 mm."""
    from scipy import ndimage

    # closing bridges the fissure between the hemispheres, which the skull does not follow
    near = ndimage.distance_transform_edt(brain < 0.5) <= 10
    hull = ndimage.distance_transform_edt(near) > 10
    hull = ndimage.gaussian_filter(hull.astype(np.float32), 3) > 0.5
    return np.asarray(ndimage.distance_transform_edt(~hull) - ndimage.distance_transform_edt(hull), dtype=np.float32)


def add_shells(tissues: dict[str, Array], distance: Array) -> dict[str, Array]:
    """`tissues` with the layers of the head at a positive `distance` from the hull."""
    layers = dict(tissues)
    inner = 0.0
    for name, outer in SHELLS:
        shell = ((distance > inner) & (distance <= outer)).astype(np.float32)
        layers[name] = layers[name] + shell if name in layers else shell
        inner = outer
    return layers


def make_signals(tissues: dict[str, Array], rng: Generator) -> dict[str, Array]:
    """Signal (X, Y, Z) of the phantom in each contrast, with texture, perivascular spaces and lesions."""
    shared = random_field(rng, (1.2, 1.2, 4)) + random_field(rng, (3, 3, 4))
    spaces = tissues["wm"] * (random_field(rng, (1.4, 1.4, 6)) > 2.8)
    outline = 0.12 * random_field(rng, (3, 3, 4))
    signals = {}
    for name, contrast in CONTRASTS.items():
        own = random_field(rng, (1.2, 1.2, 4))
        plain = sum((contrast.signal[tissue] * share for tissue, share in tissues.items()), np.zeros(PHANTOM_SHAPE, np.float32))
        # half of the texture's variance is common to both contrasts: something to transfer, and something not to
        signal = plain * (1 + contrast.texture * (shared / 2 + own / np.sqrt(2)) * (1 - tissues["csf"]))
        signal += spaces * (contrast.spaces - signal)
        for lesion in LESIONS:
            if name in lesion.contrasts:
                signal += lesion_share(lesion, outline) * (contrast.lesion - signal)
        signals[name] = signal.astype(np.float32)
    return signals


def lesion_share(lesion: Lesion, outline: Array) -> Array:
    """Share of the lesion in each phantom voxel, with a border of about half a mm made irregular by `outline`."""
    axes = [
        (start + step * np.arange(size) - centre) / radius
        for start, step, size, centre, radius in zip(PHANTOM_START, PHANTOM_STEP, PHANTOM_SHAPE, lesion.centre, lesion.radii, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    radius = np.sqrt(x**2 + y**2 + z**2) + outline
    return np.asarray(((1.1 - radius) / 0.2).clip(0, 1), dtype=np.float32)


def misalignment(centre: Triple) -> Matrix:
    """(4, 4), the reference's header position to the anatomy's: 0.3 degrees and 0.3 mm, the patient having moved between the scans."""
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_rotvec(0.3 * np.array([0.3, -0.2, 0.93]), degrees=True).as_matrix()
    motion = np.eye(4)
    motion[:3, :3] = rotation
    motion[:3, 3] = np.asarray(centre) - rotation @ centre + [0.22, -0.18, 0.1]
    return motion


def acquire(signal: Array, scan: Scan, motion: Matrix) -> Array:
    """The phantom on the grid of `scan`: each voxel is the mean over its area and slice thickness."""
    voxels = np.stack(np.meshgrid(*(np.arange(size) for size in scan.shape), indexing="ij")).astype(np.float32)
    phantom = np.eye(4)
    phantom[:3, :3], phantom[:3, 3] = np.diag(PHANTOM_STEP), PHANTOM_START
    profile = scan.thickness / scan.spacing[2]
    offsets = list(product((-0.25, 0.25), (-0.25, 0.25), (-profile / 3, 0.0, profile / 3)))
    image = np.zeros(scan.shape, np.float32)
    for offset in offsets:
        points = transform(motion @ scan.affine, voxels + np.reshape(offset, (3, 1, 1, 1)))
        image += sample(signal, points, phantom, order=1)
    return np.asarray(image / len(offsets), dtype=np.float32)


def shading(shape: tuple[int, int, int], rng: Generator) -> Array:
    """Smooth factor around 1 of a receive coil: a random quadratic of the position, up to about a fifth."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij", sparse=True)
    terms = [*axes, axes[0] ** 2 - 1 / 3, axes[1] ** 2 - 1 / 3, axes[0] * axes[1]]
    weights = rng.uniform(0.03, 0.1, len(terms)) * rng.choice([-1, 1], len(terms))
    exponent = sum((weight * term for weight, term in zip(weights, terms, strict=True)), np.zeros(shape))
    return np.exp(exponent).astype(np.float32)


def add_rician_noise(image: Array, deviation: float, rng: Generator) -> Array:
    """Magnitude of `image` with Gaussian noise of the given standard deviation on its real and imaginary parts."""
    real, imaginary = rng.normal(0, deviation, (2, *image.shape))
    return np.asarray(np.hypot(image + real, imaginary), dtype=np.float32)


def write_image(path: Path, data: Array, affine: Matrix) -> None:
    """Write int16 NIfTI with equal sform and qform, moved into scanner coordinates; no time stamp, so equal data gives equal bytes."""
    placed = affine.copy()
    placed[:3, 3] += SCANNER_OFFSET
    image = nib.Nifti1Image(np.rint(data).astype(np.int16), placed)
    image.set_qform(placed, code=1)
    image.set_sform(image.get_qform(), code=1)  # through the quaternion's float32, so that both are equal to the last bit
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = DESCRIPTION.encode()
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))


def random_field(rng: Generator, length: Triple) -> Array:
    """Random field over the phantom, mean 0 and standard deviation 1, that forgets itself after `length` mm along each axis."""
    from scipy import ndimage

    pitch = np.maximum(np.asarray(length) / PHANTOM_STEP, 1)  # of the lattice of random numbers, in phantom voxels
    lattice = rng.standard_normal([int(size / step) + 4 for size, step in zip(PHANTOM_SHAPE, pitch, strict=True)], dtype=np.float32)
    smooth = ndimage.affine_transform(lattice, 1 / pitch, offset=1.0, output_shape=PHANTOM_SHAPE, order=3)
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


def sample(volume: Array, points: Array, affine: Matrix, order: int) -> Array:
    """Values of `volume` at positions (3, ...) in mm by spline interpolation; outside, those of the nearest voxel of its border."""
    from scipy import ndimage

    voxels = transform(np.linalg.inv(affine).astype(np.float64), points)
    return np.asarray(ndimage.map_coordinates(volume, voxels, order=order, mode="nearest"), dtype=np.float32)


def transform(matrix: Matrix, points: Array) -> Array:
    """The (4, 4) matrix applied to points (3, ...)."""
    moved = sum(matrix[:3, axis].reshape(3, 1, 1, 1) * points[axis] for axis in range(3)) + matrix[:3, 3].reshape(3, 1, 1, 1)
    return np.asarray(moved, dtype=np.float32)


if __name__ == "__main__":
    main()
