"""Every recipe on the demo's store, on the same rows in one pass: the README's table.

The demo's train section, its schedules compressed to the steps asked for. Figures are of held-out
documents. dsf, which needs equal widths, is trained on two layers of model b, for which the demo is
harvested once more.

    python -m benchmarks.recipes --store runs/demo/store.zarr      # nine minutes
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.progress import Progress, TaskID

from benchmarks.demo_run import demo_store, demo_training, two_layers
from pipeline.command import progress_bar
from store.reader import Store
from store.schema import Hookpoint
from train.config import RecipeName, TrainConfig
from train.loop import train
from train.steps import OnStep

SCHEDULE = ("warmup_steps", "decay_start", "k_anneal_steps", "threshold_start", "dead_after_rows")


@dataclass(frozen=True)
class Row:
    """What a recipe came to; dead is a share of the features."""

    recipe: str
    fve: dict[str, float | None]
    l0: float | None = None
    dead: float | None = None


def main(
    store: Annotated[
        Path | None, typer.Option(help="The demo's store; without one, it is harvested first.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of each recipe.", min=4)] = 700,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not Markdown.")] = False,
) -> None:
    """Prints a Markdown table of FVE, L0 and dead features by recipe."""
    with tempfile.TemporaryDirectory() as folder, progress_bar("steps") as bar:
        opened = demo_store(store, Path(folder))
        task = bar.add_task("train", total=steps, note="")
        config = shortened(demo_training(), steps)
        show = partial(_show, bar, task)
        rows = compare(opened, config, Path(folder) / "recipes", show)
        if "dsf" not in [row.recipe for row in rows]:
            layers = two_layers(Path(folder) / "layers")
            rows = in_order(rows + compare(layers, config, Path(folder) / "dsf", show, ["dsf"]))
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print(markdown(rows, [hookpoint.name for hookpoint in opened.schema.hookpoints]))


def shortened(config: TrainConfig, steps: int) -> TrainConfig:
    """The configuration with its schedules compressed to `steps`."""
    share = steps / config.steps
    lengths: dict[str, Any] = {
        key: round(value * share) for key in SCHEDULE if (value := getattr(config, key)) is not None
    }
    lengths["dead_after_rows"] = max(1, lengths["dead_after_rows"])
    lengths["threshold_beta"] = config.threshold_beta ** (1 / share)
    lengths["p_updates"] = min(config.p_updates, steps // 2)
    rare = {"validate_every": steps, "checkpoint_every": steps}
    return TrainConfig.model_validate({**config.model_dump(), **lengths, **rare, "steps": steps})


def _show(bar: Progress, task: TaskID, done: int, note: str) -> None:
    bar.update(task, completed=done, note=note)


def compare(
    store: Store,
    config: TrainConfig,
    folder: Path,
    on_step: OnStep = lambda done, note: None,
    names: Sequence[str] = get_args(RecipeName),
) -> list[Row]:
    """Trains these recipes in one run; dsf only if there are hookpoints of one width, on those."""
    alike = _of_one_width(store.schema.hookpoints)
    recipes: list[Any] = [name for name in names if name != "dsf"]
    if alike and "dsf" in names:
        recipes.append({"recipe": "dsf", "hookpoints": alike})
    chosen = TrainConfig.model_validate({**config.model_dump(), "recipes": recipes})
    rows = [
        Row(one.recipe, one.validation.fve, one.validation.l0, one.dead_fraction)
        for one in train(store, chosen, folder, on_step)
    ]
    return in_order(rows)


def in_order(rows: list[Row]) -> list[Row]:
    """In the order in which the configuration names recipes."""
    order = get_args(RecipeName)
    return sorted(rows, key=lambda row: order.index(row.recipe))


def _of_one_width(hookpoints: tuple[Hookpoint, ...]) -> list[str]:
    """The most hookpoints that are equally wide; none if no two are."""
    by_width = defaultdict(list)
    for hookpoint in hookpoints:
        by_width[hookpoint.width].append(hookpoint.name)
    most = max(by_width.values(), key=len)
    return most if len(most) > 1 else []


def markdown(rows: list[Row], names: list[str]) -> str:
    """The table; `names`: of the hookpoints."""
    lines = [
        "| recipe | " + " | ".join(f"FVE `{name}`" for name in names) + " | L0 | dead |",
        "|---|" + "---|" * (len(names) + 2),
    ]
    for row in rows:
        cells = ["-" if (fve := row.fve.get(name)) is None else f"{fve:.3f}" for name in names]
        cells.append("-" if row.l0 is None else f"{row.l0:.1f}")
        cells.append("-" if row.dead is None else f"{row.dead:.1%}")
        lines.append(f"| `{row.recipe}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
