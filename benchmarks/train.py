"""Training steps on random rows: this project's, the public way's, and the limit, in turns.

The limit is the encoder product, forward alone, at the matmul rate that this machine reaches on a
product of that size, plus Adam's traffic (weights, gradients and two moments read, three of them
written) at the bandwidth that it reaches. Both contenders do the same arithmetic, in the same
precision, on the same rows and end with the same loss (printed). Memory is the peak of a process
that does nothing else, less what it held before the dictionary was built.

    python -m benchmarks.train                      # two sizes; three minutes
    python -m benchmarks.train --device cuda        # three sizes, three precisions; four minutes
    python -m benchmarks.train --size 0 --steps 9
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
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
from train.dictionary.precision import tf32_products
from train.recipes.presets import Planned, planned
from train.recipes.recipe import partition_of
from train.trainee import Trainee

WARM_UP = 25  # steps before the first turn: kernels are compiled, steps recorded
TURN_WARM_UP = 2  # steps of every turn
TURNS = 3
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
PRECISIONS = ("float32", "tf32", "bfloat16")
RECIPES: tuple[RecipeName, ...] = ("dfc", "batch_topk_crosscoder")


def main(
    size: Annotated[int | None, typer.Option(help="Only this size (0, 1, 2).")] = None,
    steps: Annotated[int, typer.Option(help="Steps timed of each, in turns.")] = 15,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    graphs: Annotated[
        bool, typer.Option("--graphs/--no-graphs", help="Record our steps on CUDA (cuda_graphs).")
    ] = True,
    precision: Annotated[
        list[str] | None, typer.Option(help="float32, tf32, bfloat16 (default: all; cpu: float32).")
    ] = None,
    memory_of: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints step times, their ratios and peak memory."""
    sizes = [*SIZES, GPU_SIZE] if device != "cpu" or size == 2 else SIZES
    if memory_of is not None:
        recipe, contender, kind = memory_of.split("/")
        print(json.dumps(_peak_of(sizes[size or 0], recipe, contender, kind, device)))
        return
    kinds = precision or (["float32"] if device == "cpu" else list(PRECISIONS))
    columns = ("widths, F, batch, k", "recipe", "precision", "ours ms", "dense ms", "limit ms")
    table = Table(
        *columns, "dense / ours", "ours / limit", "ours GB", "dense GB", "losses", box=None
    )
    for number, one in enumerate(sizes):
        if size not in (None, number):
            continue
        for recipe in RECIPES:
            for kind in kinds:
                row = _measure(number, one, recipe, kind, steps, device, graphs)
                table.add_row(str(one), recipe, kind, *row)
    Console(highlight=False, width=160).print(table)


def _measure(
    number: int,
    size: Size,
    recipe: RecipeName,
    precision: str,
    steps: int,
    device: str,
    graphs: bool,
) -> list[str]:
    of = {name: (recipe, name, precision, device) for name in ("ours", "dense")}
    if device == "cpu":
        memory = [_peak_in_a_process(number, *one) for one in of.values()]
    else:
        memory = [_peak_of(size, *one) for one in of.values()]
    rows = random_rows(size, device)
    plan = plan_of(size, recipe, precision, graphs)
    dictionary = build(plan, size, device)
    dense = MaskedDense(dictionary, plan.config)  # with copies of the weights
    ours = Trainee(recipe, dictionary, plan.config)
    product = encoder_product(dictionary, rows, precision)
    losses: dict[str, Tensor] = {}
    turns: dict[str, Callable[[int], object]] = {
        "ours": lambda n: losses.update(ours=ours.step(rows, n).loss),
        "dense": lambda n: losses.update(dense=dense.step(list(rows.values()))),
        "product": lambda n: product(),
    }
    median = {name: statistics.median(taken) for name, taken in _in_turns(turns, steps, device)}
    weights = sum(p.numel() for p in dictionary.parameters())
    limit = median["product"] + ADAM_BYTES * weights / bandwidth(device)
    return [
        f"{1000 * median['ours']:.1f}",
        f"{1000 * median['dense']:.1f}",
        f"{1000 * limit:.1f}",
        f"{median['dense'] / median['ours']:.1f}",
        f"{median['ours'] / limit:.2f}",
        *(f"{value / 1e9:.2f}" for value in memory),
        " ".join(f"{float(loss):.3f}" for loss in losses.values()),
    ]


def _in_turns(
    turns: dict[str, Callable[[int], object]], steps: int, device: str
) -> Iterable[tuple[str, list[float]]]:
    """Seconds of each step, by contender. A turn is several steps, as those of a run follow each
    other: the first, which finds the caches full of another's arrays, does not count."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for step in range(WARM_UP if device != "cpu" else 1):
        for work in turns.values():
            work(step)
    for turn in range(TURNS):
        for name, work in turns.items():
            for step in range(steps // TURNS + TURN_WARM_UP):
                taken = _timed(lambda work=work, n=turn * steps + step: work(n), device)
                if step >= TURN_WARM_UP:
                    times[name].append(taken)
    return times.items()


def plan_of(
    size: Size, recipe: RecipeName, precision: str = "float32", graphs: bool = False
) -> Planned:
    """The recipe at this size, without schedules."""
    config = TrainConfig.model_validate(
        {
            "recipes": [recipe],
            "features": size.features,
            "k": size.k,
            "k_anneal_steps": 0,
            "batch_rows": size.batch,
            "precision": precision,
            "cuda_graphs": graphs,
            "lr": 1e-3,
            "warmup_steps": 0,
            "steps": 10**6,
            "threshold_start": 10**6 - 1,
        }
    )
    return planned(config)[0]


def build(plan: Planned, size: Size, device: str) -> Crosscoder:
    """The dictionary with random directions, encoder and decoder the same, drawn on the device."""
    shapes = tuple(HookpointShape(n, n, w) for n, w in zip("ab", size.widths, strict=True))
    torch.manual_seed(0)
    with torch.device(device), torch.no_grad():
        dictionary = Crosscoder(shapes, partition_of(plan, ("a", "b")))
        for key, W_VD in dictionary.W_enc.items():
            W_VD.normal_()
            W_VD.mul_(plan.config.decoder_init_norm / W_VD.norm(dim=1, keepdim=True))
            dictionary.W_dec[key].copy_(W_VD)
    return dictionary


def random_rows(size: Size, device: str) -> dict[str, Tensor]:
    """One batch of noise."""
    generator = torch.Generator().manual_seed(0)
    return {
        n: torch.randn(size.batch, w, generator=generator).to(device)
        for n, w in zip("ab", size.widths, strict=True)
    }


def encoder_product(
    dictionary: Crosscoder, rows: dict[str, Tensor], precision: str = "float32"
) -> Callable[[], None]:
    """The one product that must be done, into a buffer that is there: only what a model sees."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    shape = len(rows["a"]), dictionary.partition.features
    out = torch.empty(shape, device=rows["a"].device, dtype=dtype)
    parts = [
        (
            rows[h.name].to(dtype),
            dictionary.W_enc[str(n)].detach().to(dtype),
            out[:, : dictionary.visible_count(n)],
        )
        for n, h in enumerate(dictionary.hookpoints)
    ]

    def run() -> None:
        with tf32_products(precision == "tf32"):
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


def _peak_in_a_process(
    number: int, recipe: str, contender: str, precision: str, device: str
) -> int:
    command = [sys.executable, "-m", "benchmarks.train", "--size", str(number)]
    command += ["--device", device, "--memory-of", f"{recipe}/{contender}/{precision}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(json.loads(output.splitlines()[-1]))


def _peak_of(size: Size, recipe: RecipeName, contender: str, precision: str, device: str) -> int:
    """The most bytes that training takes, besides the rows."""
    rows, plan = random_rows(size, device), plan_of(size, recipe, precision)
    before = _memory_now(device)
    dictionary = build(plan, size, device)
    if contender == "ours":
        trainee = Trainee(recipe, dictionary, plan.config)
        for step in range(3):
            trainee.step(rows, step)
    else:
        dense = MaskedDense(dictionary, plan.config)
        del dictionary
        for _ in range(3):
            dense.step(list(rows.values()))
    return _peak(device) - before


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
