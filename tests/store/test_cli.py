import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from store.cli import main
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.verify import verify

from .contents import flip, forge


@pytest.fixture
def path(build_store, tmp_path):
    return build_store(tmp_path / "store.zarr", [[(9, 12), (4, 0)], [(20,)]]).path


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the program as the console script does: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["store", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


def test_verify_of_a_good_store_exits_with_zero(command, path):
    code, out, _ = command("verify", path)
    assert (code, "45 rows" in out, "all checks passed" in out) == (0, True, True)


def test_verify_of_a_damaged_store_exits_with_one_and_one_line(path):
    file = path / "parts/00000/activations/a.mid/c/1/0"
    flip(file)
    result = subprocess.run(
        [sys.executable, "-m", "store", "verify", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert str(file) in errors[0]
    assert "Traceback" not in result.stderr


def test_verify_as_json_lists_the_problems(command, path):
    flip(path / "parts/00001/rows/char_end/c/0")
    _, out, _ = command("verify", path, "--json")
    assert json.loads(out) == {**vars(verify(path)), "repaired": None}


def test_verify_repair_says_what_was_found_and_cut_and_what_to_do_next(command, path):
    file = path / "parts/00001/rows/char_end/c/1"
    flip(file)
    code, out, err = command("verify", path, "--repair")
    assert code == 0
    assert f"found: {file}: checksum" in err
    assert out.splitlines() == [
        f"{path}/parts/00001: cut back from 20 to 0 rows",
        f"{path}: 25 rows, {verify(path).bytes_read:,} bytes: all checks passed",
        "INCOMPLETE: run the harvest again to continue",
    ]


def test_verify_repair_as_json_lists_what_it_did(command, path):
    flip(path / "parts/00001/rows/char_end/c/1")
    problems = verify(path).problems
    _, out, _ = command("verify", path, "--repair", "--json")
    parts = [{"folder": f"{path}/parts/00001", "rows_before": 20, "rows_after": 0}]
    repaired = {"found": problems, "parts": parts}
    assert json.loads(out) == {**vars(verify(path)), "repaired": repaired}


def test_verify_repair_of_a_good_store_changes_nothing(command, path, tree):
    before = tree(path)
    code, out, _ = command("verify", path, "--repair")
    assert (code, "all checks passed" in out, tree(path) == before) == (0, True, True)


def test_a_damaged_root_is_one_line_that_says_that_nothing_can_repair_it(command, path):
    flip(path / "zarr.json", 400)
    for option in ((), ("--repair",)):
        code, out, err = command("verify", path, *option)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "nothing else holds what it says: restore it from a backup" in err


def test_verify_names_parts_that_are_not_there(command, path):
    shutil.rmtree(path / "parts/00000")
    code, out, _ = command("verify", path)
    assert (code, "nothing there yet of part 00000" in out) == (0, True)


def test_a_problem_in_a_folder_with_brackets_is_printed_as_it_is(command, path, tmp_path):
    odd = path.rename(tmp_path / "run[bold]")
    flip(odd / "parts/00000/rows/document/c/0")
    assert str(odd) in command("verify", odd)[2]


def test_info_as_json_has_the_right_numbers(command, path):
    found = json.loads(command("info", path, "--json")[1])
    store = Store(path)
    assert (found["rows"], found["documents"], found["parts"]) == (45, 5, 2)
    assert (found["complete"], found["missing"], found["unfinished"]) == (True, [], [])
    assert found["labels"] == {"prose": 1, "code": 3, "": 1}
    assert found["bytes"] == sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    assert found["plain_bytes"] == 45 * 2 * (6 + 10)
    assert (found["codec"], found["chunk_rows"], found["version"]) == ("none", 16, 3)
    assert [entry["width"] for entry in found["hookpoints"]] == [6, 10]
    assert found["hookpoints"][0]["paired_fraction"] == 45 / 60
    assert found["hookpoints"][1]["norm_median"] == store.statistics("b.mid").norm_quantile(0.5)
    assert (found["fingerprints"], found["config"]) == ({"a": "0f", "b": "1e"}, {"seed": 1})


def test_info_splits_the_mean_square_of_the_norm_into_mean_and_std(command, path):
    store = Store(path)
    rows = torch.cat([store.activations("b.mid", chunk) for chunk in range(store.chunks)]).double()
    entry = json.loads(command("info", path, "--json")[1])["hookpoints"][1]
    assert entry["mean_norm"] == pytest.approx(float(rows.mean(0).norm()))
    squares = float((rows**2).sum(1).mean())
    assert entry["mean_norm"] ** 2 + entry["std"] ** 2 == pytest.approx(squares)


def test_info_names_rows_hookpoints_and_what_made_them(command, path):
    _, out, _ = command("info", path)
    wanted = (
        *("45 rows of 5 documents", "complete: 2 parts", "codec none", "a.mid", "b.mid"),
        *("code 3, prose 1, (none) 1", "fingerprints.a: 0f", "seed: 1"),
    )
    assert [words for words in wanted if words not in out] == []


def test_info_fits_a_terminal_of_80_columns(command, path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = command("info", path)[1].splitlines()
    assert max(len(line) for line in lines if str(path) not in line) <= 80


def test_info_of_very_many_labels_shows_the_most_frequent(
    command, build_store, make_block, tmp_path
):
    labels = [f"page-{number}" for number in range(30)]
    block = make_block((1,) * 31)
    store = build_store(tmp_path / "many.zarr", [[replace(block, labels=[*labels, "page-7"])]])
    _, out, _ = command("info", store.path)
    assert "page-7 2, page-0 1" in out
    assert "and 10 more labels" in " ".join(out.split())


def test_info_prints_labels_with_brackets_as_they_are(command, build_store, make_block, tmp_path):
    block = make_block((2,), labels=("[/red]",))
    store = build_store(tmp_path / "store.zarr", [[block]])
    code, out, _ = command("info", store.path)
    assert (code, "[/red] 1" in out) == (0, True)


def test_info_of_an_unfinished_store_says_what_is_left(command, path):
    forge(path / "parts/00001", complete=False)
    line = "INCOMPLETE: 1 of 2 parts done; run the harvest again; begun: 1"
    assert line in command("info", path)[1].splitlines()[2]
    shutil.rmtree(path / "parts/00000")
    line = "INCOMPLETE: 0 of 2 parts done; run the harvest again; begun: 1; not begun: 0"
    assert line in command("info", path)[1].splitlines()[2]


@pytest.mark.parametrize("name", ["info", "verify"])
def test_a_store_that_is_not_there_is_one_line_without_traceback(command, name):
    code, out, err = command(name, "/nonexistent")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("error: /nonexistent/zarr.json: no such file")


def test_without_a_path_the_store_of_the_run_is_meant(command, path, tmp_path):
    config = tmp_path / "pipeline.yaml"
    config.write_text(f"run_dir: {tmp_path}")
    code, out, _ = command("info", "--config", config, "--json")
    assert (code, json.loads(out)["path"]) == (0, str(path))


def test_debug_shows_the_traceback(command, monkeypatch):
    from pipeline.errors import StoreError

    monkeypatch.setattr(sys, "argv", ["store", "info", "/nonexistent", "--debug"])
    with pytest.raises(StoreError):
        main()


def test_verify_of_an_unfinished_store_says_so_and_exits_with_zero(command, path):
    forge(path / "parts/00001", complete=False)
    code, out, _ = command("verify", path)
    assert (code, "INCOMPLETE" in out) == (0, True)


def test_info_shows_long_hookpoint_names_whole(
    command, build_store, make_block, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    long = "a.model.language_model.layers.13.out"
    schema = StoreSchema((Hookpoint(long, "a", 6),), 16, {}, {})
    block = replace(make_block((3,), schema=schema), tokens_read={"a": 3}, tokens_paired={"a": 3})
    out = command("info", build_store(tmp_path / "long.zarr", [[block]], schema).path)[1]
    cells = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert long in "".join(cells)
