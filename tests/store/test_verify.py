import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import files
from store.reader import Store
from store.verify import verify


@pytest.fixture
def store(build_store, tmp_path):
    return build_store(tmp_path / "store.zarr", [[(9, 12), (4, 0)], [(20,)]])


@pytest.fixture(scope="module")
def victim(build_store, tmp_path_factory):
    """A store to be damaged and mended, and its chunk files."""
    path = tmp_path_factory.mktemp("victim") / "store.zarr"
    store = build_store(path, [[(9, 12), (4, 0)], [(20,)]])
    return store, sorted(file for file in path.rglob("c/**/*") if file.is_file())


def chunk_files(store: Store) -> list[Path]:
    return sorted(file for file in store.path.rglob("c/**/*") if file.is_file())


def test_a_good_store_has_no_problems(store):
    assert verify(store).problems == []


def test_every_byte_but_the_checksums_is_read(store):
    sizes = [file.stat().st_size - 4 for file in chunk_files(store)]
    assert verify(store).bytes_read == sum(sizes)


def test_rows_are_counted(store):
    assert verify(store).rows == 45


def test_progress_is_told_for_every_row(store):
    told: list[int] = []
    verify(store, told.append)
    assert sum(told) == 45


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_byte_that_changes_is_found_and_its_file_named(victim, data):
    store, chunks = victim
    file = data.draw(st.sampled_from(chunks))
    # The text chunk is 1 MiB, nearly all padding: look at its two ends.
    near = st.integers(0, min(file.stat().st_size, 300) - 1)
    position = data.draw(near | near.map(lambda n: -1 - n))
    content = file.read_bytes()
    damaged = bytearray(content)
    damaged[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(damaged)
    try:
        problems = verify(store).problems
    finally:
        file.write_bytes(content)
    assert len(problems) == 1
    assert str(file) in problems[0]


@pytest.mark.parametrize("change", ["missing", "truncated", "longer"])
def test_a_chunk_of_the_wrong_size_is_named(store, change):
    for file in chunk_files(store):
        content = file.read_bytes()
        if change == "missing":
            file.unlink()
        else:
            file.write_bytes(content[:-1] if change == "truncated" else content + b"\0")
        problems = verify(store).problems
        file.write_bytes(content)
        assert [str(file) in problem for problem in problems] == [True], file


def test_an_empty_chunk_file_is_named(store):
    file = chunk_files(store)[0]
    file.write_bytes(b"")
    assert str(file) in verify(store).problems[0]


def test_several_damaged_files_of_one_chunk_are_all_named(store):
    damaged = [store.parts[0].folder / "activations" / f"{m}.mid" / "c/0/0" for m in "ab"]
    for file in damaged:
        file.unlink()
    problems = verify(store).problems
    assert [str(file) in problem for file, problem in zip(damaged, problems, strict=True)]


def test_an_array_that_is_gone_is_named(store):
    folder = store.parts[1].folder / "rows" / "token_b"
    shutil.rmtree(folder)
    assert str(folder) in verify(store).problems[0]


def change_attribute(store: Store, part: int, name: str, value) -> Store:
    file = store.parts[part].folder / "zarr.json"
    attributes = files.read_json(file)["attributes"]
    files.write_group(file.parent, {**attributes, name: value})
    return Store(store.path)


def test_statistics_that_count_other_rows_are_a_problem(store):
    problems = verify(change_attribute(store, 1, "rows", 19)).problems
    assert any("statistics of a.mid count 45 rows of 44" in problem for problem in problems)


def test_arrays_of_another_shape_than_the_rows_are_a_problem(store):
    problems = verify(change_attribute(store, 1, "rows", 19)).problems
    assert any("shape [20, 6], expected [19, 6]" in problem for problem in problems)


def test_rows_of_a_document_that_is_not_there_are_a_problem(store):
    problems = verify(change_attribute(store, 1, "documents", 0)).problems
    assert any("a row refers to a document not there" in problem for problem in problems)


def test_a_part_whose_rows_refer_to_another_parts_documents_is_a_problem(store):
    problems = verify(change_attribute(store, 0, "documents", 2)).problems
    assert any("a row refers to a document not there" in problem for problem in problems)


def test_an_unfinished_store_is_no_problem(make_schema, make_block, tmp_path):
    from store.writer import PartWriter

    with PartWriter(tmp_path / "store.zarr", make_schema()) as writer:
        writer.append(make_block((5,)), 1)
    assert verify(Store(tmp_path / "store.zarr")).problems == []


def test_an_unfinished_store_is_known_as_such(store):
    assert verify(store).complete
    assert not verify(change_attribute(store, 1, "complete", False)).complete


def test_a_store_without_parts_is_a_problem(store):
    shutil.rmtree(store.path / "parts")
    (problem,) = verify(Store(store.path)).problems
    assert f"{store.path}/parts" in problem
