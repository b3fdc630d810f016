"""Is the false-discovery rate of `analyze exclusivity` what it says? On pairs whose truth is known.

    python -m benchmarks.verdict                              # fifteen minutes on one core
    python -m benchmarks.verdict --concepts 2048 --widths 256 192 --features 1024 --steps 6000

Toy models (benchmarks/toy_model.py), a DFC and a plain crosscoder trained on each by the real
trainer, then the verdict with its own nulls at 1, 5, 10 and 20 %. Two truths are held against the
calls. By decoder, that of the toy benchmark: a feature is exclusive if it recovers a concept that
only its model has (cosine > 0.8). By cause: if more than half of what makes it fire are such
concepts (benchmarks/toy_causes.py), as with a mixture of several, or one that is half learned; no
model but its own has anything linear of them, which is what `analyze exclusivity` claims. Printed
per dictionary, over all seeds: candidates, calls, and by either truth how many candidates are
exclusive, false calls and their share, and the share of the exclusive ones that is called; for
comparison, what it comes to to call all candidates.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from analyze.config import AnalyzeConfig
from analyze.subject import Subject, open_subject
from analyze.verdict.build import exclusivity
from analyze.verdict.judge import LEVELS, called
from benchmarks.toy_causes import own_shares
from benchmarks.toy_model import ToyModel, ToySpec, build_toy
from benchmarks.toy_run import ToyTraining
from benchmarks.toy_score import decoder_cosines, truth_of
from benchmarks.toy_store import toy_store
from store.reader import Store
from train.config import TrainConfig
from train.loop import train

HEADINGS = (
    *("dictionary", "F", "nominal FDR", "candidates", "called"),
    *("exclusive by decoder", "false", "actual FDR", "recall"),
    *("exclusive by cause", "false", "actual FDR", "recall"),
)
RECIPES = ("dfc", "batch_topk_crosscoder")
TRUTHS = ("", "_by_cause")


@dataclass(frozen=True)
class Judged:
    """A dictionary's verdict held against the truth; level 1.0: every candidate that was tested.

    exclusive, right: of the candidates and of the calls, those that truly are, by decoder; and by
    cause.
    """

    seed: int
    recipe: str
    features: int
    level: float
    candidates: int
    called: int
    exclusive: int
    right: int
    exclusive_by_cause: int
    right_by_cause: int


def judged(subject: Subject, toy: ToyModel, config: AnalyzeConfig, folder: Path) -> list[Judged]:
    """One line per level."""
    found = exclusivity(subject, config, folder)
    owner = truth_of(decoder_cosines(subject.dictionary, toy), toy).owner
    shares = own_shares(subject.dictionary, toy)
    tested = found.table.filter(pl.col("p").is_not_null())
    claims = tested.select("claimed_for", "feature").rows()
    tested = tested.with_columns(
        pl.Series("true", [owner[feature] == model for model, feature in claims], pl.Boolean),
        pl.Series(
            "caused", [shares[model][feature] > 0.5 for model, feature in claims], pl.Boolean
        ),
    )

    def line(level: float, calls: pl.DataFrame) -> Judged:
        counts = [int(of[truth].sum()) for truth in ("true", "caused") for of in (tested, calls)]
        of = (subject.recipe, subject.features, level, tested.height, calls.height)
        return Judged(toy.spec.seed, *of, *counts)

    levels = [line(level, called(tested, level, config)) for level in LEVELS]
    return [*levels, line(1.0, tested)]


def table(lines: Sequence[Judged]) -> str:
    """Markdown: one row per recipe, number of features and level, over all seeds."""
    frame = pl.DataFrame([vars(line) for line in lines])
    keys = ["recipe", "features", "level"]
    counts = ["candidates", "called", "exclusive", "right", "exclusive_by_cause", "right_by_cause"]
    rows = frame.group_by(keys, maintain_order=True).agg(pl.col(counts).sum())
    out = [
        f"| {' | '.join(HEADINGS)} |",
        "|---" * len(HEADINGS) + "|",
    ]
    for row in rows.to_dicts():
        nominal = "none: all candidates" if row["level"] == 1.0 else f"{row['level']:.0%}"
        cells = [f"`{row['recipe']}`", row["features"], nominal, row["candidates"], row["called"]]
        for exclusive, right in ((row[f"exclusive{by}"], row[f"right{by}"]) for by in TRUTHS):
            false = row["called"] - right
            cells += [exclusive, false, _share(false, row["called"], 1), _share(right, exclusive)]
        out.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(out)


def _share(part: int, whole: int, digits: int = 0) -> str:
    return f"{part / whole:.{digits}%}" if whole else "-"


def main(
    concepts: Annotated[int, typer.Option(help="Concepts of the toy model.")] = 512,
    widths: Annotated[tuple[int, int], typer.Option(help="Widths of the two models.")] = (64, 64),
    features: Annotated[list[int] | None, typer.Option(help="Default: 256 and 512.")] = None,
    active: Annotated[float, typer.Option(help="Mean concepts per row.")] = 3.0,
    seeds: Annotated[int, typer.Option(help="How many toy models.")] = 3,
    rows: Annotated[int, typer.Option(help="Rows of each store.")] = 262_144,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1500,
    batch_rows: Annotated[int, typer.Option(help="Rows per step.")] = 512,
    exclusive: Annotated[float, typer.Option(help="Share of features per exclusive group.")] = 0.1,
    recipe: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: dfc, batch_topk_crosscoder.")
    ] = None,
    null_runs: Annotated[int, typer.Option(help="As analyze.null_runs.")] = 1,
    out: Annotated[Path | None, typer.Option(help="JSON lines of every dictionary.")] = None,
) -> None:
    """Prints nominal beside actual false-discovery rates."""
    config = AnalyzeConfig(null_runs=null_runs)
    recipes = tuple(recipe) if recipe else RECIPES
    training = ToyTraining(
        rows=rows, steps=steps, batch_rows=batch_rows, exclusive=exclusive, recipes=recipes
    )
    lines: list[Judged] = []
    for seed in range(seeds):
        toy = build_toy(ToySpec(concepts=concepts, widths=widths, active=active, seed=seed))
        with tempfile.TemporaryDirectory() as scratch:
            store = toy_store(Path(scratch) / "store.zarr", toy, rows)
            for count in features or [concepts // 2, concepts]:
                settings = training.config(count, seed, widths)
                lines += _one(store, toy, settings, config, Path(scratch) / str(count))
        if out is not None:
            out.write_text("".join(json.dumps(vars(line)) + "\n" for line in lines))
    print(table(lines))


def _one(
    store: Store, toy: ToyModel, settings: TrainConfig, config: AnalyzeConfig, folder: Path
) -> list[Judged]:
    trained = train(store, settings, folder / "dictionary")
    lines: list[Judged] = []
    for one in trained:
        subject = open_subject(store, one.folder)
        lines += judged(subject, toy, config, folder / one.recipe)
    return lines


if __name__ == "__main__":
    typer.run(main)
