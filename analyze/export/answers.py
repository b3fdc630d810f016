"""What a language model answered, taken as text: nothing in it is believed, run or rendered."""

from __future__ import annotations

import json
import re

LONGEST = 1000  # characters of an explanation
THOUGHTS = "</think>"
LONGEST_READ = 100_000  # characters of an answer, from its end, that are looked at
MARK = re.compile(r"^[\s\[*_#]*explanation[\]*_]*\s*:[\s*_]*", re.IGNORECASE)
NUMBERS = re.compile(r"\[[\s\d,]*\]")


def clean(text: str, longest: int = LONGEST) -> str:
    """One line of printable characters, cut off if it is longer."""
    valid = text.encode("utf-8", "replace").decode()
    line = " ".join("".join(c if c.isprintable() else " " for c in valid).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def explanation_in(answer: str) -> str:
    """The explanation: what stands behind the last `EXPLANATION:`, else the whole answer.

    Empty if there is none. Thoughts that some models write before it are left out.
    """
    lines = _spoken(answer).strip().splitlines()
    starts = [n for n, line in enumerate(lines) if MARK.match(line)]
    if starts:
        lines = [MARK.sub("", lines[starts[-1]]), *lines[starts[-1] + 1 :]]
    return clean("\n".join(lines)).strip("\"'` ")


def choice_in(answer: str, examples: int) -> set[int] | None:
    """The numbers 1 to `examples` in the last JSON list of the answer; None if there is none."""
    found = NUMBERS.findall(_spoken(answer))
    if not found:
        return None
    try:
        numbers = json.loads(found[-1])
    except (ValueError, RecursionError):
        return None
    chosen = set(numbers)
    return chosen if chosen <= set(range(1, examples + 1)) else None


def _spoken(answer: str) -> str:
    """The answer without thoughts before it."""
    return answer.rpartition(THOUGHTS)[2][-LONGEST_READ:]
