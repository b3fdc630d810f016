"""All of `analyze steer`: which features and steps, where to look, the passes, the tables.

What can be refused is refused before a language model is loaded. Costs one sweep over the store
(kept on disk), then per step about 2 (1 + controls) passes for every alpha over as many documents
as `analyze.contexts` says, and a generation per alpha of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from analyze.causal.models import refuse_other_weights
from analyze.causal.steer import Curve, steered_curve
from analyze.causal.steer_mapped import Carrier
from analyze.causal.steer_ranked import Ranked, ranked_features
from analyze.causal.steer_scenes import find_scenes
from analyze.causal.steer_steps import Step, own_steps, refuse_unseen
from analyze.causal.steer_table import steer_table, tokens_table
from analyze.causal.steer_texts import TEXT_COLUMNS, Writing, find_prompts, steered_texts
from analyze.command import Opened
from analyze.exclusive import claims
from analyze.norms import model_pair
from analyze.norms_table import norms_table
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.statistics.moments import Moments
from analyze.subject import Subject
from harvest.models.hooked import HookedModel
from pipeline.errors import ConfigError

FORTY = Writing(40)
TOKENS = 10  # promoted and suppressed ones that are kept


@dataclass(frozen=True)
class Asked:
    """What the options say.

    features: named ones; none: `top` ranked ones per model. model: the only one to steer, by its
    own directions; None: both. mapped: carried directions as well. hookpoint: where to steer its
    model. controls: random directions per step. prompts: of each kind, to write on from at
    text_alpha, at minus text_alpha and unsteered.
    """

    features: tuple[int, ...] = ()
    top: int = 5
    model: str | None = None
    hookpoint: str | None = None
    alphas: tuple[float, ...] = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
    mapped: bool = True
    controls: int = 1
    prompts: int = 0
    text_alpha: float = 1.0
    writing: Writing = FORTY
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """Steps by feature; the strongest rows of every feature; what ranked the features, if asked."""

    steps: dict[int, list[Step]]
    top: KeptRows
    ranked: list[Ranked]


@dataclass(frozen=True)
class Steered:
    """The tables steer, steer_tokens and steer_texts; documents not found again, by reason."""

    table: pl.DataFrame
    tokens: pl.DataFrame
    texts: pl.DataFrame
    left_out: dict[str, int]


def prepared(opened: Opened, asked: Asked) -> Plan:
    """Sums up what the steps need of the store, and makes them.

    Raises ConfigError for a model or hookpoint that the dictionary does not have, DictionaryError
    as `own_steps` does and for a named feature that the named model does not see.
    """
    subject, section = opened.subject, opened.section
    models = _models(subject, asked)
    firing = Firing(subject.features, subject.labels)
    top = KeptRows("top", subject.features, section.contexts)
    carries = asked.mapped and asked.model is None
    moments = Moments(subject) if carries else None
    opened.sweep([firing, top] if moments is None else [firing, top, moments])
    ranked: list[Ranked] = []
    if not asked.features:
        table = norms_table(subject.dictionary, firing, section)
        claimed = claims(subject.dictionary, table, asked.top, section.min_fires)
        ranked = ranked_features(claimed, opened.tables.read("exclusivity"), asked.top)
    features = asked.features or [feature for one in ranked for feature in one.features]
    carrier = None if moments is None else Carrier(subject, moments)
    steps: dict[int, list[Step]] = {}
    for feature in features:
        largest = float(firing.largest[feature]) if feature < subject.features else 0.0
        own = own_steps(subject, feature, largest, models, asked.hookpoint)
        if asked.features and asked.model is not None:
            refuse_unseen(own[0], subject)
        steps[feature] = own + ([] if carrier is None else carrier.steps(own))
    return Plan(steps, top, ranked)


def steered(
    opened: Opened,
    asked: Asked,
    plan: Plan,
    models: Mapping[str, HookedModel],
    on_passes: Callable[[int, int], None] = lambda done, of: None,
) -> Steered:
    """Runs the models. on_passes is told how many settings of edits have been run, and of how many.

    Raises StoreError if none of the documents are found again, ModelError if a model is not the
    one that was harvested, or as `steered_curve` does.
    """
    subject, features = opened.subject, list(plan.steps)
    scenes = find_scenes(subject, models, features, plan.top, opened.section.batch_rows, asked.seed)
    refuse_other_weights(subject.store, models, scenes.passages(subject.store))
    curves: list[Curve] = []
    texts = [pl.DataFrame(schema=TEXT_COLUMNS)]
    each = 2 * len(asked.alphas) * (1 + asked.controls)
    total = each * sum(len(steps) for steps in plan.steps.values())
    for scene in scenes.of:
        prompts = find_prompts(scene, models, asked.prompts) if asked.prompts else []
        for step in plan.steps[scene.feature]:
            on_passes(each * len(curves), total)
            model = models[step.steered]
            curve = steered_curve(
                model,
                scene,
                step,
                asked.alphas,
                opened.section.batch_tokens,
                tokens=TOKENS,
                controls=asked.controls,
                seed=asked.seed,
            )
            curves.append(curve)
            if step.vector_D is not None:
                alphas = _text_alphas(asked.text_alpha)
                texts.append(steered_texts(model, prompts, step, alphas, asked.writing))
    on_passes(each * len(curves), total)
    return Steered(
        steer_table(curves), tokens_table(curves, models), pl.concat(texts), scenes.left_out
    )


def _text_alphas(alpha: float) -> list[float]:
    return sorted({-alpha, 0.0, alpha})


def _models(subject: Subject, asked: Asked) -> Sequence[str]:
    """The models to steer; raises ConfigError if what was named is not there."""
    dictionary = subject.dictionary
    models = model_pair(dictionary)
    if asked.model is not None and asked.model not in models:
        raise ConfigError(f"--model {asked.model}: the models are {', '.join(models)}")
    steered = models if asked.model is None else (asked.model,)
    places = [
        dictionary.hookpoints[n].name
        for n in dictionary.outputs
        if dictionary.hookpoints[n].model in steered
    ]
    if asked.hookpoint is not None and asked.hookpoint not in places:
        raise ConfigError(f"--hookpoint {asked.hookpoint}: there is {', '.join(places)}")
    return steered
