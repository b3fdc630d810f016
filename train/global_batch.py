"""Figures of a global batch, of which this process has some rows.

The gradient of the global batch's loss is the sum of the ranks' gradients, where each weighs its
own loss, a mean over its own rows, by its share of all rows. What enters the loss otherwise than by
a mean over rows (a variance that is divided by, a square of a mean) is of all rows here, and
constant in the others'. On one process every method hands on what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from train.ranks import ALONE, Ranks


@dataclass(frozen=True)
class GlobalBatch:
    """`own` rows are here, of `rows` of all ranks."""

    ranks: Ranks
    own: int
    rows: int

    @property
    def alone(self) -> bool:
        """Whether these are all the rows."""
        return self.ranks.size == 1

    @property
    def share(self) -> float:
        """Share of all rows that is here."""
        return self.own / max(1, self.rows)

    def weighted(self, mean: Tensor) -> Tensor:
        """What a mean over own rows adds to the mean over all rows; 0 where there are none."""
        if self.alone:
            return mean
        # Of no rows the mean is NaN; its gradient is empty and adds nothing.
        return mean * self.share if self.own else torch.where(mean.isnan(), 0, mean) * 0

    def mean(self, own: Tensor) -> Tensor:
        """The mean over all rows, from those over every rank's own; without gradient."""
        return own if self.alone else self.ranks.sum(self.weighted(own.detach()))

    def value_of_all(self, own: Tensor) -> Tensor:
        """Has the value of the mean over all rows, and the gradient of that over own rows."""
        return own if self.alone else own + (self.mean(own) - own.detach())

    def summed(self, own: Tensor) -> Tensor:
        """A sum over own rows in the place of a mean: `weighted` makes it a sum again."""
        return own if self.alone or not self.own else own / self.share

    def variations(self, x: list[Float[Tensor, "own _width"]]) -> list[Float[Tensor, ""]]:
        """Of each tensor: the sum over all rows of |row - mean of all rows|^2."""
        if self.alone:
            return [(x_BD - x_BD.mean(dim=0)).square().sum() for x_BD in x]
        widths = [x_BD.shape[1] for x_BD in x]
        if self.own:
            means = [x_BD.mean(dim=0) for x_BD in x]
        else:
            means = [x_BD.new_zeros(x_BD.shape[1]) for x_BD in x]
        within = [(x_BD - m_D).square().sum() for x_BD, m_D in zip(x, means, strict=True)]
        count = x[0].new_tensor([self.own])
        sent = self.ranks.gather(torch.cat([count, torch.stack(within), *means]))
        count_R1, within_RH, means_RD = sent.split([1, len(x), sum(widths)], dim=1)
        found = []
        for number, mean_RD in enumerate(means_RD.split(widths, dim=1)):
            mean_D = (count_R1 * mean_RD).sum(dim=0) / max(1, self.rows)
            between = (count_R1 * (mean_RD - mean_D).square()).sum()
            found.append(within_RH[:, number].sum() + between)
        return found

    def all_rows(self, x: list[Float[Tensor, "own _width"]]) -> list[Float[Tensor, "rows _width"]]:
        """The rows of all ranks, in rank order, which is their order in the global batch."""
        if self.alone:
            return x
        own_R = self.ranks.gather(torch.tensor(self.own)).tolist()
        found = []
        for x_BD in x:
            padded_BD = x_BD.new_zeros(max(own_R), x_BD.shape[1])
            padded_BD[: self.own] = x_BD
            parts = self.ranks.gather(padded_BD)
            found.append(torch.cat([part[:own] for part, own in zip(parts, own_R, strict=True)]))
        return found

    def largest(
        self, flat: Int[Tensor, " entries"], values: Float[Tensor, " entries"], count: int
    ) -> tuple[Int[Tensor, " kept"], Float[Tensor, ""]]:
        """Those of this rank's positive entries that are among the `count` largest of all ranks.

        And the smallest of these, 0 if fewer are positive. Of equal ones the first in the global
        batch are kept. Every rank passes at least its own `count` largest, by position. On a GPU
        the device is waited for.
        """
        sent = values.new_zeros(count)
        sent[: len(values)] = values
        all_RN = self.ranks.gather(sent)
        smallest = all_RN.view(-1).kthvalue(all_RN.numel() - count + 1).values
        ties_R = (all_RN == smallest).sum(dim=1)
        room = count - (all_RN > smallest).sum() - ties_R[: self.ranks.rank].sum()
        tied = values == smallest
        kept = (values > smallest) | (tied & (tied.cumsum(0) <= room))
        return flat[kept & (values > 0)], smallest


def slice_of(ranks: Ranks, own: int, equal: bool = True) -> GlobalBatch:
    """The global batch of which this rank has `own` rows; equal: as many as every other has."""
    if ranks.size == 1:
        return GlobalBatch(ALONE, own, own)
    rows = own * ranks.size if equal else int(ranks.sum(torch.tensor(own)))
    return GlobalBatch(ranks, own, rows)
