import json
import subprocess
import sys


def _analyze(*words, cwd):
    command = [sys.executable, "-m", "analyze", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_norms_prints_json_and_writes_its_files(known_store, dfc_folder, tmp_path):
    done = _analyze(
        "norms", "--store", known_store.path, "--dictionary", dfc_folder, "--out", "tables",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert [group["alive"] for group in value["groups"]] == [1, 2, 1]
    assert all((tmp_path / file).exists() for file in value["files"])


def test_norms_on_the_terminal_shows_groups_and_what_was_written(known_store, dfc_folder, tmp_path):
    done = _analyze("norms", "--store", known_store.path, "--dictionary", dfc_folder, cwd=tmp_path)
    assert "shared" in done.stdout
    assert "written: runs/default/analysis/norms.parquet" in done.stdout


def test_missing_dictionary_is_one_line_that_names_it(known_store, tmp_path):
    done = _analyze("norms", "--store", known_store.path, "--dictionary", "nowhere", cwd=tmp_path)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line]
    assert errors == ["error: nowhere/config.json: no such file; train a dictionary first"]


def test_unknown_key_is_refused_with_what_is_allowed(tmp_path):
    done = _analyze("norms", "--set", "analyze.top_feature=3", cwd=tmp_path)
    assert done.returncode == 1
    assert "analyze.top_feature: unknown key (given 3); did you mean top_features?" in done.stderr


def test_norms_of_another_store_do_not_ask_for_the_planted_labels_of_the_config(
    known_store, dfc_folder, tmp_path
):
    (tmp_path / "pipeline.yaml").write_text("analyze: {planted: {a: not_there}}\n")
    done = _analyze("norms", "--store", known_store.path, "--dictionary", dfc_folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
