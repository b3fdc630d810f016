"""Every recipe on the demo's store, on the same rows in one pass: the README's table.

The demo's train section, with fewer steps; a recipe that wants equal widths gets one model's
hookpoint. Figures are of held-out documents.

    make demo && .venv/bin/python -m benchmarks.recipes      # about ten minutes
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from pipeline.command import progress_bar
from pipeline.config import load_config
from store.reader import Store
from store.schema import Hookpoint
from train.config import RecipeName, TrainConfig
from train.loop import TrainedDictionary, train


def main(
    config: Annotated[Path, typer.Option(help="Configuration.")] = Path("pipeline.yaml"),
    steps: Annotated[int, typer.Option(help="Steps of each recipe.")] = 350,
) -> None:
    """Prints a Markdown table."""
    settings = load_config(config, [])
    store = Store(settings.store_path)
    chosen = _shortened(settings.section("train", TrainConfig), store.schema.hookpoints, steps)
    with tempfile.TemporaryDirectory() as folder, progress_bar("steps") as bar:
        task = bar.add_task("train", total=steps, note="")
        trained = train(
            store,
            chosen,
            Path(folder) / "recipes",
            lambda done, note: bar.update(task, completed=done, note=note),
        )
    names = [hookpoint.name for hookpoint in store.schema.hookpoints]
    print(
        f"{steps} steps of {chosen.batch_rows:,} rows, {chosen.features:,} features, k {chosen.k}"
    )
    print("\n| recipe | FVE " + ", ".join(names) + " | L0 | dead |\n|---|---|---|---|")
    for one in trained:
        print(_row(one, names))


def _shortened(config: TrainConfig, hookpoints: tuple[Hookpoint, ...], steps: int) -> TrainConfig:
    """The configuration with all recipes and its schedules compressed to `steps`."""
    share = steps / config.steps
    schedules: dict[str, Any] = {
        key: round(value * share)
        for key in ("warmup_steps", "decay_start", "k_anneal_steps", "dead_after_rows")
        if (value := getattr(config, key)) is not None
    }
    recipes: list[Any] = list(get_args(RecipeName))
    if len({hookpoint.width for hookpoint in hookpoints}) > 1:
        alone = {"recipe": "dsf", "name": "dsf-one-model", "hookpoints": [hookpoints[0].name]}
        recipes[recipes.index("dsf")] = alone
    own = {"recipes": recipes, "steps": steps, "validate_every": steps, "checkpoint_every": steps}
    return TrainConfig.model_validate({**config.model_dump(), **schedules, **own})


def _row(one: TrainedDictionary, names: list[str]) -> str:
    fve = ", ".join(f"{one.validation.fve[n] or 0:.3f}" for n in names if n in one.validation.fve)
    return f"| `{one.recipe}` | {fve} | {one.validation.l0:.1f} | {one.dead_fraction:.1%} |"


if __name__ == "__main__":
    typer.run(main)
