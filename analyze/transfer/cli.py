"""`analyze transfer`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from analyze.command import (
    DictionaryOption,
    Opened,
    OutOption,
    open_all,
    read_settings,
    rows_table,
)
from pipeline.command import ConfigOption, JsonOption, SetOption, StoreOption

if TYPE_CHECKING:
    import polars as pl

PARAGRAPHS = [
    "readout_own, readout_other: R^2 of the best linear readout (ridge, with intercept) of a "
    "feature's activation f from the activations of the model it is claimed for, and from the "
    "other's: (2 <c, w> - <w, C w>) / var f with w = (C + lambda I)^-1 c, C the covariance of the "
    "activations, c theirs with f, adjusted for D predictors and N rows: 1 - (1 - R^2) (N - 1) / "
    "(N - D - 1). readout_ratio = readout_other / readout_own: near 0 where the other model has no "
    "linear counterpart, near 1 where it has the feature as well. All hookpoints of a model are "
    "read together; lambda is 1e-6 of the mean eigenvalue of C.",
    "transfer_maps: x_to = M x_from + c by ridge regression on the rows of training documents; "
    "lambda, in parts of the mean eigenvalue, from 1e-6 to 1e-1 by R^2 on held-out documents: r2 = "
    "1 - mean |x_to - M x_from - c|^2 / mean |x_to - its mean|^2 over their rows.",
    "With d the feature's own decoder: mapped_norm = |M d| / |d|; round_trip = <d, M_back M d> / "
    "|d|^2, what of the direction survives there and back; direction_r2: r2 of the projection <d, "
    "x_own> predicted from the other model's activations.",
    "All in scaled units, in closed form from sums of one pass over the store, and for any widths. "
    "Decoder norms alone mislead (arXiv 2504.02922, whose latent scaling needs equal widths: "
    "`analyze scaling`); maps between activations need no common directions (DOMAIN.md 5).",
]


def transfer(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Linear transfer: is a feature to be read from the other model's activations, too?"""
    settings, section = read_settings(config, set_)
    from analyze.transfer.table import transfer_summary

    opened = open_all(settings, section, store, dictionary, out)
    table, of_maps, files = write_transfer(opened)
    _say(transfer_summary(table), of_maps, files, as_json)


def write_transfer(opened: Opened) -> tuple[pl.DataFrame, pl.DataFrame, list[Path]]:
    """The tables of features and of maps, and their files."""
    from analyze.norms import model_pair
    from analyze.statistics.moments import Moments
    from analyze.statistics.readout import Readout
    from analyze.transfer.plots import transfer_figure, transfer_png
    from analyze.transfer.table import all_maps, maps_table, transfer_table

    subject = opened.subject
    models = model_pair(subject.dictionary)
    moments, readout = Moments(subject), Readout(subject)
    opened.sweep([moments, readout])
    maps = all_maps(subject, moments)
    table, of_maps = transfer_table(subject, maps, moments, readout), maps_table(subject, maps)
    png, figure = partial(transfer_png, table, models), transfer_figure(table, models)
    files = [
        *opened.tables.write("transfer", table, png, figure),
        *opened.tables.write("transfer_maps", of_maps),
    ]
    return table, of_maps, files


transfer.__doc__ = "\n\n".join([transfer.__doc__ or "", *PARAGRAPHS])


def _say(summary: pl.DataFrame, maps: pl.DataFrame, files: list[Path], as_json: bool) -> None:
    import polars as pl

    if as_json:
        value = {
            "groups": summary.to_dicts(),
            "maps": maps.to_dicts(),
            "files": [str(file) for file in files],
        }
        print(json.dumps(value, indent=2))
        return
    out = Console()
    by_exponent = maps.with_columns(pl.col("ridge").map_elements("{:g}".format, pl.String))
    out.print(rows_table(_spaced(by_exponent), "maps between the models' activations"))
    if summary.is_empty():
        print("no feature fired on any row of the store")
    else:
        title = "features that fired, by whose they may be: medians"
        shown = summary.drop("median_mapped_norm", "median_round_trip")
        out.print(rows_table(_spaced(shown), title))
    print(f"written: {', '.join(str(file) for file in files)}")


def _spaced(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Lines with headings that break between words: a terminal is narrow."""
    names = {name: name.removeprefix("median_").replace("_", " ") for name in table.columns}
    return table.rename(names).to_dicts()
