"""`analyze steer`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from analyze.command import (
    DictionaryOption,
    Opened,
    OutOption,
    open_all,
    read_settings,
    rows_table,
)
from pipeline.command import ConfigOption, JsonOption, SetOption, StoreOption, note, progress_bar
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from analyze.causal.steer_run import Asked, Plan, Steered
    from pipeline.specs import ModelSpec

PARAGRAPHS = [
    "x' = x + alpha s_max d at every position of a hookpoint: s_max is the feature's largest "
    "activation on the store, d its decoder there in raw units. Measured on the next-token "
    "distributions: KL(clean || steered) = sum p_clean (log p_clean - log p_steered) in nats, and "
    "the share of positions whose likeliest token changes; at the rows where the feature fires, "
    "in the documents of its strongest ones, and at as many rows of documents on which it never "
    "fires. kl_random_*: random directions of the same length. step: that length at alpha 1 over "
    "the median norm of the activations. steer_tokens: the tokens whose log-probability rises and "
    "falls most, on average where the feature fires.",
    "A model that does not see a feature has no direction of it: asked for with --model it is "
    "refused, else its line says steerable false and KL is 0, a check of the harness. In whichever "
    "model a feature is not claimed for, its direction mapped by the ridge regression between the "
    "models' activations (`analyze transfer`) is tried as well: mapped true, at the same length "
    "relative to the median norm, beside random directions that the same map has carried over. A "
    "feature is one model's own if that does nothing special in the other.",
    "Without --feature: the features that were found exclusive, by q (table exclusivity); of a "
    "model without any, those claimed by its group or by their norms. Chats are left out: their "
    "texts are not read again.",
    "Sources: steering with exclusive features, arXiv 2602.11729; decoders of diffed models and "
    "what they do to predictions, arXiv 2504.02922; DOMAIN.md 5.",
]


def steer(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    feature: Annotated[
        list[int] | None,
        typer.Option("--feature", help="Feature to steer with; may be repeated (default: --top)."),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", min=1, help="Features per model, if none named.")
    ] = 5,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Steer this model alone, by its own directions (default: both)."
        ),
    ] = None,
    hookpoint: Annotated[
        str | None,
        typer.Option(
            "--hookpoint",
            help="Steer its model here (default: where the feature's decoder norm is largest).",
        ),
    ] = None,
    alphas: Annotated[
        str, typer.Option("--alphas", help="Multiples of the step, with commas.")
    ] = "-4,-2,-1,0,1,2,4",
    mapped: Annotated[
        bool,
        typer.Option("--mapped/--no-mapped", help="Try mapped directions in the other model."),
    ] = True,
    controls: Annotated[
        int, typer.Option("--controls", min=1, help="Random directions per step; their mean.")
    ] = 1,
    generate: Annotated[
        int,
        typer.Option("--generate", min=0, help="Prompts of each kind to write on from, steered."),
    ] = 0,
    text_alpha: Annotated[
        float,
        typer.Option("--text-alpha", help="Texts are written at this alpha, minus it, and 0."),
    ] = 1.0,
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", min=1, help="Tokens of a text, at most.")
    ] = 40,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="Of texts; 0 takes the likeliest tokens.")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of random directions, silent rows and texts.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Steering: what a feature's direction, added to the activations, does to predictions."""
    settings, section = read_settings(config, set_)
    specs = settings.models  # what is wrong with them is said before anything is opened
    grid = read_alphas(alphas)
    from analyze.causal.steer_run import Asked
    from analyze.causal.steer_texts import Writing

    asked = Asked(
        features=tuple(dict.fromkeys(feature or ())),
        top=top,
        model=model,
        hookpoint=hookpoint,
        alphas=grid,
        mapped=mapped,
        controls=controls,
        prompts=generate,
        text_alpha=abs(text_alpha),
        writing=Writing(new_tokens, temperature, seed),
        seed=seed,
    )
    opened = open_all(settings, section, store, dictionary, out)
    _say(*write_steer(opened, specs, asked), as_json)


steer.__doc__ = "\n\n".join([steer.__doc__ or "", *PARAGRAPHS])


def read_alphas(text: str) -> tuple[float, ...]:
    """The grid, ascending, each once. Raises ConfigError."""
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(abs(alpha) < float("inf") for alpha in found):
        raise ConfigError(f"--alphas {text!r}: needs numbers with commas between, e.g. -4,-2,0,2,4")
    return tuple(found)


def write_steer(
    opened: Opened, specs: dict[str, ModelSpec], asked: Asked
) -> tuple[Plan, Steered, list[Path]]:
    """What was steered with, what that did, and the files; under a progress bar."""
    from analyze.causal.models import open_models
    from analyze.causal.steer_plots import steer_figure, steer_png
    from analyze.causal.steer_run import prepared, steered
    from analyze.norms import model_pair

    subject, tables = opened.subject, opened.tables
    plan = prepared(opened, asked)
    models = open_models(subject.store, specs)
    with progress_bar("passes") as bar:
        task = bar.add_task("steer", total=None, note="reading texts")
        found = steered(
            opened,
            asked,
            plan,
            models,
            lambda done, of: bar.update(task, completed=done, total=of, note=""),
        )
    names = model_pair(subject.dictionary)
    png, figure = partial(steer_png, found.table, names), steer_figure(found.table, names)
    files = tables.write("steer", found.table, png, figure)
    files += tables.write("steer_tokens", found.tokens)
    if len(found.texts):
        files += tables.write("steer_texts", found.texts)
    return plan, found, files


def _say(plan: Plan, found: Steered, files: list[Path], as_json: bool) -> None:
    from analyze.causal.steer_table import brief, steer_summary

    summary = steer_summary(found.table)
    if as_json:
        value = {
            "ranked": [vars(one) for one in plan.ranked],
            "steps": summary.to_dicts(),
            "left_out": found.left_out,
            "files": [str(file) for file in files],
        }
        print(json.dumps(value, indent=2))
        return
    out = Console()
    for one in plan.ranked:
        out.print(escape(f"{one.model}: {len(one.features)} features, {one.rule}"))
    if summary.is_empty():
        print("no feature to steer with")
    else:
        title = f"KL in nats at alpha {summary['alpha'][0]:g}, beside that of random directions"
        out.print(rows_table(brief(summary).to_dicts(), title))
        _say_tokens(out, found.tokens, summary["alpha"][0])
    for reason, count in found.left_out.items():
        note(f"left out {count} {reason}")
    print(f"written: {', '.join(str(file) for file in files)}")


def _say_tokens(out: Console, tokens: pl.DataFrame, alpha: float) -> None:
    """What each feature's own direction promotes."""
    import polars as pl

    shown = tokens.filter(
        (pl.col("alpha") == alpha) & pl.col("promoted") & ~pl.col("mapped") & (pl.col("rank") < 6)
    )
    for (feature, model), part in shown.group_by("feature", "steered", maintain_order=True):
        words = " ".join(repr(token) for token in part["token"])
        out.print(escape(f"feature {feature} makes {model} expect {words}"))
