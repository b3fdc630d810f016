"""The crosscoder written the plain way: full-width weights, masks by hand, dense codes, autograd.

Shares nothing with `train` but torch. Forbidden blocks exist here; they are kept at zero by
masking weights and gradients.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

DEAD_REFRESH = 16


@dataclass
class DenseReference:
    """`models[h]` sees `groups` (name, models, size); the lists are per hookpoint."""

    models: list[str]
    groups: list[tuple[str, tuple[str, ...], int]]
    normalization: str
    loss_kind: str
    W_enc: list[Tensor]
    W_dec: list[Tensor]
    b_enc: Tensor
    b_dec: list[Tensor]
    threshold: float = 0.0
    rows_since_fired: Tensor = field(init=False)
    dead: Tensor = field(init=False)

    def __post_init__(self) -> None:
        features = sum(size for _, _, size in self.groups)
        self.group_features = {}
        start = 0
        for name, _, size in self.groups:
            self.group_features[name] = list(range(start, start + size))
            start += size
        self.masks = []
        for model in self.models:
            mask = torch.zeros(features, 1, dtype=self.b_enc.dtype)
            for name, seers, _ in self.groups:
                if model in seers:
                    mask[self.group_features[name]] = 1
            self.masks.append(mask)
        for weights in (self.W_enc, self.W_dec):
            for h, mask in enumerate(self.masks):
                weights[h] = (weights[h] * mask).requires_grad_()
        self.b_enc = self.b_enc.clone().requires_grad_()
        self.b_dec = [b.clone().requires_grad_() for b in self.b_dec]
        self.rows_since_fired = torch.zeros(features, dtype=torch.int64)
        self.dead = torch.zeros(features, dtype=torch.bool)

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.W_enc, *self.W_dec, self.b_enc, *self.b_dec]

    def preactivations(self, x: list[Tensor]) -> Tensor:
        return self.b_enc + sum(x_h @ W.T for x_h, W in zip(x, self.W_enc, strict=True))

    def code_scale(self) -> Tensor:
        norms = torch.stack([W.detach().pow(2).sum(1).sqrt() for W in self.W_dec])
        if self.normalization == "crosscoder":
            return norms.sum(0)
        if self.normalization == "per_model":
            return norms.sum(0) / torch.stack(self.masks).squeeze(2).sum(0)
        if self.normalization == "sae":
            return torch.cat([W.detach() for W in self.W_dec], dim=1).norm(dim=1)
        if self.normalization == "mixed":
            joint = torch.cat([W.detach() for W in self.W_dec], dim=1).norm(dim=1)
            return joint + 0.1 * norms.sum(0)
        return torch.ones_like(norms[0])

    def select(self, x: list[Tensor], k: int) -> tuple[Tensor, float]:
        """BatchTopK codes (B, F) and the smallest kept score."""
        values = self.preactivations(x).relu()
        scores = (values.detach() * self.code_scale()).flatten()
        order = scores.argsort(descending=True)[: k * len(x[0])]
        keep = torch.zeros_like(scores)
        keep[order] = 1
        return values * keep.view_as(values), float(scores[order[-1]])

    def reconstruct(self, codes: Tensor, bias: bool = True) -> list[Tensor]:
        return [codes @ W + (b if bias else 0) for W, b in zip(self.W_dec, self.b_dec, strict=True)]

    def reconstruction_loss(self, residuals: list[Tensor]) -> Tensor:
        if self.loss_kind == "squared":
            return sum(e.pow(2).sum() / len(e) for e in residuals)
        return sum(e.pow(2).sum(1).sqrt().sum() for e in residuals) / (
            len(residuals) * len(residuals[0])
        )

    def auxk(
        self, x: list[Tensor], residuals: list[Tensor], total: int, leak: str = ""
    ) -> Tensor | None:
        """Leak "selection" lets all dead features compete, "variance" divides by a joint one."""
        if not self.dead.any():
            return None
        values = self.preactivations(x)
        codes = torch.zeros_like(values)
        features = len(self.dead)
        groups = {"all": list(range(features))} if leak == "selection" else self.group_features
        for members in groups.values():
            dead = [f for f in members if self.dead[f]]
            count = min(len(dead), max(1, round(total * len(members) / features)))
            for row, ranked in enumerate(values.tolist()):
                best = sorted(dead, key=lambda f, ranked=ranked: -ranked[f])[:count]
                codes[row, best] = values[row, best].relu()
        fits = self.reconstruct(codes, bias=False)
        targets = [e.detach() for e in residuals]
        variances = [(e - e.mean(0)).pow(2).sum() for e in targets]
        if leak == "variance":
            variances = [sum(variances)] * len(targets)
        return sum(
            (fit - e).pow(2).sum() / variance
            for fit, e, variance in zip(fits, targets, variances, strict=True)
        )

    def loss(
        self, x: list[Tensor], k: int, auxk_total: int, auxk_weight: float, leak: str = ""
    ) -> tuple[Tensor, Tensor, float]:
        """Total loss, dense codes and the smallest kept score."""
        codes, smallest = self.select(x, k)
        residuals = [a - b for a, b in zip(x, self.reconstruct(codes), strict=True)]
        total = self.reconstruction_loss(residuals)
        extra = self.auxk(x, residuals, auxk_total, leak)
        return (total if extra is None else total + auxk_weight * extra), codes, smallest

    def backward(self, loss: Tensor) -> list[Tensor]:
        """Gradients in the order of `parameters`, forbidden blocks zeroed."""
        grads = list(torch.autograd.grad(loss, self.parameters))
        count = len(self.models)
        for number, mask in enumerate([*self.masks, *self.masks]):
            assert number < 2 * count
            grads[number] = grads[number] * mask
        return grads


@dataclass(frozen=True)
class Recipe:
    """What the reference's own loop needs; formulas of DOMAIN.md."""

    lr: float
    warmup: int
    decay_start: int
    steps: int
    clip: float
    k: int
    k_start: int
    k_steps: int
    auxk: int
    auxk_weight: float
    dead_after: int
    threshold_start: int
    threshold_beta: float


def train_reference(
    reference: DenseReference, batches: list[list[Tensor]], recipe: Recipe
) -> tuple[list[float], list[Tensor]]:
    """Takes one step on every batch; returns losses and dense codes of every step."""
    adam = torch.optim.Adam(reference.parameters, lr=1.0, betas=(0.9, 0.999), foreach=False)
    losses, all_codes = [], []
    for t, x in enumerate(batches):
        if t % DEAD_REFRESH == 0:
            reference.dead = reference.rows_since_fired >= recipe.dead_after
        k = recipe.k
        if t < recipe.k_steps:
            k = round(recipe.k_start - (recipe.k_start - recipe.k) * t / recipe.k_steps)
        loss, codes, smallest = reference.loss(x, k, recipe.auxk, recipe.auxk_weight)
        grads = reference.backward(loss)
        norm = torch.sqrt(sum(g.pow(2).sum() for g in grads))
        shrink = min(1.0, recipe.clip / (float(norm) + 1e-6))
        lr = recipe.lr * min(1.0, (t + 1) / recipe.warmup)
        if t >= recipe.decay_start:
            lr *= (recipe.steps - t) / (recipe.steps - recipe.decay_start)
        adam.param_groups[0]["lr"] = lr
        for parameter, grad in zip(reference.parameters, grads, strict=True):
            parameter.grad = grad * shrink
        adam.step()
        fired = (codes > 0).any(0)
        reference.rows_since_fired = torch.where(fired, 0, reference.rows_since_fired + len(codes))
        if t == recipe.threshold_start:
            reference.threshold = smallest
        elif t > recipe.threshold_start:
            beta = recipe.threshold_beta
            reference.threshold = beta * reference.threshold + (1 - beta) * smallest
        losses.append(float(loss.detach()))
        all_codes.append(codes.detach())
    return losses, all_codes
