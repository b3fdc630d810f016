"""Values as JSON that can stand inside a page, whatever text they hold.

Nothing of the JSON can end the element it stands in or be read as markup, also where a tool along
the way misreads its encoding; lone surrogates, which UTF-8 has no bytes for, stay what they are.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from typing import Any

# Markup, line ends of older JavaScript, controls, byte order marks, halves of surrogate pairs.
RISKY = re.compile("[<>&\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
# Controls but tabs and new lines, bidirectional and invisible marks, halves of surrogate pairs.
HIDDEN = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
DIGITS = 4


def embedded(value: Any) -> str:
    """JSON of plain values and dataclasses, for a `<script type="application/json">`."""
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, default=vars, separators=(",", ":")
    )
    return RISKY.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def number(value: Any) -> float | None:
    """A number to four digits; None for what is none, or not finite."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return rounded if math.isfinite(rounded) else float(value)


def shortened(text: str | None, longest: int) -> str:
    """Text of at most so many characters, and a mark where some are missing."""
    text = text or ""
    return text if len(text) <= longest else text[:longest] + "…"


def source_hash(text: str) -> str:
    """How a content security policy names a script or style sheet that may be used."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def visible(text: object) -> str:
    """Text of the page's frame, names of models and labels: controls are named, not obeyed."""
    return HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", str(text))
