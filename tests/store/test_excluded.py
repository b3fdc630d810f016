"""What the harvest left out is counted by reason, through every commit."""

import json
import sys
from dataclasses import replace

import pytest

from pipeline.errors import StoreError
from store.cli import main
from store.commits import read_log
from store.reader import Store
from store.repair import repair
from store.verify import verify
from store.writer import PartWriter

from .contents import flip, forge

LEFT_OUT = [{"norm outliers": 3}, {}, {"duplicate documents": 1_200}, {"norm outliers": 4}]


@pytest.fixture
def blocks(make_block):
    """The first and the third have no rows; the third has no documents, either."""
    lengths = [(0, 0), (9, 2), (), (5,)]
    return [
        replace(make_block(rows, seed=n), excluded=left_out)
        for n, (rows, left_out) in enumerate(zip(lengths, LEFT_OUT, strict=True))
    ]


@pytest.fixture(params=["none", "lossless", "int8"])
def store(request, build_store, make_schema, blocks, tmp_path):
    """Two parts that left out the same."""
    schema = make_schema(codec=request.param)
    return build_store(tmp_path / "store.zarr", [blocks, blocks], schema)


def test_counts_are_summed_over_blocks_and_parts(store):
    assert store.excluded == {"duplicate documents": 2_400, "norm outliers": 14}
    assert list(store.parts[0].state.excluded) == ["duplicate documents", "norm outliers"]


def test_a_store_of_which_nothing_is_known_to_be_left_out_says_so(
    build_store, make_block, tmp_path
):
    block = replace(make_block((3,)), excluded={})
    assert build_store(tmp_path / "store.zarr", [[block]]).excluded == {}


def test_every_line_of_the_log_has_the_counts_so_far(store):
    log = read_log(store.parts[0].folder)
    assert [commit.excluded for commit in log.commits] == [
        {"norm outliers": 3},
        {"norm outliers": 3},
        {"norm outliers": 3, "duplicate documents": 1_200},
        {"norm outliers": 7, "duplicate documents": 1_200},
    ]


def test_blocks_without_rows_or_documents_move_the_cursor(store):
    log = read_log(store.parts[0].folder)
    assert [(c.cursor, c.documents, c.rows) for c in log.commits] == [
        (1, 2, 0),
        (2, 4, 11),
        (3, 4, 11),
        (4, 5, 16),
    ]
    assert verify(store.path).problems == []


def test_a_part_that_begins_with_nothing_but_what_was_left_out_is_continued(
    make_schema, blocks, tmp_path
):
    path = tmp_path / "store.zarr"
    for number in (2, 3):
        with PartWriter(path, make_schema()) as writer:
            assert writer.cursor == (number if number == 3 else 0)
            writer.append(blocks[number], number + 1)
    assert Store(path).excluded == {"duplicate documents": 1_200, "norm outliers": 4}
    assert verify(path).problems == []


def test_attributes_built_again_have_the_counts_of_the_log(store):
    before = store.excluded
    flip(store.parts[0].folder / "zarr.json", 300)
    repair(store.path)
    assert Store(store.path).excluded == before


def test_a_part_that_is_cut_back_forgets_what_was_left_out_behind(store):
    flip(store.parts[0].folder / "documents/row_end/c/0")
    repair(store.path)
    assert Store(store.path).parts[0].state.excluded == {}


@pytest.mark.parametrize(
    "wrong", [None, [], {"": 1}, {"\n": 1}, {"norm outliers": -1}, {"norm outliers": 1.5}]
)
def test_counts_that_mean_nothing_are_refused(wrong, store):
    forge(store.parts[0].folder, excluded=wrong)
    with pytest.raises(StoreError, match=r"zarr\.json: damaged part attributes \(excluded"):
        Store(store.path)


@pytest.mark.parametrize("wrong", [{}, {"duplicate documents": 1_200, "norm outliers": 8}])
def test_counts_other_than_those_of_the_log_are_a_problem(wrong, store):
    forge(store.parts[0].folder, excluded=wrong)
    (problem,) = verify(store.path).problems
    assert problem.endswith("commit log does not lead to what the part's attributes say")


@pytest.mark.parametrize("as_json", [False, True])
def test_info_says_what_was_left_out(as_json, store, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["store", "info", str(store.path), *["--json"] * as_json])
    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    if as_json:
        assert json.loads(out)["excluded"] == store.excluded
    else:
        assert "left out: 2,400 duplicate documents, 14 norm outliers" in out.splitlines()
