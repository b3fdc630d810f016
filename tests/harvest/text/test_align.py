"""Pairing of positions, against an alignment that compares decoded bytes and knows no offsets."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

from harvest.corpus.document import Document
from harvest.text.align import Tokens, boundaries, pair, stretches
from harvest.text.tokens import TextTokenizer

from ...conftest import AWKWARD, CODE
from .brute_force import covered, cuts
from .tokenizers import FAMILIES, train

SPECIAL = ("<s>", "</s>", "<unk>", "<|endoftext|>", "[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]")
PIECES = [
    *("the man", " ", "  ", "\r\n", "\n", "\t", "é", "e\u0301", "a\u0308\u0323", "\x00"),
    *("👩‍👧", "👩‍👩‍👧‍👦", "🏽", "🏳️‍🌈", "漢", "字", "한국어", "ᄀ", "“", "’", "—", "▁", "░"),
    *("\u200b", "\ufeff", "\u00ad", "שָׁלוֹם", "\u202eمرحبا\u202c", "ﬁ", "½", "İ", "ẞ", " " * 40),
    *("\u1100\u1161\u11a8", "\u0301", "\r", "\u2028", "\U000e0041", "\ufffd", "Straße", "NAÏVE"),
]
PROSE = "It is a truth universally acknowledged, that a single man must be in want of a wife.\n"
any_text = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.lists(st.sampled_from([*PIECES, *"abc def,.\t"]), max_size=20).map("".join),
).filter(lambda text: not any(special in text for special in SPECIAL))


@pytest.fixture(scope="module")
def tokenizers(model_pair):
    return {
        name: (AutoTokenizer.from_pretrained(path), TextTokenizer(load(path), name))
        for name, path in model_pair.items()
    }


def load(path):
    return AutoTokenizer.from_pretrained(path)


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, read off the tokenizer itself byte by byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + place): byte for place, byte in enumerate(others)})
    assert set(table) == set(ByteLevel.alphabet())
    return table


BYTES = byte_alphabet()


def bytes_of(token: str, byte_level: bool) -> bytes:
    if byte_level:
        return bytes(BYTES[character] for character in token)
    if len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def characters_read(tokenizer, text: str, byte_level: bool) -> dict[int, int]:
    """Character count -> the token after which exactly so many whole characters were decoded."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not byte_level:
        text = text.replace("▁", " ")
        text = text if text.startswith(" ") or not text else " " + text
    added = len(text)
    total = text.encode()
    ends = {len(text[:count].encode()): count for count in range(len(text) + 1)}
    read, found = 0, {}
    for index, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
        piece = bytes_of(token, byte_level)
        assert total[read : read + len(piece)] == piece
        read += len(piece)
        if read in ends:
            found[ends[read]] = index
    assert read == len(total)
    assert added in found or not text
    return found


def brute_force_pairs(pair_of_tokenizers, text: str) -> list[tuple[int, int, int]]:
    """(character end, token of a, token of b) of every position where both have read the same."""
    a = characters_read(pair_of_tokenizers["a"][0], text, byte_level=False)
    b = characters_read(pair_of_tokenizers["b"][0], text, byte_level=True)
    inserted = int(bool(text) and not text.startswith((" ", "▁")))
    a = {count - inserted: index for count, index in a.items() if count > inserted}
    return [(end, a[end], b[end]) for end in sorted(a.keys() & b.keys())]


@settings(max_examples=400, deadline=None)
@given(text=any_text)
@example(text="")
@example(text="\n")
@example(text="👩‍👩‍👧‍👦" * 3)
@example(text="".join(PIECES))
@example(text=PROSE + "def width(self) -> int:\r\n    for row in self.rows:\r\n")
def test_pairing_equals_brute_force_over_decoded_bytes(tokenizers, text):
    encoded = [tokenizers[name][1].encode([Document(text, "")])[0] for name in "ab"]
    found = pair(encoded)
    a, b = found.positions
    assert list(zip(found.char_end.tolist(), a.tolist(), b.tolist(), strict=True)) == (
        brute_force_pairs(tokenizers, text)
    )
    for row in range(len(found)):
        starts = [one.starts[index] for one, index in zip(encoded, (a[row], b[row]), strict=True)]
        assert found.char_start[row] == min(starts)


@settings(max_examples=200, deadline=None)
@given(text=any_text)
@pytest.mark.parametrize("name", ["a", "b"])
def test_one_tokenizer_for_both_models_gives_the_identity(tokenizers, name, text):
    tokens = tokenizers[name][1].encode([Document(text, "")])[0]
    found = pair([tokens, tokens], same_tokenizer=True)
    everything = list(range(len(tokens)))
    assert found.positions[0].tolist() == everything
    assert found.positions[1].tolist() == everything
    assert found.char_end.tolist() == tokens.ends.tolist()


@pytest.fixture(scope="module")
def families():
    """Each family's tokenizer, whose post-processor no longer trims its offsets, and ours."""
    trained = {family: train(family, [PROSE * 3, CODE, *AWKWARD] * 2) for family in FAMILIES}
    found = {name: (one, TextTokenizer(one, name)) for name, one in trained.items()}
    for tokenizer in trained.values():
        tokenizer.backend_tokenizer.post_processor = None
    return found


@settings(max_examples=150, deadline=None)
@given(text=any_text, chosen=st.lists(st.sampled_from(FAMILIES), min_size=2, max_size=3))
@example(text="".join(PIECES), chosen=list(FAMILIES))
@example(text="e\u0301" * 5 + "\u1100\u1161\u11a8", chosen=["unigram", "byte_level", "wordpiece"])
def test_families_pair_wherever_all_of_them_cut(families, text, chosen):
    encoded = [families[name][1].encode([Document(text, "")])[0] for name in chosen]
    expected = [cuts(covered(families[name][0], text)) for name in chosen]
    found = pair(encoded)
    ends = sorted(set(expected[0]).intersection(*expected[1:]))
    assert found.char_end.tolist() == ends
    for model, positions in zip(expected, found.positions, strict=True):
        assert positions.tolist() == [model[end] for end in ends]


@settings(max_examples=50, deadline=None)
@given(text=any_text)
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_truncated(families, family, text):
    """Behind any text a word of its own line is read to its end."""
    text += "\nwife."
    tokens = families[family][1].encode([Document(text, "")])[0]
    assert tokens.ends.max() == len(text)
    assert len(tokens) == len(families[family][0](text, add_special_tokens=False)["input_ids"])


@given(text=any_text)
@settings(max_examples=50, deadline=None)
def test_a_row_stands_for_the_tokens_since_the_row_before(families, text):
    encoded = [families[name][1].encode([Document(text, "")])[0] for name in FAMILIES]
    found = pair(encoded)
    for tokens, first, last in zip(
        encoded, stretches(encoded, found), found.positions, strict=True
    ):
        for row in range(len(found)):
            between = range(last[row - 1] + 1 if row else 0, last[row] + 1)
            covering = [index for index in between if tokens.ends[index] > tokens.starts[index]]
            assert first[row] == covering[0]


def spans(*pairs: tuple[int, int]) -> Tokens:
    starts, ends = np.array(pairs, np.int32).reshape(-1, 2).T
    return Tokens(np.arange(len(pairs), dtype=np.int32), starts.copy(), ends.copy())


def test_only_the_piece_that_completes_a_character_pairs():
    pieces = spans((0, 1), (0, 1), (0, 1), (1, 2))
    assert boundaries(pieces.starts, pieces.ends)[0].tolist() == [2, 3]


def test_a_piece_that_begins_the_next_character_completes_nothing():
    # [first bytes of 0] [last bytes of 0 and first of 1] [last bytes of 1]
    pieces = spans((0, 1), (0, 2), (1, 2))
    where, ends = boundaries(pieces.starts, pieces.ends)
    assert (where.tolist(), ends.tolist()) == ([2], [2])


def test_tokens_that_cover_no_character_never_pair():
    found = pair([spans((0, 0), (0, 2), (2, 2), (2, 3)), spans((0, 2), (2, 3), (3, 3))])
    assert [positions.tolist() for positions in found.positions] == [[1, 3], [0, 1]]


def test_the_identity_holds_for_tokens_without_characters_too():
    tokens = spans((0, 1), (1, 1), (1, 2))
    found = pair([tokens, tokens], same_tokenizer=True)
    assert found.positions[0].tolist() == [0, 1, 2]
    assert stretches([tokens, tokens], found)[1].tolist() == [0, 1, 2]


def test_three_models_pair_where_all_three_agree():
    found = pair(
        [
            spans((0, 1), (1, 2), (2, 4)),
            spans((0, 2), (2, 4)),
            spans((0, 1), (1, 2), (2, 3), (3, 4)),
        ]
    )
    assert [positions.tolist() for positions in found.positions] == [[1, 2], [0, 1], [1, 3]]
    assert found.char_start.tolist() == [0, 2]
    assert found.char_end.tolist() == [2, 4]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=12),
        min_size=2,
        max_size=3,
    )
)
def test_any_spans_pair_in_order_and_at_cuts_that_no_token_straddles(models):
    tokens = [spans(*((start, start + size) for start, size in model)) for model in models]
    found = pair(tokens)
    assert (np.diff(found.char_end) > 0).all()
    for model, positions in zip(models, found.positions, strict=True):
        assert (np.diff(positions) > 0).all()
        for end, position in zip(found.char_end.tolist(), positions.tolist(), strict=True):
            seen = [start + size for start, size in model[: position + 1] if size]
            ahead = [start for start, size in model[position + 1 :] if size]
            assert max(seen) == end
            assert all(start >= end for start in ahead)
