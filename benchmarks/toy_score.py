"""What a dictionary found of a toy model's concepts: recall, and how false its claims are.

Pure: a loaded dictionary and a ToyModel in, plain values out. Decoder directions are compared with
concepts at each model by cosine, so that the dictionary's scale per hookpoint does not matter
(a mean that it subtracts moves no direction either). A concept is *recovered* if at some model
that has it some feature's decoder direction has a cosine above 0.8 with it (arXiv 2602.11729).

A feature is *claimed* for a model in one of two ways: by norm, R > 0.8 or R < 0.2 with R the
relative decoder norm |d^A| / (|d^A| + |d^B|) in scaled units; or by membership in the group of the
partition that this model alone sees. Features that never fired are claimed by neither. A claim is
*true* if the concept that the feature recovers belongs to that model alone, else *false*: shared,
none, or the other's. The false-positive rate is false / claimed = 1 - precision (a false-discovery
rate, in the words of statistics; the paper's name is kept).

Costs the product of decoders and concepts: F C D, half a second at 4,096 x 2,048 x 256.
C concepts, D width of a model, F features, V features that a model sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.toy_model import MODELS, SHARED, ToyModel
from train.dictionary.crosscoder import Crosscoder

COSINE = 0.8
R_LOW, R_HIGH = 0.2, 0.8
NONE = ""


@dataclass(frozen=True)
class Truth:
    """Per feature (F,): the concept it recovers or -1, that concept's owner or "", its cosine.

    The concept is that of the largest cosine over models and concepts, if above 0.8.
    """

    concept: np.ndarray
    owner: np.ndarray
    cosine: np.ndarray


@dataclass(frozen=True)
class Recall:
    """Shares of the concepts of each owner; None where there are none."""

    a: float | None
    b: float | None
    shared: float | None
    exclusive: float | None


@dataclass(frozen=True)
class Verdict:
    """What one way of claiming comes to.

    claimed, false: numbers of features; recall: of concepts, recovered by features that are
    claimed for their owner (so shared is None).
    """

    claimed: int
    false: int
    recall: Recall

    @property
    def false_positive_rate(self) -> float | None:
        """false / claimed; None if nothing is claimed."""
        return self.false / self.claimed if self.claimed else None

    @property
    def precision(self) -> float | None:
        """1 - false_positive_rate; None if nothing is claimed."""
        return 1 - self.false / self.claimed if self.claimed else None


@dataclass(frozen=True)
class ToyScore:
    """All measures of one dictionary; by_group is None without exclusive groups."""

    recall: Recall
    by_norm: Verdict
    by_group: Verdict | None


def score(dictionary: Crosscoder, toy: ToyModel, alive: np.ndarray | None = None) -> ToyScore:
    """Scores a dictionary with one hookpoint per model; `alive` (F,): features that ever fired."""
    cosines = decoder_cosines(dictionary, toy)
    truth = truth_of(cosines, toy)
    grouped = claimed_by_group(dictionary, alive)
    has_groups = any(dictionary.partition.exclusive_group(model) for model in MODELS)
    return ToyScore(
        recall_of(recovered(cosines), toy.owner),
        verdict(claimed_by_norm(dictionary, alive), cosines, truth, toy.owner),
        verdict(grouped, cosines, truth, toy.owner) if has_groups else None,
    )


def decoder_cosines(dictionary: Crosscoder, toy: ToyModel) -> dict[str, Tensor]:
    """Cosine of every feature's decoder with every concept, per model (F, C), float32.

    0 where the model does not see the feature, lacks the concept, or the direction is zero.
    """
    found = {}
    for number, hookpoint in enumerate(dictionary.hookpoints):
        W_VD = dictionary.W_dec[str(number)].detach().cpu().float()
        cosines_FC = torch.zeros(dictionary.partition.features, len(toy.owner))
        features_V = dictionary.visibility(number).features_V.cpu()
        cosines_FC[features_V] = cosines_VC(W_VD, toy.concepts(hookpoint.model))
        found[hookpoint.model] = cosines_FC
    return found


def cosines_VC(W_VD: Tensor, concepts_CD: Tensor) -> Tensor:
    """Cosine of each decoder row with each concept (V, C); 0 where either is zero."""
    return _unit(W_VD) @ _unit(concepts_CD).T


def _unit(rows: Tensor) -> Tensor:
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, rows / norms.clamp(min=1e-30), 0.0)


def recovered(cosines: Mapping[str, Tensor]) -> np.ndarray:
    """Which concepts some decoder direction recovers, bool (C,)."""
    best = [one.amax(dim=0) for one in cosines.values() if len(one)]
    return (torch.stack(best).amax(dim=0) > COSINE).numpy()


def recall_of(found: np.ndarray, owner: np.ndarray) -> Recall:
    """Shares of found concepts, bool (C,), by owner."""

    def share(of: np.ndarray) -> float | None:
        return float(found[of].mean()) if of.any() else None

    exclusive = owner != SHARED
    return Recall(share(owner == "a"), share(owner == "b"), share(~exclusive), share(exclusive))


def truth_of(cosines: Mapping[str, Tensor], toy: ToyModel) -> Truth:
    """Which concept each feature recovers."""
    best = torch.stack([cosines[model] for model in MODELS]).amax(dim=0).max(dim=1)
    cosine = best.values.numpy()
    concept = np.where(cosine > COSINE, best.indices.numpy(), -1)
    return Truth(concept, np.where(concept >= 0, toy.owner[concept], NONE), cosine)


def relative_norm(dictionary: Crosscoder) -> np.ndarray:
    """R per feature (F,), float64; NaN where both decoders are zero."""
    norms = dictionary.decoder_norms().detach().cpu().double().numpy()
    models = [hookpoint.model for hookpoint in dictionary.hookpoints]
    first, second = (norms[models.index(model)] for model in MODELS)
    with np.errstate(invalid="ignore"):
        return first / (first + second)


def claimed_by_norm(dictionary: Crosscoder, alive: np.ndarray | None = None) -> np.ndarray:
    """Model that each feature is claimed for by its norms, or "" (F,)."""
    R = relative_norm(dictionary)
    return _among(np.select([R > R_HIGH, R < R_LOW], MODELS, NONE), alive)


def claimed_by_group(dictionary: Crosscoder, alive: np.ndarray | None = None) -> np.ndarray:
    """Model whose exclusive group each feature is in, or "" (F,)."""
    groups = dictionary.partition.groups
    alone = [group.models[0] if len(group.models) == 1 else NONE for group in groups]
    return _among(np.repeat(alone, [group.size for group in groups]), alive)


def _among(claimed: np.ndarray, alive: np.ndarray | None) -> np.ndarray:
    return claimed if alive is None else np.where(alive, claimed, NONE)


def verdict(
    claimed: np.ndarray, cosines: Mapping[str, Tensor], truth: Truth, owner: np.ndarray
) -> Verdict:
    """Counts claims (F,) and false ones, and what the claimed features recover."""
    is_claimed = claimed != NONE
    false = is_claimed & (truth.owner != claimed)
    found = np.zeros(len(owner), bool)
    for model in MODELS:
        features = torch.from_numpy(claimed == model)
        if features.any():
            found |= recovered({model: cosines[model][features]}) & (owner == model)
    only = recall_of(found, owner)
    recall = Recall(only.a, only.b, None, only.exclusive)
    return Verdict(int(is_claimed.sum()), int(false.sum()), recall)


def half_step(steps: Sequence[int], recall: Sequence[float]) -> int | None:
    """First of the steps at which recall is half of its last value or more; None if that is 0."""
    if not recall or recall[-1] <= 0:
        return None
    return next(s for s, value in zip(steps, recall, strict=True) if value >= recall[-1] / 2)
