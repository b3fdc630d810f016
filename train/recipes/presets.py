"""The dictionaries of a run: what each recipe's name stands for, with what the user says instead.

A recipe is a partition and values for the keys that the user left null; any of them combines with
any recipe where the maths allows (a JumpReLU DFC: recipe dfc with activation jump_relu).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from pipeline.errors import ConfigError
from train.config import RecipeName, TrainConfig
from train.dictionary_config import ActivationName, DictionaryConfig, SparsityName

PartitionKind = Literal["shared", "dedicated"]
NAME = re.compile(r"^[a-zA-Z0-9][\w.=-]*$")

# Single-model family: centred, unit-norm decoder, every feature ranked by its code itself.
_SAE: dict[str, Any] = {
    "center": True,
    "unit_norm_decoder": True,
    "decoder_init_norm": 1.0,
    "code_normalization": "none",
}
_CROSSCODER: dict[str, Any] = {"code_normalization": "crosscoder", "decoder_init_norm": 0.4}
NESTED = [1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0]  # 1, 2, 4, 8, 17 of 32: as in 2503.17547

PRESETS: dict[RecipeName, dict[str, Any]] = {
    "dfc": _CROSSCODER,
    "residual_dfc": {**_CROSSCODER, "residual": True},
    "batch_topk_crosscoder": _CROSSCODER,
    "dsf": {**_CROSSCODER, "designated": 0.1},
    "crosscoder": {**_CROSSCODER, "activation": "relu", "decoder_init_norm": 0.1},
    "standard": {**_SAE, "activation": "relu"},
    "gated": {**_SAE, "activation": "gated"},
    "topk": {**_SAE, "activation": "topk"},
    "batch_topk": _SAE,
    "jump_relu": {**_SAE, "activation": "jump_relu", "center": False},
    "p_anneal": {**_SAE, "activation": "relu", "sparsity": "lp"},
    "gated_anneal": {**_SAE, "activation": "gated", "sparsity": "lp"},
    "matryoshka": {**_SAE, "matryoshka": NESTED},
}
DEDICATED = ("dfc", "residual_dfc")
# What holds where neither the user nor the recipe says otherwise.
_OTHERWISE: dict[str, Any] = {
    "activation": "batch_topk",
    "center": False,
    "unit_norm_decoder": False,
    "designated": 0.0,
    "matryoshka": [1.0],
}
_SPARSITY: dict[ActivationName, SparsityName] = {
    "relu": "l1",
    "gated": "l1",
    "jump_relu": "l0",
    "topk": "none",
    "batch_topk": "none",
}


@dataclass(frozen=True)
class Planned:
    """One dictionary of a run; null in `config` is only what follows from widths (units.py).

    And `residual` where it is not asked for: checkpoints from before there was that key go on.
    """

    name: str
    recipe: RecipeName
    config: TrainConfig

    @property
    def partition(self) -> PartitionKind:
        """dedicated: every model has features of its own; shared: it has none."""
        return "dedicated" if self.recipe in DEDICATED else "shared"


def planned(config: TrainConfig) -> list[Planned]:
    """Every dictionary of the run, main one first. Raises ConfigError."""
    keys = list(config.sweep)
    found = []
    for number, entry in enumerate(config.recipes):
        own: dict[str, Any] = {"recipe": entry} if isinstance(entry, str) else dict(entry)
        recipe: RecipeName = own.pop("recipe")
        base = str(own.pop("name", None) or recipe)
        for values in itertools.product(*config.sweep.values()):
            swept = dict(zip(keys, values, strict=True))
            name = "-".join([base, *(f"{key}={value}" for key, value in swept.items())])
            found.append(_resolve(config, number, recipe, name, {**own, **swept}))
    _refuse_bad_names(found)
    return found


def _resolve(
    config: TrainConfig, number: int, recipe: RecipeName, name: str, own: dict[str, Any]
) -> Planned:
    unknown = sorted(own.keys() - DictionaryConfig.model_fields.keys(), key=str)
    if unknown:
        raise ConfigError(
            f"train.recipes.{number}: {unknown[0]!r} is not a key of one dictionary; "
            "see `train run --help`"
        )
    given = _validated({**config.model_dump(), "recipes": [recipe], "sweep": {}, **own}, number)
    values = given.model_dump()

    def fill(key: str, value: Any) -> None:
        if values[key] is None:
            values[key] = value

    if values["unit_norm_decoder"]:  # or the first step would make it so
        fill("decoder_init_norm", 1.0)
    for key, value in {**_OTHERWISE, **PRESETS[recipe]}.items():
        fill(key, value)
    batchwise = values["activation"] in ("topk", "batch_topk")
    fill("sparsity", _SPARSITY[values["activation"]])
    fill("auxk_weight", 1 / 32 if batchwise else 0.0)
    fill("target_l0", float(values["k"]))
    fill("p_anneal_start", values["steps"] // 3)
    plan = Planned(name, recipe, _validated(values, number))
    _refuse_contradictions(plan.config)
    _refuse_bad_designation(plan)
    return plan


def _validated(values: dict[str, Any], number: int) -> TrainConfig:
    """The configuration of entry `number` of train.recipes. Raises ConfigError."""
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"train.recipes.{number}.{key}: {first['msg'].removeprefix('Value error, ')} "
            f"(given {first['input']!r})"
        ) from None


def _refuse_contradictions(config: TrainConfig) -> None:
    """Combinations for which there is no such dictionary. Raises ConfigError."""
    activation, sparsity = config.activation, config.sparsity
    if config.residual and (config.encoder_hookpoints or config.decoder_hookpoints):
        raise ConfigError(
            "train.residual: every hookpoint is encoded and reconstructed, so that there are no "
            "encoder_hookpoints and decoder_hookpoints; leave them null, and choose by hookpoints"
        )
    if config.code_normalization == "decoupled" and activation != "batch_topk":
        raise ConfigError(
            f"train.code_normalization: decoupled needs activation batch_topk, not {activation}"
        )
    if sparsity == "l0" and activation != "jump_relu":
        raise ConfigError(f"train.sparsity: l0 needs activation jump_relu, not {activation}")
    if config.code_normalization == "decoupled" and sparsity != "none":
        raise ConfigError(
            f"train.sparsity: {sparsity} needs one norm per feature, and code_normalization "
            "decoupled has one per hookpoint; use sparsity none"
        )


def _refuse_bad_designation(plan: Planned) -> None:
    """Designated shared features that cannot be had. Raises ConfigError."""
    config = plan.config
    if not config.designated:
        return
    if plan.partition == "dedicated":
        raise ConfigError(
            f"train.designated: {plan.recipe} has a partition of its own; use recipe dsf"
        )
    if config.activation != "batch_topk" or config.code_normalization == "decoupled":
        raise ConfigError(
            "train.designated: needs activation batch_topk and a normalization other than decoupled"
        )
    if round(config.designated * config.features) == 0:
        raise ConfigError(
            f"train.designated: a share of {config.designated} of {config.features} features is "
            "none; use a larger share, or 0"
        )
    if config.designated * config.designated_k >= 1:
        raise ConfigError(
            f"train.designated_k: {config.designated_k} times a share of {config.designated} "
            "leaves nothing of k to the other features; use less"
        )


def _refuse_bad_names(found: list[Planned]) -> None:
    names = [one.name for one in found]
    for name in names:
        if not NAME.match(name):
            raise ConfigError(
                f"train.recipes: {name!r} cannot name a folder; use letters, digits, _ . = -"
            )
        if names.count(name) > 1:
            raise ConfigError(
                f"train.recipes: two dictionaries are called {name!r}; give one a name: of its own"
            )
