"""Batches of a sweep made by hand, and the same rows as plain float64 arrays to compare with."""

from dataclasses import dataclass

import numpy as np
import torch

from analyze.sweep.seen import Seen
from train.dictionary.codes import Pattern, SparseCodes


@dataclass(frozen=True)
class Rows:
    """x: per hookpoint (rows, width); codes: (rows, features); held_out: bool (rows,)."""

    x: list[np.ndarray]
    codes: np.ndarray
    held_out: np.ndarray

    @property
    def z(self):
        return np.concatenate(self.x, axis=1).astype(np.float64)

    def take(self, index):
        return Rows([x[index] for x in self.x], self.codes[index], self.held_out[index])

    def seen(self):
        count = len(self.codes)
        codes = torch.from_numpy(self.codes)
        flat = codes.reshape(-1).nonzero().squeeze(1)
        pattern = Pattern(flat, count, codes.shape[1])
        x = [torch.from_numpy(part) for part in self.x]
        zeros = np.zeros(count, np.int64)
        values = codes.reshape(-1)[flat]
        return Seen(
            codes=SparseCodes(pattern, values),
            x=x,
            x_hat=x,
            whole=x,
            rows=zeros,
            documents=zeros,
            labels=zeros,
            held_out=self.held_out,
            activations={},
        )


def random_rows(count, seed=0, widths=(6, 8), features=7, held_out=0.25):
    """Correlated activations far from 0, codes of which a third is on."""
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(count, 4))
    x = [
        (hidden @ generator.normal(size=(4, d)) + generator.normal(size=(count, d)) + 3).astype(
            np.float32
        )
        for d in widths
    ]
    on = generator.random((count, features)) < 1 / 3
    codes = np.where(on, generator.random((count, features)), 0).astype(np.float32)
    return Rows(x, codes, generator.random(count) < held_out)


def feed(accumulators, rows, batch=50):
    """Lets accumulators see rows in batches."""
    for start in range(0, len(rows.codes), batch):
        seen = rows.take(slice(start, start + batch)).seen()
        for accumulator in accumulators:
            accumulator.update(seen)
