import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from pipeline.errors import ModelError
from store.transcript import LONGEST_CHARACTER, Decoder, decode, spell, spell_rows

RARE = "☃"  # in neither tokenizer's texts: three tokens, one per byte
TEXTS = [
    "It is a truth",
    "family 👩‍👩‍👧‍👦, flag 🏳️‍🌈, wave 👋🏽, end",
    "漢字とかな交じり文。한국어",
    "\r\n\ttabs  and   spaces ",
    "e\u0301 a\u0308\u0323",
    "a real \ufffd stands here \ufffd",
    "",
]


@pytest.fixture(scope="session")
def decoders(model_pair):
    return {name: Decoder(str(path)) for name, path in model_pair.items()}


def ids_of(model_pair, model, text):
    tokenizer = Tokenizer.from_file(str(model_pair[model] / "tokenizer.json"))
    return tokenizer.encode(text, add_special_tokens=False).ids


def check_spans(transcript, rows):
    """Spans run forwards, and end where the text ends."""
    assert len(transcript.start) == len(transcript.end) == rows
    assert transcript.start.dtype == transcript.end.dtype == np.int32
    assert np.all(transcript.start <= transcript.end)
    assert np.all(np.diff(transcript.start) >= 0)
    assert np.all(np.diff(transcript.end) >= 0)
    assert not rows or transcript.end[-1] == len(transcript.text)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("model", ["a", "b"])
def test_token_by_token_decoding_gives_the_text_of_all_tokens(model_pair, decoders, model, text):
    ids = ids_of(model_pair, model, text)
    transcript = decode(ids, decoders[model])
    assert transcript.text == decoders[model](ids)
    check_spans(transcript, len(ids))


@pytest.mark.parametrize("model", ["a", "b"])
def test_tokens_that_share_a_character_share_its_span(model_pair, decoders, model):
    text = f"x{RARE}y"
    ids = ids_of(model_pair, model, text)
    transcript = decode(ids, decoders[model])
    place = transcript.text.index(RARE)
    inside = (transcript.start <= place) & (place < transcript.end)
    assert inside.sum() == 3
    spans = set(
        zip(transcript.start[inside].tolist(), transcript.end[inside].tolist(), strict=True)
    )
    assert spans == {(place, place + 1)}


@pytest.mark.parametrize("model", ["a", "b"])
def test_characters_cut_at_either_end_are_shown_as_cut(model_pair, decoders, model):
    ids = ids_of(model_pair, model, RARE * 2 + "x" + RARE * 2)[2:-1]
    transcript = decode(ids, decoders[model])
    assert (transcript.text[0], transcript.text[-1]) == ("\ufffd", "\ufffd")
    assert f"x{RARE}" in transcript.text
    check_spans(transcript, len(ids))


@given(st.lists(st.integers(0, 399), max_size=40), st.sampled_from(["a", "b"]))
@settings(max_examples=200, deadline=None)
def test_any_tokens_at_all_give_spans_that_run_forwards(decoders, ids, model):
    check_spans(decode(ids, decoders[model]), len(ids))


def test_bytes_that_never_end_do_not_hold_up_the_text(decoders):
    calls = []

    def decoder(window):
        calls.append(len(window))
        return "\ufffd" * len(window)

    transcript = decode([7] * 1000, decoder)
    assert transcript.text == "\ufffd" * 1000
    assert max(calls) <= 2 * LONGEST_CHARACTER


def test_a_decoder_that_rewrites_what_is_out_still_gives_a_text():
    transcript = decode([1, 2, 3], lambda window: "".join("ab"[len(window) % 2] for _ in window))
    check_spans(transcript, 3)


def test_words_are_separated_by_spaces_and_are_their_rows_spans():
    transcript = spell(["12", "7", "999"])
    assert transcript.text == "12 7 999"
    spans = zip(transcript.start, transcript.end, strict=True)
    assert [transcript.text[start:end] for start, end in spans] == ["12", "7", "999"]


def test_rows_are_spelled_by_number():
    transcript = spell_rows(9, 11)
    assert transcript.text == "row 9 row 10"
    assert (transcript.start.tolist(), transcript.end.tolist()) == ([0, 6], [5, 12])


@pytest.mark.parametrize("empty", [spell([]), spell_rows(3, 3), decode([], str)])
def test_a_document_without_rows_has_no_text(empty):
    assert empty.text == ""
    check_spans(empty, 0)


@pytest.mark.parametrize("model", ["a", "b"])
def test_decoding_is_that_of_transformers(model_pair, decoders, model):
    tokenizer = AutoTokenizer.from_pretrained(model_pair[model])
    ids = tokenizer("two\nlines — and 漢字")["input_ids"]
    assert decode(ids, decoders[model]).text == tokenizer.decode(
        ids, clean_up_tokenization_spaces=False
    )


def test_a_tokenizer_may_be_named_by_its_file(model_pair, decoders):
    by_file = Decoder(str(model_pair["a"] / "tokenizer.json"))
    assert by_file.fingerprint == decoders["a"].fingerprint != decoders["b"].fingerprint


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_a_folder_without_a_tokenizer_is_one_line(tmp_path, monkeypatch, content):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"--tokenizer: .*tokenizer\.json") as caught:
        Decoder(str(tmp_path))
    assert "\n" not in str(caught.value)
