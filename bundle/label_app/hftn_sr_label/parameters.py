"""Parameters of a request, from whatever a client's table of options makes of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from hftn_sr.errors import UsageFault, check_choice

__all__ = ["choice", "fraction", "refuse_misspelt", "switch", "text", "whole"]

CLOSE = 0.8  # similarity from which an unknown parameter is taken for a misspelt one
CLIENTS_OWN = frozenset({"name"})  # of what MONAI Label and its clients add to requests, all that looks like a parameter of this app


def text(request: Mapping[str, Any], name: str, default: str) -> str:
    """A text; of a list of choices, which a client may send back as it got it, the first."""
    value = request.get(name, default)
    value = value[0] if isinstance(value, list) and value else value
    if value is None or value == "":
        return default
    if not isinstance(value, (str, int, float)):
        raise UsageFault(name, f"{value!r} is no text", f"leave {name} out or give a text")
    return str(value)


def choice(request: Mapping[str, Any], name: str, choices: Iterable[str]) -> str:
    """One of the choices; the first of them where the request does not say."""
    known = tuple(choices)
    value = text(request, name, known[0])
    check_choice(name, value, known)
    return value


def switch(request: Mapping[str, Any], name: str, default: bool) -> bool:
    """A truth value, which forms send as text."""
    return choice({name: text(request, name, str(default)).lower()}, name, ("false", "true")) == "true"


def whole(request: Mapping[str, Any], name: str, default: int, least: int = 0) -> int:
    """A whole number, at least `least`."""
    value = text(request, name, str(default))
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageFault(name, f"{value!r} is not a whole number of at least {least}", f"{name} {max(default, least)}")
    return number


def fraction(request: Mapping[str, Any], name: str, default: float) -> float:
    """A number between 0 and 1, both excluded."""
    value = text(request, name, str(default))
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise UsageFault(name, f"{value!r} is not a number between 0 and 1", f"{name} {default}")
    return number


def refuse_misspelt(request: Mapping[str, Any], own: Iterable[str]) -> None:
    """Raise UsageFault for a parameter that nobody knows and that looks like one of `own`: it would be passed over otherwise."""
    names = list(own)
    for key in request:
        if key not in names and key not in CLIENTS_OWN and (meant := difflib.get_close_matches(key, names, 1, CLOSE)):
            raise UsageFault(key, "is not a parameter", f"write {meant[0]}, if that is meant")
