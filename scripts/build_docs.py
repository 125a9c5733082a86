"""Build the documentation as pages that need no network: this repository's Markdown, the commands, the hyperparameters and the reference.

python scripts/build_docs.py --output dist/docs
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from documentation.generated import commands_page, hyperparameters_page
from documentation.links import broken_links
from documentation.pages import Page, Site
from documentation.reference import reference
from hftn_sr.cli.faults import one_line_errors
from hftn_sr.errors import Fault

ROOT = Path(__file__).absolute().parents[1]
DOCS = "bundle/docs"
GROUPS = {"Start": 1, "Use": 6, "Train": 4, "Understand": 7, "Develop": 3}  # how many pages each has, in the order below
PAGES = {  # file of the repository to the words that lead to its page; the first is the front page
    "README.md": "Start",
    f"{DOCS}/usage.md": "Use",
    f"{DOCS}/scaling.md": "Many cases",
    f"{DOCS}/errors.md": "Errors",
    f"{DOCS}/monai-label.md": "MONAI Label",
    f"{DOCS}/README.md": "Model card",
    f"{DOCS}/training.md": "Train",
    f"{DOCS}/recipes.md": "Recipes",
    "bundle/models/README.md": "Weights",
    f"{DOCS}/study.md": "Comparison",
    f"{DOCS}/equations.md": "Equations",
    f"{DOCS}/baselines.md": "Networks compared",
    f"{DOCS}/benchmark.md": "Cost",
    f"{DOCS}/reliability.md": "Reliability",
    f"{DOCS}/third_party_licenses.md": "Licences",
    f"{DOCS}/design-log.md": "Design log",
    "CONTRIBUTING.md": "Contributing",
    "CHANGELOG.md": "Changelog",
}
NAMES = {"README.md": "index.html", f"{DOCS}/README.md": "model-card.html", "bundle/models/README.md": "weights.html"}
MARK = ".made-by-build-docs"


def build(root: Path, output: Path, console: Console) -> None:
    """Write the pages into `output`; those of an earlier build are replaced.

    Raises:
        Fault: a link is broken, or `output` holds something else.
    """
    if output.exists() and not (output / MARK).is_file():
        raise Fault(output, "exists and is not of this script", "name another --output or remove it")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / MARK).touch()
    texts = {path: (root / path).read_text(encoding="utf-8") for path in PAGES}
    pages = [Page(NAMES.get(path, f"{Path(path).stem.lower()}.html"), PAGES[path], text, path) for path, text in texts.items()]
    hyperparameters = hyperparameters_page(root / "bundle" / "configs")
    pages.insert(2, Page("commands.html", "Commands", commands_page(), f"{DOCS}/commands.md"))
    pages.insert(8, Page("hyperparameters.html", "Hyperparameters", hyperparameters, f"{DOCS}/hyperparameters.md"))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("reference", total=None)
        reference("hftn_sr", output / "api", lambda done, total: progress.update(bar, completed=done, total=total))
    site = Site(root, output, pages, {"api/hftn_sr.html": "Reference"}, GROUPS)
    for page in pages:
        site.write(page)
    site.write_search()
    if broken := broken_links(output):
        raise Fault(output, f"{len(broken)} broken links, the first: {'; '.join(broken[:5])}", "correct them")


def main(
    output: Annotated[Path, typer.Option(help="Folder for the pages.")] = ROOT / "dist" / "docs",
) -> None:
    """Build the documentation; a broken link is an error."""
    with one_line_errors(debug=False):
        build(ROOT, output, Console(file=sys.stderr))
        typer.echo(output / "index.html")


if __name__ == "__main__":
    typer.run(main)
