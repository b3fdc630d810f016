"""The way public code writes a crosscoder's training step: what `benchmarks.train` compares with.

Full-width weights, dense (batch, features) codes, autograd through all of it, a flat torch.topk,
and masks that zero the gradients of forbidden weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.config import TrainConfig
from train.dictionary.crosscoder import Crosscoder
from train.dictionary.precision import tf32_products


class MaskedDense:
    """Starts from the weights of a dictionary in windows form and does the same arithmetic."""

    def __init__(self, dictionary: Crosscoder, config: TrainConfig) -> None:
        features, device = dictionary.partition.features, dictionary.b_enc.device
        self.k = config.k
        self.clip = config.gradient_clip
        self.precision = config.precision
        self.device_type = device.type
        self.masks: list[Tensor] = []
        self.W_enc: list[Tensor] = []
        self.W_dec: list[Tensor] = []
        for number, hookpoint in enumerate(dictionary.hookpoints):
            seen = dictionary.visibility(number).features_V
            mask = torch.zeros(features, 1, device=device)
            mask[seen] = 1
            self.masks.append(mask)
            for mine, theirs in ((self.W_enc, dictionary.W_enc), (self.W_dec, dictionary.W_dec)):
                full = torch.zeros(features, hookpoint.width, device=device)
                full[seen] = theirs[str(number)].detach()
                mine.append(full.requires_grad_())
        self.masked = any(bool((mask == 0).any()) for mask in self.masks)
        self.b_enc = torch.zeros(features, device=device, requires_grad=True)
        self.b_dec = [
            torch.zeros(h.width, device=device, requires_grad=True) for h in dictionary.hookpoints
        ]
        self.parameters = [*self.W_enc, *self.W_dec, self.b_enc, *self.b_dec]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.lr or 1e-3, fused=True)

    def step(self, x: list[Tensor]) -> Tensor:
        """One optimizer step; returns the loss."""
        narrow = torch.autocast(
            self.device_type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )
        with tf32_products(self.precision == "tf32"):
            with narrow:
                loss = self._loss(x)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        if self.masked:
            for weights in (self.W_enc, self.W_dec):
                for weight, mask in zip(weights, self.masks, strict=True):
                    weight.grad *= mask
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return loss.detach()

    def _loss(self, x: list[Tensor]) -> Tensor:
        pre = self.b_enc + sum(a @ w.T for a, w in zip(x, self.W_enc, strict=True))
        codes = pre.relu()
        norms = sum(w.detach().norm(dim=1) for w in self.W_dec)
        top = (codes.detach() * norms).flatten().topk(self.k * len(codes), sorted=False)
        keep = torch.zeros_like(codes).view(-1).index_fill_(0, top.indices, 1).view_as(codes)
        codes = codes * keep
        decoders = zip(x, self.W_dec, self.b_dec, strict=True)
        return sum((a - codes @ w - b).square().sum(dim=1).mean() for a, w, b in decoders)
