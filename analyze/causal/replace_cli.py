"""`analyze replace`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from analyze.command import DictionaryOption, Opened, OutOption, open_all, read_settings, rows_table
from pipeline.command import ConfigOption, JsonOption, SetOption, StoreOption, note, progress_bar
from pipeline.errors import ConfigError, DictionaryError, StoreError

if TYPE_CHECKING:
    import polars as pl

    from analyze.pairing import HookpointPair
    from analyze.subject import Subject
    from pipeline.specs import ModelSpec

PARAGRAPHS = [
    "h = h_base + sum over a set of features of f_j (d_j^target - d_j^base), in raw units at the "
    "base model's hookpoint and at every row; the decoder that a model does not see is zero. From "
    "there the base model runs on. Measured where a token follows: KL(target || replaced) of the "
    "next-token distributions and ce, the cross entropy of that token, in nats (arXiv 2504.02922).",
    "Sets: none (the base model as it is), all features that fire, random halves of them, and the "
    "best and worst half by each ranking. A ranking means something if its best half closes more "
    "of the gap than a random one, and its worst less; one by how much features fire closes much "
    "whatever they mean (--ranking -norms.activation_sum, to compare with). activations: the "
    "target's own activations in place of the base model's, what a perfect dictionary would do; "
    "target: the target itself. gap_closed = 1 - kl / kl of none.",
    "Decoder biases, and the means that a dictionary takes off, are no features: their difference "
    "is left out unless --bias adds it, with every set and alone (bias).",
    "Needs hookpoints of one width and models of one tokenizer. Texts are documents that training "
    "held out (all, where it held out none), as many of every label as can be, up to their first "
    "window. Chats are left out.",
]


@dataclass(frozen=True)
class Asked:
    """What the options say.

    base: the model that runs on; None: the first. hookpoint: its; None: the only one. rankings:
    none: by default. among: groups or tags; none: all features. draws: random halves.
    """

    base: str | None = None
    hookpoint: str | None = None
    rankings: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    draws: int = 3
    bias: bool = False
    documents: int = 100
    seed: int = 0


def replace(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="The model that runs on (default: the dictionary's first)."),
    ] = None,
    hookpoint: Annotated[
        str | None,
        typer.Option("--hookpoint", help="The base model's, where there are several."),
    ] = None,
    ranking: Annotated[
        list[str] | None,
        typer.Option(
            "--ranking",
            help="What to halve by: q of the verdicts, norm (distance of R from 1/2), or "
            "TABLE.COLUMN of the analysis, smallest first (-TABLE.COLUMN: largest first); may be "
            "repeated (default: q if there are verdicts, else norm).",
        ),
    ] = None,
    among: Annotated[
        list[str] | None,
        typer.Option(
            "--among",
            help="Only features of this partition group or tag; may be repeated (default: all).",
        ),
    ] = None,
    draws: Annotated[int, typer.Option("--draws", min=0, help="Random halves.")] = 3,
    bias: Annotated[
        bool, typer.Option("--bias", help="Add the difference of decoder biases (default: off).")
    ] = False,
    documents: Annotated[
        int, typer.Option("--documents", min=1, help="Texts to run, at most.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random halves.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """The replacement test: do a ranking's features carry what differs between the models?"""
    settings, section = read_settings(config, set_)
    specs = settings.models  # what is wrong with them is said before anything is opened
    asked = Asked(
        base=base,
        hookpoint=hookpoint,
        rankings=tuple(dict.fromkeys(ranking or ())),
        among=tuple(dict.fromkeys(among or ())),
        draws=draws,
        bias=bias,
        documents=documents,
        seed=seed,
    )
    opened = open_all(settings, section, store, dictionary, out)
    table, left_out, files = write_replace(opened, specs, asked)
    _say(table, what_moves(opened.subject, asked), left_out, files, as_json)


replace.__doc__ = "\n\n".join([replace.__doc__ or "", *PARAGRAPHS])


def write_replace(
    opened: Opened, specs: dict[str, ModelSpec], asked: Asked
) -> tuple[pl.DataFrame, dict[str, int], list[Path]]:
    """The table, documents left out by reason, and the files; under a progress bar.

    Raises DictionaryError for hookpoints of unequal width, ConfigError for what is named and not
    there, ModelError for models of two tokenizers, StoreError if no text is found again.
    """
    from analyze.causal.models import open_models, refuse_other_weights
    from analyze.causal.passages import find_passages, sample_documents
    from analyze.causal.replace import replacement_table, with_references
    from analyze.causal.replace_plots import replace_figure, replace_png
    from analyze.causal.replace_run import Pair
    from analyze.causal.replace_sets import candidates, default_rankings, feature_sets
    from analyze.statistics.firing import Firing

    subject, section, tables = opened.subject, opened.section, opened.tables
    places = chosen_pair(subject, asked)
    firing = Firing(subject.features, subject.labels)
    opened.sweep([firing])
    chosen = candidates(subject.dictionary, firing.fires.sum(axis=1), asked.among, section)
    rankings = asked.rankings or default_rankings(tables)
    sets = feature_sets(subject.dictionary, chosen, rankings, tables, asked.draws, asked.seed)
    models = open_models(subject.store, specs)
    base, target = (subject.dictionary.hookpoints[n].model for n in (places.own, places.other))
    pair = Pair.of(models[base], models[target], places)
    among = subject.held_out if subject.held_out.any() else None
    found = find_passages(
        subject.store, models, sample_documents(subject.store, asked.documents, among)
    )
    if not found.found:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
        raise StoreError(
            f"{subject.store.path}: no document is found again ({reasons or 'none has rows'}); "
            "harvest plain texts"
        )
    refuse_other_weights(subject.store, models, found.found)
    runs = len(with_references(sets, subject.features, asked.bias))
    with progress_bar("texts") as bar:
        task = bar.add_task("replace", total=runs * len(found.found), note="")
        table = replacement_table(
            subject,
            pair,
            found.found,
            sets,
            section.batch_tokens,
            section.batch_rows,
            bias=asked.bias,
            on_passes=lambda texts: bar.update(task, advance=texts),
        )
    files = tables.write("replace", table, partial(replace_png, table), replace_figure(table))
    return table, found.left_out, files


def chosen_pair(subject: Subject, asked: Asked) -> HookpointPair:
    """The hookpoints of base and target, equally wide. Raises DictionaryError, ConfigError."""
    from analyze.norms import model_pair
    from analyze.pairing import hookpoint_pairs

    dictionary = subject.dictionary
    models, pairs = model_pair(dictionary), hookpoint_pairs(dictionary)
    if asked.base not in (None, *models):
        raise ConfigError(f"--base {asked.base}: the models are {', '.join(models)}")
    if asked.base == models[1]:
        pairs = [pair.reversed() for pair in pairs]
    names = [dictionary.hookpoints[pair.own].name for pair in pairs]
    if asked.hookpoint is None and len(pairs) > 1:
        raise ConfigError(
            f"--hookpoint: {subject.folder} has several, and moving all of them would count what "
            f"one passes on to the next twice; name one of {', '.join(names)}"
        )
    if asked.hookpoint not in (None, *names):
        raise ConfigError(f"--hookpoint {asked.hookpoint}: there is {', '.join(names)}")
    pair = pairs[0 if asked.hookpoint is None else names.index(asked.hookpoint)]
    if not pair.equal_widths(dictionary):
        own, other = dictionary.hookpoints[pair.own], dictionary.hookpoints[pair.other]
        raise DictionaryError(
            f"{own.name} has width {own.width}, {other.name} {other.width}: decoders of unequal "
            "width have no difference to move activations by; try analyze steer, which needs none"
        )
    return pair


def what_moves(subject: Subject, asked: Asked) -> str:
    """For a title."""
    pair, dictionary = chosen_pair(subject, asked), subject.dictionary
    own, other = dictionary.hookpoints[pair.own], dictionary.hookpoints[pair.other]
    return f"{own.model} toward {other.model} at {own.name}"


def _say(
    table: pl.DataFrame, what: str, left_out: dict[str, int], files: list[Path], as_json: bool
) -> None:
    if as_json:
        value = {
            "what": what,
            "sets": table.to_dicts(),
            "left_out": left_out,
            "files": [str(file) for file in files],
        }
        print(json.dumps(value, indent=2))
        return
    title = f"{what}, {table['positions'][0]:,} positions"
    Console().print(rows_table(table.drop("positions").to_dicts(), title))
    for reason, count in left_out.items():
        note(f"left out {count} {reason}")
    print(f"written: {', '.join(str(file) for file in files)}")
