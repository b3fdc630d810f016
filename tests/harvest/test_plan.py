"""What becomes a row, against plain loops over tokens written from the configuration's words."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.config import HarvestConfig
from harvest.corpus.document import Document
from harvest.plan import FIRST, SPECIAL, Planner
from harvest.text.align import Tokens
from harvest.text.tokens import LeftOut


@dataclass
class Cutter:
    """A tokenizer that cuts the text `number` at the characters it was told."""

    cuts: dict[str, list[int]]
    serialized: str
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    special_ids: np.ndarray = field(default_factory=lambda: np.array([3, 4]))
    refused: frozenset[str] = frozenset()

    def encode(self, documents):
        return [
            LeftOut("chats refused") if d.text in self.refused else self.tokens(d.text)
            for d in documents
        ]

    def tokens(self, text: str) -> Tokens:
        ends = np.array(self.cuts[text], np.int32)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int32) if len(ends) else ends
        return Tokens((ends * 7 % 11).astype(np.int32), starts, ends)


@st.composite
def cases(draw):
    """Some texts, two or three tokenizers that cut them anyhow, contexts and a configuration."""
    texts = [
        f"{number}" + "x" * draw(st.integers(0, 30)) for number in range(draw(st.integers(1, 4)))
    ]
    tokenizers = []
    for model in range(draw(st.integers(1, 3))):
        cuts = {
            text: sorted({*draw(st.lists(st.integers(1, len(text)), max_size=20)), len(text)})
            for text in texts
        }
        special = [(101,) * draw(st.integers(0, 2)), (102,) * draw(st.integers(0, 1))]
        tokenizers.append(Cutter(cuts, str(model), *special))
    contexts = tuple(draw(st.integers(4, 12)) for _ in tokenizers)
    config = HarvestConfig(
        pair=draw(st.sampled_from(["last", "mean"])),
        skip_first=draw(st.integers(0, 4)),
        skip_special=draw(st.booleans()),
    )
    return texts, tokenizers, contexts, config


def documents(texts):
    return [Document(text, "") for text in texts]


def windows_of(share):
    """(first token, one behind the last) of each window that is run."""
    return list(zip(share.window_start.tolist(), share.window_stop.tolist(), strict=True))


@given(cases())
def test_rows_are_the_common_ends_less_what_is_not_wanted(case):
    texts, tokenizers, contexts, config = case
    everything = Planner(tuple(tokenizers), contexts, HarvestConfig(pair=config.pair))(
        documents(texts)
    )
    common = [
        (number, end)
        for number, text in enumerate(texts)
        for end in range(1, len(text) + 1)
        if all(end in tokenizer.cuts[text] for tokenizer in tokenizers)
    ]
    assert list(zip(everything.document, everything.char_end, strict=True)) == common

    counts = {FIRST: 0, SPECIAL: 0}
    wanted = []
    for row, pair in enumerate(common):
        places, ids = [], []
        for tokenizer, share in zip(tokenizers, everything.models, strict=True):
            token = int(share.row_token[row])
            ((start, _),) = (w for w in windows_of(share) if w[0] <= token < w[1])
            places.append(len(tokenizer.prefix) + int(share.row_first[row]) - start)
            ids.append(int(share.ids[token]))
        if min(places) < config.skip_first:
            counts[FIRST] += 1
        elif config.skip_special and any(token in (3, 4) for token in ids):
            counts[SPECIAL] += 1
        else:
            wanted.append((row, pair))
    plan = Planner(tuple(tokenizers), contexts, config)(documents(texts))
    assert list(zip(plan.document, plan.char_end, strict=True)) == [pair for _, pair in wanted]
    assert {**dict.fromkeys(counts, 0), **{r: len(d) for r, d in plan.dropped.items()}} == counts
    for share, full in zip(plan.models, everything.models, strict=True):
        rows = [row for row, _ in wanted]
        assert share.row_token.tolist() == full.row_token[rows].tolist()
        assert share.row_first.tolist() == full.row_first[rows].tolist()


@given(cases())
def test_a_pass_holds_its_rows_and_is_within_the_context(case):
    texts, tokenizers, contexts, config = case
    plan = Planner(tuple(tokenizers), contexts, config)(documents(texts))
    for tokenizer, share, context in zip(tokenizers, plan.models, contexts, strict=True):
        assert share.lengths.max(initial=0) <= context
        ids = [int(i) for text in texts for i in tokenizer.tokens(text).ids]
        assert share.ids.tolist() == ids
        assert share.document_tokens.tolist() == [len(tokenizer.cuts[text]) for text in texts]
        assert share.window_row[-1] == plan.rows
        rows = pairwise(share.window_row.tolist())
        for (start, stop), (first_row, last_row) in zip(windows_of(share), rows, strict=True):
            assert last_row > first_row
            inside = share.row_token[first_row:last_row]
            assert start <= inside.min()
            assert inside.max() < stop


@given(cases())
def test_a_mean_is_over_the_tokens_since_the_last_common_end_in_the_same_pass(case):
    texts, tokenizers, contexts, _ = case
    plan = Planner(tuple(tokenizers), contexts, HarvestConfig(pair="mean"))(documents(texts))
    for tokenizer, share in zip(tokenizers, plan.models, strict=True):
        before = np.cumsum([0, *(len(tokenizer.cuts[text]) for text in texts)])
        for row in range(plan.rows):
            same = row and plan.document[row] == plan.document[row - 1]
            behind = int(share.row_token[row - 1]) + 1 if same else before[plan.document[row]]
            token = int(share.row_token[row])
            ((start, _),) = (w for w in windows_of(share) if w[0] <= token < w[1])
            assert share.row_first[row] == max(behind, start)


def test_a_document_that_one_model_cannot_read_is_left_out_for_all_and_counted():
    cuts = {"0ab": [1, 3], "1abc": [2, 4], "2a": [2]}
    one = Cutter(cuts, "one")
    two = Cutter(cuts, "two", refused=frozenset({"1abc"}))
    plan = Planner((one, two), (8, 8), HarvestConfig())(documents(cuts))
    assert [document.text for document in plan.documents] == list(cuts)
    assert plan.document.tolist() == [0, 0, 2]
    assert [share.document_tokens.tolist() for share in plan.models] == [[2, 0, 1]] * 2
    assert plan.left_out == {"chats refused": 1}
    assert [share.ids.tolist() for share in plan.models] == [[7, 21 % 11, 14 % 11]] * 2


@pytest.mark.parametrize("texts", [[], ["0"]])
def test_a_block_without_documents_or_rows_is_planned(texts):
    one = Cutter({"0": [1]}, "one", prefix=(101,))
    plan = Planner((one,), (8,), HarvestConfig(skip_first=2))(documents(texts))
    assert plan.rows == 0
    assert plan.models[0].lengths.tolist() == []
