"""Measure the ranges of the training images that tell an image of another kind: `domain.json`, to lie beside the weights.

python scripts/measure_domain.py --data data [--output bundle/models/domain.json]

Of each pair of the datalist's training section: the target at half and at a quarter of its in-plane k-space, and the reference on its grid.
The range of voxel sizes is widened by the augmentation of `configs/train.yaml`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

from hftn_sr.errors import SCALES
from hftn_sr.inference.domain import FILE, image_numbers, ranges_of
from hftn_sr.kspace import truncate
from hftn_sr.networks.weights import MODELS_FOLDER, list_hashes
from hftn_sr.pairs.datalist import workflow_datalist
from hftn_sr.training.transforms import LoadPaird
from hftn_sr.volumes.files import write_json
from hftn_sr.volumes.reading import read_volume_header
from hftn_sr.volumes.simulation import intensity_unit

AUGMENTED = (1 / 1.25, 1 / 0.5)  # voxel sizes, by the range of RandVoxelSized's factor


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with datalist.json")
    parser.add_argument("--output", type=Path, default=MODELS_FOLDER / FILE)
    given = parser.parse_args()
    numbers: dict[str, dict[str, list[dict[str, float]]]] = {role: defaultdict(list) for role in ("target", "reference")}
    cases = workflow_datalist(str(given.data), "training")
    load = LoadPaird(4)
    for case in cases:
        patient = re.split(r"_", case["case"])[0]
        grid = read_volume_header(Path(case["target"])).grid
        _, *in_plane = grid.slice_axes(grid.through_plane())
        spacing = [float(grid.spacing[axis]) for axis in in_plane]
        images = load(case)
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
    write_json(given.output, {**told, "ranges": ranges})
    if given.output.absolute() == MODELS_FOLDER / FILE:
        list_hashes(FILE)


if __name__ == "__main__":
    main()
