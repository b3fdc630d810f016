import json
import subprocess
import sys

import pytest

from store.cli import main
from store.reader import Store
from store.verify import verify


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


def flip(file) -> None:
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)


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
    assert json.loads(out) == vars(verify(Store(path)))


def test_a_problem_in_a_folder_with_brackets_is_printed_as_it_is(command, path, tmp_path):
    odd = path.rename(tmp_path / "run[bold]")
    flip(odd / "parts/00000/rows/document/c/0")
    assert str(odd) in command("verify", odd)[2]


def test_info_as_json_has_the_right_numbers(command, path):
    found = json.loads(command("info", path, "--json")[1])
    store = Store(path)
    assert (found["rows"], found["documents"], found["parts"]) == (45, 5, 2)
    assert found["complete"] is True
    assert found["labels"] == {"prose": 1, "code": 3, "": 1}
    assert found["bytes"] == sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    assert [entry["width"] for entry in found["hookpoints"]] == [6, 10]
    assert found["hookpoints"][0]["paired_fraction"] == 45 / 60
    assert found["hookpoints"][1]["norm_median"] == store.statistics("b.mid").norm_quantile(0.5)


def test_info_names_rows_and_hookpoints(command, path):
    _, out, _ = command("info", path)
    assert all(words in out for words in ("45 rows", "a.mid", "b.mid", "prose 1, code 3, (none) 1"))


def test_info_prints_labels_with_brackets_as_they_are(command, build_store, make_block, tmp_path):
    block = make_block((2,), labels=("[/red]",))
    store = build_store(tmp_path / "store.zarr", [[block]])
    code, out, _ = command("info", store.path)
    assert (code, "[/red] 1" in out) == (0, True)


def test_info_of_an_unfinished_store_says_so(command, path):
    file = path / "parts/00001/zarr.json"
    file.write_text(file.read_text().replace('"complete": true', '"complete": false'))
    assert "INCOMPLETE" in command("info", path)[1]


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
    file = path / "parts/00001/zarr.json"
    file.write_text(file.read_text().replace('"complete": true', '"complete": false'))
    code, out, _ = command("verify", path)
    assert (code, "INCOMPLETE" in out) == (0, True)


def test_info_shows_long_hookpoint_names_whole(command, path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    long = "model.language_model.layers.13"
    for file in (path / "zarr.json", *path.glob("parts/*/zarr.json")):
        file.write_text(file.read_text().replace("a.mid", long))
    out = command("info", path)[1]
    cells = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert long in "".join(cells)
