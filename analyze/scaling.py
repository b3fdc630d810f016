"""Latent scaling: how much of a feature's own direction, or of any, the other model also has.

For equal widths (arXiv 2504.02922): the best single scale of a feature's decoder d on a target y,

    beta(y) = sum_x f <d, y> / (|d|^2 sum_x f^2),

for two targets of each model: the residual with the feature's part put back, eps = x - x_hat + f d,
and the reconstruction x_hat. nu = beta(other model) / beta(own model): nu_eps high means that the
other model has the feature although its decoder was shrunk to nothing (complete shrinkage), nu_r
high that other features write the same direction there (latent decoupling).

For unequal widths d means nothing in the other model. In its place the best direction of all,
v = sum_x f e / sum_x f^2 with e the other model's residual, and its length over |d|: near 1 where
the feature is a half of something shared, near that of a null (the same with rows exchanged) where
nothing in the other model goes with it.

Sums are in float64, over all rows, of the dictionary's scaled units; memory is a few numbers per
feature, and for v two matrices of the size of the other model's decoder. Exact but for the rounding
of each product; nu of the eps target is got from plain residuals by adding <d, d_other>.
B batch rows, F features, V features visible to a hookpoint, D width, N entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyze.pairing import HookpointPair
from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Crosscoder
from train.dictionary.sparse_products import products_at

NULL_SEED = 0


@dataclass(frozen=True)
class Scaling:
    """Per feature (F,), float64; NaN where a feature never fired or has no own decoder.

    nu and beta: equal widths, else NaN; direction: |v| / |d|; null_direction: the same of rows that
    were exchanged; both NaN where not asked for.
    """

    squares: Tensor
    beta_eps_own: Tensor
    beta_eps_other: Tensor
    beta_r_own: Tensor
    beta_r_other: Tensor
    direction: Tensor
    null_direction: Tensor

    @property
    def nu_eps(self) -> Tensor:
        """Of the residual with the feature's part put back: high for complete shrinkage."""
        return self.beta_eps_other / self.beta_eps_own

    @property
    def nu_r(self) -> Tensor:
        """Of the reconstruction: high for latent decoupling."""
        return self.beta_r_other / self.beta_r_own


class ScalingSums:
    """Sums for the features claimed for the pair's own model; rows come in batches, any number.

    claimed_F: which features those are. directions: whether to find v, and its null, too.
    """

    def __init__(
        self,
        dictionary: Crosscoder,
        pair: HookpointPair,
        claimed_F: Tensor,
        directions: bool,
    ) -> None:
        self.dictionary, self.pair, self.claimed_F = dictionary, pair, claimed_F
        self.equal = pair.equal_widths(dictionary)
        features, device = dictionary.partition.features, dictionary.b_enc.device
        width = dictionary.hookpoints[pair.other].width
        names = ("squares", "eps_own", "eps_other", "r_own", "r_other")
        self._sums = {n: torch.zeros(features, dtype=torch.float64, device=device) for n in names}
        shape = (features, width) if directions else (0, width)
        self._along = torch.zeros(shape, dtype=torch.float64, device=device)
        self._null = torch.zeros_like(self._along)

    @torch.no_grad()
    def update(
        self, codes: SparseCodes, x: list[Tensor], x_hat: list[Tensor], first_row: int = 0
    ) -> None:
        """A batch: codes, scaled inputs and their scaled reconstructions, in hookpoint order.

        first_row: its number in the store, which the null's exchange of rows depends on.
        """
        pattern, values_N = codes.pattern, codes.values.detach()
        claimed_N = self.claimed_F[pattern.columns]
        squares_N = torch.where(claimed_N, values_N.double().square(), 0)
        self._add("squares", pattern.columns, squares_N)
        residual = {n: x[n] - x_hat[n] for n in (self.pair.own, self.pair.other)}
        self._add_products("eps_own", codes, claimed_N, residual[self.pair.own])
        self._add_products("r_own", codes, claimed_N, x_hat[self.pair.own])
        if self.equal:
            self._add_products("eps_other", codes, claimed_N, residual[self.pair.other])
            self._add_products("r_other", codes, claimed_N, x_hat[self.pair.other])
        if len(self._along):
            kept_N = torch.where(claimed_N, values_N, 0)
            other_BD = residual[self.pair.other]
            self._along += pattern.transposed_product(kept_N, other_BD)
            self._null += pattern.transposed_product(
                kept_N, other_BD[self._exchanged(len(other_BD), first_row)]
            )

    def state(self) -> dict[str, Tensor]:
        """All sums."""
        return {**self._sums, "along": self._along, "null": self._null}

    def absorb(self, state: dict[str, Tensor]) -> None:
        """Adds sums over other rows."""
        for name, value in self.state().items():
            value += state[name].to(value.device)

    def result(self) -> Scaling:
        """What the rows so far come to."""
        d_own_FD, norm_F = self._own_decoder()
        fired_F = self._sums["squares"] > 0
        nothing = torch.full_like(norm_F, torch.nan)
        size_F = torch.where(fired_F, norm_F.square() * self._sums["squares"], torch.nan)

        def beta(name: str, already: Tensor | float) -> Tensor:
            return already + self._sums[name] / size_F

        shared_F = nothing
        if self.equal:
            shared_F = (d_own_FD * self._decoder(self.pair.other)).sum(dim=1) / norm_F.square()
        return Scaling(
            self._sums["squares"],
            beta("eps_own", 1.0),
            beta("eps_other", shared_F),
            beta("r_own", 0.0),
            beta("r_other", 0.0) if self.equal else nothing,
            self._length(self._along, norm_F),
            self._length(self._null, norm_F),
        )

    def _length(self, sums_FD: Tensor, norm_F: Tensor) -> Tensor:
        if not len(sums_FD):
            return torch.full_like(norm_F, torch.nan)
        return (sums_FD / self._sums["squares"][:, None]).norm(dim=1) / norm_F

    def _own_decoder(self) -> tuple[Float[Tensor, "features width"], Float[Tensor, " features"]]:
        """Decoders of claimed features at the own hookpoint, and their norms; NaN where none is."""
        d_FD = self._decoder(self.pair.own)
        norm_F = d_FD.norm(dim=1)
        return d_FD, torch.where((norm_F > 0) & self.claimed_F, norm_F, torch.nan)

    def _decoder(self, number: int) -> Float[Tensor, "features width"]:
        """Decoder rows of all features in float64; zeros where the hookpoint does not see one."""
        d_VD = self.dictionary.W_dec[str(number)].detach().double()
        d_FD = d_VD.new_zeros(self.dictionary.partition.features, d_VD.shape[1])
        d_FD[self.dictionary.visibility(number).features_V] = d_VD
        return d_FD

    def _add_products(self, name: str, codes: SparseCodes, claimed_N: Tensor, y_BD: Tensor) -> None:
        """f <d, y> of every entry of a claimed feature, d at the own hookpoint."""
        pattern, own = codes.pattern, self.pair.own
        local_N = self.dictionary.visibility(own).local_F[pattern.columns]
        places_N = torch.where(claimed_N, local_N, -1)
        W_VD = self.dictionary.W_dec[str(own)].detach()
        products_N = products_at(pattern.row_starts, places_N, y_BD, W_VD)
        self._add(name, pattern.columns, codes.values.detach().double() * products_N)

    def _add(self, name: str, columns: Int[Tensor, " entries"], terms_N: Tensor) -> None:
        self._sums[name] += torch.bincount(columns, terms_N, len(self._sums[name]))

    def _exchanged(self, rows: int, first_row: int) -> Tensor:
        """An order of a batch's rows in which no row, if there are several, is where it was."""
        generator = torch.Generator().manual_seed(NULL_SEED + first_row)
        order = torch.randperm(rows, generator=generator)
        moved = torch.empty_like(order)
        moved[order] = order.roll(1)  # one cycle through all rows
        return moved.to(self._along.device)
