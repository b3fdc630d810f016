"""`store info`: what a store holds and what it was made from, in 80 columns or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from pipeline.command import ConfigOption, JsonOption, SetOption
from store.where import StorePath, store_path

if TYPE_CHECKING:
    from store.summary import StoreSummary


NAMES_SHOWN = 20


def info(
    path: StorePath = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Says what a store holds: rows, size, hookpoints with their norms, labels, what made it.

    Also what the harvest left out, and documents by source where there are several.
    """
    from store.summary import summarize

    summary = summarize(store_path(path, config, set_))
    if as_json:
        print(json.dumps(asdict(summary), indent=2))
        return
    out = Console()
    out.print(f"[bold]{escape(summary.path)}[/]", soft_wrap=True)
    for line in (_rows(summary), _parts(summary), _size(summary)):
        out.print(f"  {line}", soft_wrap=True)
    out.print(_table(summary))
    out.print(f"documents by label: {escape(_most_frequent(summary.labels, 'labels'))}")
    if len(summary.sources) > 1:
        out.print(f"documents by source: {escape(_most_frequent(summary.sources, 'sources'))}")
    if summary.excluded:
        out.print(f"left out: {escape(_left_out(summary.excluded))}")
    made_from = list(_leaves({"fingerprints": summary.fingerprints, **summary.config}))
    out.print("made from:" if made_from else "made from nothing that is recorded")
    for key, value in made_from:
        out.print(f"  {escape(key)}: {escape(value)}", soft_wrap=True, highlight=False)


def _rows(summary: StoreSummary) -> str:
    return f"{summary.rows:,} rows of {summary.documents:,} documents"


def _parts(summary: StoreSummary) -> str:
    if summary.complete:
        return f"complete: {summary.parts:,} part{'s' if summary.parts > 1 else ''}"
    done = summary.parts - len(summary.missing) - len(summary.unfinished)
    text = f"INCOMPLETE: {done:,} of {summary.parts:,} parts done; run the harvest again"
    for what, numbers in (("begun", summary.unfinished), ("not begun", summary.missing)):
        text += f"; {what}: {_numbers(numbers)}" if numbers else ""
    return text


def _numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown + (f" and {len(numbers) - 8:,} more" if len(numbers) > 8 else "")


def _size(summary: StoreSummary) -> str:
    text = f"{_bytes(summary.bytes)} on disk, codec {summary.codec}"
    if summary.rows:
        ratio = summary.bytes / summary.plain_bytes
        text += f"\n  {summary.bytes / summary.rows:,.0f} bytes a row, {ratio:,.2f} times "
        text += "its activations in bfloat16"
    return text


def _bytes(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


def _most_frequent(counts: dict[str, int], what: str) -> str:
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name or '(none)'} {count:,}" for name, count in ranked[:NAMES_SHOWN])
    more = len(ranked) - NAMES_SHOWN
    return shown + (f" and {more:,} more {what}" if more > 0 else "")


def _left_out(excluded: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in excluded.items())


def _table(summary: StoreSummary) -> Table:
    table = Table(
        Column("hookpoint", overflow="fold"),
        *(
            Column(name, justify="right", no_wrap=len(name) < 7)
            for name in ("width", "median norm", "99% norm", "norm of mean", "std", "tokens paired")
        ),
    )
    for entry in summary.hookpoints:
        numbers = (entry.norm_median, entry.norm_p99, entry.mean_norm, entry.std)
        table.add_row(
            escape(entry.name),
            f"{entry.width:,}",
            *(f"{number:,.4g}" for number in numbers),
            f"{entry.paired_fraction:.1%}",
        )
    return table


def _leaves(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys with their values; those that are not set are left out."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{before}{key}.")
        elif inner is not None:
            yield f"{before}{key}", inner if isinstance(inner, str) else json.dumps(inner)
