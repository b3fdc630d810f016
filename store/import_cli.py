"""`store import`: activation caches of the dictionary_learning forks become a store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    next_command,
    progress_bar,
    read_config,
)
from store.config import StoreConfig

if TYPE_CHECKING:
    from store.importer import ImportPlan

DOCUMENT_ROWS = 128

CacheFolders = Annotated[
    list[Path],
    typer.Argument(
        metavar="CACHE_DIR",
        help="Folders MODEL/DATASET/SUBMODULE_IO, or MODEL/DATASET/SPLIT/SUBMODULE_IO, that hold "
        "config.json and shard_0.memmap; one per hookpoint, the first model's first.",
        show_default=False,
    ),
]
StorePath = Annotated[
    Path, typer.Argument(metavar="STORE", help="The store to write.", show_default=False)
]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Model of a cache; once per cache, in their order, or not at all "
        "(default: the name of the model's folder).",
    ),
]
TokenizerSource = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="PATH_OR_NAME",
        help="Tokenizer of the first model, which makes text of its tokens.pt: a model's folder, "
        "a tokenizer.json, or a name on the hub; no code of it is run (default: none, and texts "
        "are the token ids themselves, separated by spaces).",
    ),
]
DocumentRows = Annotated[
    int,
    typer.Option(
        "--document-rows",
        min=1,
        max=1 << 15,
        help="Rows of a document where there is no sequence_ranges.pt to say.",
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Say what it would write; write nothing (default: off).")
]


def import_(
    caches: CacheFolders,
    store: StorePath,
    models: ModelNames = None,
    tokenizer: TokenizerSource = None,
    document_rows: DocumentRows = DOCUMENT_ROWS,
    config: ConfigOption = None,
    set_: SetOption = None,
    check: Check = False,
    as_json: JsonOption = False,
) -> None:
    """Makes one store of activation caches of dictionary_learning forks.

    Row i of every cache must be the same place in the same text. tokens.pt
    and sequence_ranges.pt are looked for one level up. A sequence becomes a
    document, labelled with the dataset's folder. Without tokens.pt all token
    ids are 0 and texts are row numbers (row 0 row 1 ...). Values that are
    not bfloat16 are rounded to it. Saved means and deviations are not used:
    they are computed anew. Of the configuration, only section store is read.

    Interrupted, the same command continues; changed caches are refused.
    """
    from store.import_notes import describe
    from store.import_plan import plan_import
    from store.importer import check_target

    section = read_config(config, set_).section("store", StoreConfig)
    plan = plan_import(caches, section, document_rows, models or [], tokenizer)
    summary = {"store": str(store), **describe(plan)}
    complete = check_target(plan, store)
    if check:
        free = shutil.disk_usage(next(p for p in store.absolute().parents if p.exists())).free
        summary = {**summary, "free_bytes": free}
        print(json.dumps(summary, indent=2) if as_json else _expected(summary))
        return
    if not complete:
        _write(plan, store)
    summary = {**summary, "written": not complete, **_found(store)}
    following = next_command("train run", config, set_, store=store)
    print(json.dumps(summary, indent=2) if as_json else f"{_done(summary)}\nnext: {following}")


def _write(plan: ImportPlan, store: Path) -> None:
    from store.importer import import_caches

    with progress_bar("rows") as bar:
        task = bar.add_task("import", total=None, note="")

        def on_rows(rows: int) -> None:
            if bar.tasks[0].total is None:  # what an earlier run wrote is not this run's speed
                bar.reset(task, total=plan.rows, completed=rows)
            bar.update(task, completed=rows)

        import_caches(plan, store, on_rows)


def _found(store: Path) -> dict[str, Any]:
    """Counts of the store as it is now, on disk."""
    from store.reader import Store

    return {
        "rows": Store(store).rows,
        "bytes": sum(file.stat().st_size for file in store.rglob("*") if file.is_file()),
    }


def _expected(summary: dict[str, Any]) -> str:
    bound = " at most" if summary["codec"] == "lossless" else ""
    return "\n".join(
        [
            f"{summary['store']}: would hold {_size(summary)}{bound} and their texts",
            f"free disk space there: {summary['free_bytes'] / 1e6:,.1f} MB",
            *_particulars(summary),
        ]
    )


def _done(summary: dict[str, Any]) -> str:
    state = "" if summary["written"] else "; was already complete"
    return "\n".join([f"{summary['store']}: {_size(summary)}{state}", *_particulars(summary)])


def _size(summary: dict[str, Any]) -> str:
    return (
        f"{summary['rows']:,} rows of {summary['documents']:,} documents labelled "
        f"{summary['label']}, {summary['bytes'] / 1e6:,.1f} MB"
    )


def _particulars(summary: dict[str, Any]) -> list[str]:
    hookpoints = [f"  {h['name']} (width {h['width']})" for h in summary["hookpoints"]]
    return ["hookpoints:", *hookpoints, *(f"note: {note}" for note in summary["notes"])]
