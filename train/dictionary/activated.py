"""What activation functions are made of: codes of a batch in training, patterns of what is on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from train.dictionary.codes import Codes, Pattern, SparseCodes
from train.dictionary.partition import Partition
from train.dictionary_config import NormalizationName

DENSE_SHARE = 1 / 16  # of all entries, above which dense products are cheaper than sparse ones
Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Selected:
    """Codes of a batch in training.

    smallest_score: the smallest score that a batch-wide selection kept, in the shape of the
    inference threshold; gate: codes of the gate's own path (gated).
    """

    codes: Codes
    smallest_score: Tensor | None = None
    gate: Codes | None = None


class Plain:
    """What an activation without parameters of its own says of them."""

    def parameters(self, partition: Partition, hookpoints: int, kind: NormalizationName) -> Shapes:
        """Names and shapes of what the dictionary learns for it."""
        yield from ()

    def buffers(self, partition: Partition, hookpoints: int, kind: NormalizationName) -> Shapes:
        """Names and shapes of what the dictionary keeps for it."""
        yield from ()


def positive_pattern(
    pre_BF: Float[Tensor, "batch features"], floor_F: Float[Tensor, " features"] | float = 0.0
) -> Pattern | None:
    """Entries above `floor_F`; None if they are so many that dense products are cheaper.

    On CUDA always None: counting them would wait for the device.
    """
    if pre_BF.device.type != "cpu":
        return None
    above = pre_BF > floor_F
    if int(above.sum()) > DENSE_SHARE * pre_BF.numel():
        return None
    return Pattern(above.view(-1).nonzero().squeeze(1), *pre_BF.shape)


def picked(
    values_BF: Float[Tensor, "batch features"], kept_BF: Bool[Tensor, "batch features"]
) -> SparseCodes:
    """The codes of the entries that are kept."""
    flat = kept_BF.reshape(-1).nonzero().squeeze(1)
    return SparseCodes(Pattern(flat, *values_BF.shape), values_BF.reshape(-1)[flat])
