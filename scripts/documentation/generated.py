"""Pages that are read from the code: the commands with their help, and the hyperparameters of the workflows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from hftn_sr.cli import bids_app
from hftn_sr.cli.commands import app

__all__ = ["commands_page", "hyperparameters_page"]

LINE = re.compile(r"^(?P<name>[a-z_]+): (?P<value>.+?)(?:  # (?P<comment>.*))?$")
WORKFLOWS = ("train", "evaluate", "inference", "paper_schedule", "train_correspondence", "train_uncertainty", "multi_gpu_train")
HYPERPARAMETERS = """# Hyperparameters of the workflows

Each can be given to `python -m monai.bundle run` as `--name value`, and every other value of a workflow by its path, as
`--train#trainer#max_epochs 3`. A value that begins with `$` is computed, `@name` is that of another hyperparameter.
"""
OVERLAY = "validate#"  # begins the part of an overlay that is no hyperparameter


def commands_page() -> str:
    """The help of each command as a terminal of 80 columns shows it, in Markdown."""
    parts = ["# Commands\n\nWhat `--help` shows. What a message means and what cures it: [errors](errors.md).\n"]
    for program, command in (("hftn-sr", app), ("hftn-sr-bids", bids_app.app)):
        for words in _commands(get_command(command), ()):
            shown = CliRunner(env={"COLUMNS": "80"}).invoke(command, [*words, "--help"], catch_exceptions=False).stdout
            parts.append(f"## {' '.join((program, *words))}\n\n```\n{shown.rstrip()}\n```\n")
    return "\n".join(parts)


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*words, name))


def hyperparameters_page(configs: Path) -> str:
    """The hyperparameters at the top of each workflow with their values and comments, in Markdown.

    Args:
        configs: folder of the workflows.
    """
    parts = [HYPERPARAMETERS]
    for name in WORKFLOWS:
        lines = (configs / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        about = [line.removeprefix("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
        text = " ".join(line for line in about if not line.startswith("  "))
        example = "\n".join(line.strip() for line in about if line.startswith("  "))
        parts.append(f"## {name}.yaml\n\n{text}\n" + (f"\n```\n{example}\n```\n" if example else ""))
        rows = [f"| `{key}` | `{value}` | {comment} |" for key, value, comment in _hyperparameters(lines)]
        parts.append("\n".join(["| hyperparameter | value | |", "| --- | --- | --- |", *rows]) + "\n" if rows else "")
    return "\n".join(parts)


def _hyperparameters(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """Name, value and comment of the first block of values; what the package computes without a comment is none."""
    begun = False
    for line in lines:
        if line.startswith(OVERLAY) or (begun and not line):
            return
        if found := LINE.match(line):
            begun = True
            value, comment = found["value"], found["comment"] or ""
            if comment or not value.startswith("$hftn_sr."):
                yield found["name"], value.replace("|", "\\|"), comment.replace("|", "\\|")
