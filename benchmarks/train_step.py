"""One DFC training step against the public way of writing it, on random rows.

The baseline keeps full-width weights, dense (batch, features) codes, autograd through all of it,
a flat torch.topk, and masks that zero forbidden weights' gradients. Both do the same arithmetic
on the same rows and end with the same loss (printed).

    python -m benchmarks.train_step --features 1024 --k 32
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from train.config import TrainConfig
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import Partition, dedicated
from train.recipes.initialize import initialize_weights
from train.trainee import Trainee


class DenseDfc:
    """Full-width weights and masks; starts from the weights of a windows-form dictionary."""

    def __init__(self, dictionary: Crosscoder, config: TrainConfig) -> None:
        features = dictionary.partition.features
        self.k = config.k
        self.clip = config.gradient_clip
        self.masks = []
        self.W_enc, self.W_dec = [], []
        for number, hookpoint in enumerate(dictionary.hookpoints):
            seen = dictionary.visibility(number).features_V
            mask = torch.zeros(features, 1)
            mask[seen] = 1
            self.masks.append(mask)
            for mine, theirs in ((self.W_enc, dictionary.W_enc), (self.W_dec, dictionary.W_dec)):
                full = torch.zeros(features, hookpoint.width)
                full[seen] = theirs[number].detach()
                mine.append(full.requires_grad_())
        self.b_enc = torch.zeros(features, requires_grad=True)
        self.b_dec = [torch.zeros(h.width, requires_grad=True) for h in dictionary.hookpoints]
        self.parameters = [*self.W_enc, *self.W_dec, self.b_enc, *self.b_dec]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.lr or 1e-3, fused=True)

    def step(self, x: list[Tensor]) -> float:
        """One optimizer step; returns the loss."""
        pre = self.b_enc + sum(a @ w.T for a, w in zip(x, self.W_enc, strict=True))
        codes = pre.relu()
        norms = sum(w.detach().norm(dim=1) for w in self.W_dec)
        top = (codes.detach() * norms).flatten().topk(self.k * len(codes), sorted=False)
        keep = torch.zeros(codes.numel()).index_fill_(0, top.indices, 1).view_as(codes)
        codes = codes * keep
        decoders = zip(x, self.W_dec, self.b_dec, strict=True)
        loss = sum((a - codes @ w - b).square().sum(dim=1).mean() for a, w, b in decoders)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for weights in (self.W_enc, self.W_dec):
            for weight, mask in zip(weights, self.masks, strict=True):
                weight.grad *= mask
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return float(loss)


def main(
    widths: Annotated[tuple[int, int], typer.Option(help="Widths of the two hookpoints.")] = (
        128,
        192,
    ),
    features: Annotated[int, typer.Option(help="Features of the dictionary.")] = 1024,
    k: Annotated[int, typer.Option(help="Active features per row.")] = 32,
    batch_rows: Annotated[int, typer.Option(help="Rows per step.")] = 2048,
    steps: Annotated[int, typer.Option(help="Steps timed, in turn, after two to warm up.")] = 15,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Prints the median time of a step of each, and their ratio."""
    torch.set_default_device(device)
    config = TrainConfig(
        features=features, k=k, k_anneal_steps=0, batch_rows=batch_rows, lr=1e-3, warmup_steps=0,
        steps=10**6, threshold_start=10**6 - 1,
    )  # fmt: skip
    partition: Partition = dedicated(("a", "b"), features, {})
    shapes = (HookpointShape("a", "a", widths[0]), HookpointShape("b", "b", widths[1]))
    dictionary = Crosscoder(shapes, partition)
    with torch.device("cpu"):
        initial = Crosscoder(shapes, partition)
        initialize_weights(initial, config.decoder_init_norm, seed=0)
    dictionary.load_state_dict(initial.state_dict())
    dense = DenseDfc(dictionary, config)
    ours = Trainee("dfc", dictionary, config)
    rows = {name: torch.randn(batch_rows, width) for name, width in zip("ab", widths, strict=True)}
    ours_loss = dense_loss = 0.0
    times: dict[str, list[float]] = {"windows, sparse": [], "full width, dense, masked": []}
    for step in range(steps + 2):
        seconds, ours_loss = _timed(lambda n=step: float(ours.step(rows, n).loss))
        times["windows, sparse"].append(seconds)
        seconds, dense_loss = _timed(lambda: dense.step(list(rows.values())))
        times["full width, dense, masked"].append(seconds)
    medians = {name: sorted(values[2:])[steps // 2] for name, values in times.items()}
    table = Table("training step", "median ms", "ratio", title=f"{widths}, F {features}, k {k}")
    for name, median in medians.items():
        ratio = median / medians["windows, sparse"]
        table.add_row(name, f"{1000 * median:.1f}", f"{ratio:.2f}")
    Console().print(table)
    gigaflop = 2 * batch_rows * features * sum(widths) / 1e9
    print(f"dense encoder product alone: {gigaflop:.2f} GFLOP a step; batch {batch_rows} rows")
    print(f"loss after {steps + 2} steps: {ours_loss:.6f} and {dense_loss:.6f}")


def _timed(work: Callable[[], float]) -> tuple[float, float]:
    begin = time.perf_counter()
    value = work()
    return time.perf_counter() - begin, value


if __name__ == "__main__":
    typer.run(main)
