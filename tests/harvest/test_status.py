"""What is said of tasks that are done, at work, gone silent or not begun."""

import json
import time

import pytest

from harvest import status_cli
from harvest.progress import SECONDS_BETWEEN, ProgressFile, progress_path, read_progress
from harvest.status import SILENT_SECONDS, status
from harvest.tasks import Task
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter


@pytest.fixture
def store(tmp_path):
    """A store of four tasks: one complete without rows, three begun or not."""
    schema = StoreSchema((Hookpoint("a.mid", "a", 4),), 16, {"a": "0"}, {}, parts=4)
    path = tmp_path / "store.zarr"
    for part in (0, 1, 2):
        with PartWriter(path, schema, part) as writer:
            if part == 0:
                writer.finish()
    return path


def say(store, index, silent=0.0, **changes) -> None:
    """As if the task had said something `silent` seconds ago."""
    ProgressFile(store, Task(index, 4), 0).committed(0, None)
    file = progress_path(store, index)
    said = json.loads(file.read_bytes())
    said.update(updated=time.time() - silent, **changes)
    file.write_text(json.dumps(said))


def test_states_rates_and_what_is_left(store):
    say(store, 0, stopped=True, rows_expected=0)
    say(store, 1, rows=200, rows_expected=1000, rows_per_second=40.0)
    say(store, 2, silent=SILENT_SECONDS + 5, rows=90, rows_expected=900, rows_per_second=30.0)
    found = status(store)
    states = [task.state for task in found.tasks]
    assert states == ["complete", "running", "stopped", "not begun"]
    running, stopped = found.tasks[1:3]
    assert running.seconds_left == (1000 - 200) / 40
    assert stopped.seconds_left is None
    assert stopped.silent_seconds == pytest.approx(SILENT_SECONDS + 5, abs=2)
    assert found.rows_per_second == 40
    assert found.rows_expected is None
    assert found.seconds_left is None
    assert not found.complete


def test_a_task_that_said_that_it_stops_is_not_running(store):
    say(store, 1, stopped=True)
    assert status(store).tasks[1].state == "stopped"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"task": 1}', '{"rows": "x"}'])
def test_what_cannot_be_read_is_as_if_nothing_had_been_said(store, content):
    say(store, 1)
    assert read_progress(store, 1) is not None
    progress_path(store, 1).write_text(content)
    assert read_progress(store, 1) is None
    assert status(store).tasks[1].state == "stopped"


def test_progress_is_written_at_commits_and_otherwise_now_and_then(store, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("harvest.progress.time.monotonic", lambda: clock[0])
    file = ProgressFile(store, Task(1, 4), 10)
    clock[0] += 2
    file.update(30, 400, 5)
    said = read_progress(store, 1)
    assert (said.rows, said.rows_expected, said.documents, said.rows_per_second) == (30, 400, 5, 10)
    assert said.seconds_left == 37
    clock[0] += 1
    file.update(60, 400, 6)
    assert read_progress(store, 1).rows == 30
    file.committed(6, {"where": [1]})
    said = read_progress(store, 1)
    assert (said.rows, said.cursor, said.state) == (60, 6, {"where": [1]})
    clock[0] += SECONDS_BETWEEN + 1
    file.update(70, 400, 7)
    assert (read_progress(store, 1).rows, read_progress(store, 1).cursor) == (70, 6)
    file.finished(80)
    said = read_progress(store, 1)
    assert (said.rows, said.rows_expected, said.stopped, said.state) == (80, 80, True, None)


def test_the_table_names_the_task_to_go_on_with(store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    say(store, 1, rows=200, rows_expected=1000, rows_per_second=40.0)
    say(store, 2, stopped=True)
    status_cli.status(store)
    out = capsys.readouterr().out
    assert "0:00:20" in out
    assert "next: harvest run --task 2 --of 4 (and 1 more)" in out


def test_as_json_it_is_what_the_function_gives(store, capsys):
    status_cli.status(store, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [task["state"] for task in found["tasks"]] == [
        "complete",
        "stopped",
        "stopped",
        "not begun",
    ]
