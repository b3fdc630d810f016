"""Chats pair by content and by place, against texts put together by hand."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harvest.corpus.document import Document, Turn, transcript
from harvest.text.align import Tokens, pair
from harvest.text.chat import to_transcript
from harvest.text.template import ChatTemplate, LeftOut, RenderedChat
from harvest.text.tokens import TextTokenizer

from ...conftest import AWKWARD, CODE, PROSE
from .brute_force import covered, cuts
from .tokenizers import (
    CHATML,
    CHATML_TOKENS,
    GEMMA,
    GEMMA_TOKENS,
    LLAMA3,
    LLAMA3_TOKENS,
    train,
    with_template,
)

LOOKALIKES = [
    *("<|im_end|>\n<|im_start|>user\n", "<|eot_id|>", "<user>\nhello\n", "user", "qz0content0zq"),
    *(
        "",
        " ",
        "\n\n",
        "  two  ",
        "\nthree\n",
        "</s>",
        "<s>",
        "x",
        "e\u0301",
        "👩‍👩‍👧‍👦",
        "漢字",
        "ok.",
    ),
]
contents = st.one_of(
    st.sampled_from([*LOOKALIKES, *AWKWARD, PROSE, CODE]),
    st.lists(st.sampled_from([*LOOKALIKES, *"ab .,\n"]), max_size=8).map("".join),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)
alternating = st.lists(contents, min_size=1, max_size=5).map(
    lambda texts: tuple(
        Turn("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)
    )
)
with_system = st.tuples(contents, alternating).map(lambda two: (Turn("system", two[0]), *two[1]))


def by_hand(shape: str, turns: tuple[Turn, ...], bos: str) -> tuple[str, dict[int, tuple]]:
    """A chat in a template's shape, and what has been read at each of its characters.

    That is (turn, place) or (turn, number of the content's characters).
    """
    text, read = "", {}

    def add(piece: str, meaning: tuple | None = None) -> None:
        nonlocal text
        text += piece
        if meaning is not None and piece:
            read[len(text)] = meaning

    if shape == "chatml" and turns[0].role != "system":
        add("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    if shape in ("llama3", "gemma"):
        add(bos)
    marks = {
        "chatml": ("<|im_start|>", "\n", "<|im_end|>", "\n"),
        "llama3": ("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", ""),
        "gemma": ("<start_of_turn>", "\n", "<end_of_turn>", "\n"),
    }[shape]
    for number, turn in enumerate(turns):
        model = shape == "gemma" and turn.role == "assistant"
        add(marks[0], (number, "turn_start"))
        add("model" if model else turn.role, (number, "role"))
        add(marks[1], (number, "header_end"))
        content, stripped = turn.content, 0
        if shape != "chatml":
            content = content.strip()
            stripped = turn.content.index(content) if content else 0
        for place, character in enumerate(content):
            add(character, (number, stripped + place + 1))
        add(marks[2], (number, "turn_end"))
        add(marks[3])
    return text, read


def transcript_characters(turns: tuple[Turn, ...]) -> dict[tuple, int]:
    """The character of the transcript at which each meaning ends."""
    found, at = {}, 0
    for number, turn in enumerate(turns):
        pieces = ["<", turn.role, ">\n", *turn.content, "\n"]
        ends = [at + end for end in accumulate(map(len, pieces))]
        names = ["turn_start", "role", "header_end", *range(1, len(turn.content) + 1), "turn_end"]
        found.update({(number, name): end for name, end in zip(names, ends, strict=True)})
        at = ends[-1]
    assert at == len(transcript(turns))
    return found


def expected_rows(chosen, turns, places: bool) -> dict[tuple, list[int]]:
    """Meaning -> the token of each model, in order, by the definition."""
    tokens_at = []
    for tokenizer, shape, lender_bos in chosen:
        text, read = by_hand(shape, turns, lender_bos)
        if lender_bos and lender_bos not in tokenizer.get_vocab():
            text = text.removeprefix(lender_bos)
            read = {end - len(lender_bos): meaning for end, meaning in read.items()}
        ours = len(lender_bos) > 0 and tokenizer.bos_token == lender_bos
        at = {
            read[end]: token - ours
            for end, token in cuts(covered(tokenizer, text)).items()
            if end in read
        }
        tokens_at.append(at)
    return {
        meaning: [at[meaning] for at in tokens_at]
        for meaning in tokens_at[0]
        if all(meaning in at for at in tokens_at) and (places or isinstance(meaning[1], int))
    }


@pytest.fixture(scope="module")
def models():
    """Per shape a tokenizer, the shape whose text it reads, and the BOS of that template."""
    texts = [PROSE * 3, CODE, *AWKWARD] * 2
    chatml = with_template(train("byte_level", texts), CHATML, CHATML_TOKENS)
    llama = with_template(train("metaspace", texts), LLAMA3, LLAMA3_TOKENS)
    gemma = with_template(train("unigram", texts), GEMMA, GEMMA_TOKENS)
    base = train("byte_level_prefix", texts, 700)
    bert = train("wordpiece", texts)
    found = {
        "chatml": (chatml, "chatml", "", chatml),
        "llama3": (llama, "llama3", "<s>", llama),
        "gemma": (gemma, "gemma", "<s>", gemma),
        "base": (base, "llama3", "<s>", llama),
        "bert": (bert, "chatml", "", chatml),
    }
    ours = {
        (name, keep): TextTokenizer(own, name, ChatTemplate(lender, name), keep)
        for name, (own, _, _, lender) in found.items()
        for keep in ("keep", "drop")
    }
    for own, *_ in found.values():
        own.backend_tokenizer.post_processor = None
    return {name: one[:3] for name, one in found.items()}, ours


def check(models, chosen, turns, template_tokens="keep"):
    shapes, ours = models
    document = Document(transcript(turns), "", turns=turns)
    encoded = [ours[name, template_tokens].encode([document])[0] for name in chosen]
    found = pair(encoded)
    expected = expected_rows([shapes[name] for name in chosen], turns, template_tokens == "keep")
    rows = [list(row) for row in zip(*(one.tolist() for one in found.positions), strict=True)]
    assert rows == list(expected.values())
    characters = transcript_characters(turns)
    assert found.char_end.tolist() == [characters[meaning] for meaning in expected]
    for tokens in encoded:
        assert (np.diff(np.maximum.accumulate(tokens.ends)) >= 0).all()
        assert (tokens.starts >= 0).all()
        assert (tokens.ends <= len(document.text)).all()
    return expected


@settings(max_examples=150, deadline=None)
@given(turns=st.one_of(alternating, with_system), template_tokens=st.sampled_from(["keep", "drop"]))
@example(turns=(Turn("user", ""),), template_tokens="keep")
@example(turns=(Turn("user", " \n"), Turn("assistant", "  a b \n")), template_tokens="keep")
@example(turns=(Turn("system", "Be kind."), Turn("user", PROSE)), template_tokens="drop")
def test_two_shapes_pair_by_content_and_place(models, turns, template_tokens):
    expected = check(models, ["chatml", "llama3"], turns, template_tokens)
    if template_tokens == "keep":
        places = {(turn, place) for turn, place in expected if isinstance(place, str)}
        wanted = {(turn, place) for turn in range(len(turns)) for place in ("turn_start", "role")}
        assert wanted <= places


@settings(max_examples=100, deadline=None)
@given(turns=alternating, template_tokens=st.sampled_from(["keep", "drop"]))
def test_five_models_pair_one_of_them_calling_the_assistant_model(models, turns, template_tokens):
    check(models, ["chatml", "llama3", "gemma", "base", "bert"], turns, template_tokens)


@settings(max_examples=100, deadline=None)
@given(turns=with_system)
def test_a_base_model_reads_the_text_that_it_borrows(models, turns):
    check(models, ["base", "llama3"], turns)


def test_both_shapes_give_every_place_of_an_ordinary_chat(models):
    turns = (Turn("system", "Be kind."), Turn("user", "the man, a man"), Turn("assistant", "yes"))
    expected = check(models, ["chatml", "llama3"], turns)
    for turn in range(3):
        for place in ("turn_start", "role", "header_end", "turn_end"):
            assert (turn, place) in expected


def test_the_template_s_bos_is_not_read_behind_the_tokenizer_s(models):
    shapes, ours = models
    turns = (Turn("user", "the man"),)
    tokens = ours["llama3", "keep"].encode([Document(transcript(turns), "", turns=turns)])[0]
    bos = shapes["llama3"][0].bos_token_id
    assert ours["llama3", "keep"].prefix == (bos,)
    assert bos not in tokens.ids
    borrowed = ours["base", "keep"].encode([Document(transcript(turns), "", turns=turns)])[0]
    start = shapes["base"][0]("<|start_header_id|>user", add_special_tokens=False).input_ids
    assert borrowed.ids[: len(start)].tolist() == start


def test_models_that_read_the_same_pair_as_they_are(models):
    _, ours = models
    turns = (Turn("user", "漢字 is the man"), Turn("assistant", "👩‍👧 yes"))
    tokens = ours["chatml", "keep"].encode([Document(transcript(turns), "", turns=turns)])[0]
    found = pair([tokens, tokens], same_tokenizer=True)
    readable = np.flatnonzero(tokens.ends > tokens.starts).tolist()
    assert [one.tolist() for one in found.positions] == [readable, readable]
    assert len(readable) > len(pair([tokens, tokens]))  # pieces of characters pair too


def test_one_tokenizer_in_two_templates_pairs_by_text(models):
    shapes, _ = models
    tokenizer = shapes["chatml"][0]
    turns = (Turn("user", "漢字 is the man"),)
    document = Document(transcript(turns), "", turns=turns)
    other = ChatTemplate(tokenizer, "b", "{% for m in messages %}[{{ m.content }}]{% endfor %}")
    encoded = [
        TextTokenizer(tokenizer, "a", ChatTemplate(tokenizer, "a")).encode([document])[0],
        TextTokenizer(tokenizer, "b", other).encode([document])[0],
    ]
    found = pair(encoded, same_tokenizer=True)
    contents_end = len("<user>\n漢字 is the man")
    assert contents_end in found.char_end
    assert found.char_end.tolist() == pair(encoded).char_end.tolist()


@pytest.mark.parametrize("places", [True, False])
def test_a_character_whose_last_bytes_are_in_a_straddling_token_is_not_read(places):
    # [x] [first bytes of é] [last bytes of é and first of the template's —] [the rest of —] [y] [.]
    turns = (Turn("a", "xé"), Turn("b", "y"))
    chat = RenderedChat(
        text="xé—y.",
        begins=np.array([0, 3]),
        ends=np.array([2, 4]),
        stripped=np.array([0, 0]),
        places=np.array([[-1, -1, -1, -1], [-1, -1, 3, 5]]),
        bos="",
    )
    starts, ends = np.array([[0, 1, 1, 2, 3, 4], [1, 2, 3, 3, 4, 5]], np.int32)
    tokens = to_transcript(Tokens(np.arange(6, dtype=np.int32), starts, ends), chat, turns, places)
    read = [
        transcript(turns)[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)
    ]
    assert read == ["x", "", "", ">\n" if places else "", "y", "\n" if places else ""]
    assert (np.diff(tokens.ends) >= 0).all()


def test_chats_that_cannot_be_read_stand_beside_the_others(models):
    _, ours = models
    chats = [(Turn("system", "a"), Turn("user", "b")), (Turn("user", "b"),)]
    documents = [Document(transcript(turns), "", turns=turns) for turns in chats]
    documents.insert(1, Document("plain text", ""))
    refused, plain, read = ours["gemma", "keep"].encode(documents)
    assert refused == LeftOut("chats that gemma's template refuses")
    assert plain.ends[-1] == len("plain text")
    assert read.template
    assert not plain.template
