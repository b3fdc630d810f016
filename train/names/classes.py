"""The names. Constructor arguments are those of the dictionary_learning package.

Weights start as there: random decoder directions of norm 1, the encoder their transpose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import torch

from pipeline.errors import ConfigError
from train.config import TrainConfig
from train.dictionary.activation import build_activation
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.feature_partition import FeaturePartition, Models
from train.dictionary.partition import Partition, single_group
from train.dictionary_config import NormalizationName
from train.names.dictionary import Dictionary
from train.names.table import KINDS
from train.recipes.initialize import initialize_weights
from train.recipes.units import THRESHOLD

Width = int | Sequence[int]
NORMALIZATIONS = get_args(NormalizationName)


class _Single(Dictionary):
    def __init__(self, activation_dim: int, dict_size: int) -> None:
        super().__init__(_one_model(type(self).__name__, activation_dim, dict_size))


class _SingleK(Dictionary):
    def __init__(self, activation_dim: int, dict_size: int, k: int) -> None:
        core = _one_model(type(self).__name__, activation_dim, dict_size, k)
        super().__init__(core, {"k": k})


class AutoEncoder(_Single):
    """ReLU SAE (Bricken et al. 2023): f = relu(W_enc (x - b_dec) + b_enc)."""


class GatedAutoEncoder(_Single):
    """Gated SAE (arXiv 2404.16014)."""


class JumpReluAutoEncoder(_Single):
    """JumpReLU SAE (arXiv 2407.14435): a learned threshold per feature; bandwidth 0.001."""


class AutoEncoderTopK(_SingleK):
    """TopK SAE (arXiv 2406.04093): the k largest of every row."""


class BatchTopKSAE(_SingleK):
    """BatchTopK SAE (arXiv 2412.06410): k per row on average, by a threshold at inference."""


class MatryoshkaBatchTopKSAE(Dictionary):
    """Matryoshka BatchTopK SAE (arXiv 2503.17547): nested prefixes reconstruct on their own."""

    def __init__(
        self, activation_dim: int, dict_size: int, k: int, group_sizes: Sequence[int]
    ) -> None:
        if sum(group_sizes) != dict_size or any(size <= 0 for size in group_sizes):
            raise ConfigError(
                f"group_sizes: {list(group_sizes)}: needs sizes above 0 that add up to {dict_size}"
            )
        core = _one_model(type(self).__name__, activation_dim, dict_size, k)
        super().__init__(core, {"k": k, "group_sizes": list(group_sizes)})


class CrossCoder(Dictionary):
    """Crosscoder with ReLU (transformer-circuits.pub/2024/crosscoders).

    activation_dim: one width, or one per layer; names: of the layers or models (a, b, ...).
    """

    def __init__(
        self,
        activation_dim: Width,
        dict_size: int,
        num_layers: int = 2,
        code_normalization: str = "crosscoder",
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        models = _names(names, num_layers)
        partition = single_group(models, dict_size)
        super().__init__(
            _build(type(self).__name__, activation_dim, models, partition, code_normalization)
        )


class BatchTopKCrossCoder(Dictionary):
    """Crosscoder with BatchTopK (arXiv 2504.02922); arguments as of CrossCoder."""

    def __init__(
        self,
        activation_dim: Width,
        dict_size: int,
        num_layers: int = 2,
        k: int = 100,
        code_normalization: str = "crosscoder",
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        models = _names(names, num_layers)
        partition = single_group(models, dict_size)
        super().__init__(
            _build(type(self).__name__, activation_dim, models, partition, code_normalization, k),
            {"k": k},
        )


class DedicatedFeatureCrossCoder(CrossCoder):
    """DFC (arXiv 2602.11729) with ReLU; see FeaturePartition for `exclusive`.

    a_exclusive, b_exclusive: of the first and second model, shares (float) or numbers (int) of
    features; `exclusive` in their place for more models or groups of several, by name.
    """

    def __init__(
        self,
        activation_dim: Width,
        dict_size: int,
        num_layers: int = 2,
        a_exclusive: float = 0.05,
        b_exclusive: float = 0.05,
        code_normalization: str = "crosscoder",
        *,
        names: Sequence[str] | None = None,
        exclusive: Mapping[Models, float] | None = None,
    ) -> None:
        models = _names(names, num_layers)
        partition = _dedicated(dict_size, models, a_exclusive, b_exclusive, exclusive)
        Dictionary.__init__(
            self, _build(type(self).__name__, activation_dim, models, partition, code_normalization)
        )


class DedicatedFeatureBatchTopKCrossCoder(BatchTopKCrossCoder):
    """DFC (arXiv 2602.11729) with BatchTopK; arguments as of DedicatedFeatureCrossCoder."""

    def __init__(
        self,
        activation_dim: Width,
        dict_size: int,
        num_layers: int = 2,
        k: int = 100,
        a_exclusive: float = 0.05,
        b_exclusive: float = 0.05,
        code_normalization: str = "crosscoder",
        *,
        names: Sequence[str] | None = None,
        exclusive: Mapping[Models, float] | None = None,
    ) -> None:
        models = _names(names, num_layers)
        partition = _dedicated(dict_size, models, a_exclusive, b_exclusive, exclusive)
        Dictionary.__init__(
            self,
            _build(type(self).__name__, activation_dim, models, partition, code_normalization, k),
            {"k": k},
        )


def _names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is None:
        return (
            tuple("abcdefghijklmnopqrstuvwxyz"[:count])
            if count <= 26
            else tuple(f"layer{number}" for number in range(count))
        )
    if len(names) != count or len(set(names)) != count:
        raise ConfigError(f"names: {', '.join(names)}: needs {count} different ones")
    return tuple(names)


def _dedicated(
    features: int,
    models: tuple[str, ...],
    a_exclusive: float,
    b_exclusive: float,
    exclusive: Mapping[Models, float] | None,
) -> Partition:
    if exclusive is None:
        exclusive = dict(zip(models, (a_exclusive, b_exclusive), strict=False))
    return FeaturePartition(features, exclusive, models)


def _one_model(name: str, width: int, features: int, k: int | None = None) -> Crosscoder:
    partition = single_group(("model",), features)
    return _build(name, width, ("model",), partition, KINDS[name].normalization, k)


def _build(
    name: str,
    width: Width,
    models: tuple[str, ...],
    partition: Partition,
    normalization: str,
    k: int | None = None,
) -> Crosscoder:
    kind = KINDS[name]
    widths = [width] * len(models) if isinstance(width, int) else list(width)
    if len(widths) != len(models) or min([*widths, partition.features]) < 1:
        raise ConfigError(
            f"activation_dim: {width}, dict_size: {partition.features}: need sizes "
            f"above 0, widths one or {len(models)}"
        )
    if normalization.lower() not in NORMALIZATIONS:
        raise ConfigError(
            f"code_normalization: {normalization!r}; known are {', '.join(NORMALIZATIONS)}"
        )
    if k is not None and not 0 < k <= partition.features:
        raise ConfigError(f"k: {k}: needs 1 to {partition.features} (dict_size)")
    activation: dict[str, Any] = {"kind": kind.activation}
    if kind.activation == "topk":
        activation["k"] = k
    core = Crosscoder(
        tuple(HookpointShape(m, m, w) for m, w in zip(models, widths, strict=True)),
        partition,
        cast(NormalizationName, normalization.lower()),
        torch.get_default_dtype(),
        activation=build_activation(activation),
        center=kind.center,
    )
    seed = int(torch.randint(2**62, ()))
    initialize_weights(
        core, TrainConfig(decoder_init_norm=1.0, threshold_init=THRESHOLD, seed=seed)
    )
    return core
