"""Which activations become rows, with a model whose activations say which token they are of."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harvest.config import HarvestConfig
from harvest.corpus.blocks import DocumentBlock
from harvest.corpus.document import Document
from harvest.forward import batches
from harvest.models.hooked import HookedModel
from harvest.plan import Planner
from harvest.produce import OUTLIERS, produce
from harvest.text.align import Tokens
from store.schema import Hookpoint


class Cutter:
    """Cuts a text into pieces of `size` characters; token ids count up over the text."""

    prefix, suffix, special_ids = (7,), (9,), np.array([7, 9])

    def __init__(self, size: int) -> None:
        self.size = size
        self.serialized = str(size)

    def encode(self, documents):
        return [self.tokens(document.text) for document in documents]

    def tokens(self, text: str) -> Tokens:
        ends = np.arange(self.size, len(text) + self.size, self.size).clip(max=len(text))
        starts = np.arange(0, len(text), self.size)
        ids = 10 + np.arange(len(starts))
        return Tokens(ids.astype(np.int32), starts.astype(np.int32), ends.astype(np.int32))


class Echo(HookedModel):
    """A model with two hookpoints: the token's id, and (id, place in the pass, pass's length)."""

    device = torch.device("cpu")
    vocabulary = 1000

    def __init__(self, name: str) -> None:
        self.name = name
        self.hookpoints = (Hookpoint(f"{name}.id", name, 1), Hookpoint(f"{name}.all", name, 3))
        self.threads = set()
        self.passes = []

    def activations(self, input_ids, attention_mask):
        self.threads.add(threading.current_thread().name)
        self.passes.append((input_ids, attention_mask))
        place = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        length = attention_mask.sum(1, keepdim=True).expand_as(input_ids)
        together = torch.stack([input_ids, place, length], -1).float()
        return {f"{self.name}.id": together[..., :1], f"{self.name}.all": together}


class Meeting:
    """Holds every thread at its first call until `threads` of them are here."""

    def __init__(self, threads: int) -> None:
        self.barrier = threading.Barrier(threads)
        self.here = set()

    def __call__(self) -> None:
        if threading.get_ident() not in self.here:
            self.here.add(threading.get_ident())
            self.barrier.wait(timeout=60)


def run(sizes, lengths, config, devices=("cpu",), most_rows=None, before_pass=lambda: None):
    """Blocks of models that cut texts of these lengths, and the models."""
    models = [Echo(name) for name in "abc"[: len(sizes)]]
    for model, device in zip(models, devices * len(models), strict=False):
        model.device = torch.device(device)
    texts = [Document("x" * length, "l", "corpus") for length in lengths]
    block = DocumentBlock(texts, list(range(len(texts))), len(texts), {}, {})
    planner = Planner(tuple(Cutter(size) for size in sizes), (12,) * len(sizes), config)
    (ran,) = produce(models, planner, [block], config, before_pass)
    return ran.block(most_rows), models


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.lists(st.integers(0, 25), min_size=1, max_size=4),
    st.integers(1, 60),
)
def test_a_row_is_the_activation_of_its_last_token(sizes, lengths, batch_tokens):
    config = HarvestConfig(batch_tokens=batch_tokens)
    block, models = run(sizes, lengths, config)
    for model, size in zip(models, sizes, strict=True):
        wanted = [10 + -(-int(end) // size) - 1 for end in block.char_end]
        assert block.activations[f"{model.name}.id"].flatten().tolist() == wanted
        assert block.activations[f"{model.name}.all"][:, 0].tolist() == wanted
        assert block.tokens[model.name].tolist() == wanted
        assert block.tokens_read[model.name] == sum(-(-length // size) for length in lengths)


def test_a_mean_is_over_the_tokens_of_the_stretch():
    config = HarvestConfig(pair="mean", batch_tokens=30)
    block, _ = run([1, 3], [7, 0, 4], config)
    # Common ends 3, 6, 7 and 3, 4: the first model reads one character a token, the other three.
    assert list(zip(block.document, block.char_end, strict=True)) == [
        (0, 3), (0, 6), (0, 7), (2, 3), (2, 4)
    ]  # fmt: skip
    assert block.activations["a.id"].flatten().tolist() == [11.0, 14.0, 16.0, 11.0, 13.0]
    assert block.activations["b.id"].flatten().tolist() == [10.0, 11.0, 12.0, 10.0, 11.0]
    assert block.tokens["a"].tolist() == [12, 15, 16, 12, 13]


def test_a_pass_is_prefix_text_suffix_and_padding_within_its_budget():
    config = HarvestConfig(batch_tokens=20)
    _, (model,) = run([1], [3, 8, 5], config)
    assert [ids.numel() <= 20 for ids, _ in model.passes] == [True] * len(model.passes)
    for ids, mask in model.passes:
        for line, real in zip(ids.tolist(), mask.sum(1).tolist(), strict=True):
            assert line[0] == 7
            assert line[1 : real - 1] == [10 + i for i in range(real - 2)]
            assert line[real - 1] == 9
            assert not any(line[real:])


def test_rows_far_above_the_median_norm_at_any_hookpoint_are_left_out_and_counted():
    block, _ = run([1], [9, 9], HarvestConfig(outlier_norm=1.25))
    # Ids 10 .. 18 twice, median 14: 18 > 1.25 x 14 = 17.5; at the other hookpoint the same.
    assert block.activations["a.id"].flatten().tolist() == [*range(10, 18)] * 2
    assert block.excluded == {OUTLIERS: 2}
    assert block.tokens_paired == {"a": 16}
    assert block.tokens_read == {"a": 18}


def test_rows_are_cut_at_the_number_wanted_and_documents_behind_them_are_not_there():
    block, _ = run([1], [5, 0, 5, 5], HarvestConfig(skip_first=2), most_rows=6)
    assert len(block.document) == 6
    assert len(block.texts) == len(block.labels) == len(block.sources) == 3
    assert block.document.tolist() == [0] * 4 + [2] * 2
    assert block.tokens_read == {"a": 10}
    assert block.tokens_paired == {"a": 6}
    assert block.excluded == {"rows among the first positions": 2}
    whole, _ = run([1], [5, 0, 5, 5], HarvestConfig(skip_first=2))
    for name, values in block.activations.items():
        assert torch.equal(values, whole.activations[name][:6])


def test_documents_without_rows_behind_the_last_row_stay_unless_rows_are_cut():
    assert len(run([1], [3, 0], HarvestConfig(), most_rows=3)[0].texts) == 2
    assert len(run([1], [3, 0], HarvestConfig(), most_rows=2)[0].texts) == 1


def test_models_on_one_device_run_in_one_thread_and_on_two_in_two():
    _, models = run([1, 2, 3], [9, 9], HarvestConfig())
    assert {name for model in models for name in model.threads} == {"MainThread"}
    meeting = Meeting(2)
    block, models = run(
        [1, 2, 3], [9, 9], HarvestConfig(), devices=("cpu", "meta"), before_pass=meeting
    )
    first, second, third = (model.threads for model in models)
    assert first == third != second
    assert all(name.startswith("device") for name in first | second)
    same, _ = run([1, 2, 3], [9, 9], HarvestConfig())
    for name, values in same.activations.items():
        assert torch.equal(block.activations[name], values)


def test_what_is_raised_before_a_pass_ends_the_work():
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    config = HarvestConfig(batch_tokens=8)
    model = Echo("a")
    texts = [Document("x" * 5, "") for _ in range(6)]
    block = DocumentBlock(texts, list(range(6)), 6, {}, {})
    planner = Planner((Cutter(1),), (12,), config)
    with pytest.raises(KeyboardInterrupt):
        list(produce([model], planner, [block], config, stop))
    assert len(model.passes) == 2


def test_every_position_of_a_pass_is_used_once_by_means_of_identical_tokenizers():
    config = HarvestConfig(pair="mean")
    planner = Planner((Cutter(2),), (12,), config)
    share = planner([Document("x" * 31, "")]).models[0]
    for batch in batches(share, 24, "mean"):
        assert batch.row_sizes.tolist() == [1] * len(batch.rows)
        assert len(set(batch.row_tokens.tolist())) == len(batch.row_tokens)


def test_a_block_keeps_what_was_said_of_its_documents():
    document = Document("xxxx", "label", "web")
    block = DocumentBlock([document], [5], 6, {}, {"duplicate documents": 2})
    planner = Planner((Cutter(1),), (12,), HarvestConfig())
    (ran,) = produce([Echo("a")], planner, [block], HarvestConfig())
    found = ran.block()
    assert (found.texts, found.labels, found.sources) == (["xxxx"], ["label"], ["web"])
    assert found.excluded == {"duplicate documents": 2}
