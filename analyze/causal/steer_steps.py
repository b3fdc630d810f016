"""What steering adds: alpha times a step, in raw units of the steered model, at every position.

A step is s_max d_j: the largest activation of a feature times its decoder direction at a hookpoint
of the model. Its length, for reading alphas, is given relative to the median norm of the
hookpoint's activations. D width of the hookpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from analyze.pairing import claimed_for
from analyze.subject import Subject
from harvest.models.intervene import Edit
from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Crosscoder


@dataclass(frozen=True)
class Step:
    """What alpha = 1 adds, and where.

    number, hookpoint: of the hookpoint, in the dictionary, and its name. relative: length over the
    median norm of the hookpoint's activations. vector_D: None where the model has no direction of
    the feature. carry_DS: the linear map that the direction was carried over with from the other
    model's hookpoint of width S; None where it is the model's own.
    """

    feature: int
    claimed_for: str
    steered: str
    number: int
    hookpoint: str
    relative: float
    vector_D: Float64[Tensor, " width"] | None
    carry_DS: Float64[Tensor, "width source"] | None = None

    @property
    def mapped(self) -> bool:
        """Whether the direction is the other model's, carried over."""
        return self.carry_DS is not None

    def edits(self, alpha: float) -> dict[str, Edit]:
        """The hookpoint's edit; one that gives back what it got where there is no direction."""
        vector_D = self.vector_D
        return {self.hookpoint: same if vector_D is None else added(alpha * vector_D)}

    def control(self, seed: int, draw: int = 0) -> Step:
        """As long a step in a random direction, a matter of the arguments, feature and hookpoint.

        Uniform on the sphere; for a carried direction on that of the other model, and carried
        over, too: any map turns what it is given to where the model's activations vary most.
        """
        assert self.vector_D is not None
        width = len(self.vector_D) if self.carry_DS is None else self.carry_DS.shape[1]
        draws = np.random.default_rng([seed, draw, self.feature, self.number, int(self.mapped)])
        random_D = torch.from_numpy(draws.standard_normal(width)).to(self.vector_D.device)
        if self.carry_DS is not None:
            random_D = self.carry_DS @ random_D
        length = self.vector_D.norm() / random_D.norm()
        return replace(self, vector_D=random_D * length)


def same(activations: Tensor) -> Tensor:
    """The edit that changes nothing."""
    return activations


def added(vector_D: Float64[Tensor, " width"]) -> Edit:
    """The edit that adds a vector everywhere, in float32 or better, then rounds once."""

    def edit(activations: Tensor) -> Tensor:
        dtype = torch.promote_types(activations.dtype, torch.float32)
        wide = activations.to(dtype) + vector_D.to(device=activations.device, dtype=dtype)
        return wide.to(activations.dtype)

    return edit


def raw_direction(
    dictionary: Crosscoder, number: int, feature: int
) -> Float64[Tensor, " width"] | None:
    """A feature's decoder in raw units: decoder / scale; None where its model does not see it."""
    place = int(dictionary.visibility(number).local_F[feature])
    if place < 0:
        return None
    d_D = dictionary.W_dec[str(number)].detach()[place].double()
    return d_D / dictionary.scale[number].double()


def own_steps(
    subject: Subject,
    feature: int,
    largest: float,
    models: Sequence[str],
    hookpoint: str | None = None,
) -> list[Step]:
    """A step per model, by its own decoder, at its hookpoint with the feature's longest one.

    largest: the feature's largest activation. hookpoint: the one to take, of whichever model.
    Raises DictionaryError for a feature that is not there or never fires, and for a model of which
    nothing is reconstructed.
    """
    dictionary = subject.dictionary
    if not 0 <= feature < subject.features:
        raise DictionaryError(
            f"{subject.folder}: no feature {feature}; it has {subject.features}, from 0"
        )
    if not largest > 0:
        raise DictionaryError(
            f"feature {feature} fires on no row of {subject.store.path}: it has no largest "
            "activation to steer with; name another"
        )
    owner = next(m for m, is_its_F in claimed_for(dictionary).items() if bool(is_its_F[feature]))
    steps = []
    for model in models:
        number = _place(subject, model, feature, hookpoint)
        d_D = raw_direction(dictionary, number, feature)
        vector_D = None if d_D is None else largest * d_D
        relative = 0.0
        if vector_D is not None:
            relative = float(vector_D.norm()) / median_norm(subject, number)
        name = dictionary.hookpoints[number].name
        steps.append(Step(feature, owner, model, number, name, relative, vector_D))
    return steps


def refuse_unseen(step: Step, subject: Subject) -> None:
    """Raises DictionaryError where the steered model has no direction of the feature."""
    if step.vector_D is None:
        group = subject.dictionary.partition.group_of_feature()[step.feature]
        raise DictionaryError(
            f"feature {step.feature} is of group {group}: {step.steered} has no direction of it to "
            f"be steered with; name --model {step.claimed_for}, or no model"
        )


def median_norm(subject: Subject, number: int) -> float:
    """Of the store's activations at a hookpoint, raw; within 1.1%."""
    name = subject.dictionary.hookpoints[number].name
    return subject.store.statistics(name).norm_quantile(0.5)


def _place(subject: Subject, model: str, feature: int, hookpoint: str | None) -> int:
    """Number of the hookpoint of a model to steer at."""
    dictionary = subject.dictionary
    places = [n for n in dictionary.outputs if dictionary.hookpoints[n].model == model]
    if not places:
        raise DictionaryError(
            f"{subject.folder}: it reconstructs no hookpoint of {model}, so there is no direction "
            "to steer with"
        )
    named = [n for n in places if dictionary.hookpoints[n].name == hookpoint]
    if named:
        return named[0]
    norms_H = dictionary.decoder_norms().detach()[:, feature]
    return max(places, key=lambda n: float(norms_H[n]))
