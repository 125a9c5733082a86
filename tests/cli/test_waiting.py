"""What takes seconds and cannot count its steps shows that it lives, on a terminal only."""

import io
import time

import pytest
from rich.console import Console

from hftn_sr.cli.waiting import waiting


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "file"])
def test_a_terminal_sees_the_step_and_the_time_and_a_file_nothing(terminal):
    shown = io.StringIO()
    with waiting("write [x].onnx", Console(file=shown, force_terminal=terminal, width=80)):
        time.sleep(0.3)
    assert ("write [x].onnx" in shown.getvalue() and "0:00:00" in shown.getvalue()) == terminal
    assert terminal or shown.getvalue() == ""
