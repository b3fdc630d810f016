"""Which hookpoint of one model stands opposite which of the other: the first with the first."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import ConfigError


def partners(models: Sequence[str]) -> list[int] | None:
    """By hookpoint, given its model, the number of its partner of the other of two models.

    None where there are not two models, or not as many hookpoints of one as of the other.
    """
    names = list(dict.fromkeys(models))
    places = [[n for n, model in enumerate(models) if model == name] for name in names]
    if len(names) != 2 or len(places[0]) != len(places[1]):
        return None
    opposite = dict(zip(*places, strict=True)) | dict(zip(*reversed(places), strict=True))
    return [opposite[n] for n in range(len(models))]


def refuse_unpaired(models: Sequence[str]) -> None:
    """Raises ConfigError unless every hookpoint has a partner to be predicted from."""
    if partners(models) is not None:
        return
    counts = [f"{model} {models.count(model)}" for model in dict.fromkeys(models)]
    raise ConfigError(
        "train.residual: needs two models with as many hookpoints each, which are taken in pairs; "
        f"there are {', '.join(counts)}: choose some with train.hookpoints, or use recipe dfc"
    )
