"""The agreements of chosen features, measured where they are not known yet, and kept as a table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from analyze.causal.agreement import agreement, signature
from analyze.causal.models import open_models, refuse_other_weights
from analyze.causal.next_text import NextText, next_text
from analyze.causal.steer_mapped import Carrier
from analyze.causal.steer_scenes import Scene, find_scenes
from analyze.causal.steer_steps import Step, own_steps
from analyze.command import Opened, bar_when_needed
from analyze.norms import model_pair
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.statistics.moments import Moments
from harvest.models.hooked import HookedModel
from pipeline.command import note
from pipeline.specs import ModelSpec

TABLE = "agreement"
SAVE_EVERY = 60.0
Line = dict[str, object]
COLUMNS = {
    "feature": pl.Int64,
    "contexts": pl.Int64,
    "claimed_for": pl.String,
    "hookpoint": pl.String,
    "other_hookpoint": pl.String,
    "positions": pl.Int64,
    "steering_agreement": pl.Float64,
    "moved_own": pl.Float64,
    "moved_other": pl.Float64,
}


@dataclass(frozen=True)
class Agreements:
    """Gives the lines (COLUMNS) of features; those that are not in the table yet by steering.

    specs: of the models to load for that; None: what is not known stays unknown. A feature that
    has no direction to be carried over, or whose texts are not found again, has no line. contexts:
    texts that were looked at, as `analyze.contexts` (a line of another number does not count);
    positions: rows in them; moved_*: probability that the step moves.
    """

    opened: Opened
    specs: Mapping[str, ModelSpec] | None

    def __call__(self, features: Sequence[int]) -> pl.DataFrame:
        """Raises as `open_models`, `find_scenes` and `signature` do."""
        known = self.opened.tables.read(TABLE)
        known = pl.DataFrame(schema=COLUMNS) if known is None else known
        known = known.filter(pl.col("contexts") == self.opened.section.contexts)
        missing = sorted(set(features) - set(known["feature"].to_list()))
        if missing and self.specs is not None:
            for lines in self._measured(missing, self.specs):
                known = pl.concat([known, pl.DataFrame(lines, schema=COLUMNS)]).sort("feature")
                self.opened.tables.write(TABLE, known)
        return known.filter(pl.col("feature").is_in(list(features)))

    def _measured(
        self, features: Sequence[int], specs: Mapping[str, ModelSpec]
    ) -> Iterator[list[Line]]:
        """Lines, those of about a minute at a time."""
        subject, section = self.opened.subject, self.opened.section
        firing = Firing(subject.features, subject.labels)
        top = KeptRows("top", subject.features, section.contexts)
        moments = Moments(subject)
        self.opened.sweep([firing, top, moments])
        carrier, pair = Carrier(subject, moments), model_pair(subject.dictionary)
        models = open_models(subject.store, dict(specs))
        scenes = find_scenes(subject, models, features, top, section.batch_rows)
        passages = scenes.passages(subject.store)
        refuse_other_weights(subject.store, models, passages)
        for reason, count in scenes.left_out.items():
            note(f"left out {count} {reason}")
        classes = next_text({name: models[name].tokenizer for name in pair})
        lines, saved = [], time.monotonic()
        with bar_when_needed("features", "steer both models", len(features)) as update:
            for done, scene in enumerate(scenes.of, start=1):
                largest = float(firing.largest[scene.feature])
                own = own_steps(subject, scene.feature, largest, pair) if largest > 0 else []
                steps = [one for one in own if one.steered == one.claimed_for]
                steps += carrier.steps(own)
                if len(steps) == 2 and scene.firing:
                    lines.append(self._line(scene, models, steps, classes))
                update(completed=done)
                if time.monotonic() - saved > SAVE_EVERY:
                    yield lines
                    lines, saved = [], time.monotonic()
        yield lines

    def _line(
        self,
        scene: Scene,
        models: Mapping[str, HookedModel],
        steps: Sequence[Step],
        classes: NextText,
    ) -> Line:
        """steps: the own and the mapped one."""
        own, other = (
            signature(
                models[step.steered],
                [one.reading(step.steered) for one in scene.firing],
                step,
                classes,
                self.opened.section.batch_tokens,
            )
            for step in steps
        )
        return {
            "feature": scene.feature,
            "contexts": self.opened.section.contexts,
            "claimed_for": steps[0].claimed_for,
            "hookpoint": steps[0].hookpoint,
            "other_hookpoint": steps[1].hookpoint,
            "positions": own.positions,
            "steering_agreement": agreement(own, other),
            "moved_own": own.size,
            "moved_other": other.size,
        }
