"""`--help` fits a terminal and shows what to type."""

import re
import shlex

import pytest
from typer.main import get_command

from hftn_sr.cli.commands import app

TALLEST = 26
LINES = {"super-resolve": 70}  # more than thirty options in six groups


def named(command, words=()):
    """Words to command, for the command and all below it."""
    found = {words: command}
    for name, child in getattr(command, "commands", {}).items():
        found |= named(child, (*words, name))
    return found


COMMANDS = named(get_command(app))


@pytest.fixture
def help_of(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return lambda words: command(*words, "--help").stdout


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_each_command_fits_a_terminal(words, help_of):
    lines = help_of(words).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= LINES.get(" ".join(words), TALLEST)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_each_command_ends_with_examples_that_its_parser_takes(words, help_of):
    examples = re.findall(r"^ +hftn-sr (.+)$", help_of(words).partition("Example")[2], re.MULTILINE)
    assert examples
    for example in map(shlex.split, examples):
        called = max((known for known in COMMANDS if tuple(example[: len(known)]) == known), key=len)
        assert called[: len(words)] == words
        if (options := example[len(called) :]) != ["--help"]:
            COMMANDS[called].make_context("hftn-sr", options)  # raises where an option is misspelt or missing


@pytest.mark.parametrize("words", [words for words in COMMANDS if hasattr(COMMANDS[words], "commands")], ids=" ".join)
def test_no_summary_of_a_command_is_cut(words, help_of):
    listed = help_of(words).partition("Commands:")[2].partition("Example")[0]
    assert listed and "..." not in listed


def test_dicom_is_seen_in_the_help_of_convert(help_of):
    text = help_of(("convert",))
    assert "Convert DICOM series" in text and "hftn-sr convert dicom/" in text
