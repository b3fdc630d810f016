"""What adding a feature's direction does to a model's predictions, as a curve over alpha.

KL(clean || steered) of the next-token distribution in nats, and the share of positions whose
likeliest token changes, at rows where the feature fires and where it does not, each beside a
random direction of the same length. Per batch of passages one clean pass, whose distributions at
the rows are kept for all alphas, then one pass per alpha; nothing else is held. Sums in float64.

n rows of a batch that are looked at, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyze.causal.batches import Batch, padded_batches
from analyze.causal.logits import Predictions, compare
from analyze.causal.memory import passes_memory
from analyze.causal.passages import Reading
from analyze.causal.steer_scenes import Scene
from analyze.causal.steer_steps import Step
from analyze.causal.steer_tokens import TokenChange, TokenSums
from harvest.models.hooked import HookedModel
from harvest.models.intervene import Edit, logits

SETS = ("firing", "silent")


@dataclass(frozen=True)
class Effect:
    """Means over positions: KL (nats), share of changed likeliest tokens; None over no positions.

    tokens: those that the model comes to expect most, and least, where they were asked for.
    """

    positions: int
    kl: float | None
    top1_changed: float | None
    tokens: tuple[TokenChange, ...] = ()


@dataclass(frozen=True)
class Curve:
    """Effects of a step per alpha, by set of positions, and the KL of random ones as long.

    random: None at alpha 0, and where there is no direction or no position.
    """

    step: Step
    alphas: tuple[float, ...]
    of: Mapping[str, tuple[Effect, ...]]
    random: Mapping[str, tuple[float | None, ...]]


def steered_curve(
    model: HookedModel,
    scene: Scene,
    step: Step,
    alphas: Sequence[float],
    batch_tokens: int,
    *,
    tokens: int = 0,
    controls: int = 1,
    seed: int = 0,
) -> Curve:
    """Steers with one step at every alpha, on both sets of the scene's rows.

    A step without direction is run through the same edit once, for all alphas: it depends on none.
    batch_tokens: padded tokens of a pass; tokens: how many of those promoted and suppressed most
    are kept, of the firing rows; controls: random directions per step, whose mean is taken; seed:
    theirs. Raises ModelError as `intervene.logits` does, and where memory runs out.
    """
    found: dict[str, tuple[Effect, ...]] = {}
    random: dict[str, tuple[float | None, ...]] = {}
    for name, looked in zip(SETS, (scene.firing, scene.silent), strict=True):
        readings = [one.reading(model.name) for one in looked]
        if step.vector_D is None:
            (once,) = effects(model, readings, [step.edits(1.0)], batch_tokens)
            found[name], random[name] = (once,) * len(alphas), (None,) * len(alphas)
            continue
        changes = [step.edits(alpha) for alpha in alphas]
        wanted = tokens if name == "firing" else 0
        found[name] = tuple(effects(model, readings, changes, batch_tokens, wanted))
        random[name] = _random(model, readings, step, alphas, batch_tokens, controls, seed)
    return Curve(step, tuple(alphas), found, random)


def _random(
    model: HookedModel,
    readings: Sequence[Reading],
    step: Step,
    alphas: Sequence[float],
    batch_tokens: int,
    controls: int,
    seed: int,
) -> tuple[float | None, ...]:
    """Mean KL of random directions, by alpha."""
    moved = [alpha for alpha in alphas if alpha]
    drawn = [step.control(seed, number) for number in range(controls)]
    changes = [control.edits(alpha) for alpha in moved for control in drawn]
    found = [effect.kl for effect in effects(model, readings, changes, batch_tokens)]
    means: dict[float, float] = {}
    for number, alpha in enumerate(moved):
        known = [kl for kl in found[number * controls : (number + 1) * controls] if kl is not None]
        if known:
            means[alpha] = sum(known) / len(known)
    return tuple(means.get(alpha) for alpha in alphas)


def effects(
    model: HookedModel,
    readings: Sequence[Reading],
    changes: Sequence[Mapping[str, Edit]],
    batch_tokens: int,
    tokens: int = 0,
) -> list[Effect]:
    """What each set of edits does at the readings' rows, against the model left alone.

    tokens: how many of those promoted and suppressed most are kept. Raises ModelError.
    """
    sums = [_Sums(len(model.tokenizer) if tokens else 0) for _ in changes]
    with passes_memory(f"models.{model.name}", batch_tokens):
        for batch in padded_batches(readings, batch_tokens):
            clean_nV = scores_at_rows(model, batch)
            for one, edits in zip(sums, changes, strict=True):
                one.add(clean_nV, scores_at_rows(model, batch, edits))
    return [one.mean(tokens) for one in sums]


def scores_at_rows(
    model: HookedModel, batch: Batch, edits: Mapping[str, Edit] | None = None
) -> Float[Tensor, "n V"]:
    """Scores at the rows of a batch; those of all other positions are let go."""
    scores = logits(model, batch.input_ids, batch.attention_mask, edits)
    return scores.flatten(0, 1)[batch.places.to(scores.device)]


class _Sums:
    """Sums over positions, kept where the scores are: nothing waits for them."""

    def __init__(self, vocabulary: int) -> None:
        self._tokens = TokenSums(vocabulary) if vocabulary else None
        self._positions = 0
        self._kl, self._changed = torch.zeros(()), torch.zeros(())

    def add(self, clean_nV: Float[Tensor, "n V"], steered_nV: Float[Tensor, "n V"]) -> None:
        places_n = torch.arange(len(clean_nV))
        none_n = torch.zeros_like(places_n)  # no token is asked for
        found = compare(clean_nV[None], steered_nV[None], Predictions(places_n, places_n, none_n))
        self._positions += len(clean_nV)
        self._kl = found.kl.sum() + self._kl.to(found.kl.device)
        self._changed = (~found.agrees).sum() + self._changed.to(found.kl.device)
        if self._tokens is not None:
            self._tokens.add(clean_nV, steered_nV)

    def mean(self, tokens: int) -> Effect:
        if not self._positions:
            return Effect(0, None, None)
        kl, changed = (float(total) / self._positions for total in (self._kl, self._changed))
        best = self._tokens.best(tokens) if self._tokens is not None else ()
        return Effect(self._positions, kl, changed, best)
