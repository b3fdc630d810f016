"""The `analyze` section of the configuration file."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.specs import Section


class AnalyzeConfig(Section):
    """What the analysis computes and shows."""

    batch_rows: int = Field(4096, gt=0, description="rows encoded at a time")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    top_features: int = Field(
        20, gt=0, description="features shown per exclusive group, by summed activation"
    )
    contexts: int = Field(
        8, gt=0, description="text contexts per feature, each of another document"
    )
    context_rows: int = Field(24, gt=0, description="rows of text shown on either side of a firing")
    min_fires: int = Field(
        10, gt=0, description="features that fire on fewer rows are not claimed for any model"
    )
    planted: dict[str, str] = Field(
        {},
        description="model -> label of the domain that only this model was trained on, if known; "
        "fills the planted table",
    )
    planted_ratio: float = Field(
        3.0,
        gt=0,
        description="a feature counts for the planted domain if it fires at least this many times "
        "as often per row there as elsewhere",
    )


def check_models(planted: dict[str, str], models: Iterable[str]) -> None:
    """Raises ConfigError unless there are two models and `planted` names no other."""
    known = list(models)
    if len(known) != 2:
        raise ConfigError(
            f"models: analyze compares two models, the configuration has {len(known)} "
            f"({', '.join(known)}); run harvest and train by themselves"
        )
    for model in planted:
        if model not in known:
            raise ConfigError(
                f"analyze.planted: unknown model {model!r}; the models are {', '.join(known)}"
            )
