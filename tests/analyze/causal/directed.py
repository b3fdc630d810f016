"""A dictionary made by hand for a harvested store: every feature fires on a few of its rows."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from analyze.causal.batches import padded_batches
from analyze.causal.passages import row_edges
from store.reader import Store
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import Partition

A, B = "a.model.layers.1.out", "b.gpt_neox.layers.1.out"
FEATURES, CONTEXTS = 24, 3
ONLY_A, SHARED, ONLY_B = 1, 9, 22


def rows_of(store: Store, name: str) -> torch.Tensor:
    return torch.cat([store.activations(name, chunk) for chunk in range(store.chunks)]).float()


def directed(store: Store, names: tuple[str, ...], partition: Partition, share: float = 0.01):
    """Random directions; biases so that each feature fires on about this share of the rows."""
    shapes = [store.hookpoint(name) for name in names]
    hookpoints = tuple(HookpointShape(one.name, one.model, one.width) for one in shapes)
    dictionary = Crosscoder(hookpoints, partition)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        dictionary.scale.copy_(torch.tensor([2.0, 0.5, 1.5, 1.0][: len(names)]))
        for weights in (*dictionary.W_enc.values(), *dictionary.W_dec.values()):
            weights.copy_(torch.randn(weights.shape, generator=generator))
        for bias in dictionary.b_dec.values():
            bias.copy_(torch.randn(bias.shape, generator=generator))
        pre_NF = torch.zeros(store.rows, partition.features)
        for number, name in enumerate(names):
            x_ND = rows_of(store, name) * dictionary.scale[number]
            seen = dictionary.visibility(number).features_V
            pre_NF[:, seen] += x_ND @ dictionary.W_enc[str(number)].T
        dictionary.b_enc.copy_(-_thresholds(pre_NF, share))
    return dictionary


def _thresholds(pre_NF: torch.Tensor, share: float) -> torch.Tensor:
    """Amid the widest gap near the share: no row is so close that rounding decides if it fires."""
    rows = len(pre_NF) * share
    sorted_NF = pre_NF.sort(dim=0, descending=True).values[int(rows / 2) : int(rows * 1.5)]
    widest_F = sorted_NF.diff(dim=0).argmin(dim=0)
    return (sorted_NF[:-1] + sorted_NF[1:]).gather(0, widest_F[None])[0] / 2


def saved(dictionary: Crosscoder, folder: Path) -> Path:
    save_dictionary(folder, dictionary, {"recipe": "dfc", "train": {"validation_fraction": 0.2}})
    return folder


def dense_codes(store: Store, dictionary: Crosscoder) -> torch.Tensor:
    """Codes (rows, features) by plain matrix products in float64."""
    pre_NF = dictionary.b_enc.detach().double().repeat(store.rows, 1)
    for number, hookpoint in enumerate(dictionary.hookpoints):
        x_ND = rows_of(store, hookpoint.name).double() * dictionary.scale[number]
        seen = dictionary.visibility(number).features_V
        pre_NF[:, seen] += x_ND @ dictionary.W_enc[str(number)].detach().double().T
    return pre_NF.relu()


def document_of_rows(store: Store) -> torch.Tensor:
    edges = torch.from_numpy(row_edges(store))
    return torch.repeat_interleave(torch.arange(len(edges) - 1), edges.diff())


def spied(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> set[int]:
    """Fills up with the sizes of the passes that a module asks for."""
    asked: set[int] = set()

    def batches(readings, batch_tokens):
        asked.add(batch_tokens)
        return padded_batches(readings, batch_tokens)

    monkeypatch.setattr(module, "padded_batches", batches)
    return asked
