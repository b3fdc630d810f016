"""Where two JSON values differ, for errors that name the key."""

from __future__ import annotations

from reprlib import Repr
from typing import Any

_SHOWN = Repr()
_SHOWN.maxstring = _SHOWN.maxother = 80


def first_difference(found: Any, wanted: Any, path: str = "") -> str:
    """Where two JSON values first differ, in words; empty if they are equal."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*found, *(key for key in wanted if key not in found)]:
            step = f"{path}.{key}" if path else str(key)
            text = first_difference(found.get(key), wanted.get(key), step)
            if text:
                return text
        return ""
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for number, (left, right) in enumerate(zip(found, wanted, strict=True)):
            text = first_difference(left, right, f"{path}[{number}]")
            if text:
                return text
        return ""
    if found == wanted:
        return ""
    return f"{path}: store has {_SHOWN.repr(found)}, now {_SHOWN.repr(wanted)}"
