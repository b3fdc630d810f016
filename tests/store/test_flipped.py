"""Whatever happens to any file of a complete store, `store verify` says so and names the file.

Every seventh byte of metadata is changed; chunks at both ends and at sampled places. About 15 s.
"""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.check_metadata import read_metadata
from store.faults import Tally
from store.verify import verify

from .contents import flip

PARTS = [[(9, 12), (4, 0), (1,)], [(20,)]]


@pytest.fixture(scope="module", params=["none", "lossless", "int8"])
def path(request, build_store, make_schema, make_block, memory_folder):
    """Two parts, tails and full chunks, several chunks of text and of log lines."""
    schema = make_schema(codec=request.param, vocabulary={"a": 500})
    blocks = [[make_block(lengths, seed=1, schema=schema) for lengths in part] for part in PARTS]
    blocks[0][0].texts[0] += "x" * (1 << 20)
    return build_store(memory_folder / f"flipped-{request.param}.zarr", blocks, schema).path


@pytest.fixture(scope="module")
def all_files(path):
    """Those that another codec changes; with none, all."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [file for file in files if _codec(path) == "none" or "activations" in file.parts]


def problems_naming(file: Path, path: Path) -> list[str]:
    """Problems that name the file, or the array that it is a chunk of."""
    array = file.parents[[*file.parts[::-1]].index("c")] if "c" in file.parts else file
    return [problem for problem in verify(path).problems if problem.startswith(str(array))]


def test_an_undamaged_store_has_no_problems(path):
    assert verify(path).problems == []


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_byte_that_changes_is_found_and_its_file_named(path, all_files, data):
    file = data.draw(st.sampled_from(all_files))
    position = data.draw(st.integers(0, file.stat().st_size - 1))
    bits = data.draw(st.integers(1, 255))
    flip(file, position, bits)
    try:
        assert problems_naming(file, path)
    finally:
        flip(file, position, bits)


def test_both_ends_of_every_file_count(path, all_files):
    for file in all_files:
        for position in (0, 1, -5, -4, -2, -1):
            flip(file, position, 1 << position % 8)
            assert problems_naming(file, path), (file, position)
            flip(file, position, 1 << position % 8)


def test_any_byte_of_a_parts_metadata_counts(path, all_files, make_schema):
    schema = make_schema(codec=_codec(path), vocabulary={"a": 500}, parts=2)
    folder = path / "parts/00001"
    small = [file for file in all_files if file.is_relative_to(folder) and "c" not in file.parts]
    assert read_metadata(folder, schema, Tally()).faults == ()
    for file in small:
        content = file.read_bytes()
        for position in range(len(file.parent.name) % 7, len(content), 7):
            flip(file, position, 1 << position % 8)
            faults = read_metadata(folder, schema, Tally()).faults
            flip(file, position, 1 << position % 8)
            assert any(fault.startswith(str(file)) for fault in faults), (file, position)


def _codec(path: Path) -> str:
    return path.stem.removeprefix("flipped-")


@pytest.mark.parametrize("change", ["deleted", "emptied", "shortened", "longer", "a folder"])
def test_a_file_that_is_changed_as_a_whole_is_named(change, path, all_files):
    for file in all_files:
        content = file.read_bytes()
        file.unlink()
        if change == "a folder":
            file.mkdir()
        elif change != "deleted":
            new = {"emptied": b"", "shortened": content[:-1], "longer": content + b"\0"}
            file.write_bytes(new[change])
        assert problems_naming(file, path), file
        shutil.rmtree(file) if change == "a folder" else file.unlink(missing_ok=True)
        file.write_bytes(content)


def test_a_whole_folder_that_is_gone_is_named(path):
    folders = [folder for folder in path.glob("parts/*/**/*") if folder.is_dir()]
    aside = path.with_name("aside")
    for folder in sorted(folders)[::3]:
        folder.rename(aside)
        assert any(str(folder) in problem for problem in verify(path).problems), folder
        aside.rename(folder)
