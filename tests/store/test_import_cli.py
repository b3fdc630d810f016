import json
import sys

import pytest
import torch

from store.cli import main
from store.reader import Store
from store.sweep import read_range

from .caches import ROWS, random_rows, write_pair


@pytest.fixture
def caches(tmp_path):
    return write_pair(tmp_path / "activations")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the program as the console script does: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["store", "import", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


def test_the_command_says_what_it_wrote_and_what_to_run_next(command, caches, tmp_path):
    path = tmp_path / "a store.zarr"
    code, out, _ = command(*caches, path)
    assert code == 0
    assert f"{path}: 40 rows of 5 documents labelled web" in out
    assert "base.layer_1_out (width 6)" in out
    assert "token ids" in out
    assert out.splitlines()[-1] == f"next: train run --store '{path}'"


def test_the_command_again_finds_the_store_complete(command, caches, tmp_path, tree):
    command(*caches, tmp_path / "store.zarr")
    before = tree(tmp_path / "store.zarr")
    code, out, _ = command(*caches, tmp_path / "store.zarr")
    assert (code, "was already complete" in out) == (0, True)
    assert tree(tmp_path / "store.zarr") == before


def test_check_says_what_would_be_written_and_writes_nothing(command, caches, tmp_path, tree):
    before = tree(tmp_path)
    code, out, _ = command(*caches, tmp_path / "new/store.zarr", "--check")
    assert code == 0
    assert all(words in out for words in ("40 rows", "MB", "base.layer_1_out", "free disk space"))
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_the_bytes_that_check_foretells_are_those_of_the_rows(command, caches, tmp_path):
    path = tmp_path / "store.zarr"
    foretold = json.loads(command(*caches, path, "--check", "--json")[1])
    command(*caches, path)
    chunks = [f for name in ("activations", "rows") for f in path.glob(f"parts/*/{name}/*/c/**/*")]
    on_disk = sum(file.stat().st_size - 4 for file in chunks if file.is_file())
    assert (foretold["bytes"], foretold["rows"]) == (on_disk, 40)


def test_json_carries_the_summary(command, caches, tmp_path):
    found = json.loads(command(*caches, tmp_path / "store.zarr", "--json")[1])
    assert (found["rows"], found["documents"], found["written"]) == (40, 5, True)
    assert [entry["name"] for entry in found["hookpoints"]] == [
        "base.layer_1_out",
        "chat.layer_1_out",
    ]


def test_the_store_section_of_the_configuration_is_used(command, caches, tmp_path):
    options = ("--set", "store.chunk_rows=5", "--set", "store.codec=lossless")
    assert command(*caches, tmp_path / "store.zarr", *options)[0] == 0
    store = Store(tmp_path / "store.zarr")
    assert (store.schema.chunk_rows, store.schema.codec) == (5, "lossless")
    found = read_range(store, 0, ROWS).activations["base.layer_1_out"]
    assert torch.equal(found, random_rows(ROWS, 6, 0))


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_forgotten_store_is_one_line_and_touches_no_cache(command, caches, tmp_path, tree, check):
    before = tree(tmp_path)
    code, out, err = command(*caches, *check)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert (
        f"{caches[1]}: is there and is not a store; name the store to write last, after the caches"
        in err
    )
    assert tree(tmp_path) == before


def test_a_broken_cache_is_one_line_without_traceback(command, caches, tmp_path):
    (caches[0] / "shard_1.memmap").unlink()
    code, out, err = command(*caches, tmp_path / "store.zarr")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "shard_1.memmap: is missing" in err


def test_names_of_models_may_be_given(command, caches, tmp_path):
    command(*caches, tmp_path / "store.zarr", "--model", "a", "--model", "b")
    assert Store(tmp_path / "store.zarr").schema.models == ("a", "b")


def test_help_says_how_long_a_document_is_and_what_its_text_is(command):
    out = " ".join(command("--help")[1].replace("│", " ").split())
    assert "sequence_ranges.pt to say. [default: 128]" in out
    assert "texts are the token ids themselves, separated by spaces" in out
