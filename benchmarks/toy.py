"""Do dictionaries find what only one model has? On toy models whose exclusive concepts are known.

Measures recall of concepts, how false claims of exclusivity are, and when exclusive concepts are
learned, for standard crosscoder, DSF and DFC, in dictionaries smaller and larger than the number of
concepts: the toy experiment of arXiv 2602.11729, which published figures only. What is built:
benchmarks/toy_model.py; what counts as found or false: benchmarks/toy_score.py.

    python -m benchmarks.toy           # 512 concepts in width 64, 3 a row; 13 minutes of a core
    python -m benchmarks.toy --full    # 2,048 in width 256, 5 a row; 5 hours of a core, 6 GB
    python -m benchmarks.toy --widths 64 48    # other options in --help

Goes on where it was cut short. In the table recall counts concepts that any feature recovers,
"recall of claims" those that features do which are claimed for the concept's owner; FPR is the
share of the claimed features that is false; half step is the step at which half of the final
recall of exclusive concepts was reached.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.toy_model import ToySpec, build_toy
from benchmarks.toy_plots import draw, lines_of
from benchmarks.toy_run import ToyResult, ToyTraining, train_and_score
from benchmarks.toy_store import toy_store
from benchmarks.toy_table import (
    append_results,
    check_settings,
    curves_of,
    markdown,
    read_results,
    summary_of,
    table_of,
)
from pipeline.command import console, progress_bar, run


@dataclass(frozen=True)
class ToyBenchmark:
    """Toy models of `spec` with seeds 0 to seeds - 1, dictionaries of these numbers of features."""

    spec: ToySpec
    training: ToyTraining
    features: tuple[int, ...]
    seeds: int


SMALL = ToyBenchmark(
    ToySpec(concepts=512, widths=(64, 64), active=3.0),
    ToyTraining(rows=262_144, steps=1500, batch_rows=512),
    (128, 256, 512, 1024),
    seeds=3,
)
FULL = ToyBenchmark(
    ToySpec(), ToyTraining(rows=1 << 21, steps=6000), (512, 1024, 2048, 4096), seeds=3
)


def main(
    full: Annotated[bool, typer.Option("--full", help="The size of the paper.")] = False,
    concepts: Annotated[int | None, typer.Option(help="Concepts.", min=20)] = None,
    widths: Annotated[
        tuple[int, int] | None, typer.Option(help="Widths of A and B; dsf needs equal ones.")
    ] = None,
    active: Annotated[float | None, typer.Option(help="Mean concepts per row.", min=0.1)] = None,
    seeds: Annotated[int | None, typer.Option(help="Toy models.", min=1)] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of each store.", min=1024)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of each dictionary.", min=10)] = None,
    batch_rows: Annotated[int | None, typer.Option(help="Rows per step.", min=16)] = None,
    features: Annotated[
        list[int] | None, typer.Option(help="Sizes of dictionaries; may be repeated.", min=16)
    ] = None,
    k: Annotated[int | None, typer.Option(help="Active features per row.", min=1)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    exclusive: Annotated[
        float | None, typer.Option(help="Share of the DFC's features of each model.")
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Recipes to train; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where dictionaries are trained.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results (default: runs/toy, toy-full).")
    ] = None,
) -> None:
    """Prints a Markdown table; writes it as CSV and parquet, and plots with error bars."""
    base = FULL if full else SMALL
    chosen = ToyBenchmark(
        replace(base.spec, **_given(concepts=concepts, widths=widths, active=active)),
        replace(
            base.training,
            **_given(
                rows=rows,
                steps=steps,
                batch_rows=batch_rows,
                k=k,
                lr=lr,
                exclusive=exclusive,
                recipes=tuple(recipe) if recipe else None,
                device=device,
            ),
        ),
        tuple(features or base.features),
        seeds or base.seeds,
    )
    out = out or Path("runs/toy-full" if full else "runs/toy")
    results = run_benchmark(chosen, out)
    print(write(results, chosen, out))
    console.print(f"wrote {out}/toy.csv, .parquet, .png and .html; curves.csv and .parquet")


def _given(**options: object) -> dict[str, Any]:
    """The options that the user gave."""
    return {key: value for key, value in options.items() if value is not None}


def run_benchmark(benchmark: ToyBenchmark, out: Path) -> list[ToyResult]:
    """All results, those that were there before included. Raises ConfigError, see toy_table."""
    training = benchmark.training
    spec, trained = asdict(benchmark.spec), asdict(training)
    del spec["seed"], trained["device"], trained["recipes"]
    check_settings(out, {**{f"toy.{key}": value for key, value in spec.items()}, **trained})
    recipes = training.recipes_for(benchmark.spec.widths)
    for seed in range(benchmark.seeds):
        done = {(r.features, r.recipe) for r in read_results(out) if r.seed == seed}
        missing = {
            size: tuple(recipe for recipe in recipes if (size, recipe) not in done)
            for size in benchmark.features
        }
        if any(missing.values()):
            _run_seed(replace(benchmark.spec, seed=seed), training, missing, out)
    wanted = {(size, recipe) for size in benchmark.features for recipe in recipes}
    found = [one for one in read_results(out) if (one.features, one.recipe) in wanted]
    return [one for one in found if one.seed < benchmark.seeds]


def _run_seed(
    spec: ToySpec, training: ToyTraining, missing: dict[int, tuple[str, ...]], out: Path
) -> None:
    """Trains what is missing of one toy model; its store is removed in the end."""
    toy = build_toy(spec)
    folder = out / f"seed-{spec.seed}"
    with progress_bar("units") as bar:
        task = bar.add_task(f"seed {spec.seed}: store", total=training.rows, note="rows")
        place = folder / "store.zarr"
        store = toy_store(place, toy, training.rows, on_rows=lambda rows: bar.advance(task, rows))
        bar.update(task, completed=training.rows)
        for size, recipes in missing.items():
            if not recipes:
                continue
            name = f"seed {spec.seed}: {size:,} features"
            task = bar.add_task(name, total=training.steps, note="")
            results = train_and_score(
                toy,
                store,
                replace(training, recipes=recipes),
                size,
                folder / f"{size}",
                lambda done, note, task=task: bar.update(task, completed=done, note=note),
            )
            append_results(out, results)
    shutil.rmtree(folder)


def write(results: Sequence[ToyResult], benchmark: ToyBenchmark, out: Path) -> str:
    """Writes tables and pictures into `out`; the Markdown table."""
    summary, curves = summary_of(table_of(results)), curves_of(results)
    for name, table in {"toy": summary, "curves": curves}.items():
        table.write_csv(out / f"{name}.csv")
        table.write_parquet(out / f"{name}.parquet")
    concepts = benchmark.spec.concepts
    size = min(benchmark.features, key=lambda one: abs(one - concepts))
    draw(lines_of(summary, curves, size), size, concepts, out / "toy")
    return markdown(summary)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(main)

if __name__ == "__main__":
    run(app)
