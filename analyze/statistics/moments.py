"""Means and covariances of all hookpoints' activations together, apart for held-out rows.

z of a row is the activations of every hookpoint, one behind the other, in scaled units: what the
models have, even where the dictionary is of residuals of it. Per batch one float32 product Z^T Z
where the activations are (2 B W^2 FLOPs), added up in float64; each coordinate is taken relative to
the store's mean, so that the products round variances, not means. Memory: two W x W matrices in
float64. B batch rows, W summed widths.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyze.subject import Subject
from analyze.sweep.seen import Seen
from pipeline.errors import StoreError
from store.loader import Batch
from train.linear_map import Spread


class Centred:
    """Activations relative to the store's mean, in scaled units, hookpoints in order.

    A constant that is nearly the mean is all that is wanted of it; no result depends on it.
    `slices`: where each hookpoint lies among the summed widths.
    """

    def __init__(self, subject: Subject) -> None:
        dictionary, store = subject.dictionary, subject.store
        means = {
            h.name: torch.from_numpy(store.statistics(h.name).mean).float()[None]
            for h in dictionary.hookpoints
        }
        with torch.no_grad():
            seen = subject.view(Batch(means, np.zeros(1, np.int64)))
            self._means = dictionary.scaled(seen, whole=True)
        # 1, unless the scale was folded into the weights: then activations still are raw.
        self._scales = [float(scale) for scale in dictionary.norm_scale]
        edges = np.cumsum([0, *(h.width for h in dictionary.hookpoints)]).tolist()
        self.slices = [slice(a, b) for a, b in pairwise(edges)]
        self.width = edges[-1]

    def of(self, seen: Seen, number: int) -> Float[Tensor, "batch width"]:
        """Those of one hookpoint."""
        z_BD = seen.whole[number] - self._means[number]
        return z_BD if self._scales[number] == 1.0 else z_BD * self._scales[number]

    def all(self, seen: Seen) -> Float[Tensor, "batch width"]:
        """Those of all hookpoints, one behind the other."""
        return torch.cat([self.of(seen, number) for number in range(len(self.slices))], dim=1)


class Moments:
    """Number, sum and Gram matrix of z over the training rows, and over the held-out ones."""

    name = "moments"

    def __init__(self, subject: Subject) -> None:
        self._centred = Centred(subject)
        self._fraction = subject.validation_fraction
        self._store = str(subject.store.path)
        width = self._centred.width
        self._count = torch.zeros(2, dtype=torch.int64)
        self._sum = torch.zeros(2, width, dtype=torch.float64, device=subject.device)
        self._gram = self._sum.new_zeros(2, width, width)

    @property
    def slices(self) -> list[slice]:
        """Where each hookpoint of the dictionary lies among the summed widths."""
        return self._centred.slices

    def settings(self) -> dict[str, Any]:
        """The share of documents held out."""
        return {"validation_fraction": self._fraction}

    @torch.no_grad()
    def update(self, seen: Seen) -> None:
        """Takes a batch in."""
        z_BW = self._centred.all(seen)
        held_out = int(seen.held_out.sum())
        training = len(seen.held_out) - held_out
        if training and held_out:
            order = torch.from_numpy(np.argsort(seen.held_out, kind="stable"))
            z_BW = z_BW[order.to(z_BW.device)]
        for part, rows_BW in enumerate((z_BW[:training], z_BW[training:])):
            if len(rows_BW):
                self._count[part] += len(rows_BW)
                self._sum[part] += rows_BW.sum(dim=0, dtype=torch.float64)
                self._gram[part] += rows_BW.T @ rows_BW

    def state(self) -> dict[str, Tensor]:
        """All sums."""
        return {"count": self._count, "sum": self._sum, "gram": self._gram}

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Adds sums over other rows."""
        for name, value in self.state().items():
            value += state[name].to(value.device)

    def training(self) -> Spread:
        """Rows of the documents that the dictionary was trained on."""
        return self._spread(0, 1)

    def held_out(self) -> Spread:
        """Rows of the documents that training held out; all zero where there are none."""
        return self._spread(1, 2)

    def everything(self) -> Spread:
        """All rows."""
        return self._spread(0, 2)

    def _spread(self, first: int, last: int) -> Spread:
        """Raises StoreError if activations were not finite."""
        found = Spread.of_sums(
            int(self._count[first:last].sum()),
            self._sum[first:last].sum(dim=0),
            self._gram[first:last].sum(dim=0),
        )
        if not bool(torch.isfinite(found.covariance_WW.diagonal()).all()):
            raise StoreError(
                f"{self._store}: activations are not finite; look for the damage with "
                "`store verify`"
            )
        return found
