"""Chats in a model's own chat template, and where in the rendered text each message stands.

The template is rendered once per sequence of roles with marks in place of the contents, which
gives the text around them; a real chat must then be exactly that text with its contents (or the
contents without white space around them, which some templates strip) in between. Templates that
look into contents are rendered a second time with the marks around them. What still does not
fit is a chat whose words the template changes: it is left out, never guessed at.

Jinja runs in the sandbox of transformers; today's date is always the same one, so that a chat
is rendered alike in every run. About 0.1 ms per chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from harvest.corpus.document import Turn
from harvest.reason import first_line
from harvest.text.places import Layout, Marks, layout
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

DAY = {"%d": "26", "%B": "July", "%b": "Jul", "%m": "07", "%Y": "2024", "%A": "Friday"}
FIXED_DAY = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{code}', '{value}')" for code, value in DAY.items())
    + " }}{% endmacro %}\n"
)


@dataclass(frozen=True)
class LeftOut:
    """Stands for a chat that a model cannot read; `reason` names a kind of chats, to be counted."""

    reason: str


@dataclass(frozen=True)
class RenderedChat:
    """A chat in a model's template.

    begins, ends: characters of `text` that hold each turn's content; stripped: characters of the
    content that were stripped in front of it; places: where in `text` the turn's places.PLACES
    end, ascending but for the -1 of places that are not there; bos: the special token at the
    beginning that belongs to no turn ("" if none).
    """

    text: str
    begins: Int64[np.ndarray, " turns"]
    ends: Int64[np.ndarray, " turns"]
    stripped: Int64[np.ndarray, " turns"]
    places: Int64[np.ndarray, "turns 4"]
    bos: str

    def without_bos(self) -> RenderedChat:
        """The same chat without the special token at its beginning."""
        cut = len(self.bos)
        return RenderedChat(
            text=self.text[cut:],
            begins=self.begins - cut,
            ends=self.ends - cut,
            stripped=self.stripped,
            places=np.where(self.places < 0, self.places, self.places - cut),
            bos="",
        )


class ChatTemplate:
    """Renders chats for one model, by its tokenizer's template or by the `template` given.

    Raises ModelError, naming models.MODEL.chat_template, if there is none or it is not Jinja.
    """

    def __init__(self, tokenizer: Any, model: str, template: str | None = None) -> None:
        from jinja2 import TemplateSyntaxError

        self._tokenizer = tokenizer
        self._model = model
        self._source = FIXED_DAY + (template or _own_template(tokenizer, model))
        # Not only those that are called special: <｜User｜> of DeepSeek is not.
        added = [token.content for token in tokenizer.added_tokens_decoder.values()]
        self._marks = Marks.of([text for text in added if text.strip()], tokenizer.bos_token or "")
        self._footers: dict[tuple[str, ...], str] = {}
        self._layouts: dict[tuple[str, ...], Layout | None] = {}
        try:
            self._apply([Turn("user", "")])
        except TemplateSyntaxError as error:
            raise ModelError(
                f"models.{model}.chat_template: not a Jinja template ({first_line(error)})"
            ) from None
        except Exception:  # a template may refuse this chat as it may any other
            pass

    def render(self, turns: Sequence[Turn]) -> RenderedChat | LeftOut:
        """The chat as the model reads it; LeftOut if the template refuses it or rewrites it."""
        try:
            text = self._apply(turns)
        except Exception:  # templates are programs: they may fail in any way
            return LeftOut(f"chats that {self._model}'s template refuses")
        roles = tuple(turn.role for turn in turns)
        if roles not in self._layouts:
            self._layouts[roles] = self._layout(self._pieces(roles), roles)
        found = _locate(text, self._layouts[roles], turns)
        if found is None:
            found = _locate(text, self._layout(self._pieces_around(turns), roles), turns)
        return found or LeftOut(f"chats that {self._model}'s template rewrites")

    def _apply(self, turns: Sequence[Turn]) -> str:
        chat = [{"role": turn.role, "content": turn.content} for turn in turns]
        rendered = self._tokenizer.apply_chat_template(
            chat, chat_template=self._source, tokenize=False
        )
        return str(rendered)

    def _pieces(self, roles: tuple[str, ...]) -> tuple[str, ...] | None:
        """The template's text around the contents; None if it does not show each of them once."""
        marks = [f"qz{number}content{number}zq" for number in range(len(roles))]
        return self._split(
            [Turn(role, mark) for role, mark in zip(roles, marks, strict=True)], marks
        )

    def _pieces_around(self, turns: Sequence[Turn]) -> tuple[str, ...] | None:
        """The same for a template that looks into the contents: with marks before and behind."""
        numbers = range(len(turns))
        marks = [f"qz{side}{number}content{number}zq" for number in numbers for side in "ab"]
        marked = [
            Turn(turn.role, marks[2 * number] + turn.content + marks[2 * number + 1])
            for number, turn in enumerate(turns)
        ]
        parts = self._split(marked, marks)
        if parts is None or list(parts[1::2]) != [turn.content for turn in turns]:
            return None
        return parts[::2]

    def _split(self, turns: Sequence[Turn], marks: Sequence[str]) -> tuple[str, ...] | None:
        try:
            text = self._apply(turns)
        except Exception:
            return None
        pieces = []
        for mark in marks:
            if text.count(mark) != 1:
                return None
            before, _, text = text.partition(mark)
            pieces.append(before)
        return (*pieces, text)

    def _layout(self, pieces: tuple[str, ...] | None, roles: tuple[str, ...]) -> Layout | None:
        if pieces is None:
            return None
        footers = [self._footer(roles[:count]) for count in range(1, len(roles))]
        return layout(pieces, [*footers, pieces[-1]], roles, self._marks)

    def _footer(self, roles: tuple[str, ...]) -> str:
        """What stands behind the last content of a chat that ends there; "" if it cannot."""
        if roles not in self._footers:
            pieces = self._pieces(roles)
            self._footers[roles] = pieces[-1] if pieces else ""
        return self._footers[roles]


def chat_templates(
    specs: Mapping[str, ModelSpec], tokenizers: Mapping[str, Any]
) -> dict[str, ChatTemplate]:
    """Each model's template: its tokenizer's own, a .jinja file, or the one of another model.

    Raises ModelError if a model has none.
    """
    own = {
        name: ChatTemplate(tokenizers[name], name, _read_file(name, spec))
        for name, spec in specs.items()
        if spec.chat_template not in specs
    }
    for name, spec in specs.items():
        lender = spec.chat_template
        if lender in specs and lender not in own:
            raise ModelError(
                f"models.{name}.chat_template: model {lender!r} borrows its template itself; name "
                "a model with a template of its own, or a .jinja file"
            )
    return {name: own.get(name) or own[str(spec.chat_template)] for name, spec in specs.items()}


def _read_file(model: str, spec: ModelSpec) -> str | None:
    if spec.chat_template is None:
        return None
    try:
        return Path(spec.chat_template).expanduser().read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"models.{model}.chat_template: {spec.chat_template!r} is neither a model of this run "
            f"nor a file that can be read ({first_line(error)})"
        ) from None


def _own_template(tokenizer: Any, model: str) -> str:
    remedy = (
        f"set models.{model}.chat_template to a .jinja file or to the name of the model whose "
        "template it borrows"
    )
    if not tokenizer.chat_template:
        raise ModelError(
            f"models.{model}.chat_template: the corpus has chats and the model's tokenizer has no "
            f"chat template; {remedy}"
        )
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise ModelError(f"models.{model}.chat_template: {first_line(error)}; {remedy}") from None


def _locate(text: str, known: Layout | None, turns: Sequence[Turn]) -> RenderedChat | None:
    """Walks through the text, piece and content in turn; None unless all of it fits."""
    if known is None or not text.startswith(known.pieces[0]):
        return None
    begins, ends, stripped = [], [], []
    at = len(known.pieces[0])
    for turn, behind in zip(turns, known.pieces[1:], strict=True):
        content, bare = turn.content, turn.content.strip()
        shown = content if text.startswith(content + behind, at) else bare
        if not text.startswith(shown + behind, at):
            return None
        begins.append(at)
        ends.append(at + len(shown))
        stripped.append(len(content) - len(content.lstrip()) if shown is bare else 0)
        at = ends[-1] + len(behind)
    if at != len(text):
        return None
    where = np.array([begins, ends, stripped], np.int64).reshape(3, -1)
    places = known.places(where[0], where[1])
    return RenderedChat(text, where[0], where[1], where[2], places, known.bos)
