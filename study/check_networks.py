"""One forward and backward pass of every network at its published size, 320 x 320 voxels: parameters, cost, and whether all of it learns.

python study/check_networks.py
"""

from __future__ import annotations

import sys
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from comparison.check import check_network
from comparison.cost import SIDE
from comparison.rows import chosen_methods, needs_training, title


def main(
    methods: Annotated[str, typer.Option(help="all, or names with commas between.")] = "all",
    scales: Annotated[list[int], typer.Option(help="2, 4 or both.")] = [2, 4],  # noqa: B006 - typer copies it
    side: Annotated[int, typer.Option(help="Side of the slice in voxels.")] = SIDE,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves it to PyTorch.")] = 0,
) -> None:
    """Print a row for each network and scale; exit code 1 where a parameter has no gradient."""
    if threads:
        torch.set_num_threads(threads)
    jobs = [(method, scale) for method in chosen_methods(methods) if needs_training(method) for scale in scales]
    table = Table(title=f"One forward and backward pass, {side} x {side} voxels, published sizes", title_justify="left")
    for heading in ("method", "scale", "parameters, M", f"GMAC at {SIDE} x {SIDE}", "without gradient", "seconds"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    dead = False
    for method, scale in track(jobs, "networks", console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()):
        found = check_network(method, scale, side=side)
        dead |= bool(found.without_gradient)
        numbers = [f"{found.cost.parameters / 1e6:.3f}", f"{found.cost.gmac:.2f}"]
        table.add_row(title(method), f"x{scale}", *numbers, ", ".join(found.without_gradient) or "0", f"{found.seconds:.1f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if dead:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
