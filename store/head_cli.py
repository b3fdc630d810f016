"""`store head`: a table of rows to look at, or their JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.command import ConfigOption, JsonOption, SetOption
from store.where import StorePath, store_path

if TYPE_CHECKING:
    from store.head import HeadRow

BEFORE, AFTER = 40, 20

Rows = Annotated[int, typer.Option("--rows", min=1, max=1000, help="How many rows.")]
Start = Annotated[int, typer.Option("--start", min=0, help="Number of the first row.")]


def head(
    path: StorePath = None,
    rows: Rows = 10,
    start: Start = 0,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows rows of a store: the text of each, its token ids and its activations' norms.

    A row's own characters are highlighted (between ⟦ and ⟧ where there are no colours). A line end
    shows as ↵, a tab as ⇥, a space of the row itself as ·
    """
    from store.head import head as read
    from store.reader import Store

    store = Store(store_path(path, config, set_))
    found = read(store, start, rows, BEFORE, AFTER)
    if as_json:
        print(json.dumps([asdict(row) for row in found], indent=2))
        return
    out = Console()
    several = len(store.schema.sources) > 1
    out.print(_table(found, sources=several, coloured=out.color_system is not None))
    for title, names in (("tokens", found[0].tokens), ("norms", found[0].norms)):
        out.print(Text(f"{title}, from top to bottom: {', '.join(names)}"))


def _table(rows: list[HeadRow], sources: bool, coloured: bool) -> Table:
    """One row each; models and hookpoints stand below one another, so that 80 columns do.

    sources: whether to say what each row's document was read from.
    """
    table = Table(
        Column("row", justify="right", no_wrap=True),
        Column("doc", justify="right", no_wrap=True),
        Column("label", overflow="fold", max_width=12),
        *([Column("source", overflow="fold", max_width=12)] if sources else []),
        Column("text", overflow="fold", ratio=1),
        Column("token", justify="right", no_wrap=True),
        Column("norm", justify="right", no_wrap=True),
        show_lines=True,
        expand=True,
    )
    for row in rows:
        table.add_row(
            str(row.row),
            str(row.document),
            Text(row.label),
            *([Text(row.source)] if sources else []),
            _text(row, coloured),
            "\n".join(map(str, row.tokens.values())),
            "\n".join(f"{norm:,.2f}" for norm in row.norms.values()),
        )
    return table


def _text(row: HeadRow, coloured: bool) -> Text:
    from store.head import visible

    own = visible(row.text, spaces=True)
    return Text.assemble(
        (visible(row.before), "dim"),
        (own or "∅", "bold reverse") if coloured else f"⟦{own}⟧",
        visible(row.after),
    )
