"""Foreign dictionaries made of random numbers, and what their own code computes from them.

State dicts and forward passes are written from INTEROP.md. D width, F features, L layers.
"""

from typing import Any

import torch
from torch import Tensor

D, F, L, K = 6, 20, 2, 4
SINGLE = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)
LAYERED = ("CrossCoder", "BatchTopKCrossCoder")
DEDICATED = ("DedicatedFeatureCrossCoder", "DedicatedFeatureBatchTopKCrossCoder")
PARTITION = {"dict_size": F, "model_a_exclusive_pct": 0.17, "model_b_exclusive_pct": 0.29}
A, B = int(F * 0.17), int(F * 0.29)  # 3, 5
IDS = {"crosscoder": 1, "sae": 2, "mixed": 3, "none": 4, "decoupled": 5}


class Random:
    """Normal numbers of one generator and dtype."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)


def single_state(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A state dict of one of `SINGLE`."""
    r = Random(seed, dtype)
    linear = {"encoder.weight": r(F, D), "decoder.weight": r(D, F)}
    matrices = {"W_enc": r(D, F), "b_enc": r(F), "W_dec": r(F, D), "b_dec": r(D)}
    figures = {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(0.8)}
    return {
        "AutoEncoder": {"bias": r(D), "encoder.bias": r(F), **linear},
        "AutoEncoderNew": {"encoder.bias": r(F), "decoder.bias": r(D), **linear},
        "GatedAutoEncoder": {
            "decoder_bias": r(D), "r_mag": 0.3 * r(F), "gate_bias": r(F), "mag_bias": r(F),
            **linear,
        },
        "JumpReluAutoEncoder": {**matrices, "threshold": r(F).abs()},
        "AutoEncoderTopK": {"encoder.bias": r(F), "b_dec": r(D), **linear, **figures},
        "BatchTopKSAE": {"encoder.bias": r(F), "b_dec": r(D), **linear, **figures},
        "MatryoshkaBatchTopKSAE": {**matrices, **figures, "group_sizes": torch.tensor([5, 15])},
    }[kind]  # fmt: skip


def single_forward(kind: str, s: dict[str, Tensor], x: Tensor, apply_b_dec: bool = False) -> Tensor:
    """x_hat (B, D) of x (B, D), as the class computes it."""
    if kind == "AutoEncoder":
        f = torch.relu((x - s["bias"]) @ s["encoder.weight"].T + s["encoder.bias"])
        return f @ s["decoder.weight"].T + s["bias"]
    if kind == "AutoEncoderNew":
        f = torch.relu(x @ s["encoder.weight"].T + s["encoder.bias"])
        return f @ s["decoder.weight"].T + s["decoder.bias"]
    if kind == "GatedAutoEncoder":
        norms = s["decoder.weight"].norm(dim=0)
        x_e = (x - s["decoder_bias"]) @ s["encoder.weight"].T
        gate = (x_e + s["gate_bias"] > 0).to(x)
        f = gate * torch.relu(s["r_mag"].exp() * x_e + s["mag_bias"]) * norms
        return (f / norms) @ s["decoder.weight"].T + s["decoder_bias"]
    if kind == "JumpReluAutoEncoder":
        norms = s["W_dec"].norm(dim=1)
        pre = (x - s["b_dec"] if apply_b_dec else x) @ s["W_enc"] + s["b_enc"]
        f = torch.relu(pre * (pre > s["threshold"])) * norms
        return (f / norms) @ s["W_dec"] + s["b_dec"]
    if kind == "MatryoshkaBatchTopKSAE":
        f = torch.relu((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"])
        return (f * (f > s["threshold"])) @ s["W_dec"] + s["b_dec"]
    f = torch.relu((x - s["b_dec"]) @ s["encoder.weight"].T + s["encoder.bias"])
    kept = f > s["threshold"] if kind == "BatchTopKSAE" else largest(f, int(s["k"]))
    return (f * kept) @ s["decoder.weight"].T + s["b_dec"]


def largest(f: Tensor, k: int) -> Tensor:
    """Mask of the k largest entries of every row."""
    return torch.zeros_like(f).scatter_(1, f.topk(k, dim=1).indices, 1.0).bool()


def layered_state(
    kind: str,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    normalization: str | None = "crosscoder",
    layers: int = L,
) -> dict[str, Any]:
    """A state dict of one of `LAYERED` or `DEDICATED`."""
    r = Random(seed, dtype)
    state: dict[str, Any] = {
        "encoder.weight": r(layers, D, F),
        "encoder.bias": r(F),
        "decoder.weight": r(layers, F, D),
        "decoder.bias": r(layers, D),
    }
    if normalization is not None:
        state["code_normalization_id"] = torch.tensor(IDS[normalization])
    if "BatchTopK" in kind:
        decoupled = normalization == "decoupled"
        state["k"] = torch.tensor(K, dtype=torch.int32)
        state["threshold"] = torch.tensor([2.0, 4.0]) if decoupled else torch.tensor(3.0)
    if kind in DEDICATED:
        for layer, other in enumerate((slice(A, A + B), slice(0, A))):
            state["encoder.weight"][layer, :, other] = 0
            state["decoder.weight"][layer, other] = 0
        state["_partition_config"] = dict(PARTITION)
    return state


def code_norm(normalization: str, W_dec: Tensor) -> Tensor:
    """Code normalization of decoders (L, F, D): (F,), or (L, F) if decoupled."""
    norms = W_dec.norm(dim=2)
    sae, cc = norms.square().sum(dim=0).sqrt(), norms.sum(dim=0)
    return {
        "crosscoder": cc, "sae": sae, "mixed": 1.0 * sae + 0.1 * cc,
        "none": torch.ones_like(cc), "decoupled": norms,
    }[normalization]  # fmt: skip


def layered_forward(s: dict[str, Any], x: Tensor, normalization: str) -> Tensor:
    """x_hat (B, L, D) of x (B, L, D), in the units in which the weights are."""
    f = torch.relu(torch.einsum("bld,ldf->bf", x, s["encoder.weight"]) + s["encoder.bias"])
    kept = torch.ones(len(s["decoder.weight"]), *f.shape, dtype=torch.bool)
    if "threshold" in s:
        norm = code_norm(normalization, s["decoder.weight"])
        for layer in range(len(kept)):
            here = norm[layer] if normalization == "decoupled" else norm
            threshold = s["threshold"][layer] if normalization == "decoupled" else s["threshold"]
            kept[layer] = f * here > threshold
    codes = torch.where(kept, f, 0.0)
    return torch.einsum("lbf,lfd->bld", codes, s["decoder.weight"]) + s["decoder.bias"]


def normaliser(layers: int | None, seed: int = 9) -> dict[str, Tensor]:
    """The four keys, for a crosscoder of some layers or (None) an SAE."""
    r = Random(seed)
    shape = (D,) if layers is None else (layers, D)
    keys = {
        "target_rms": torch.tensor(1.3),
        "activation_mean": r(*shape),
        "activation_std": r(*shape).abs() + 0.5,
    }
    total = keys["activation_std"].square().sum(dim=-1)
    return {**keys, "activation_global_scale": keys["target_rms"] / (total + 1e-8).sqrt()}


def rows(count: int = 64, seed: int = 5, dtype: torch.dtype = torch.float32, *shape: int) -> Tensor:
    """Random activations (count, *shape)."""
    return 1.5 * Random(seed, dtype)(count, *shape)


def same_bits(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal keys, dtypes, shapes and values; not-a-numbers are equal to themselves."""
    return set(one) == set(other) and all(_same(one[key], other[key]) for key in one)


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor):
        return bool(one == other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.nan_to_num(nan=1e30), other.nan_to_num(nan=1e30))
