"""The network from models/model.pt, its TorchScript file and its ONNX file give the same voxels, at sizes that none of them was made at.

PYTHONPATH=. python compare_exports.py model.ts model.onnx     # from the bundle's own folder
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import torch
from monai.bundle import load
from monai.data import load_net_with_metadata

SIZES = [(64, 48), (96, 80), (61, 75)]  # the last one is a multiple of nothing
TOLERANCE = 1e-4  # of the image's range


def main(torchscript: str, onnx: str) -> None:
    """Compare, print the largest differences. Raises ValueError."""
    folder = Path.cwd()
    network = load(name=folder.name, bundle_dir=folder.parent, source="local", device="cpu").eval()
    scripted, metadata, _ = load_net_with_metadata(torchscript, map_location=torch.device("cpu"))
    version = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    if metadata.get("version") != version:
        raise ValueError(f"{torchscript}: its metadata say version {metadata.get('version')}, the bundle's {version}")
    session = onnxruntime.InferenceSession(onnx)
    generator = torch.Generator().manual_seed(0)
    for size in SIZES:
        image = torch.rand(1, 3, *size, generator=generator)
        with torch.inference_mode():
            expected = network(image).numpy()
            results = {"TorchScript": scripted(image).numpy(), "ONNX": session.run(None, {"image": image.numpy()})[0]}
        if np.abs(expected - image[:, :1].numpy()).max() < 1e-3:
            raise ValueError("the network gives its input back: its weights were not loaded")
        for form, found in results.items():
            difference = float(np.abs(found - expected).max() / np.ptp(expected))
            if found.shape != expected.shape or not difference <= TOLERANCE:
                raise ValueError(f"{form} at {size}: shape {found.shape}, off by {difference:.1e} of the range")
            sys.stdout.write(f"{form} at {size[0]} x {size[1]}: off by {difference:.1e} of the range\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
