"""Text tokens with their characters, and the special tokens that belong before them."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from harvest.corpus.document import Document
from harvest.text.tokens import TextTokenizer
from pipeline.errors import ModelError

from .tokenizers import train

TEXTS = ["", "The man.\r\n\r\n  “yes” 👩‍👩‍👧 漢字", "<s> literal </s>", "x" * 5000]
DOCUMENTS = [Document(text, "") for text in TEXTS]


@pytest.mark.parametrize("name", ["a", "b"])
def test_ids_are_those_of_transformers_without_special_tokens(model_pair, name):
    tokenizer = AutoTokenizer.from_pretrained(model_pair[name])
    found = TextTokenizer(tokenizer, name).encode(DOCUMENTS)
    wanted = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    assert [tokens.ids.tolist() for tokens in found] == wanted


def test_truncation_and_padding_of_the_tokenizer_file_are_ignored(model_pair):
    tokenizer = AutoTokenizer.from_pretrained(model_pair["a"])
    whole = TextTokenizer(tokenizer, "a").encode(DOCUMENTS)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=100)
    again = TextTokenizer(tokenizer, "a").encode(DOCUMENTS)
    assert [len(tokens) for tokens in again] == [len(tokens) for tokens in whole]


@pytest.mark.parametrize(("name", "prefix"), [("a", (1,)), ("b", ())])
def test_the_special_prefix_is_what_stands_before_a_text(model_pair, name, prefix):
    tokenizer = AutoTokenizer.from_pretrained(model_pair[name])
    assert TextTokenizer(tokenizer, name).prefix == prefix


@pytest.mark.parametrize("name", ["a", "b"])
def test_white_space_keeps_its_characters(model_pair, name):
    """The byte-level post-processor of the fixture would empty the spans of white space."""
    text = "one  \n\n  two"
    tokens = TextTokenizer(AutoTokenizer.from_pretrained(model_pair[name]), name).encode(
        [Document(text, "")]
    )[0]
    covered = set()
    for start, end in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True):
        covered.update(range(start, end))
    assert covered == set(range(len(text)))


@pytest.fixture(scope="module")
def wordpiece():
    return train("wordpiece", TEXTS, 100)


def test_only_a_bidirectional_model_reads_what_stands_behind_a_text(wordpiece):
    assert wordpiece("yes").input_ids[0] == 2
    assert wordpiece("yes").input_ids[-1] == 3
    assert TextTokenizer(wordpiece, "a", bidirectional=True).suffix == (3,)
    assert TextTokenizer(wordpiece, "a").suffix == ()
    assert TextTokenizer(wordpiece, "a").prefix == (2,)


def test_special_ids_are_all_those_marked_as_special(wordpiece):
    found = TextTokenizer(wordpiece, "a").special_ids
    assert wordpiece.convert_ids_to_tokens(found.tolist()) == [
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    ]
    assert (np.diff(found) > 0).all()


def test_an_accent_that_the_normalizer_merged_belongs_to_its_letter(wordpiece):
    text = "yes e\u0301a\u0308\u0323 \u1100\u1161\u11a8"
    tokens = TextTokenizer(wordpiece, "a").encode([Document(text, "")])[0]
    assert {3, 6, 9, 13} & set(tokens.ends.tolist()) == {3, 6, 9, 13}
    assert not {5, 7, 8} & set(tokens.ends.tolist())


def test_a_tokenizer_without_offsets_is_refused():
    from transformers import ByT5Tokenizer

    with pytest.raises(ModelError, match=r"models\.b: .*ByT5Tokenizer.*tokenizer\.json"):
        TextTokenizer(ByT5Tokenizer(), "b")
