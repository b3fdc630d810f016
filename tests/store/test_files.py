import errno
import os
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from store import files
from store.writer import PartWriter


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Every rename and folder creation, and every path made durable, in order."""
    record: list[tuple[str, str]] = []
    replace, mkdir = os.replace, os.mkdir

    def recorded_fsync(descriptor):
        record.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def recorded_replace(source, target):
        replace(source, target)
        record.append(("replace", str(target)))

    def recorded_mkdir(path, *mode, **named):
        mkdir(path, *mode, **named)
        record.append(("mkdir", str(path)))

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    monkeypatch.setattr(os, "mkdir", recorded_mkdir)
    return record


@pytest.fixture
def commit(calls, make_schema, make_block, tmp_path):
    """The calls of one append, up to and with the rename of the part's attributes."""
    folder = tmp_path / "new" / "store.zarr"
    with PartWriter(folder, make_schema()) as writer:
        writer.append(make_block((5, 12)), 1)
    committed = calls.index(("replace", str(folder / "parts" / "00000" / "zarr.json")))
    return calls[: committed + 1]


def test_a_file_is_durable_before_it_takes_its_place(calls, tmp_path):
    files.write_atomic(tmp_path / "x", [b"data"])
    assert calls[:2] == [("fsync", f"{tmp_path}/x.tmp"), ("replace", f"{tmp_path}/x")]


def test_a_rename_is_made_durable_in_its_folder(calls, tmp_path):
    files.write_atomic(tmp_path / "x", [b"data"])
    assert calls[-1] == ("fsync", str(tmp_path))


def test_every_new_folder_is_durable_in_its_parent_before_the_commit(commit):
    made = [(at, path) for at, (kind, path) in enumerate(commit) if kind == "mkdir"]
    assert made
    for at, path in made:
        assert ("fsync", str(Path(path).parent)) in commit[at:]


def test_a_commit_makes_rows_durable_before_its_line_of_the_log_and_lengths_last(
    calls, make_schema, make_block, tmp_path
):
    part = tmp_path / "store.zarr/parts/00000"
    with PartWriter(tmp_path / "store.zarr", make_schema()) as writer:
        calls.clear()
        writer.append(make_block((5, 12)), 1)
    renamed = [Path(path).relative_to(part) for kind, path in calls if kind == "replace"]
    line, attributes = (renamed.index(Path(name)) for name in ("commits/c/0", "zarr.json"))
    assert {path.name for path in renamed[:line]} <= {"0", "1"}
    assert {path.parts[0] for path in renamed[:line]} == {"activations", "rows", "documents"}
    assert attributes == line + 1
    assert {path.name for path in renamed[attributes:]} == {"zarr.json"}
    assert len(renamed[attributes + 1 :]) == len(list(part.glob("**/zarr.json"))) - 4


def test_every_rename_is_durable_before_the_commit(commit):
    renamed = [(at, path) for at, (kind, path) in enumerate(commit[:-1]) if kind == "replace"]
    assert renamed
    for at, path in renamed:
        assert ("fsync", str(Path(path).parent)) in commit[at:]


def test_a_failed_write_leaves_the_old_content(tmp_path):
    file = tmp_path / "x"
    files.write_atomic(file, [b"old"])

    def pieces():
        yield b"half of the new"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write_atomic(file, pieces())
    assert file.read_bytes() == b"old"


def test_remove_temporaries_leaves_the_files_themselves(tmp_path):
    files.write_atomic(tmp_path / "deep" / "x", [b"data"])
    (tmp_path / "deep" / "y.tmp").write_bytes(b"half")
    files.remove_temporaries(tmp_path)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["x"]


def test_json_that_is_not_json_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"zarr\.json: cannot be read as JSON"):
        files.read_json(tmp_path / "zarr.json")


def test_json_nested_beyond_all_measure_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match=r"zarr\.json: cannot be read as JSON"):
        files.read_json(tmp_path / "zarr.json")


def test_json_that_is_no_object_is_an_error_that_says_what_it_is(tmp_path):
    (tmp_path / "zarr.json").write_text("[1]")
    with pytest.raises(StoreError, match="expected a JSON object, got list"):
        files.read_json(tmp_path / "zarr.json")


def test_infinity_is_never_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "x.json", {"value": float("inf")})


def test_a_full_disk_names_the_file_and_leaves_nothing_beside_it(tmp_path):
    def pieces():
        yield b"half of the file"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as error:
        files.write_atomic(tmp_path / "x", pieces())
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []
