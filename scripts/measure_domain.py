"""Measure the ranges of the training images that tell an image of another kind: `domain.json`, to lie beside the weights.

python scripts/measure_domain.py --data data [--output bundle/models/domain.json]
python scripts/measure_domain.py --images knee.nii.gz prostate/t2 flair.nii.gz

The first takes each pair of the datalist's training section: the target at half and at a quarter of its in-plane k-space, and the
reference on its grid. The range of voxel sizes is widened by the augmentation of `configs/train.yaml`. The second takes each image for a
target of half and of a quarter of its k-space, and for a reference, and prints what of it lies outside the shipped ranges.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

import torch

from hftn_sr.errors import SCALES, Note
from hftn_sr.inference.domain import FILE, image_numbers, ranges_of, trained_ranges, unlike_training
from hftn_sr.kspace import truncate
from hftn_sr.networks.weights import MODELS_FOLDER, list_hashes
from hftn_sr.pairs.datalist import workflow_datalist
from hftn_sr.training.transforms import LoadPaird
from hftn_sr.volumes.files import write_json
from hftn_sr.volumes.reading import read_volume, read_volume_header
from hftn_sr.volumes.simulation import in_plane_last, intensity_unit

AUGMENTED = (1 / 1.25, 1 / 0.5)  # voxel sizes, by the range of RandVoxelSized's factor


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with datalist.json")
    parser.add_argument("--images", type=Path, nargs="*", default=(), help="files or DICOM folders to compare")
    parser.add_argument("--output", type=Path, default=MODELS_FOLDER / FILE)
    given = parser.parse_args()
    for path in given.images:
        compare(path)
    if given.data:
        measure(given.data, given.output)


def compare(path: Path) -> None:
    """Print what is unlike training in an image."""
    volume, trained = read_volume(path), trained_ranges(MODELS_FOLDER / "any.safetensors")
    through = volume.grid.through_plane()
    axes = volume.grid.slice_axes(through)
    spacing = [float(volume.grid.spacing[axis]) for axis in axes[1:]]
    whole = in_plane_last(torch.from_numpy(volume.data), axes).contiguous()
    roles = {"reference": whole}
    for scale in SCALES:
        height, width = (size // scale * scale for size in whole.shape[1:])
        roles[f"target x{scale}"] = truncate(whole[:, :height, :width], scale).abs()
    for role, image in roles.items():
        slices = image.contiguous().numpy()
        numbers = image_numbers(slices, spacing, intensity_unit(slices))
        numbers["field_mm"] = image_numbers(whole.numpy(), spacing, 1.0)["field_mm"]
        found = unlike_training(role.split()[0], numbers, trained[role.split()[0]])
        told = "; ".join(f"{'note' if isinstance(each, Note) else 'warning'}: {each}" for each in found)
        sys.stdout.write(f"{path} as {role}: {told or 'like training'}\n")


def measure(data: Path, output: Path) -> None:
    """Measure the ranges and write them."""
    numbers: dict[str, dict[str, list[dict[str, float]]]] = {role: defaultdict(list) for role in ("target", "reference")}
    cases = workflow_datalist(str(data), "training")
    load = LoadPaird(4)
    for case in cases:
        patient = re.split(r"_", case["case"])[0]
        grid = read_volume_header(Path(case["target"])).grid
        _, *in_plane = grid.slice_axes(grid.through_plane())
        spacing = [float(grid.spacing[axis]) for axis in in_plane]
        images = load(dict(case.items()))
        label, reference = (images[key][0].movedim(-1, 0) for key in ("label", "reference"))
        for scale in SCALES:
            low = truncate(label, scale).abs().contiguous().numpy()
            found = image_numbers(low, spacing, intensity_unit(low))
            found["field_mm"] = image_numbers(label.numpy(), spacing, 1.0)["field_mm"]
            numbers["target"][patient].append(found)
        numbers["reference"][patient].append(image_numbers(reference.numpy(), spacing, 1.0))
        sys.stdout.write(f"{case['case']} {numbers['target'][patient][-1]} {numbers['reference'][patient][-1]}\n")
        sys.stdout.flush()
    ranges = {role: {name: list(found) for name, found in ranges_of(of).items()} for role, of in numbers.items()}
    for of in ranges.values():
        of["voxel_mm"] = [of["voxel_mm"][0] * AUGMENTED[0], of["voxel_mm"][1] * AUGMENTED[1], of["voxel_mm"][2]]
    told = {"command": "scripts/measure_domain.py", "patients": sorted(numbers["target"]), "pairs": len(cases)}
    write_json(output, {**told, "ranges": ranges})
    if output.absolute() == MODELS_FOLDER / FILE:
        list_hashes(FILE)


if __name__ == "__main__":
    main()
