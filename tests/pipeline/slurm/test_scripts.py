"""The scripts are bash, ask for what the section says, and end as they should."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.slurm.config import SlurmConfig
from pipeline.slurm.scripts import Setting, jobs_of

SETTING = Setting(
    Path("/work/a project"),
    Path("/work/my run/slurm/config.yaml"),
    Path("/logs"),
    "python",
    "my-run",
)
SECTION = {
    "partition": "gpu",
    "account": 'lab "x"',
    "prologue": "module load cuda\nsource env/bin/activate",
    "extra": ["--qos=low"],
    "harvest": {"tasks": 8, "at_once": 3, "gres": "gpu:1"},
    "train": {"nodes": 2, "processes": 8},
    "analyze": {"tasks": 4},
}


def jobs(**changes):
    section = SlurmConfig.model_validate({**SECTION, **changes})
    return {job.name: job for job in jobs_of(section, SETTING, ("harvest", "train", "analyze"))}


def directives(text):
    lines = [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line]
    return dict(line.partition("=")[::2] for line in lines)


def test_every_job_asks_for_what_the_section_says():
    found = jobs()
    assert list(found) == ["harvest", "train", "sweep", "analyze"]
    harvest = directives(found["harvest"].text)
    assert harvest["--array"] == "0-7%3"
    assert harvest["--gres"] == "gpu:1"
    assert harvest["--account"] == '"lab \\"x\\""'
    assert harvest["--chdir"] == '"/work/a project"'
    assert harvest["--output"] == "/logs/harvest-%A_%a.log"
    assert harvest["--signal"] == "B:USR1@180"
    assert {"--requeue", "--qos"} <= set(harvest)
    train = directives(found["train"].text)
    assert (train["--nodes"], train["--ntasks-per-node"]) == ("2", "1")
    assert train["--output"] == "/logs/train-%j.log"
    assert "--gres" not in train
    for job in found.values():
        assert "module load cuda\nsource env/bin/activate\n" in job.text
        assert "'/work/my run/slurm/config.yaml'" in job.text


def test_the_commands_are_those_of_the_stages():
    text = {name: job.text for name, job in jobs().items()}
    config = "--config '/work/my run/slurm/config.yaml'"
    assert f'"$PYTHON" -m harvest run {config} --of 8 &' in text["harvest"]
    assert f'"$PYTHON" -m analyze sweep {config} --of 4 &' in text["sweep"]
    assert f'"$PYTHON" -m analyze report {config} &' in text["analyze"]
    assert 'srun --kill-on-bad-exit=1 "$PYTHON" -m torch.distributed.run' in text["train"]
    assert "--nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d" in text["train"]
    alone = jobs(train={}, analyze={})
    assert list(alone) == ["harvest", "train", "analyze"]
    assert f'"$PYTHON" -m train run {config} &' in alone["train"].text
    several = jobs(train={"processes": 4})["train"].text
    assert "--standalone --nproc-per-node=4 -m train run" in several
    assert "srun" not in several


@pytest.mark.parametrize("name", ["a\ntouch /tmp/x #", "a\\b"])
def test_a_folder_that_would_break_the_script_is_refused(name):
    setting = replace(SETTING, logs=Path("/runs") / name)
    with pytest.raises(ConfigError, match="cannot stand in a job's script"):
        jobs_of(SlurmConfig(), setting, ["train"])


def test_a_percent_sign_of_a_folder_is_no_pattern():
    setting = replace(SETTING, logs=Path("/runs/lr%a_100%j"))
    (job,) = jobs_of(SlurmConfig(), setting, ["harvest"])
    assert directives(job.text)["--output"] == "/runs/lr%%a_100%%j/harvest-%A_%a.log"


@pytest.mark.parametrize("name", ["harvest", "train", "sweep", "analyze"])
def test_they_are_bash(name):
    subprocess.run(["bash", "-n"], input=jobs()[name].text, text=True, check=True)


@pytest.fixture
def start(tmp_path):
    """Runs a script whose stage is some Python, beside a scontrol that notes its words."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\nkill -9 $PPID\n')
    template = (
        "#!/usr/bin/env python3\nimport signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w')\n"
        "{body}\n"
    )

    def run(body):
        (tools / "stage").write_text(template.format(body=body))
        for tool in tools.iterdir():
            tool.chmod(0o755)
        setting = Setting(tmp_path, tmp_path / "c.yaml", tmp_path, str(tools / "stage"), "x")
        section = SlurmConfig(harvest={"tasks": 2})
        (job,) = jobs_of(section, setting, ["harvest"])
        script = tmp_path / "job.sh"
        script.write_text(job.text)
        environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": "1",
        }
        return subprocess.Popen(
            ["bash", script],
            env=environment,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    yield run, tmp_path
    subprocess.run(["pkill", "-f", str(tools / "stage")], check=False)


def ready(file):
    end = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("code", [0, 3])
def test_a_script_ends_as_its_stage_does(start, code):
    run, folder = start
    process = run(f"sys.exit({code})")
    assert process.wait(20) == code
    assert not (folder / "said").exists()


def test_near_the_limit_a_stage_that_stopped_is_put_back_into_the_queue(start):
    run, folder = start
    process = run("time.sleep(1); sys.exit(143)")
    ready(folder / "ready")
    process.send_signal(signal.SIGUSR1)
    process.wait(20)
    assert (folder / "said").read_text() == "requeue 7_1\n"


def test_near_the_limit_a_stage_that_ended_well_is_not(start):
    run, folder = start
    process = run("time.sleep(1)")
    ready(folder / "ready")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 0
    assert not (folder / "said").exists()


def test_preempted_it_waits_for_its_stage(start):
    run, folder = start
    saved = folder / "saved"
    begun = folder / "begun"
    process = run(
        f"try:\n    open({str(begun)!r}, 'w')\n    while True: time.sleep(0.05)\n"
        f"finally:\n    time.sleep(0.5); open({str(saved)!r}, 'w')"
    )
    ready(begun)
    os.killpg(process.pid, signal.SIGTERM)  # as Slurm does
    assert process.wait(20) == 143
    assert saved.exists()
    assert not (folder / "said").exists()
