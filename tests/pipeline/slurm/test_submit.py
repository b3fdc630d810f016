"""What is submitted, after what, and what is left out."""

import json

import pytest
import yaml

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.slurm.queue import SlurmError, queue, submit
from pipeline.slurm.submit import earlier_jobs, plan, read_jobs, submit_all, write
from pipeline.stages import STAGES, StageState, Unit, chosen_stages

TASKS = 4


@pytest.fixture
def settings(tmp_path):
    raw = {
        "run_dir": str(tmp_path / "my run"),
        "train": {"k": 7},
        "slurm": {"harvest": {"tasks": TASKS, "at_once": 2}, "time": "8:00:00"},
    }
    return Config("pipeline.yaml", raw)


def states(harvest="not begun", train="not begun", analyze="not begun", done=()):
    units = [
        Unit(f"task {n}", "complete" if n in done else "stopped", n) for n in range(TASKS) if done
    ]
    found = {"harvest": harvest, "train": train, "analyze": analyze}
    return {
        name: StageState(name, state, units * (name == "harvest")) for name, state in found.items()
    }


def said(slurm):
    file = slurm / "sbatch.said"
    return file.read_text().splitlines() if file.exists() else []


def test_each_stage_waits_for_the_one_before_it(settings, slurm):
    planned = plan(settings, STAGES, states())
    files = write(settings, planned)
    done = submit_all(settings, planned)
    folder = settings.run_dir / "slurm"
    assert said(slurm) == [
        f"--parsable {folder}/harvest.sbatch",
        f"--parsable --dependency=afterok:101 {folder}/train.sbatch",
        f"--parsable --dependency=afterok:102 {folder}/analyze.sbatch",
    ]
    assert [one.job for one in done] == [101, 102, 103]
    assert done[0].tasks == [0, 1, 2, 3]
    assert done[0].log.endswith("my run/slurm/logs/harvest-101_%a.log")
    assert read_jobs(settings.run_dir) == done
    config = yaml.safe_load(files[0].read_text())
    assert config == settings.raw


def test_missing_tasks_alone_are_submitted_again(settings, slurm):
    planned = plan(settings, STAGES, states("stopped", done=(0, 2)))
    write(settings, planned)
    submit_all(settings, planned)
    assert said(slurm)[0].startswith("--parsable --array=1,3%2 ")
    assert read_jobs(settings.run_dir)[0].tasks == [1, 3]


def test_what_is_complete_is_left_out_unless_something_before_it_is_not(settings, slurm):
    planned = plan(settings, STAGES, states("complete", "complete", "not begun", range(TASKS)))
    assert [one.why_not for one in planned] == ["complete", "complete", None]
    write(settings, planned)
    submit_all(settings, planned)
    (line,) = said(slurm)
    assert "--dependency" not in line
    again = plan(settings, STAGES, states("complete", "stopped", "complete", range(TASKS)))
    assert [one.why_not for one in again] == ["complete", None, None]


def test_a_part_of_the_stages(settings, slurm):
    planned = plan(settings, chosen_stages(start="train"), states("complete", done=range(TASKS)))
    assert [one.job.name for one in planned] == ["train", "analyze"]
    assert [stage.name for stage in chosen_stages(["analyze", "harvest"])] == ["harvest", "analyze"]
    with pytest.raises(ConfigError, match="cook: no such stage"):
        chosen_stages(["cook"])


def test_another_number_of_tasks_than_the_store_has_is_refused(settings):
    begun = states("stopped", done=(1,))
    other = Config("x", {**settings.raw, "slurm": {"harvest": {"tasks": 5}}})
    with pytest.raises(ConfigError, match="given 5, but the store was begun with 4; set it to 4"):
        plan(other, STAGES, begun)


def again(settings, found, stages=STAGES):
    """Plans and submits once more, as the command does."""
    before = read_jobs(settings.run_dir)
    queued = queue([one.job for one in before])
    planned = plan(settings, stages, found, before, queued)
    write(settings, planned)
    return planned, submit_all(settings, planned, earlier_jobs(stages, before, queued))


def test_what_is_queued_is_not_submitted_twice(settings, slurm):
    again(settings, states())
    (slurm / "queue.101").write_text("101|0|RUNNING|None|n1\n101|2|PENDING|Resources|\n")
    (slurm / "queue.102").write_text("102|N/A|PENDING|Dependency|\n")
    planned, done = again(settings, states("running", done=(3,)))
    assert planned[0].tasks == [1]  # 0 and 2 are queued, 3 is complete
    assert [one.why_not for one in planned] == [None, "in the queue, as job 102", None]
    assert [(one.name, one.tasks) for one in done] == [("harvest", [1]), ("analyze", [])]
    assert said(slurm)[3].startswith("--parsable --array=1%2 ")
    assert said(slurm)[4].startswith("--parsable --dependency=afterok:102 ")


def test_a_later_stage_waits_for_an_earlier_one_in_the_queue(settings, slurm):
    again(settings, states(), chosen_stages(["harvest"]))
    (slurm / "queue.101").write_text("101|0|RUNNING|None|n1\n")
    again(settings, states("running"), chosen_stages(start="train"))
    assert said(slurm)[1].startswith("--parsable --dependency=afterok:101 ")


def test_what_was_made_with_other_settings_is_not_submitted(settings):
    with pytest.raises(ConfigError, match="train: was made with other settings; take another"):
        plan(settings, STAGES, states("complete", "outdated", done=range(TASKS)))


def test_an_edited_script_is_not_overwritten_and_another_configuration_takes_no_ones_place(
    settings,
):
    planned = plan(settings, STAGES, states())
    first = write(settings, planned)
    other = Config("x", {**settings.raw, "train": {"k": 9}})
    second = write(other, plan(other, STAGES, states()))
    assert first[0] != second[0]
    assert yaml.safe_load(first[0].read_text())["train"] == {"k": 7}
    assert str(second[0]) in second[1].read_text()
    second[2].write_text(second[2].read_text() + "# mine\n")
    with pytest.raises(SlurmError, match=r"train\.sbatch: was edited since it was written"):
        write(settings, planned)
    assert second[2].read_text().endswith("# mine\n")


def test_a_refusal_names_the_script_and_what_slurm_says(slurm, tmp_path):
    (slurm / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: invalid partition: x' >&2\nexit 1"
    )
    with pytest.raises(SlurmError, match=r"a.sbatch: sbatch refuses it \(sbatch: error: invalid"):
        submit(tmp_path / "a.sbatch")


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="sbatch: not found"):
        submit(tmp_path / "a.sbatch")
    assert queue([1]) is None
    assert queue([]) == []


def test_the_queue_tells_of_every_task(slurm):
    (slurm / "queue.7").write_text("7|0|RUNNING|None|n1\n7|1|PENDING|Resources|\n")
    found = queue([7, 8])
    assert [(one.job, one.task, one.state, one.node) for one in found] == [
        (7, 0, "RUNNING", "n1"),
        (7, 1, "PENDING", ""),
    ]


def test_a_broken_list_of_jobs_is_an_error(settings):
    (settings.run_dir / "slurm").mkdir(parents=True)
    (settings.run_dir / "slurm" / "jobs.json").write_text(json.dumps([{"job": 1}]))
    with pytest.raises(SlurmError, match=r"jobs\.json: cannot be read"):
        read_jobs(settings.run_dir)
