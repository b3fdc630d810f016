"""Every recipe's loss written the plain way: full-width weights, masks, dense codes, autograd.

Shares nothing with `train` but torch and the names of configuration keys. Formulas: DOMAIN.md 2,
3 and 7; arXiv 2406.04093 (TopK, AuxK), 2412.06410 (BatchTopK), 2404.16014 (gated), 2407.14435
(JumpReLU), 2408.00113 (L_p), 2503.17547 (Matryoshka), Jermyn & Templeton 2024 (ghost grads).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.config import TrainConfig


class Jump(torch.autograd.Function):
    """z H(z - theta); d/dz = H(z - theta), d/dtheta = -(theta / eps) 1[|z - theta| < eps / 2]."""

    @staticmethod
    def forward(ctx, z, theta, eps):
        ctx.save_for_backward(z, theta)
        ctx.eps = eps
        return torch.where(z > theta, z, 0)

    @staticmethod
    def backward(ctx, grad):
        z, theta = ctx.saved_tensors
        window = ((z - theta).abs() / ctx.eps < 0.5).to(z)
        return torch.where(z > theta, grad, 0), -(theta / ctx.eps * window * grad).sum(0), None


class Count(torch.autograd.Function):
    """Sum of H(z - theta); d/dtheta = -(1 / eps) 1[|z - theta| < eps / 2], nothing to z."""

    @staticmethod
    def forward(ctx, z, theta, eps):
        ctx.save_for_backward(z, theta)
        ctx.eps = eps
        return (z > theta).to(z).sum()

    @staticmethod
    def backward(ctx, grad):
        z, theta = ctx.saved_tensors
        window = ((z - theta).abs() / ctx.eps < 0.5).to(z)
        return None, -(grad / ctx.eps * window).sum(0), None


@dataclass
class Reference:
    """`weights`: full-width leaves by state-dict name; hookpoints: (model, reads, writes)."""

    config: TrainConfig
    hookpoints: list[tuple[str, bool, bool]]
    groups: list[tuple[str, tuple[str, ...], int]]
    weights: dict[str, Tensor]
    dead: list[int]

    def __post_init__(self) -> None:
        self.inputs = [h for h, (_, reads, _) in enumerate(self.hookpoints) if reads]
        self.outputs = [h for h, (_, _, writes) in enumerate(self.hookpoints) if writes]
        self.features = sum(size for _, _, size in self.groups)
        self.tied = round(self.config.designated * self.features)
        self.members, start = [], 0
        for _, _, size in self.groups:
            self.members.append(list(range(start, start + size)))
            start += size

    def mask(self, h: int) -> Tensor:
        """(F, 1): 1 where the hookpoint's model sees the feature."""
        sees = [s for _, models, s in self.groups for s in [self.hookpoints[h][0] in models] * s]
        return torch.tensor(sees, dtype=torch.float64)[:, None]

    def encoder(self, h: int) -> Tensor:
        return self.weights[f"W_enc.{h}"] * self.mask(h)

    def decoder(self, h: int) -> Tensor:
        """Designated shared features have one parameter: the first hookpoint's."""
        own = self.weights[f"W_dec.{h}"]
        if self.tied:
            first = self.weights[f"W_dec.{self.outputs[0]}"]
            own = torch.cat([first[: self.tied], own[self.tied :]])
        return own * self.mask(h)

    def preactivations(self, x: list[Tensor]) -> Tensor:
        pre = self.weights["b_enc"]
        for h in self.inputs:
            centred = self.config.center and h in self.outputs
            pre = pre + (x[h] - self.weights[f"b_dec.{h}"] if centred else x[h]) @ self.encoder(h).T
        return pre

    def norms(self) -> Tensor:
        """(writing hookpoints, F) decoder norms, 0 without a gradient where nothing is seen."""
        rows = []
        for h in self.outputs:
            seen = self.mask(h)[:, 0]
            square = self.decoder(h).pow(2).sum(1)
            rows.append(torch.where(seen > 0, square, 1).sqrt() * seen)
        return torch.stack(rows)

    def code_scale(self) -> Tensor:
        norms, kind = self.norms(), self.config.code_normalization
        joint = norms.pow(2).sum(0).sqrt()
        seers = sum(self.mask(h)[:, 0] for h in self.outputs)
        return {
            "crosscoder": norms.sum(0),
            "per_model": norms.sum(0) / seers.clamp(min=1),
            "sae": joint,
            "mixed": 1.0 * joint + 0.1 * norms.sum(0),
            "none": torch.ones_like(joint),
        }[kind]

    def codes(self, pre: Tensor, k: int) -> tuple[list[Tensor], Tensor]:
        """Codes (B, F) for each writing hookpoint, and those that a penalty is on."""
        config, w = self.config, self.weights
        if config.activation == "relu":
            f = pre.relu()
        elif config.activation == "jump_relu":
            f = Jump.apply(pre, w["threshold"], config.bandwidth)
        elif config.activation == "gated":
            magnitude = w["r_mag"].exp() * (pre - w["b_enc"]) + w["mag_bias"]
            return [(pre > 0) * magnitude.relu()] * len(self.outputs), pre.relu()
        elif config.activation == "topk":
            rows = (pre.relu() * self.code_scale()).detach()
            f = pre.relu() * torch.stack([largest(row, k) for row in rows])
        elif config.code_normalization == "decoupled":
            each = [pre.relu() * largest(pre.relu() * norm, k * len(pre)) for norm in self.norms()]
            return each, pre.relu()
        else:
            f = pre.relu() * self.batch_topk_mask((pre.relu() * self.code_scale()).detach(), k)
        return [f] * len(self.outputs), f

    def batch_topk_mask(self, scores: Tensor, k: int) -> Tensor:
        """Designated features get designated_k times their share of k, for themselves."""
        count = k * len(scores)
        if not self.tied:
            return largest(scores, count)
        own = round(self.config.designated * self.config.designated_k * count)
        parts = [(scores[:, : self.tied], own), (scores[:, self.tied :], count - own)]
        return torch.cat([largest(*part) for part in parts], dim=1)

    def parts(self, residuals: list[Tensor]) -> list[Tensor]:
        """What each hookpoint adds to the reconstruction loss."""
        if self.config.loss == "squared":
            sizes = [e.pow(2).sum() / len(e) for e in residuals]
        else:
            sizes = [e.pow(2).sum(1).sqrt().sum() / (len(e) * len(residuals)) for e in residuals]
        weights = [self.config.model_weights.get(self.hookpoints[h][0], 1.0) for h in self.outputs]
        return [weight * size for weight, size in zip(weights, sizes, strict=True)]

    def residuals(self, x: list[Tensor], codes: list[Tensor], share: float) -> list[Tensor]:
        """Of the nested dictionary that has this share of every group's features."""
        inside = torch.zeros(self.features, dtype=torch.float64)
        for members in self.members:
            inside[members[: round(share * len(members))]] = 1
        return [
            x[h] - (f * inside) @ self.decoder(h) - self.weights[f"b_dec.{h}"]
            for h, f in zip(self.outputs, codes, strict=True)
        ]

    def penalty(self, f: Tensor, p: float) -> Tensor:
        """Mean over rows of sum_j f_j^p n_j; decoder norms n_j are differentiated."""
        powers = f if p == 1 else torch.where(f > 0, torch.where(f > 0, f, 1).pow(p), 0)
        return (powers * self.code_scale()).sum(1).mean()

    def sparsity(self, pre: Tensor, f: Tensor, p: float) -> Tensor:
        config = self.config
        if config.sparsity == "l0":
            l0 = Count.apply(pre, self.weights["threshold"], config.bandwidth) / len(pre)
            return (l0 / config.target_l0 - 1) ** 2
        if config.sparsity == "entropy":
            q = f / f.sum(1, keepdim=True)
            return -(q * torch.where(q > 0, q, 1).log()).sum(1).mean()
        return self.penalty(f, p)

    def gate(self, x: list[Tensor], gate: Tensor) -> Tensor:
        """relu(pi) reconstructs through a frozen copy of the decoder."""
        return sum(
            self.parts(
                [
                    x[h] - gate @ self.decoder(h).detach() - self.weights[f"b_dec.{h}"].detach()
                    for h in self.outputs
                ]
            )
        )

    def auxk(self, pre: Tensor, residuals: list[Tensor]) -> Tensor:
        """Dead features, of each group its share of the auxk largest, fit the frozen residual."""
        keep, ranked = torch.zeros_like(pre), pre.tolist()
        for members in self.members:
            dead = [j for j in members if j in self.dead]
            count = max(1, round(self.config.auxk * len(members) / self.features))
            for row, values in enumerate(ranked):
                keep[row, sorted(dead, key=lambda j, v=values: -v[j])[:count]] = 1
        total = 0
        for h, e in zip(self.outputs, [e.detach() for e in residuals], strict=True):
            fit = (pre.relu() * keep) @ self.decoder(h)
            total = total + (e - fit).pow(2).sum() / (e - e.mean(0)).pow(2).sum()
        return total

    def ghost(self, pre: Tensor, residuals: list[Tensor]) -> Tensor:
        """exp(pre) of dead features, half as long as the residual, as large as its loss."""
        total = 0
        for h, e, part in zip(self.outputs, residuals, self.parts(residuals), strict=True):
            e, out = e.detach(), pre[:, self.dead].exp() @ self.decoder(h)[self.dead]
            lengths = out.detach().norm(dim=1, keepdim=True)
            # Rows of dead features that this hookpoint does not see are zeros.
            out = out * e.norm(dim=1, keepdim=True) / (2 * torch.where(lengths > 0, lengths, 1))
            error = (e - out).pow(2).sum(1).mean()
            total = total + error * (part.detach() / error.detach())
        return total

    def terms(self, x: list[Tensor], k: int, p: float = 1.0) -> dict[str, Tensor]:
        """Every term of the loss, unweighted, by name."""
        config, pre = self.config, self.preactivations(x)
        codes, penalised = self.codes(pre, k)
        nested = [self.residuals(x, codes, share) for share in config.matryoshka]
        found = {"reconstruction": sum(sum(self.parts(e)) for e in nested) / len(nested)}
        if config.sparsity != "none":
            found["sparsity"] = self.sparsity(pre, penalised, p)
        if config.activation == "gated":
            found["gate"] = self.gate(x, penalised)
        if config.auxk_weight and self.dead:
            found["auxk"] = self.auxk(pre, nested[-1])
        if config.ghost_grads and self.dead:
            found["ghost"] = self.ghost(pre, nested[-1])
        return found

    def total(self, terms: dict[str, Tensor], sparsity_weight: float) -> Tensor:
        weights = {"sparsity": sparsity_weight, "auxk": self.config.auxk_weight}
        return sum(weights.get(name, 1.0) * term for name, term in terms.items())

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """By name, full width; tied rows have their one gradient at every hookpoint."""
        leaves = list(self.weights.values())
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        grads = {
            name: torch.zeros_like(leaf) if grad is None else grad
            for (name, leaf), grad in zip(self.weights.items(), found, strict=True)
        }
        for h in self.outputs if self.tied else ():
            grads[f"W_dec.{h}"][: self.tied] = grads[f"W_dec.{self.outputs[0]}"][: self.tied]
        return grads


def largest(scores: Tensor, count: int) -> Tensor:
    """1 at the `count` largest entries, 0 elsewhere."""
    keep = torch.zeros(scores.numel(), dtype=scores.dtype)
    keep[scores.detach().flatten().argsort(descending=True)[:count]] = 1
    return keep.view_as(scores)
