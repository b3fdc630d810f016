"""The stages as jobs of a real Slurm, requeued, cancelled, submitted again: as a local run.

Needs Debian's slurm-wlm and munge: `make test-slurm` installs them and runs this.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from .cluster import Cluster, lacking

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(lacking()), reason="Slurm is not installed; make test-slurm installs it"
    ),
]

TASKS = 4
PATIENCE = 180
WORDS = [
    "the",
    "red",
    "fox",
    "under",
    "value",
    "a",
    "of",
    "tree",
    "stone",
    "river",
    "runs",
    "over",
    "and",
    "light",
    "in",
    "night",
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Documents enough for a harvest to be interrupted."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with open(path, "w") as file:
        for number in range(1600):
            words = [WORDS[(number * 7 + n * (1 + number % 11)) % len(WORDS)] for n in range(60)]
            text = f"{number} {' '.join(words)}"
            file.write(json.dumps({"text": text, "domain": f"d{number % 2}"}) + "\n")
    return path


def configuration(model_pair, corpus, run_dir):
    return {
        "run_dir": str(run_dir),
        "models": {
            "a": {"path": str(model_pair["a"]), "hookpoint": "model.layers.1", "dtype": "float32"},
            "b": {
                "path": str(model_pair["b"]),
                "hookpoint": "gpt_neox.layers.1",
                "dtype": "float32",
            },
        },
        "corpus": {"path": str(corpus), "label_column": "domain"},
        "store": {"chunk_rows": 256},
        "harvest": {"max_tokens": 64, "batch_tokens": 512, "block_documents": 8},
        "train": {
            "recipes": ["dfc"],
            "features": 64,
            "k": 6,
            "steps": 600,
            "batch_rows": 128,
            "warmup_steps": 5,
            "validation_fraction": 0.2,
            "checkpoint_every": 25,
            "validate_every": 600,
            "log_every": 20,
            "device": "cpu",
        },
        "analyze": {"contexts": 2, "top_features": 3, "report": ["scaling"]},
        "slurm": {
            "partition": "test",
            "cpus": 1,
            "time": "60",
            "stop_seconds": 60,
            "prologue": "export OMP_NUM_THREADS=1\n",
            "harvest": {"tasks": TASKS, "at_once": 2},
            "train": {"processes": 2},
        },
    }


@pytest.fixture(scope="module")
def local(model_pair, corpus, tmp_path_factory):
    """The same commands without Slurm, undisturbed."""
    folder = tmp_path_factory.mktemp("local")
    raw = configuration(model_pair, corpus, folder / "run")
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(raw))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    python, config = [sys.executable], ["--config", str(folder / "pipeline.yaml")]
    tasks = [
        [*python, "-m", "harvest", "run", *config, "--task", str(task), "--of", str(TASKS)]
        for task in range(TASKS)
    ]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    train = [*python, *torchrun, "-m", "train", "run", *config]
    for first in range(0, TASKS, 2):
        both = [subprocess.Popen(words, env=environment) for words in tasks[first : first + 2]]
        assert [one.wait() for one in both] == [0, 0]
    subprocess.run(train, env=environment, check=True)
    return folder / "run"


@pytest.fixture(scope="module")
def submitted(slurm, model_pair, corpus, tmp_path_factory):
    """A folder, with a space in its name, whose pipeline.yaml has been submitted; what was said."""
    folder = tmp_path_factory.mktemp("on the cluster")
    raw = configuration(model_pair, corpus, folder / "my run")
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(raw))
    return folder, json.loads(pipeline(slurm, folder, "submit", "--json"))


def pipeline(slurm, folder, *words):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=slurm.environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(true, what):
    end = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < end, f"{what}: not in {PATIENCE} s"
        time.sleep(0.1)
    return found


def requeue(slurm, job):
    """As a preemption does it; then at once, where Slurm would wait for two minutes."""
    slurm.run("scontrol", "requeue", job)
    wait_for(lambda: state(slurm, job) == "PENDING", f"{job} is pending again")
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def state(slurm, job):
    return slurm.states(int(job.split("_")[0])).get(job)


def ended(slurm, job):
    states = set(slurm.states(job).values())
    return bool(states) and not states & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}


def log(folder, name):
    (file,) = (folder / "my run" / "slurm" / "logs").glob(name)
    return file.read_text()


def rows_of_task(folder, task):
    file = folder / "my run" / "harvest" / f"store.zarr-{task:05d}.json"
    try:
        said = json.loads(file.read_text())
    except (OSError, ValueError):
        return 0
    return 0 if said["stopped"] else said["cursor"]


def test_a_run_on_a_cluster_equals_a_local_one(slurm, local, submitted):
    folder, said = submitted
    jobs = {one["name"]: one["job"] for one in said["submitted"]}
    assert list(jobs) == ["harvest", "train", "analyze"]
    harvest = jobs["harvest"]

    # One task is preempted amid its work, another is cancelled for good.
    wait_for(lambda: rows_of_task(folder, 1), "task 1 has committed rows")
    requeue(slurm, f"{harvest}_1")
    slurm.run("scancel", f"{harvest}_3")
    text = pipeline(slurm, folder, "status")
    assert f"{harvest}_1" in text
    assert "next: wait; then pipeline status" in text
    wait_for(lambda: ended(slurm, harvest), "the harvest has ended")
    states = slurm.states(harvest)
    assert {task: states[f"{harvest}_{task}"] for task in range(TASKS)} == {
        0: "COMPLETED", 1: "COMPLETED", 2: "COMPLETED", 3: "CANCELLED",
    }  # fmt: skip
    assert "start 1" in log(folder, f"harvest-{harvest}_1.log")

    # What depends on it does not begin, and by hand it refuses.
    wait_for(lambda: ended(slurm, jobs["train"]), "the training is given up")
    assert state(slurm, str(jobs["train"])) == "CANCELLED"
    by_hand = slurm.run("sbatch", "--parsable", str(folder / "my run" / "slurm" / "train.sbatch"))
    wait_for(lambda: ended(slurm, int(by_hand)), "the training by hand has ended")
    assert state(slurm, by_hand.strip()) == "FAILED"
    refused = " ".join(log(folder, f"train-{by_hand.strip()}.log").split())
    assert "not complete: task 3 of 4 missing" in refused

    # Submitted again: the missing task alone, and what follows.
    found = json.loads(pipeline(slurm, folder, "status", "--json"))
    assert found["stages"] == {"harvest": "stopped", "train": "not begun", "analyze": "not begun"}
    assert found["next"] == "pipeline submit --from harvest"
    again = json.loads(pipeline(slurm, folder, "submit", "--json"))
    assert [one["tasks"] for one in again["submitted"]] == [[3], [], []]
    jobs = {one["name"]: one["job"] for one in again["submitted"]}
    assert list(slurm.states(jobs["harvest"])) == [f"{jobs['harvest']}_3"]

    # Training with two processes is requeued once.
    checkpoints = folder / "my run" / "dictionary" / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("step_000000?5")), "training has saved")
    requeue(slurm, str(jobs["train"]))
    for name in ("train", "analyze"):
        wait_for(lambda name=name: ended(slurm, jobs[name]), f"{name} has ended")
        assert state(slurm, str(jobs[name])) == "COMPLETED", log(folder, f"{name}-{jobs[name]}.log")
    assert "start 1" in log(folder, f"train-{jobs['train']}.log")

    found = json.loads(pipeline(slurm, folder, "status", "--json"))
    assert set(found["stages"].values()) == {"complete"}
    assert found["next"] == "nothing: all stages are complete"
    same_files(local / "store.zarr" / "parts", folder / "my run" / "store.zarr" / "parts")
    weights = [run / "dictionary" / "model.safetensors" for run in (local, folder / "my run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert (folder / "my run" / "report.html").exists()
    done = json.loads(pipeline(slurm, folder, "submit", "--json"))
    assert done["submitted"] == []
    assert set(done["left_out"].values()) == {"complete"}


def same_files(one: Path, other: Path):
    names = [sorted(p.relative_to(root) for p in root.rglob("*")) for root in (one, other)]
    assert names[0] == names[1]
    assert len(names[0]) > 4 * TASKS
    for name in names[0]:
        if (one / name).is_file():
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_near_its_time_limit_a_job_saves_its_work_and_goes_back(
    slurm, model_pair, corpus, tmp_path
):
    raw = configuration(model_pair, corpus, tmp_path / "run")
    raw["harvest"]["batch_tokens"] = 64  # slow
    raw["slurm"]["harvest"] = {"tasks": 1}
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(raw))
    pipeline(slurm, tmp_path, "submit", "--dry-run", "--stages", "harvest")
    script = tmp_path / "run" / "slurm" / "harvest.sbatch"
    text = script.read_text()
    assert "#SBATCH --time=60\n" in text
    script.write_text(text.replace("#SBATCH --time=60\n", "#SBATCH --time=1\n"))  # by hand
    job = slurm.run("sbatch", "--parsable", str(script)).strip()
    (log_file,) = wait_for(
        lambda: list((tmp_path / "run" / "slurm" / "logs").glob("harvest-*.log")), "it has begun"
    )
    wait_for(lambda: "back into the queue" in log_file.read_text(), "it has stopped")
    assert f"the time limit of job {job}_0 is near; stopping" in log_file.read_text()
    assert "stopped by SIGTERM; run the same command again" in log_file.read_text()
    wait_for(lambda: state(slurm, f"{job}_0") == "PENDING", "it is in the queue again")
    slurm.run("scancel", job)
    said = json.loads((tmp_path / "run" / "harvest" / "store.zarr-00000.json").read_text())
    assert said["stopped"]
    assert said["cursor"] > 0


def test_several_nodes_train_together_by_torchrun_and_by_srun_alone(slurm, local, tmp_path):
    """Two nodes of this machine, a process on each: the same weights as two on one."""
    raw = yaml.safe_load((local.parent / "pipeline.yaml").read_text())
    raw["slurm"]["train"] = {"nodes": 2, "processes": 1}
    raw["run_dir"] = str(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "store.zarr").symlink_to(local / "store.zarr")
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(raw))
    (job,) = json.loads(pipeline(slurm, tmp_path, "submit", "--json", "--stages", "train"))[
        "submitted"
    ]
    wait_for(lambda: ended(slurm, job["job"]), "the training has ended")
    said = Path(job["log"]).read_text()
    assert state(slurm, str(job["job"])) == "COMPLETED", said
    wanted = (local / "dictionary" / "model.safetensors").read_bytes()
    assert (tmp_path / "run" / "dictionary" / "model.safetensors").read_bytes() == wanted

    train = [
        sys.executable,
        "-P",
        "-m",
        "train",
        "run",
        "--config",
        str(tmp_path / "pipeline.yaml"),
    ]
    bare = ["srun", "--ntasks", "2", "--nodes", "2", *train, "--out", str(tmp_path / "bare")]
    done = subprocess.run(
        bare,
        env={**slurm.environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bare" / "model.safetensors").read_bytes() == wanted
    assert done.stdout.count("held-out FVE") == 1
