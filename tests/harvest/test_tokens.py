"""Text tokens with their characters, and the special tokens that belong before them."""

import pytest
from transformers import AutoTokenizer

from harvest.tokens import TextTokenizer
from pipeline.errors import ModelError

TEXTS = ["", "The man.\r\n\r\n  “yes” 👩‍👩‍👧 漢字", "<s> literal </s>", "x" * 5000]


@pytest.mark.parametrize("name", ["a", "b"])
def test_ids_are_those_of_transformers_without_special_tokens(model_pair, name):
    tokenizer = AutoTokenizer.from_pretrained(model_pair[name])
    found = TextTokenizer(tokenizer, name).encode(TEXTS)
    wanted = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    assert [tokens.ids.tolist() for tokens in found] == wanted


def test_truncation_and_padding_of_the_tokenizer_file_are_ignored(model_pair):
    tokenizer = AutoTokenizer.from_pretrained(model_pair["a"])
    whole = TextTokenizer(tokenizer, "a").encode(TEXTS)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=100)
    again = TextTokenizer(tokenizer, "a").encode(TEXTS)
    assert [len(tokens) for tokens in again] == [len(tokens) for tokens in whole]


@pytest.mark.parametrize(("name", "prefix"), [("a", (1,)), ("b", ())])
def test_the_special_prefix_is_what_stands_before_a_text(model_pair, name, prefix):
    tokenizer = AutoTokenizer.from_pretrained(model_pair[name])
    assert TextTokenizer(tokenizer, name).prefix == prefix


@pytest.mark.parametrize("name", ["a", "b"])
def test_white_space_keeps_its_characters(model_pair, name):
    """The byte-level post-processor of the fixture would empty the spans of white space."""
    text = "one  \n\n  two"
    tokens = TextTokenizer(AutoTokenizer.from_pretrained(model_pair[name]), name).encode([text])[0]
    covered = set()
    for start, end in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True):
        covered.update(range(start, end))
    assert covered == set(range(len(text)))


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match=r"models\.b: Slow gives no character offsets"):
        TextTokenizer(Slow(), "b")
