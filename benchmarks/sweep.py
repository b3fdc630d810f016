"""Several dictionaries on the same batches in one run, beside as many runs of one.

Runs of 1, 2 and 4 DFCs on a store of noise, from the first step to the last, each after a warm-up
run. What a sweep saves is reading the store and starting; on a CPU, where dictionaries take turns,
that is little; memory holds all of them.

    python -m benchmarks.sweep            # two minutes
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.synthetic import noise_store
from benchmarks.train import SIZES, plan_of
from store.reader import Store
from train.config import TrainConfig
from train.loop import train

COUNTS = (1, 2, 4)


def main(
    size: Annotated[int, typer.Option(help="Size of benchmarks.train.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = 150,
) -> None:
    """Prints milliseconds per step by the number of dictionaries."""
    one = SIZES[size]
    config = plan_of(one, "dfc").config.model_copy(
        update={"steps": steps, "threshold_start": 1, "checkpoint_every": steps}
    )
    table = Table(
        "dictionaries", "ms / step", "per extra dictionary", "/ a run of its own", box=None
    )
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder) / "noise.zarr", 20 * one.batch, one.widths)
        _seconds(store, config, 1, Path(folder))
        alone = _seconds(store, config, 1, Path(folder))
        for count in COUNTS:
            taken = alone if count == 1 else _seconds(store, config, count, Path(folder))
            extra = (taken - alone) / (count - 1) if count > 1 else alone
            cells = [f"{1000 * one / steps:.1f}" for one in (taken, extra)]
            table.add_row(str(count), *cells, f"{extra / alone:.2f}")
    Console(highlight=False).print(table)


def _seconds(store: Store, config: TrainConfig, count: int, folder: Path) -> float:
    recipes = [{"recipe": "dfc", "name": f"{n}"} for n in range(count)]
    swept = TrainConfig.model_validate({**config.model_dump(), "recipes": recipes})
    begin = time.perf_counter()
    train(store, swept, folder / "run", fresh=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    typer.run(main)
