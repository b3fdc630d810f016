"""Live rows from blocks that are made up here: what is drawn, what is held out, what is resumed."""

import threading
import time
from collections.abc import Callable, Generator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from harvest.live.refill import Position
from harvest.live.source import LiveOptions, LiveRows, buffer_rows, live_bytes
from pipeline.errors import CorpusError, DictionaryError, ModelError
from store.block import Block
from store.loader import Batch, LoaderOptions, ShuffledLoader
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.statistics import RowStatistics
from store.writer import PartWriter

HOOKPOINTS = (Hookpoint("a.x", "a", 4), Hookpoint("b.mlp_in", "b", 6), Hookpoint("b.y", "b", 2))
DOCUMENTS, ROWS, BLOCK = 60, 20, 7
FRACTION = 0.25


def block_of(first: int, last: int) -> Block:
    """Documents [first, last): every row says its document and its place in it."""
    count = last - first
    document = np.repeat(np.arange(count, dtype=np.int32), ROWS)
    within = np.tile(np.arange(ROWS, dtype=np.int32), count)
    said = torch.from_numpy(np.stack([document + first, within], 1)).bfloat16()
    return Block(
        texts=[f"document {number}" for number in range(first, last)],
        labels=[""] * count,
        sources=["corpus"] * count,
        activations={h.name: said.repeat(1, h.width // 2) + 1 for h in HOOKPOINTS},
        document=document,
        char_start=within,
        char_end=within + 1,
        tokens={"a": within, "b": within},
        tokens_read={"a": len(within), "b": len(within)},
        tokens_paired={"a": len(within), "b": len(within)},
    )


def keys(activations: dict[str, torch.Tensor]) -> list[tuple[int, int]]:
    """(document, place) of each row; every hookpoint says the same."""
    for name, x in activations.items():
        assert torch.equal(x[:, :2], activations["a.x"][:, :2]), name
    return [(int(d), int(r)) for d, r in (activations["a.x"][:, :2] - 1).tolist()]


class Corpus:
    """Documents in blocks, read as often as asked; `pause` is called before each block."""

    def __init__(self, documents: int = DOCUMENTS, pause: Callable[[], None] = lambda: None):
        self.documents, self.pause = documents, pause
        self.begun: list[int] = []
        self.blocks = 0

    def __call__(
        self, position: Position, before_pass: Callable[[], None]
    ) -> Generator[tuple[Block, Position], None, None]:
        self.begun.append(position.documents)
        assert position.reader == ({"at": position.documents} if position.documents else None)
        for first in range(position.documents, self.documents, BLOCK):
            before_pass()
            self.pause()
            self.blocks += 1
            last = min(first + BLOCK, self.documents)
            yield block_of(first, last), Position(last, {"at": last})


def live(read: object, **changes: object) -> LiveRows:
    options = {
        "batch_rows": 32,
        "buffer_rows": 200,
        "validation_fraction": FRACTION,
        "validation_rows": 10_000,
        **changes,
    }
    return LiveRows(HOOKPOINTS, read, LiveOptions(**options), {"corpus": "made up"})


def take(rows: LiveRows, count: int) -> list[Batch]:
    return list(islice(iter(rows), count))


def same(left: list[Batch], right: list[Batch]) -> bool:
    return all(
        np.array_equal(one.rows, other.rows) and keys(one.activations) == keys(other.activations)
        for one, other in zip(left, right, strict=True)
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same documents in a store, which says what is held out."""
    path: Path = tmp_path_factory.mktemp("live") / "store.zarr"
    with PartWriter(path, StoreSchema(HOOKPOINTS, 128, {}, {})) as writer:
        writer.append(block_of(0, DOCUMENTS), cursor=DOCUMENTS)
        writer.finish()
    return Store(path)


@pytest.fixture(scope="module")
def held_out(store: Store) -> set[int]:
    return set(np.flatnonzero(store.documents.validation_mask(FRACTION)).tolist())


def training_rows(held_out: set[int]) -> list[tuple[int, int]]:
    return [(d, r) for d in range(DOCUMENTS) if d not in held_out for r in range(ROWS)]


def test_batches_hold_the_rows_of_the_blocks_reading_after_reading(held_out):
    stream = training_rows(held_out)
    with live(Corpus()) as rows:
        found = take(rows, 80)
    assert 2 * len(stream) < 80 * 32
    for batch in found:
        assert keys(batch.activations) == [stream[n % len(stream)] for n in batch.rows]
    drawn = np.concatenate([batch.rows for batch in found])
    assert len(set(drawn.tolist())) == len(drawn)


def test_no_row_is_drawn_much_more_often_than_another(held_out):
    with live(Corpus()) as rows:
        found = take(rows, 300)
    drawn = [key for batch in found for key in keys(batch.activations)]
    times = [drawn.count(key) for key in training_rows(held_out)]
    readings = 300 * 32 / len(times)
    assert readings > 8
    # A row waits for more than ten rounds of a buffer (about one reading) once in a thousand.
    assert min(times) >= readings - 4
    assert max(times) <= readings + 2


def test_batches_are_as_those_of_the_loader(store):
    with live(Corpus()) as rows:
        (batch,) = take(rows, 1)
    theirs = ShuffledLoader(store, LoaderOptions(32)).read(0)
    assert batch.rows.dtype == theirs.rows.dtype
    for name, x in theirs.activations.items():
        mine = batch.activations[name]
        assert (mine.shape, mine.dtype, mine.device) == (x.shape, x.dtype, x.device)


def test_held_out_documents_are_those_of_the_store_and_each_row_is_there_once(held_out):
    with live(Corpus()) as rows:
        take(rows, 200)
        found = [key for batch in rows.validation() for key in keys(batch.activations)]
    assert found == [(d, r) for d in sorted(held_out) for r in range(ROWS)]


def test_validation_is_there_before_the_first_batch_and_keeps_no_more_rows_than_wanted():
    with live(Corpus(), validation_rows=33) as rows:
        sizes = [len(batch.rows) for batch in rows.validation()]
        assert sizes == [32, 1]
        take(rows, 100)
        assert [len(batch.rows) for batch in rows.validation()] == [32, 1]


def test_without_held_out_documents_every_row_is_drawn_and_validation_is_empty():
    with live(Corpus(), validation_fraction=0.0) as rows:
        assert list(rows.validation()) == []
        drawn = {key for batch in take(rows, 120) for key in keys(batch.activations)}
    assert len(drawn) == DOCUMENTS * ROWS


def test_batches_do_not_depend_on_when_blocks_come():
    random = np.random.default_rng(0)
    found = []
    for pause in (lambda: None, lambda: time.sleep(0.004 * random.random())):
        with live(Corpus(pause=pause)) as rows:
            found.append(take(rows, 60))
    assert same(*found)


def test_the_harvest_waits_for_room():
    corpus = Corpus(documents=10_000)
    with live(corpus, validation_fraction=0.0) as rows:
        batches = iter(rows)
        for taken in range(1, 40):
            next(batches)
            time.sleep(0.001)
            blocks = -(-(200 + 32 * (taken + 1)) // (BLOCK * ROWS))
            assert corpus.blocks <= blocks + 1


def test_statistics_are_those_of_the_rows_that_fill_the_buffer_first(held_out):
    with live(Corpus()) as rows:
        found = {h.name: rows.statistics(h.name) for h in HOOKPOINTS}
    block = block_of(0, DOCUMENTS)
    kept = [d * ROWS + r for d, r in training_rows(held_out)[:200]]
    for name, mine in found.items():
        theirs = RowStatistics.of(block.activations[name][kept])
        assert (mine.count, mine.norm_bins) == (theirs.count, theirs.norm_bins)
        np.testing.assert_allclose(mine.mean, theirs.mean, rtol=1e-12)


def test_the_first_batch_is_the_one_that_comes_first():
    with live(Corpus()) as rows:
        first = rows.first_batch()
        (batch,) = take(rows, 1)
    assert keys(first) == keys(batch.activations)


def test_a_corpus_smaller_than_the_buffer_is_held_once(held_out):
    corpus = Corpus()
    with live(corpus, buffer_rows=50_000) as rows:
        assert rows.statistics("a.x").count == len(training_rows(held_out))
        assert len(corpus.begun) <= 2


def test_a_resumed_run_reads_on_behind_what_was_drawn(held_out, capsys):
    corpus = Corpus()
    with live(corpus) as rows:
        before = take(rows, 9)
        state = rows.state_dict()
    found = []
    for _ in range(2):
        again = Corpus()
        with live(again) as rows:
            rows.load_state_dict(state)
            assert rows.batches_taken == 9
            found.append(take(rows, 5))
            assert rows.batches_taken == 14
        assert again.begun[0] == state["position"]["documents"] > 0
    assert same(*found)
    drawn = {key for batch in before for key in keys(batch.activations)}
    later = [key for batch in found[0] for key in keys(batch.activations)]
    assert min(later) > max(drawn)
    assert not {document for document, _ in later} & held_out
    said = capsys.readouterr().err
    assert f"reads on behind document {state['position']['documents']}" in said
    assert f"the {state['waiting']} rows that waited in the buffer are lost" in said


@pytest.mark.parametrize("state", [{}, {"position": {"documents": 3}}, {"position": {"x": 1}}])
def test_a_damaged_position_is_refused(state):
    with live(Corpus()) as rows, pytest.raises(DictionaryError, match="where the corpus was read"):
        rows.load_state_dict({"batches_taken": 3, **state})


def test_where_a_run_resumes_does_not_depend_on_when_blocks_come():
    states = []
    for pause in (lambda: None, lambda: time.sleep(0.003)):
        with live(Corpus(pause=pause)) as rows:
            batches = iter(rows)
            found = []
            for _ in range(30):
                next(batches)
                found.append(rows.state_dict())
        states.append(found)
    assert states[0] == states[1]


def test_the_end_of_the_corpus_is_said_once_and_epochs_are_counted(capsys, held_out):
    with live(Corpus()) as rows:
        take(rows, 100)
        said = rows.provenance()["live"]
    assert said["epochs"] == 1 + 100 * 32 // len(training_rows(held_out))
    assert said["corpus"] == "made up"
    assert capsys.readouterr().err.count("read the corpus to its end") == 1


def test_an_error_of_the_harvest_reaches_whoever_waits():
    def broken(
        position: Position, before_pass: Callable[[], None]
    ) -> Generator[tuple[Block, Position], None, None]:
        yield block_of(0, 20), Position(20, None)
        raise ModelError("no more")

    with live(broken) as rows, pytest.raises(ModelError, match="no more"):
        take(rows, 100)


@pytest.mark.parametrize("documents", [0, 1])
def test_a_corpus_without_training_rows_is_refused(documents, held_out):
    def read(
        position: Position, before_pass: Callable[[], None]
    ) -> Generator[tuple[Block, Position], None, None]:
        for number in sorted(held_out)[:documents]:
            yield block_of(number, number + 1), Position(number + 1, None)

    with live(read) as rows, pytest.raises(CorpusError, match="gives no rows to train on"):
        rows.first_batch()


@pytest.mark.parametrize("batches", [0, 1, 5])
def test_the_harvest_ends_with_the_context(batches):
    before = threading.active_count()
    with live(Corpus(pause=lambda: time.sleep(0.001))) as rows:
        if batches:
            take(rows, batches)
        else:
            rows.first_batch()
    assert threading.active_count() == before


def test_leaving_in_the_first_fill_ends_the_reading_at_the_next_pass():
    corpus = Corpus(documents=10**6, pause=lambda: time.sleep(0.002))

    def fill() -> None:
        with pytest.raises(AssertionError, match="stopped in the first fill"):
            rows.first_batch()

    with live(corpus, buffer_rows=10**5) as rows:
        waiting = threading.Thread(target=fill)
        waiting.start()
        while not corpus.blocks:
            time.sleep(0.001)
    waiting.join()
    assert 0 < corpus.blocks < 100


def test_the_default_buffer_is_bounded_in_rows_and_in_bytes():
    wide = (Hookpoint("a", "a", 1 << 15), Hookpoint("b", "b", 1 << 15))
    assert buffer_rows(HOOKPOINTS, LiveOptions(32)) == 1 << 18
    assert buffer_rows(wide, LiveOptions(32)) == (4 << 30) // (16 + 4 * (1 << 15))
    assert buffer_rows(wide, LiveOptions(1 << 20)) == 2 << 20
    assert live_bytes(wide, LiveOptions(32)) <= 4 << 30
    assert live_bytes(HOOKPOINTS, LiveOptions(8, 100, validation_rows=50)) == 150 * (16 + 24)
