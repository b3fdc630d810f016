import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store import files
from store.reader import Store
from store.verify import verify
from store.writer import PartWriter

from .contents import flip, forge, overwrite


@pytest.fixture
def store(build_store, tmp_path):
    """Rows 0-24 in documents 0-3, rows 25-44 in document 4; chunks of 16 rows."""
    return build_store(tmp_path / "store.zarr", [[(9, 12), (4, 0)], [(20,)]])


def chunk_files(store: Store) -> list[Path]:
    return sorted(file for file in store.path.rglob("c/**/*") if file.is_file())


def test_a_good_store_has_no_problems(store):
    result = verify(store.path)
    assert (result.problems, result.complete, result.missing) == ([], True, [])


def test_every_byte_of_every_file_is_read(store):
    sizes = [file.stat().st_size for file in store.path.rglob("*") if file.is_file()]
    assert verify(store.path).bytes_read == sum(sizes)


def test_rows_are_counted(store):
    assert verify(store.path).rows == 45


def test_progress_is_told_for_every_row(store):
    told = []
    verify(store.path, lambda done, total: told.append((done, total)))
    assert told == [(16, 45), (25, 45), (41, 45), (45, 45)]


def test_verify_writes_nothing(store, tree):
    for file in chunk_files(store)[::5]:
        flip(file)
    before = tree(store.path.parent)
    verify(store.path)
    assert tree(store.path.parent) == before


def test_several_damaged_files_of_one_chunk_are_all_named(store):
    damaged = [store.parts[0].folder / "activations" / f"{m}.mid" / "c/0/0" for m in "ab"]
    for file in damaged:
        file.unlink()
    problems = verify(store.path).problems
    assert [str(file) in problem for file, problem in zip(damaged, problems, strict=True)]


@pytest.mark.parametrize(
    ("damaged", "rows"),
    [
        ("parts/00000/activations/b.mid/c/1/0", "(rows 16-24)"),
        ("parts/00001/rows/char_start/c/0", "(rows 25-40)"),
        ("parts/00001/documents/hash/c/0", "(document 0 of the part, rows 25-44)"),
        ("parts/00000/documents/text/c/0", "(documents 1-3 of the part, rows 9-24)"),
    ],
)
def test_a_damaged_chunk_is_named_with_the_rows_of_the_store_that_it_holds(damaged, rows, store):
    flip(store.path / damaged)
    (problem,) = verify(store.path).problems
    assert problem.startswith(f"{store.path / damaged}: checksum ")
    assert problem.endswith(rows)


def test_rows_of_a_part_behind_one_that_nothing_tells_of_are_numbered_by_the_part(store):
    (store.parts[0].folder / "zarr.json").unlink()
    shutil.rmtree(store.parts[0].folder / "commits")
    flip(store.parts[1].folder / "rows/char_start/c/1")
    *_, problem = verify(store.path).problems
    assert problem.endswith("(rows 16-19 of the part)")


def test_an_array_that_is_gone_is_named(store):
    folder = store.parts[1].folder / "rows" / "token_b"
    shutil.rmtree(folder)
    assert {str(folder) in problem for problem in verify(store.path).problems} == {True}


def test_the_damage_of_several_parts_is_all_found(store):
    for part in store.parts:
        flip(part.folder / "zarr.json", 500)
    problems = verify(store.path).problems
    assert [sum(str(part.folder) in p for p in problems) > 0 for part in store.parts] == [True] * 2


def only_problem(store: Store) -> str:
    (problem,) = verify(store.path).problems
    return problem


def test_a_row_that_another_document_claims_is_a_problem(store):
    file = overwrite(store, 0, "rows/document", lambda values: np.put(values, 8, 1))
    assert only_problem(store) == f"{file}: row_end gives the row to another (row 8)"


def test_documents_that_run_backwards_are_a_problem(store):
    file = overwrite(store, 0, "rows/document", lambda values: np.put(values, 12, 0))
    assert f"{file}: documents out of order (row 12)" in verify(store.path).problems


@pytest.mark.parametrize("document", [-1, 4])
def test_a_row_of_a_document_that_is_not_there_is_a_problem(document, store):
    file = overwrite(store, 0, "rows/document", lambda values: np.put(values, 15, document))
    assert f"{file}: a row refers to a document not there (row 15)" in verify(store.path).problems


def test_characters_that_begin_before_the_text_are_a_problem(store):
    file = overwrite(store, 1, "rows/char_start", lambda values: values.put([0, 2], -1), chunk=1)
    found = only_problem(store)
    assert found == f"{file}: a row's characters begin before its text (rows 41-43)"


def test_characters_that_run_backwards_are_a_problem(store):
    end = int(store.column("char_end")[3])
    file = overwrite(store, 0, "rows/char_start", lambda values: np.put(values, 3, end + 1))
    wanted = f"{file.parent.parent.parent}/char_end/c/0: a row's characters run backwards (row 3)"
    assert only_problem(store) == wanted


def test_characters_are_counted_in_every_kind_of_text(build_store, make_block, tmp_path):
    texts = [
        "",
        "plain",
        "naïve 漢字",
        "👩‍👩‍👧",
        "lone \ud83d surrogate",
        "two \ud83d\ude00",
        "\0\r\n",
    ]
    lengths = [len(text) for text in texts]
    block = make_block((1,) * len(texts))
    block = replace(
        block, texts=texts, char_start=np.zeros(7, np.int32), char_end=np.array(lengths, np.int32)
    )
    store = build_store(tmp_path / "store.zarr", [[block]])
    assert verify(store.path).problems == []
    for row in range(len(texts)):
        file = overwrite(store, 0, "rows/char_end", lambda v, row=row: np.put(v, row, v[row] + 1))
        assert only_problem(store) == f"{file}: a row's characters end behind its text (row {row})"
        overwrite(store, 0, "rows/char_end", lambda v, row=row: np.put(v, row, v[row] - 1))


def test_texts_of_several_chunks_are_compared_with_their_hashes(build_store, make_block, tmp_path):
    block = make_block((2, 2, 2, 2))
    texts = ["x" * 700_000, "漢字" * 400_000, "", "behind"]
    block = replace(block, texts=texts, char_start=np.zeros(8, np.int32), char_end=np.ones(8, int))
    block.char_end[4:6] = 0
    store = build_store(tmp_path / "store.zarr", [[block]])
    assert verify(store.path).problems == []
    overwrite(store, 0, "documents/text", lambda values: np.put(values, 5, ord("y")), chunk=1)
    hashes = store.parts[0].folder / "documents/hash/c/0"
    wanted = f"{hashes}: the text has another hash (document 1 of the part, rows 2-3)"
    assert only_problem(store) == wanted


@pytest.mark.parametrize("token", [-1, 500, 2**31 - 1])
def test_a_token_outside_the_vocabulary_is_a_problem(
    token, build_store, make_block, make_schema, tmp_path
):
    schema = make_schema(vocabulary={"b": 500})
    store = build_store(tmp_path / "store.zarr", [[make_block((9,))]], schema)
    assert verify(store.path).problems == []
    file = overwrite(store, 0, "rows/token_b", lambda values: np.put(values, 7, token))
    assert only_problem(store) == f"{file}: a token id is not within 0-499 (row 7)"


def test_a_token_below_zero_is_a_problem_whatever_the_vocabulary(store):
    overwrite(store, 0, "rows/token_a", lambda values: np.put(values, 7, -1))
    assert "a token id is not within 0-2,147,483,647 (row 7)" in only_problem(store)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_not_there_is_a_problem(label, store):
    file = overwrite(store, 0, "documents/label", lambda values: np.put(values, 1, label))
    wanted = f"{file}: no label of the 3 (document 1 of the part, rows 9-20)"
    assert only_problem(store) == wanted


@pytest.mark.parametrize("source", [-1, 2])
def test_a_source_that_is_not_there_is_a_problem(source, store):
    file = overwrite(store, 1, "documents/source", lambda values: np.put(values, 0, source))
    wanted = f"{file}: no source of the 2 (document 0 of the part, rows 25-44)"
    assert only_problem(store) == wanted


def test_a_hash_of_another_text_is_a_problem(store):
    file = overwrite(store, 0, "documents/hash", lambda values: np.put(values, 2, 7))
    wanted = f"{file}: the text has another hash (document 2 of the part, rows 21-24)"
    assert only_problem(store) == wanted


@pytest.mark.parametrize("column", ["text_end", "row_end"])
@pytest.mark.parametrize(("place", "value"), [(1, -1), (3, 10**6), (0, -5)])
def test_ends_that_do_not_rise_to_their_total_are_a_problem(column, place, value, store):
    overwrite(store, 0, f"documents/{column}", lambda values: np.put(values, place, value))
    folder = store.parts[0].folder / "documents" / column
    found = [p for p in verify(store.path).problems if p.startswith(f"{folder}: document")]
    assert len(found) == 1
    assert "ends do not rise to" in found[0]


def test_text_that_is_no_text_is_a_problem(store):
    overwrite(store, 0, "documents/text", lambda values: values.fill(0xFF))
    assert "the text has another hash" in only_problem(store)


@pytest.mark.parametrize("count", ["rows", "documents", "text_bytes", "log_bytes", "cursor"])
@pytest.mark.parametrize("change", [-1, 1])
def test_attributes_that_count_otherwise_are_a_problem(count, change, store):
    folder = store.parts[0].folder
    before = files.read_json(folder / "zarr.json")["attributes"][count]
    forge(folder, **{count: before + change})
    assert any(str(folder) in problem for problem in verify(store.path).problems)


def test_statistics_that_count_other_rows_are_a_problem(store):
    forge(store.parts[1].folder, rows=19)
    wanted = r"zarr.json: damaged part attributes (statistics of a.mid count 20 rows of 19); run"
    assert wanted in verify(store.path).problems[0]


@pytest.mark.parametrize(
    "name", ["activations/a.mid/c/2", "rows/token_a/c/9", "rows/document/x.tmp"]
)
def test_a_file_left_over_in_a_complete_part_is_a_problem(name, store):
    file = store.parts[0].folder / name
    file.write_bytes(b"")
    assert only_problem(store) == f"{file}: is left over, no commit has it"


def test_what_a_writer_has_not_committed_is_no_problem(make_schema, make_block, tmp_path):
    path = tmp_path / "store.zarr"
    with PartWriter(path, make_schema(), commit_rows=100) as writer:
        writer.append(make_block((50,)), 1)
    (writer.folder / "rows/document/c/7.tmp").write_bytes(b"half")
    result = verify(path)
    assert (result.problems, result.complete, result.rows) == ([], False, 0)


def test_a_missing_part_makes_a_store_incomplete_and_is_named(store):
    shutil.rmtree(store.parts[0].folder)
    result = verify(store.path)
    assert (result.complete, result.missing, result.problems) == (False, ["00000"], [])


def test_a_part_beyond_those_of_the_store_is_a_problem(store):
    shutil.copytree(store.parts[0].folder, store.path / "parts/00002")
    wanted = f"{store.path}/parts/00002: the store was begun for 2 parts; remove it"
    assert only_problem(store) == wanted


def test_a_part_of_another_store_is_a_problem(store, build_store, make_schema, tmp_path):
    parts = [[(9, 12), (4, 0)], [(20,)]]
    other = build_store(tmp_path / "other.zarr", parts, make_schema(config={"seed": 2}))
    shutil.rmtree(store.parts[0].folder)
    shutil.copytree(other.parts[0].folder, store.parts[0].folder)
    assert "was written for a store with another schema" in only_problem(store)


def test_metadata_laid_out_anew_by_another_program_still_opens_but_is_a_problem(store):
    for file in (store.path / "zarr.json", store.parts[0].folder / "zarr.json"):
        content = file.read_bytes()
        file.write_text(json.dumps(json.loads(content)))
        assert Store(store.path).rows == 45
        assert only_problem(store) == f"{file}: bytes have changed"
        file.write_bytes(content)


def test_a_store_without_parts_is_incomplete(store):
    shutil.rmtree(store.path / "parts")
    result = verify(store.path)
    assert (result.complete, result.missing) == (False, ["00000", "00001"])


def test_what_is_no_store_is_one_problem(tmp_path):
    (problem,) = verify(tmp_path).problems
    assert problem == f"{tmp_path}/zarr.json: no such file; is this an activation store?"
