"""The command `hftn-sr export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hftn_sr.cli.faults import Debug, one_line_errors

__all__ = ["export"]


def export(
    scale: Annotated[int, typer.Option(help="Upscaling factor, 2 or 4.")],
    output: Annotated[Path, typer.Option(help="File to write: .ts for TorchScript, .onnx for ONNX.")],
    model: Annotated[str, typer.Option(help="base, small, hftn, correspondence, or a .safetensors file.")] = "base",
    form: Annotated[
        Literal["torchscript", "onnx"], typer.Option("--format", help="onnx needs pip install 'hftn-sr[export]'.")
    ] = "torchscript",
    overwrite: Annotated[Literal["never", "always"], typer.Option(help="Replace an existing output.")] = "never",
    debug: Debug = False,
) -> None:
    """Write a trained network as one TorchScript or ONNX file.

    It runs without this package, for slices up to a stated size.
    """
    with one_line_errors(debug):
        from hftn_sr.cli.waiting import waiting
        from hftn_sr.errors import check_scale
        from hftn_sr.networks.export import check_output, export_model
        from hftn_sr.networks.weights import load_model

        check_scale(scale)
        check_output(output, form, overwrite == "always")
        with waiting(f"write {output}"):
            metadata = export_model(load_model(model, scale), form, output)
        largest = metadata["largest_voxels"]
        typer.echo(f"{output} ({f'slices of at most {largest} voxels' if largest else 'slices of any size'})")
