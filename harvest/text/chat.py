"""Maps the tokens of a chat in a model's template to characters of the neutral transcript.

Every model reads a chat in its own template; the transcript is what they have in common. A token
of a message's content gets the content's characters there; a token that completes a place of the
template gets what stands for the place in the transcript: "<" for the turn's start, the role, the
">" and line break for the header's end, the last line break for the turn's end. All other tokens
get no characters, so they never pair. Then chats pair as any text does. No Python per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from harvest.corpus.document import Turn, transcript
from harvest.text.align import Tokens, boundaries
from harvest.text.template import RenderedChat


def to_transcript(
    tokens: Tokens, chat: RenderedChat, turns: Sequence[Turn], places: bool
) -> Tokens:
    """Tokens with spans in `chat.text`, as tokens with spans in `transcript(turns)`.

    places: whether tokens that complete a place of the template get the place's characters.
    A token that covers the end of a content and what stands behind it has read more than the
    content: it pairs at most as the place that it completes.
    """
    starts, ends = tokens.starts.astype(np.int64), tokens.ends.astype(np.int64)
    marks = transcript_marks(turns)
    turn = np.searchsorted(chat.begins, ends) - 1  # the last content that begins before the end
    shift = (marks[:, 2] + chat.stripped - chat.begins)[turn]
    visible = _of_content(starts, ends, turn, chat)
    new_starts = np.where(visible, np.maximum(starts, chat.begins[turn]) + shift, 0)
    new_ends = np.where(visible, ends + shift, 0)
    if places:
        cuts, cut_ends = boundaries(tokens.starts, tokens.ends)
        at, place_starts, place_ends = _places(chat, marks)
        _, where, which = np.intersect1d(cut_ends, at, assume_unique=True, return_indices=True)
        new_starts[cuts[where]] = place_starts[which]
        new_ends[cuts[where]] = place_ends[which]
    covers = new_ends > new_starts
    read = np.maximum.accumulate(np.append(0, new_ends))[1:]
    return Tokens(
        ids=tokens.ids,
        starts=np.where(covers, new_starts, read).astype(np.int32),
        ends=np.where(covers, new_ends, read).astype(np.int32),
        template=True,
    )


def transcript_marks(turns: Sequence[Turn]) -> Int64[np.ndarray, "turns 4"]:
    """Per turn where in the transcript it begins, its role ends, its content begins and ends."""
    sizes = np.array([(len(turn.role), len(turn.content)) for turn in turns], np.int64)
    turn_sizes = np.array([len(transcript([turn])) for turn in turns], np.int64)
    begin = np.cumsum(turn_sizes) - turn_sizes
    role_end = begin + 1 + sizes[:, 0]
    content = role_end + 2
    return np.stack([begin, role_end, content, content + sizes[:, 1]], axis=1)


def _of_content(
    starts: np.ndarray, ends: np.ndarray, turn: np.ndarray, chat: RenderedChat
) -> Bool[np.ndarray, " tokens"]:
    """Tokens that end within a content and cover no other content's end.

    A piece of a character that a straddling token completes is not one of them: nobody reads
    that character alone.
    """
    content_ends = chat.ends
    ended_before = np.searchsorted(content_ends, ends)
    straddles = ended_before > np.searchsorted(content_ends, starts, side="right")
    first = np.where(straddles, starts, np.iinfo(np.int64).max)
    ahead = np.minimum.accumulate(first[::-1])[::-1]  # of straddling tokens, from here on
    return (turn >= 0) & (ends <= content_ends[turn]) & (ends > starts) & (ends <= ahead)


def _places(
    chat: RenderedChat, marks: Int64[np.ndarray, "turns 4"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends of all places in the rendered text, ascending, and their spans in the transcript."""
    begin, role_end, content, content_end = marks.T
    spans_start = np.stack([begin, begin + 1, role_end, content_end], axis=1).ravel()
    spans_end = np.stack([begin + 1, role_end, content, content_end + 1], axis=1).ravel()
    at = chat.places.ravel()
    there = at >= 0
    return at[there], spans_start[there], spans_end[there]
