"""Makes a document of one row: its text or its chat, and its label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harvest.corpus.document import Document, Turn, transcript
from harvest.corpus.rows import Row
from pipeline.errors import CorpusError
from pipeline.specs import SourceSpec

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Columns:
    """Which columns of a source's rows are read; `key` is its place in the configuration."""

    source: str
    key: str
    spec: SourceSpec

    @property
    def names(self) -> list[str]:
        """The columns that are read, each once."""
        content = self.spec.chat_column or self.spec.text_column
        return [name for name in dict.fromkeys([content, self.spec.label_column]) if name]

    def document(self, row: Row, number: int, file: str, label_names: list[str] | None) -> Document:
        """The document of row `number` of `file`. Raises CorpusError, which names both."""
        where = (number, file)
        if isinstance(row, str):
            return Document(self._valid("text_column", row, where), "", self.source)
        label = self._label(row, where, label_names)
        if self.spec.chat_column is None:
            value = self._value(row, "text_column", self.spec.text_column, where)
            if not isinstance(value, str):
                raise self._wrong("text_column", value, where, "not text")
            return Document(self._valid("text_column", value, where), label, self.source)
        value = self._value(row, "chat_column", self.spec.chat_column, where)
        turns = self._turns(value, where)
        text = self._valid("chat_column", transcript(turns), where)
        return Document(text, label, self.source, turns)

    def _value(self, row: dict[str, Any], key: str, column: str, where: tuple[int, str]) -> Any:
        if column not in row:
            number, file = where
            raise CorpusError(
                f"{self.key}.{key}: no column {column!r} in {file}, document {number}; "
                f"it has {', '.join(row) or 'none'}"
            )
        return row[column]

    def _label(self, row: dict[str, Any], where: tuple[int, str], names: list[str] | None) -> str:
        """A later JSON line may leave the label out; if the first does, its name is mistaken."""
        column = self.spec.label_column
        if column is None or (where[0] > 0 and column not in row):
            return ""
        label = self._value(row, "label_column", column, where)
        if names is not None and isinstance(label, int) and 0 <= label < len(names):
            label = names[label]
        return "" if label is None else str(label)

    def _turns(self, value: Any, where: tuple[int, str]) -> tuple[Turn, ...]:
        if not isinstance(value, list):
            raise self._wrong("chat_column", value, where, "not a list of {role, content}")
        return tuple(
            self._turn(turn, where, f" as turn {number} of {len(value)}")
            for number, turn in enumerate(value, start=1)
        )

    def _turn(self, turn: Any, where: tuple[int, str], which: str) -> Turn:
        """A turn of {role, content}, or of {from, value} as in ShareGPT."""
        record = turn if isinstance(turn, dict) else {}
        role, content = record.get("role"), _content(record.get("content"))
        if role is None and content is None:
            role, content = record.get("from"), _content(record.get("value"))
            role = SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else None
        if not isinstance(role, str) or content is None:
            why = "not {role, content} with text in both"
            raise self._wrong("chat_column", turn, where, why, which)
        return Turn(role, content)

    def _valid(self, key: str, text: str, where: tuple[int, str]) -> str:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            half = text[error.start : error.start + 1]
            raise self._wrong(key, half, where, "half of a character, not text") from None
        return text

    def _wrong(
        self, key: str, value: Any, where: tuple[int, str], why: str, which: str = ""
    ) -> CorpusError:
        number, file = where
        shown = repr(value)
        if len(shown) > SHOWN_CHARACTERS:
            shown = f"{shown[:SHOWN_CHARACTERS]}..."
        column = getattr(self.spec, key)
        return CorpusError(
            f"{self.key}.{key}: document {number} of {file} holds {shown}{which} in {column!r}, "
            f"{why}; remove it or name another column"
        )


def _content(value: Any) -> str | None:
    """Text, or a list of parts of text; None for anything else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(map(_is_text_part, value)):
        return None
    return "".join(part["text"] for part in value)


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.get("type", "text") == "text"
        and isinstance(part.get("text"), str)
    )
