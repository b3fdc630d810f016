"""`analyze scaling`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
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
    "With f a feature's activations, d its decoder at the model it is claimed for (its exclusive "
    "group, else the larger decoder norm) and a target y: beta(y) = sum f <d, y> / (|d|^2 sum "
    "f^2), nu = beta(other model) / beta(own model).",
    "nu_eps: y = x - x_hat + f d, high where the other model has the feature although its "
    "decoder shrank to nothing. nu_r: y = x_hat, high where other features write the same "
    "direction there. Specific: nu_eps < 0.2 and nu_r < 0.5 (arXiv 2504.02922).",
    "Where widths differ, d means nothing in the other model. direction: |v| / |d|, with v = sum "
    "f e / sum f^2 the best direction on the other model's residual e. null_direction: the same "
    "with the residual's rows exchanged.",
    "All in scaled units, over every row of the store.",
]


def scaling(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    directions: Annotated[
        bool,
        typer.Option(
            "--directions",
            help="Look for the best direction in the other model where widths are equal, too: "
            "takes memory for two matrices of a decoder's size, in float64 (default: off).",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Latent scaling: does the other model have what a feature is claimed to be alone with?"""
    settings, section = read_settings(config, set_)
    from analyze.scaling_table import scaling_summary

    opened = open_all(settings, section, store, dictionary, out)
    table, files = write_scaling(opened, directions)
    _say(scaling_summary(table), files, as_json)


def write_scaling(opened: Opened, directions: bool) -> tuple[pl.DataFrame, list[Path]]:
    """The table of latent scaling, and its files."""
    from analyze.norms import model_pair
    from analyze.scaling_plots import scaling_figure, scaling_png
    from analyze.scaling_table import scaling_table
    from analyze.statistics.latent_scaling import LatentScaling

    subject = opened.subject
    sums = LatentScaling(subject, opened.section.batch_rows, directions)
    opened.sweep([sums])
    table, models = scaling_table(subject.dictionary, sums), model_pair(subject.dictionary)
    png, figure = partial(scaling_png, table, models), scaling_figure(table, models)
    return table, opened.tables.write("scaling", table, png, figure)


scaling.__doc__ = "\n\n".join([scaling.__doc__ or "", *PARAGRAPHS])


def _say(summary: pl.DataFrame, files: list[Path], as_json: bool) -> None:
    if as_json:
        value = {"groups": summary.to_dicts(), "files": [str(file) for file in files]}
        print(json.dumps(value, indent=2))
        return
    if summary.is_empty():
        print("no feature fired on any row of the store")
    else:
        known = [column.name for column in summary if column.null_count() < len(summary)]
        rows = summary.select(known).to_dicts()
        Console().print(rows_table(rows, "features that fired, by whose they may be"))
    print(f"written: {', '.join(str(file) for file in files)}")
