"""The whole path, as a user runs it, on the tiny pair of tests/conftest.py."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml


def _configuration(model_pair, corpus_file) -> dict:
    models = {
        "a": {"path": str(model_pair["a"]), "hookpoint": "model.layers.1", "dtype": "float32"},
        "b": {"path": str(model_pair["b"]), "hookpoint": "gpt_neox.layers.1", "dtype": "float32"},
    }
    return {
        "run_dir": "runs/tiny",
        "models": models,
        "corpus": {"path": str(corpus_file), "label_column": "domain"},
        "store": {"chunk_rows": 256},
        "harvest": {"max_tokens": 64, "block_documents": 8},
        "train": {
            "recipes": ["dfc", "batch_topk_crosscoder"],
            "features": 64,
            "k": 6,
            "k_anneal_steps": 0,
            "steps": 40,
            "batch_rows": 64,
            "lr": 0.003,
            "warmup_steps": 5,
            "validation_fraction": 0.2,
            "checkpoint_every": 20,
            "validate_every": 20,
            "log_every": 10,
        },
        "analyze": {"contexts": 2, "top_features": 3, "planted": {"a": "prose", "b": "code"}},
    }


def _pipeline(folder, *words):
    command = [sys.executable, "-m", "pipeline", "run", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def tiny_run(model_pair, corpus_file, tmp_path_factory):
    """A finished run in a folder that also holds folders called like the stages."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("store", "train", "harvest", "analyze"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('shadowed')\n")
    text = yaml.safe_dump(_configuration(model_pair, corpus_file), sort_keys=False)
    (folder / "pipeline.yaml").write_text(text)
    done = _pipeline(folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_one_command_writes_everything_beneath_its_run_folder(tiny_run):
    folder, _ = tiny_run
    run = folder / "runs" / "tiny"
    for name in (
        "store.zarr/zarr.json",
        "dictionary/model.safetensors",
        "dictionary/config.json",
        "dictionary/metrics.jsonl",
        "dictionary/checkpoints/step_00000040/state.safetensors",
        "dictionary-batch_topk_crosscoder/model.safetensors",
        "analysis/norms.parquet",
        "analysis/norms.png",
        "analysis/dictionary-batch_topk_crosscoder/norms.csv",
        "report.html",
    ):
        assert (run / name).exists(), name
    outside = {entry.name for entry in folder.iterdir()}
    assert outside == {"pipeline.yaml", "runs", "store", "train", "harvest", "analyze"}


def test_summary_has_the_numbers_of_the_run(tiny_run):
    summary = json.loads((tiny_run[0] / "runs" / "tiny" / "summary.json").read_text())
    for key in ("fve", "dead_fraction", "paired_fraction"):
        assert set(summary[key]) == {"a", "b"}
    assert set(summary["planted"]) == {"a", "b", "crosscoder_a", "crosscoder_b"}
    assert 0 < summary["paired_fraction"]["a"] <= 1


def test_output_says_what_was_written(tiny_run):
    _, done = tiny_run
    assert "open: runs/tiny/report.html" in done.stdout
    assert "runs/tiny: done (harvest" in done.stdout


def test_running_again_does_no_finished_work_again(tiny_run):
    folder, _ = tiny_run
    run = folder / "runs" / "tiny"
    chunk = next((run / "store.zarr").rglob("c/0/0"))
    before = (chunk.stat().st_mtime_ns, (run / "dictionary/model.safetensors").read_bytes())
    lines = (run / "dictionary/metrics.jsonl").read_bytes()
    done = _pipeline(folder)
    assert done.returncode == 0, done.stderr
    assert "train: complete (again: --force train)" in done.stderr
    assert "analyze: complete" in done.stderr
    assert "was already complete" in done.stdout
    assert before == (chunk.stat().st_mtime_ns, (run / "dictionary/model.safetensors").read_bytes())
    assert lines == (run / "dictionary/metrics.jsonl").read_bytes()


def test_a_wrong_key_of_a_late_stage_is_found_before_the_first_one_starts(tiny_run):
    folder, _ = tiny_run
    done = _pipeline(folder, "--set", "run_dir=runs/never", "--set", "analyze.context=1")
    assert done.returncode == 1
    assert "analyze.context: unknown key (given 1); did you mean contexts?" in done.stderr
    assert not (folder / "runs" / "never").exists()


def test_a_failing_stage_ends_the_run_and_says_that_work_is_kept(tiny_run):
    folder, _ = tiny_run
    done = _pipeline(folder, "--set", "train.lr=0.5")
    assert done.returncode == 1
    assert "was written with lr 0.003, now 0.5" in done.stderr
    assert "stage train ended with code 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_stages_can_be_entered_late(tiny_run):
    folder, _ = tiny_run
    done = _pipeline(folder, "--from", "analyze")
    assert done.returncode == 0, done.stderr
    assert "1/1 analyze" in done.stderr
    assert "everything was complete" in done.stdout
    assert _pipeline(folder, "--from", "cook").returncode == 1


def test_mistakes_across_sections_are_found_before_the_first_stage(tiny_run):
    folder, _ = tiny_run
    fresh = ("--set", "run_dir=runs/never")
    planted = _pipeline(folder, *fresh, "--set", "analyze.planted.zz=prose")
    assert "analyze.planted: unknown model 'zz'; the models are a, b" in planted.stderr
    models = _pipeline(folder, *fresh, "--set", "models.b=null", "--check")
    assert models.returncode == 1
    assert not (folder / "runs" / "never").exists()


def _status(folder, *words):
    command = [sys.executable, "-P", "-m", "pipeline", "status", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    return json.loads(done.stdout)


def test_status_tells_of_every_unit_and_of_what_is_outdated(tiny_run):
    folder, _ = tiny_run
    found = _status(folder)
    assert found["stages"] == dict.fromkeys(("harvest", "train", "analyze"), "complete")
    names = [(line["stage"], line["unit"]["name"]) for line in found["units"]]
    assert names == [
        ("harvest", "task 0 of 1"),
        ("train", "dfc"),
        ("train", "batch_topk_crosscoder"),
        ("analyze", "report"),
    ]
    assert found["next"] == "nothing: all stages are complete"
    for text, stage, reason in (
        ("harvest.max_tokens=32", "harvest", "max_tokens"),
        ("train.k=5", "train", "train.k was 6, now 5"),
        ("analyze.contexts=1", "analyze", "analyze.contexts was 2, now 1"),
    ):
        found = _status(folder, "--set", text)
        assert found["stages"][stage] == "outdated"
        said = [line["unit"]["reason"] for line in found["units"] if line["unit"]["reason"]]
        assert all(reason in one for one in said)
        assert said or stage == "harvest"
        again = f"pipeline run --from {stage} --force {stage} --set {text}"
        assert found["next"] == again
    found = _status(folder, "--set", "analyze.batch_tokens=77")  # changes no figure
    assert set(found["stages"].values()) == {"complete"}
    found = _status(folder, "--set", "run_dir=runs/other")
    assert set(found["stages"].values()) == {"not begun"}


def test_a_stage_can_be_forced_to_do_its_work_anew(tiny_run, tmp_path):
    folder, _ = tiny_run
    run = tmp_path / "run"
    shutil.copytree(folder / "runs" / "tiny", run)
    there = ("--set", f"run_dir={run}")
    weights = (run / "dictionary/model.safetensors").read_bytes()
    stamp = (run / "dictionary/model.safetensors").stat().st_mtime_ns
    done = _pipeline(folder, *there, "--from", "train", "--force", "train")
    assert done.returncode == 0, done.stderr
    assert "analyze: complete" in done.stderr  # the same dictionary came out of it
    assert (run / "dictionary/model.safetensors").stat().st_mtime_ns > stamp
    assert (run / "dictionary/model.safetensors").read_bytes() == weights
    (run / "analysis" / "thesis.txt").write_text("of the user")
    norms = (run / "analysis" / "norms.parquet").stat().st_mtime_ns
    done = _pipeline(folder, *there, "--from", "analyze", "--force", "analyze")
    assert done.returncode == 0, done.stderr
    assert (run / "analysis" / "thesis.txt").exists()
    assert (run / "analysis" / "norms.parquet").stat().st_mtime_ns > norms
    assert (run / "report.html").exists()


def test_a_store_of_several_tasks_is_finished_task_by_task(tiny_run, tmp_path):
    folder, _ = tiny_run
    there = ("--set", f"run_dir={tmp_path / 'run'}")
    words = [sys.executable, "-P", "-m", "harvest", "run", "--task", "1", "--of", "2", *there]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    assert _status(folder, *there)["stages"]["harvest"] == "stopped"
    done = _pipeline(folder, *there)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
    done = _pipeline(folder, *there)
    assert "harvest: complete" in done.stderr
    done = _pipeline(folder, *there, "--from", "analyze", "--force", "train")
    assert "--force train: is before --from analyze" in done.stderr
