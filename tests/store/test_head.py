import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import StoreError
from store.cli import main
from store.head import head, visible
from store.head_cli import AFTER, BEFORE
from store.reader import Store

TEXT = "one [bold]two[/bold]\n\tthree four"


@pytest.fixture
def store(build_store, make_block, make_schema, tmp_path):
    """Two parts; the first one's first document is TEXT in rows of four characters."""
    block = make_block((8, 3), labels=("[/red]", "prose"))
    start = np.append(np.arange(8) * 4, [0, 1, 2]).astype(np.int32)
    end = np.append(start[:8] + 4, [1, 2, 2]).astype(np.int32)
    block = replace(block, texts=[TEXT, "漢字"], char_start=start, char_end=end)
    return build_store(
        tmp_path / "store.zarr", [[block, (20,)], [(9,)]], replace(make_schema(), parts=2)
    )


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the program as the console script does: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["store", "head", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


def test_rows_carry_their_text_with_what_stands_around_it(store):
    rows = head(store, 0, 8, before=3, after=2)
    assert [row.text for row in rows] == [TEXT[at : at + 4] for at in range(0, 32, 4)]
    assert rows[0].before == ""
    assert (rows[1].before, rows[1].after) == (TEXT[1:4], TEXT[8:10])


def test_rows_carry_the_columns_and_norms_of_the_store(store):
    rows = head(store, 9, 8, before=1, after=1)
    assert [row.row for row in rows] == list(range(9, 17))
    assert [row.document for row in rows] == store.column("document")[9:17].tolist()
    for model in ("a", "b"):
        assert [r.tokens[model] for r in rows] == store.column(f"token_{model}")[9:17].tolist()
    wanted = store.activations("b.mid", 0)[9:16].double().norm(dim=1).tolist()
    assert [row.norms["b.mid"] for row in rows][:7] == wanted


def test_rows_run_on_over_chunks_and_parts_to_the_end(store):
    rows = head(store, 28, 100, before=5, after=5)
    assert [row.row for row in rows] == list(range(28, 40))
    assert {row.document for row in rows} == {2, 3}


def test_only_the_chunks_of_the_rows_are_read(store):
    wanted = head(store, 17, 3, before=5, after=5)
    for group in ("rows", "activations"):
        for chunks in (store.path / f"parts/00000/{group}").glob("*/c"):
            shutil.rmtree(chunks / "0") if group == "activations" else (chunks / "0").unlink()
    assert head(Store(store.path), 17, 3, before=5, after=5) == wanted
    with pytest.raises(StoreError, match="c/0"):
        head(Store(store.path), 15, 3, before=5, after=5)


@pytest.mark.parametrize("start", [40, -1, 10**12])
def test_a_row_that_is_not_there_is_refused_with_those_there_are(store, start):
    with pytest.raises(StoreError, match=f"no row {start}: its rows are 0 to 39; give another"):
        head(store, start, 1, before=1, after=1)


def test_a_store_without_rows_says_so(build_store, tmp_path):
    store = build_store(tmp_path / "store.zarr", [[()]])
    with pytest.raises(StoreError, match="holds no rows yet"):
        head(store, 0, 1, before=1, after=1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\n\tb", "a␍↵⇥b"),
        ("a b", "a b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\0\ud83d\u200d", "\\x00\\ud83d\\u200d"),
        ("漢字 é", "漢字 é"),
    ],
)
def test_what_has_no_glyph_is_shown_by_a_sign(text, shown):
    assert visible(text) == shown


def test_spaces_are_shown_where_they_are_asked_for():
    assert visible(" a ", spaces=True) == "·a·"


def test_the_table_fits_80_columns_and_prints_markup_as_it_is(command, store, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command(store.path, "--rows", 8)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "[/red]" in out
    joined = "".join(line.split("│")[5].strip() for line in out.splitlines() if "│" in line)
    assert "[bold]" in joined
    assert "tokens, from top to bottom: a, b" in out
    assert "norms, from top to bottom: a.mid, b.mid" in out


def test_without_colours_a_rows_own_characters_stand_in_brackets(command, store):
    out = command(store.path, "--rows", 1)[1]
    assert "⟦one·⟧[bold]two" in out


def test_with_colours_a_rows_own_characters_are_highlighted(command, store, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    out = command(store.path, "--rows", 1)[1]
    assert "\x1b[1;7mone·\x1b[0m" in out
    assert "⟦" not in out


def test_json_is_what_was_read(command, store):
    code, out, _ = command(store.path, "--start", 5, "--rows", 2, "--json")
    found = json.loads(out)
    wanted = head(store, 5, 2, BEFORE, AFTER)
    assert code == 0
    assert found == [vars(row) for row in wanted]


def test_a_missing_chunk_is_one_line_without_traceback(command, store):
    (store.path / "parts/00000/activations/a.mid/c/0/0").unlink()
    code, out, err = command(store.path)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "activations/a.mid/c/0/0" in err


def test_without_a_path_the_store_of_the_run_is_meant(command, store, tmp_path):
    out = command("--set", f"run_dir={tmp_path}", "--rows", 1)[1]
    assert "one·" in out
