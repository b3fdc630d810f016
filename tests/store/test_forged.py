"""Numbers that nothing stands behind are refused at once, even with a checksum that fits."""

import json

import pytest

from pipeline.errors import StoreError
from store.commits import CommitLog, read_log, rewrite_log
from store.reader import Store
from store.repair import repair
from store.verify import verify
from store.writer import PartWriter

from .contents import forge

HUGE = 2**52
COUNTS = ["rows", "documents", "text_bytes"]


@pytest.fixture
def store(build_store, make_schema, tmp_path):
    return build_store(tmp_path / "store.zarr", [[(9, 12), (4, 0)]], make_schema())


def forge_count(folder, count):
    """Makes the attributes claim 2**52 of something, and agree with themselves."""
    more = {}
    if count == "rows":
        statistics = json.loads((folder / "zarr.json").read_bytes())["attributes"]["statistics"]
        changed = {"count": HUGE, "norm_bins": {"0": HUGE}}
        more = {"statistics": {name: {**found, **changed} for name, found in statistics.items()}}
    forge(folder, **{count: HUGE}, **more)


def forge_log(folder, count):
    """Makes the log's last line lead to the same, and the attributes fit its length."""
    *before, last = read_log(folder).commits
    more = {"blocks": (HUGE - before[-1].rows,)} if count == "rows" else {}
    log = CommitLog((*before, last.model_copy(update={count: HUGE, **more})), "")
    rewrite_log(folder, log)
    forge(folder, log_bytes=len(log.content))


@pytest.mark.parametrize("with_log", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_a_count_without_chunks_is_refused_by_file_and_value(count, with_log, store, make_schema):
    folder = store.parts[0].folder
    forge_count(folder, count)
    if with_log:
        forge_log(folder, count)
    for opening in (lambda: Store(store.path), lambda: PartWriter(store.path, make_schema())):
        with pytest.raises(StoreError, match=r"is missing, .* have 4,503,599,627,370,496 .*repair"):
            opening()
    problems = verify(store.path).problems
    assert any("4,503,599,627,370,496" in problem for problem in problems)
    assert len(problems) < 30


@pytest.mark.parametrize("count", COUNTS)
def test_a_count_without_chunks_is_cut_off(count, store):
    folder = store.parts[0].folder
    forge_count(folder, count)
    forge_log(folder, count)
    repair(store.path)
    assert verify(store.path).problems == []
    assert Store(store.path).rows == 21


def test_a_log_said_to_be_endless_is_read_as_far_as_it_is_there(store, tree):
    before = tree(store.path)
    forge(store.parts[0].folder, log_bytes=HUGE)
    problems = verify(store.path).problems
    assert any(f"has 16384 bytes, expected {HUGE}" in problem for problem in problems)
    assert len(problems) < 30
    repair(store.path)
    assert tree(store.path).keys() == before.keys()
    assert (verify(store.path).problems, Store(store.path).rows) == ([], 25)


@pytest.mark.parametrize("name", ["activations/a.mid/c/1/0", "documents/hash/c/0"])
def test_a_last_chunk_that_is_lost_is_named_by_whoever_opens_the_store(name, store):
    file = store.parts[0].folder / name
    file.unlink()
    with pytest.raises(StoreError, match=f"{file}: is missing, but"):
        Store(store.path)
    (problem,) = verify(store.path).problems
    assert problem.startswith(f"{file}: is missing, but the part is said to have ")
