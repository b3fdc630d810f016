"""Training steps on random rows: this project's, the public way's, and the limit, in turns.

The limit is the encoder product, forward alone, at the matmul rate that this machine reaches on a
product of that size, plus Adam's traffic (weights, gradients and two moments read, three of them
written) at the bandwidth that it reaches. Both contenders do the same arithmetic on the same rows
and end with the same loss (printed). Memory is the peak of a process that does nothing else, less
what it held before the dictionary was built.

    python -m benchmarks.train            # two sizes, and one more on a GPU; ten minutes
    python -m benchmarks.train --size 0 --steps 9
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.masked_dense import MaskedDense
from train.config import RecipeName, TrainConfig
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.recipes.initialize import initialize_weights
from train.recipes.presets import Planned, planned
from train.recipes.recipe import partition_of
from train.trainee import Trainee

WARM_UP = 3
ADAM_BYTES = 7 * 4  # per weight: four reads, three writes


@dataclass(frozen=True)
class Size:
    """A dictionary and its batches."""

    widths: tuple[int, int]
    features: int
    batch: int
    k: int

    def __str__(self) -> str:
        return f"{self.widths[0]}+{self.widths[1]}, {self.features:,}, {self.batch:,}, {self.k}"


SIZES = [Size((256, 256), 4096, 512, 32), Size((512, 512), 16_384, 2048, 64)]
GPU_SIZE = Size((2304, 2304), 131_072, 4096, 200)
RECIPES: tuple[RecipeName, ...] = ("dfc", "batch_topk_crosscoder")


def main(
    size: Annotated[int | None, typer.Option(help="Only this size (0, 1, 2).")] = None,
    steps: Annotated[int, typer.Option(help="Steps timed of each, in turns.")] = 15,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    memory_of: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints step times, their ratios and peak memory."""
    sizes = [*SIZES, GPU_SIZE] if device != "cpu" or size == 2 else SIZES
    if memory_of is not None:
        recipe, contender = memory_of.split("/")
        _print_memory(sizes[size or 0], recipe, contender, device)
        return
    columns = ("widths, F, batch, k", "recipe", "ours ms", "dense ms", "limit ms", "dense / ours")
    table = Table(*columns, "ours / limit", "ours GB", "dense GB", "losses", box=None)
    for number, one in enumerate(sizes):
        if size not in (None, number):
            continue
        for recipe in RECIPES:
            table.add_row(str(one), recipe, *_measure(number, one, recipe, steps, device))
    Console(highlight=False, width=150).print(table)


def _measure(number: int, size: Size, recipe: RecipeName, steps: int, device: str) -> list[str]:
    rows = random_rows(size, device)
    plan = plan_of(size, recipe)
    ours = Trainee(recipe, build(plan, size, device), plan.config)
    dense = MaskedDense(build(plan, size, device), plan.config)
    product = encoder_product(ours.dictionary, rows)
    losses: dict[str, Tensor] = {}
    turns: dict[str, Callable[[int], object]] = {
        "ours": lambda n: losses.update(ours=ours.step(rows, n).loss),
        "dense": lambda n: losses.update(dense=dense.step(list(rows.values()))),
        "product": lambda n: product(),
    }
    times: dict[str, list[float]] = {name: [] for name in turns}
    for step in range(steps + WARM_UP):
        for name, work in turns.items():
            times[name].append(_timed(lambda work=work, n=step: work(n), device))
    median = {name: statistics.median(taken[WARM_UP:]) for name, taken in times.items()}
    weights = sum(p.numel() for p in ours.dictionary.parameters())
    limit = median["product"] + ADAM_BYTES * weights / bandwidth(device)
    memory = [_memory(number, recipe, name, device) / 1e9 for name in ("ours", "dense")]
    return [
        f"{1000 * median['ours']:.0f}",
        f"{1000 * median['dense']:.0f}",
        f"{1000 * limit:.0f}",
        f"{median['dense'] / median['ours']:.1f}",
        f"{median['ours'] / limit:.2f}",
        *(f"{value:.2f}" for value in memory),
        " ".join(f"{float(loss):.3f}" for loss in losses.values()),
    ]


def plan_of(size: Size, recipe: RecipeName) -> Planned:
    """The recipe at this size, without schedules."""
    config = TrainConfig(
        recipes=[recipe],
        features=size.features,
        k=size.k,
        k_anneal_steps=0,
        batch_rows=size.batch,
        lr=1e-3,
        warmup_steps=0,
        steps=10**6,
        threshold_start=10**6 - 1,
    )
    return planned(config)[0]


def build(plan: Planned, size: Size, device: str) -> Crosscoder:
    """The dictionary with its initial weights."""
    shapes = tuple(HookpointShape(n, n, w) for n, w in zip("ab", size.widths, strict=True))
    dictionary = Crosscoder(shapes, partition_of(plan, ("a", "b")))
    initialize_weights(dictionary, plan.config)
    return dictionary.to(device)


def random_rows(size: Size, device: str) -> dict[str, Tensor]:
    """One batch of noise."""
    generator = torch.Generator().manual_seed(0)
    return {
        n: torch.randn(size.batch, w, generator=generator).to(device)
        for n, w in zip("ab", size.widths, strict=True)
    }


def encoder_product(dictionary: Crosscoder, rows: dict[str, Tensor]) -> Callable[[], None]:
    """The one product that must be done, into a buffer that is there: only what a model sees."""
    out = torch.empty(len(rows["a"]), dictionary.partition.features, device=rows["a"].device)
    parts = [
        (rows[h.name], dictionary.W_enc[str(n)].detach(), out[:, : dictionary.visible_count(n)])
        for n, h in enumerate(dictionary.hookpoints)
    ]

    def run() -> None:
        for x_BD, W_VD, out_BV in parts:
            torch.mm(x_BD, W_VD.T, out=out_BV)

    return run


def bandwidth(device: str) -> float:
    """Bytes per second, read and written, of adding a number to 256 MB."""
    values = torch.zeros(1 << 26, device=device)
    times = [_timed(lambda: values.add_(1.0), device) for _ in range(9)]
    return 2 * values.nbytes / statistics.median(times[2:])


def _timed(work: Callable[[], object], device: str) -> float:
    begin = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _memory(number: int, recipe: str, contender: str, device: str) -> float:
    command = [sys.executable, "-m", "benchmarks.train", "--size", str(number)]
    command += ["--device", device, "--memory-of", f"{recipe}/{contender}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1]))


def _print_memory(size: Size, recipe: RecipeName, contender: str, device: str) -> None:
    rows, plan = random_rows(size, device), plan_of(size, recipe)
    before = _memory_now(device)
    trainee: Trainee | MaskedDense
    if contender == "ours":
        trainee = Trainee(recipe, build(plan, size, device), plan.config)
        for step in range(3):
            trainee.step(rows, step)
    else:
        trainee = MaskedDense(build(plan, size, device), plan.config)
        for _ in range(3):
            trainee.step(list(rows.values()))
    print(json.dumps(_peak(device) - before))


def _memory_now(device: str) -> int:
    """Bytes held now, from where the peak is counted."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # not rusage, which keeps the parent's peak
    return _peak(device)


def _peak(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    typer.run(main)
