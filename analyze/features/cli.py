"""`analyze features`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    next_command,
    note,
    progress_bar,
)
from pipeline.config import Config

if TYPE_CHECKING:
    import numpy as np

    from analyze.features.described import Described, Sums
    from analyze.features.lens import Lenses

NO_MODELS = "no logit lens: the configuration has no models"

LensOption = Annotated[
    bool,
    typer.Option(
        "--lens/--no-lens",
        help="Load the models and say which tokens each direction promotes (default: --lens).",
        show_default=False,
    ),
]

PARAGRAPHS = [
    "Described are features that only one model may have: those of exclusive groups, or, where "
    "there are none, those with R > 0.8 or < 0.2; at most analyze.report_features of them, by "
    "summed activation, and those named.",
    "contexts: the texts of the largest activations, each of another document, and of a uniform "
    "sample from every quarter of the activations: weak firings are most of them.",
    "tokens: the logit lens. The decoder direction d, taken as the whole residual stream, goes "
    "through the final norm and the output head: W_U (norm(d) - norm(0)), d at a root mean square "
    "of 1, less the mean over the vocabulary. Only hookpoints on the residual stream have one: the "
    "last of each model.",
    "neighbours: largest cosines of decoder directions per model, in scaled units, among features "
    "that fire. mirrors: pairs of features, one claimed for each model, that fire on the same "
    "rows: Jaccard index of rows or correlation of activations of 0.5 or more.",
    "The plot shows every feature that fires: share of rows against largest activation.",
]


def features(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    feature: Annotated[
        list[int] | None,
        typer.Option("--feature", help="Describe this one, too; may be repeated (default: none)."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Describe all that fire (default: off).")
    ] = False,
    lens: LensOption = True,
    as_json: JsonOption = False,
) -> None:
    """What features are about: their texts, tokens, nearest features and mirrors in the other."""
    settings, section = read_settings(config, set_)

    opened = open_all(settings, section, store, dictionary, out)
    written = write_features(opened, settings, feature or [], everything, lens)
    _say(written, as_json)
    chosen = written.described.features["feature"]
    if not as_json and len(chosen):
        words = f"analyze feature {chosen[0]}"
        print("next:", next_command(words, config, set_, store=store, dictionary=dictionary))


features.__doc__ = "\n\n".join([features.__doc__ or "", *PARAGRAPHS])


@dataclass(frozen=True)
class Written:
    """What was found out, why parts of it were not, and the files that hold it."""

    described: Described
    notes: list[str]
    files: list[Path]


def write_features(
    opened: Opened,
    settings: Config,
    named: Sequence[int] = (),
    everything: bool = False,
    lens: bool = True,
) -> Written:
    """The tables features, contexts, neighbours, mirrors and, with lens, tokens.

    Of features that may be exclusive, and those named; or of everything that fires. Notes are
    printed, too. Raises ConfigError for a number that no feature has.
    """
    from analyze.features.choice import check_features
    from analyze.features.described import Sums, describe
    from analyze.features.shown import shown_firings

    check_features(opened.subject.dictionary, named)
    sums = Sums.of(opened.subject, opened.section)
    opened.sweep(sums.accumulators)
    chosen = _chosen(opened, sums, named, everything)
    shown = shown_firings(sums.firing, sums.top, sums.sample, chosen)
    lenses = lenses_of(opened, settings) if lens else None
    with progress_bar("contexts") as bar:
        task = bar.add_task("contexts", total=len(shown), note="")
        found = describe(
            opened.subject,
            sums,
            chosen,
            opened.section,
            lenses,
            shown,
            lambda contexts: bar.update(task, advance=contexts),
        )
    notes = list(lenses.notes) if lenses else []
    for text in notes:
        note(text)
    return Written(found, notes, _write(opened, sums, found))


def lenses_of(opened: Opened, settings: Config) -> Lenses:
    """The lenses of the configuration's models; without models there is a note of it."""
    from analyze.features.lens import Lenses, open_lenses

    if not settings.raw.get("models"):
        return Lenses((), (NO_MODELS,))
    return open_lenses(opened.subject.store, opened.subject.dictionary, settings.models)


def _chosen(opened: Opened, sums: Sums, named: Sequence[int], everything: bool) -> np.ndarray:
    import numpy as np

    from analyze.features.choice import strongest
    from analyze.features.described import default_features

    subject, firing = opened.subject, sums.firing
    if everything:
        own = strongest(
            np.arange(subject.features), firing.activation.sum(axis=1), subject.features
        )
    else:
        own = default_features(subject, firing, opened.section.report_features)
    return np.array(list(dict.fromkeys([*own.tolist(), *named])), np.int64)


def _write(opened: Opened, sums: Sums, found: Described) -> list[Path]:
    from analyze.features.plots import density_figure, density_png, points
    from analyze.norms import model_pair

    dictionary, tables = opened.subject.dictionary, opened.tables
    dots, models = points(dictionary, sums.firing), model_pair(dictionary)
    png = partial(density_png, dots, models)
    files = tables.write("features", found.features, png, density_figure(dots, models))
    files += tables.write("contexts", found.contexts)
    files += tables.write("neighbours", found.neighbours)
    files += tables.write("mirrors", found.mirrors)
    if found.tokens is not None:
        files += tables.write("tokens", found.tokens)
    return files


def _say(written: Written, as_json: bool) -> None:
    found, groups = written.described, _groups(written.described)
    if as_json:
        value: dict[str, Any] = {
            "groups": groups,
            "mirrors": found.mirrors.to_dicts(),
            "notes": written.notes,
            "files": [str(file) for file in written.files],
        }
        print(json.dumps(value, indent=2))
        return
    if groups:
        Console().print(rows_table(groups, "features described, by whose they may be"))
    else:
        print("no feature that may be exclusive fires on any row of the store")
    print(_mirrors_line(found))
    names = [file.name for file in written.files]
    print(f"written in {written.files[0].parent}: {', '.join(names)}")


def _groups(found: Described) -> list[dict[str, Any]]:
    import polars as pl

    contexts = found.contexts.group_by("feature").len("contexts")
    known = found.features.join(contexts, on="feature", how="left")
    return (
        known.group_by("claimed_for", "group", maintain_order=True)
        .agg(
            features=pl.len(),
            contexts=pl.col("contexts").sum(),
            with_mirror=pl.col("mirror").is_not_null().sum(),
            median_fires=pl.col("fires").median().cast(pl.Int64),
        )
        .sort("claimed_for", "group")
        .to_dicts()
    )


def _mirrors_line(found: Described) -> str:
    from analyze.features.mirrors import LIKE

    if len(found.mirrors):
        return f"mirror pairs (jaccard or correlation of {LIKE:g} or more): {len(found.mirrors)}"
    if found.pairs.is_empty():
        return "mirror pairs: none; no two candidates of the two models fire together"
    most = found.pairs.row(0, named=True)
    return (
        f"mirror pairs: none; most alike are {most['feature_a']} and {most['feature_b']} "
        f"(jaccard {most['jaccard']:.2f}, correlation {most['correlation'] or 0:.2f})"
    )
