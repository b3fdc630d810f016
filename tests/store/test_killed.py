"""A writer that is really killed, at a hundred instants, always leaves its last commit.

A child writes, with a pause now and then, and is killed after a random time; a few milliseconds
per life. The undisturbed store was written without pauses.
"""

import itertools
import json
import os
import random
import signal
import time
from types import SimpleNamespace

import pytest

from store.reader import Store
from store.verify import verify
from store.writer import PartWriter

from .contents import content

BLOCKS = 16
COMMIT_ROWS = 20
KILLS = 100


@pytest.fixture(scope="module")
def write(make_schema, make_block):
    blocks = [
        make_block((3 + number % 5, 0, 1 + number % 9), seed=number) for number in range(BLOCKS)
    ]

    def run(path, pausing=False):
        with PartWriter(path, make_schema(), commit_rows=COMMIT_ROWS) as writer:
            if not writer.complete:
                for cursor in range(writer.cursor, BLOCKS):
                    writer.append(blocks[cursor], cursor + 1)
                    if pausing and cursor % 3 == 0:
                        writer.pause()
                writer.finish()

    return run


def killed_after(seconds: float, work) -> bool:
    """Runs `work` in a child and kills it; whether it was still at work."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), "the writer failed"
    return status == signal.SIGKILL


@pytest.fixture(scope="module")
def lives(write, tree, memory_folder):
    """What each killed life left, and the bytes of every store that came to its end."""
    folder = memory_folder / "killed"
    start = time.perf_counter()
    write(folder / "undisturbed.zarr")
    duration = time.perf_counter() - start
    full = Store(folder / "undisturbed.zarr")
    everything = content(full, full.rows, len(full.documents))
    delays = random.Random(0)
    left, ends = [], []
    for number in itertools.count():
        path = folder / f"{number}.zarr"
        while killed_after(
            delays.uniform(0, duration), lambda path=path: write(path, pausing=True)
        ):
            left.append(SimpleNamespace(rows=0, same=True, problems=[], said=0))
            if (path / "zarr.json").exists():
                store = Store(path)
                rows, documents = store.rows, len(store.documents)
                wanted = [values[:rows] for values in everything[:7]] + everything[7:][:documents]
                files = path.glob("parts/*/activations/*/zarr.json")
                left[-1] = SimpleNamespace(
                    rows=rows,
                    same=content(store, rows, documents) == wanted,
                    problems=verify(path).problems,
                    said=max((json.loads(f.read_bytes())["shape"][0] for f in files), default=0),
                )
        ends.append(tree(path))
        if len(left) >= KILLS:
            return SimpleNamespace(left=left, ends=ends, undisturbed=tree(full.path), full=full)


def test_a_killed_writer_leaves_a_store_that_opens_at_its_last_commit(lives):
    assert all(life.same for life in lives.left)


def test_a_killed_writer_leaves_nothing_that_verify_calls_damage(lives):
    assert [life.problems for life in lives.left if life.problems] == []


def test_a_killed_writer_shows_other_clients_no_row_that_is_not_committed(lives):
    assert all(life.said <= life.rows for life in lives.left)


def test_kills_struck_at_many_different_commits(lives):
    rows = {life.rows for life in lives.left}
    assert len(rows) > 5
    assert len(lives.left) >= KILLS


def test_every_store_that_was_killed_and_continued_is_byte_identical(lives):
    assert [end == lives.undisturbed for end in lives.ends] == [True] * len(lives.ends)
