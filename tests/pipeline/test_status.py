"""What is said of a run: every unit, its job, its log's last line, and what to do next."""

import pytest

from pipeline.slurm.queue import Queued
from pipeline.slurm.submit import Submitted
from pipeline.stages import StageState, Unit
from pipeline.status import last_line, lines_of, what_next


def harvest(*states):
    units = [Unit(f"task {n}", state, n, 10 * n, 100) for n, state in enumerate(states)]
    complete = set(states) == {"complete"}
    return StageState("harvest", "complete" if complete else "stopped", units)


def stage(name, state):
    return StageState(name, state, [Unit("x", state)])


def jobs(folder):
    log = str(folder / "harvest-7_%a.log")
    return [
        Submitted("harvest", "harvest", 5, [0, 1, 2], "a.sbatch", "gone", 0.0),
        Submitted("harvest", "harvest", 7, [1, 2], "a.sbatch", log, 1.0),
        Submitted("train", "train", 8, [], "b.sbatch", str(folder / "train-8.log"), 1.0),
        Submitted("sweep", "analyze", 9, [0, 1], "c.sbatch", "", 1.0),
        Submitted("analyze", "analyze", 10, [], "d.sbatch", "", 1.0),
    ]


def test_every_task_has_the_last_job_that_it_was_submitted_with(tmp_path):
    (tmp_path / "harvest-7_1.log").write_text("begin\rharvest 3%\r\x1b[2Kharvest 4%\n\n")
    states = {
        "harvest": harvest("complete", "running", "not begun"),
        "train": StageState(
            "train", "not begun", [Unit("dfc", "not begun"), Unit("b", "not begun")]
        ),
        "analyze": StageState("analyze", "not begun"),
    }
    queued = [Queued(7, 1, "RUNNING", "None", "n1"), Queued(7, 2, "PENDING", "Resources", "")]
    queued.append(Queued(8, None, "PENDING", "Dependency", ""))
    queued += [Queued(9, task, "PENDING", "Dependency", "") for task in (0, 1)]
    found = lines_of(states, jobs(tmp_path), queued)
    assert [(line.stage, line.unit.name, line.job, line.queue) for line in found] == [
        ("harvest", "task 0", "5_0", None),
        ("harvest", "task 1", "7_1", "running"),
        ("harvest", "task 2", "7_2", "pending (Resources)"),
        ("train", "dfc", "8", "pending (Dependency)"),
        ("train", "b", "8", "pending (Dependency)"),
        ("analyze", "", "10", None),
        ("analyze", "sweep", "9", "2 pending (Dependency)"),
    ]
    assert found[1].last == "harvest 4%"
    assert what_next(states, found, str, True) == "wait; then pipeline status"


@pytest.mark.parametrize(
    ("states", "submitted", "said"),
    [
        (("complete",) * 3, True, "nothing: all stages are complete"),
        (("complete", "stopped", "not begun"), False, "pipeline run --from train my.yaml"),
        (("complete", "stopped", "not begun"), True, "pipeline submit --from train my.yaml"),
        (("complete", "outdated", "x"), True, "pipeline run --from train --force train my.yaml"),
        (("complete", "running", "not begun"), True, "wait; then pipeline status my.yaml"),
    ],
)
def test_what_is_next(states, submitted, said):
    names = ("harvest", "train", "analyze")
    found = {name: stage(name, state) for name, state in zip(names, states, strict=True)}
    assert what_next(found, [], lambda words: f"{words} my.yaml", submitted) == said


def test_a_log_that_is_not_there_says_nothing(tmp_path):
    assert last_line(tmp_path / "none") is None
    (tmp_path / "empty").write_text("\n \n")
    assert last_line(tmp_path / "empty") is None
    (tmp_path / "long").write_text("x" * 50_000 + "\nlast\n")
    assert last_line(tmp_path / "long") == "last"
