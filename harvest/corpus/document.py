"""One document as every part of the harvest sees it: its text, its label, its source, its turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Document:
    """One text, the label of its domain ("" without one) and the name of its source.

    A chat has its turns as well; its text is then their transcript.
    """

    text: str
    label: str
    source: str = "corpus"
    turns: tuple[Turn, ...] = ()


def transcript(turns: Sequence[Turn]) -> str:
    """A chat as plain text, in no model's template: <role>, its content below, for each turn."""
    return "".join(f"<{turn.role}>\n{turn.content}\n" for turn in turns)
