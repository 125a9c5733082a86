"""The documentation as pages: complete, its links lead somewhere, nothing is fetched from elsewhere, its commands are ones that exist."""

import importlib
import json
import pkgutil
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.main import get_command

import hftn_sr
from hftn_sr.cli.commands import app
from hftn_sr.errors import Fault

ROOT = Path(__file__).parents[2]
MODULES = [found.name for found in pkgutil.walk_packages(hftn_sr.__path__, "hftn_sr.") if not found.name.endswith("__main__")]
GUIDES = (
    "README.md",
    "bundle/docs/usage.md",
    "bundle/docs/training.md",
    "bundle/docs/recipes.md",
    "bundle/docs/README.md",
    "bundle/docs/benchmark.md",
)
COMMANDS = [
    line.split("  #")[0].strip()
    for guide in GUIDES
    for line in (ROOT / guide).read_text(encoding="utf-8").splitlines()
    if re.match(r"(hftn-sr|python -m hftn_sr\.cli) ", line)
]


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield importlib.import_module


@pytest.fixture(scope="module")
def site(scripts, tmp_path_factory):
    """The pages; to build them is to check their links."""
    output = tmp_path_factory.mktemp("site") / "docs"
    scripts("build_docs").build(ROOT, output, Console(file=sys.stderr))
    return output


def test_the_reference_has_every_public_name(site):
    for name in MODULES:
        page = (site / "api" / f"{name.replace('.', '/')}.html").read_text(encoding="utf-8")
        lacking = [public for public in getattr(importlib.import_module(name), "__all__", ()) if f'id="{public}"' not in page]
        assert (name, lacking) == (name, [])


def test_formulas_are_drawn_by_the_browser(site):
    page = (site / "api" / "hftn_sr" / "networks" / "hftn.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert "math::" not in page


def test_every_command_has_its_help_on_the_page(site):
    page = (site / "commands.html").read_text(encoding="utf-8")
    assert page.count("Usage: hftn-sr") == page.count("<h2")
    for words in ("super-resolve", "degrade", "data split"):
        assert f">hftn-sr {words}</h2>" in page


def test_the_hyperparameters_of_training_are_on_the_page_with_what_they_mean(site):
    page = (site / "hyperparameters.html").read_text(encoding="utf-8")
    workflow = yaml.safe_load((ROOT / "bundle" / "configs" / "train.yaml").read_text(encoding="utf-8"))
    top = list(workflow)[list(workflow).index("imports") + 1 : list(workflow).index("network_def")]
    assert "val_interval" in top
    assert [name for name in top if f"<code>{name}</code>" not in page] == []
    assert "epochs between validations" in page


def test_every_page_is_in_a_group_and_in_the_search(site):
    front = (site / "index.html").read_text(encoding="utf-8")
    groups = re.findall(r'<div class="group"><span class="heading">(\w+)</span>(.*?)</div>', front)
    assert [heading for heading, _ in groups] == ["Start", "Use", "Train", "Understand", "Develop"]
    linked = [name for _, links in groups for name in re.findall(r'href="([\w./-]+)"', links)]
    assert sorted(linked) == sorted([*(path.name for path in site.glob("*.html")), "api/hftn_sr.html"])
    sections = json.loads((site / "search-index.js").read_text(encoding="utf-8").removeprefix("const SECTIONS = ").rstrip(";\n"))
    assert {each["url"].partition("#")[0] for each in sections} == set(linked) - {"api/hftn_sr.html"}
    assert any("--assume-affine" in each["text"] for each in sections)


@pytest.fixture
def small(scripts, tmp_path):
    """Writes a site of one page from its Markdown."""
    pages = scripts("documentation.pages")
    (tmp_path / "picture.png").write_bytes(b"PNG")

    def write(text):
        output = tmp_path / "site"
        output.mkdir(exist_ok=True)
        page = pages.Page("index.html", "Start", text, "README.md")
        made = pages.Site(tmp_path, output, [page], {}, {"Start": 1})
        made.write(page)
        made.write_search()
        return scripts("documentation.links").broken_links(output)

    return write


def test_a_sound_page_has_no_broken_link(small):
    assert small("# A b: c\n\n[up](#a-b-c) ![seen](picture.png) [remote](https://example.org)") == []


def test_a_link_to_nothing_is_refused(small):
    with pytest.raises(Fault, match=r"README\.md: links to gone\.md, where no file is\. Fix: correct the link"):
        small("[gone](gone.md)")


def test_a_link_to_a_heading_that_is_not_there_is_found(small):
    assert small("# One\n\n[two](#two)") == ["index.html: no heading #two"]


def test_a_picture_from_elsewhere_is_found(small):
    assert small("![far](https://example.org/a.png)") == ["index.html: loads https://example.org/a.png"]


def test_a_folder_of_someone_else_is_left_alone(scripts, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(Fault, match="exists and is not of this script"):
        scripts("build_docs").build(ROOT, tmp_path, Console(file=sys.stderr))
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_the_commands_of_the_guides_are_ones_that_the_parser_takes():
    assert len(COMMANDS) >= 20
    for line in COMMANDS:
        words = shlex.split(line.replace("python -m hftn_sr.cli", "hftn-sr", 1))[1:]
        command = get_command(app)
        while (children := getattr(command, "commands", None)) is not None:
            command = children[words.pop(0)]
        command.make_context("hftn-sr", words)  # raises where an option is misspelt or missing


def test_the_guides_call_the_comparison_as_it_is(monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    calls = re.findall(r"^python study/compare\.py (.*)$", text, re.MULTILINE)
    assert len(calls) == 3
    monkeypatch.syspath_prepend(str(ROOT / "study"))
    compare = importlib.import_module("compare")
    for call in calls:
        parser = compare._resume_parser() if "--resume" in call else compare._parser()
        parser.parse_args(shlex.split(call))


def test_the_scripts_and_make_targets_that_the_guides_name_exist():
    text = "\n".join((ROOT / guide).read_text(encoding="utf-8") for guide in (*GUIDES, "CONTRIBUTING.md"))
    assert [name for name in set(re.findall(r"(?:scripts|study)/\w+\.py", text)) if not (ROOT / name).is_file()] == []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([\w-]+)`", text)) <= targets


def test_the_search_knows_the_functions_of_the_package(site):
    assert "hftn_sr.super_resolve" in (site / "api" / "search.js").read_text(encoding="utf-8")
