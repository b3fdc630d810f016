"""The command line: one line per mistake, and a harvest that can be read off its output."""

import json
import re
import sys

import pytest
import yaml

from harvest import cli


@pytest.fixture
def config(model_pair, corpus_file, tmp_path):
    """Path of a good configuration file for 6 documents."""
    hookpoints = {"a": "model.layers.1", "b": "gpt_neox.layers.1"}
    content = {
        "run_dir": str(tmp_path / "run"),
        "models": {
            name: {"path": str(path), "hookpoint": hookpoints[name], "device": "cpu"}
            for name, path in model_pair.items()
        },
        "corpus": {"path": str(corpus_file), "label_column": "domain", "limit": 6},
    }
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def command(config, capsys, monkeypatch):
    """Runs `harvest run` on the good file with more arguments: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harvest", "run", "--config", str(config), *arguments])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        output = capsys.readouterr()
        return int(exit.value.code or 0), output.out, output.err

    return call


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("harvest.block_document=8", ["--set", "harvest.block_document", "block_documents"]),
        ("harvest.batch_tokens=many", ["--set", "harvest.batch_tokens", "'many'", "integer"]),
        ("harvest.max_tokens=0", ["--set", "harvest.max_tokens", "0", "greater than"]),
        ("models.a.path=/gone/model", ["models.a.path", "/gone/model", "no such folder"]),
        ("models.a.hookpoint=model.layer.1", ["models.a.hookpoint", "model.layers.1"]),
        ("corpus.path=gone.parquet", ["corpus.path", "gone.parquet", "no such file"]),
        ("corpus.text_column=body", ["corpus.text_column", "'body'", "text, domain"]),
        ("corpus.label_column=topic", ["corpus.label_column", "'topic'", "text, domain"]),
        ("store.chunk_rows=0", ["--set", "store.chunk_rows"]),
    ],
)
def test_a_mistake_is_one_line_that_names_key_value_and_remedy(command, override, named):
    code, out, err = command("--set", override)
    assert code == 1
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    assert "Traceback" not in err
    for words in named:
        assert words in lines[0]


def test_check_finds_a_missing_folder_and_accepts_a_good_file(command, tmp_path):
    assert command("--check") == (0, "", "")
    assert command("--check", "--set", "models.a.path=/gone/model")[0] == 1
    assert not (tmp_path / "run").exists()


def test_a_harvest_says_what_it_wrote_and_what_comes_next_and_twice_is_no_error(command, tmp_path):
    code, out, _ = command()
    assert code == 0
    assert f"next: train run --config {tmp_path / 'pipeline.yaml'}\n" in out
    assert "6 documents" in out
    assert "tokens paired: a " in out
    code, out, _ = command()
    assert code == 0
    assert "already complete" in out


def test_a_dry_run_states_size_time_and_free_space_and_writes_nothing(command, tmp_path):
    code, out, _ = command("--dry-run")
    assert code == 0
    assert "rows of 6 documents" in out
    assert "rows/s" in out
    assert "free disk space" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_json_is_all_that_stdout_gets(command, arguments):
    code, out, _ = command("--json", *arguments)
    assert code == 0
    assert json.loads(out)["documents"] == 6


def test_help_explains_every_key_with_its_default(command):
    code, out, _ = command("--help")
    assert code == 0
    for words in (
        "batch_tokens (default 16384)",
        "hookpoint (required)",
        "--dry-run",
        "chunk_rows",
    ):
        assert words in out
    assert len(re.findall(r"\(default:\s+off\)", out.replace("│", " "))) == 3
