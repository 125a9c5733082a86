"""Put trained weights into the bundle: models/NAME_xS or NAME_any.safetensors, their line in SHA256SUMS, for base_x2 also MONAI's model.pt.

python scripts/ship_weights.py --weights bundle/runs/x2/best.safetensors --name base

Afterwards `make sbom`: the bill of materials names the hashes.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Annotated

import safetensors
import safetensors.torch
import torch
import typer

from hftn_sr.networks.weights import HASHES, MODELS_FOLDER, list_hashes, load_model, weights_metadata
from hftn_sr.volumes.files import write_bytes

LARGEST = 25_000_000  # bytes, the Model Zoo's limit for a file


def main(
    weights: Annotated[Path, typer.Option(help="A .safetensors file that training wrote.")],
    name: Annotated[str, typer.Option(help="correspondence, base, small or hftn.")] = "base",
) -> None:
    """Check and copy the weights, then write what goes with them."""
    with safetensors.safe_open(weights, "pt") as opened:
        scale = json.loads(opened.metadata()["options"])["scale"]
    model = load_model(str(weights.absolute()), scale)
    shipped = MODELS_FOLDER / f"{name}_{'any' if scale is None else f'x{scale}'}.safetensors"
    # float16: half the size for at most 0.001 dB (bundle/models/README.md). The network itself computes with what it reads back as float32.
    state = {key: tensor.half().contiguous() for key, tensor in model.network.state_dict().items()}
    content = safetensors.torch.save(state, weights_metadata(model.network, model.record))
    if len(content) > LARGEST:
        raise SystemExit(f"{weights}: {len(content)} bytes, at most {LARGEST} can be shipped")
    write_bytes(shipped, content)
    if shipped.stem == "base_x2":
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(MODELS_FOLDER / "model.pt", buffer.getvalue())
    list_hashes(shipped.name, *(["model.pt"] if shipped.stem == "base_x2" else []))
    typer.echo(HASHES.read_text(encoding="utf-8"), nl=False)


if __name__ == "__main__":
    typer.run(main)
