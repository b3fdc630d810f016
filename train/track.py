"""A dictionary of a run with its folder and log, and what is kept of it on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import DictionaryError
from store.loader import Batch
from train.best import Best, best_from, is_better, write_best
from train.checkpoint import Progress, prune, save_checkpoint, saved_steps
from train.config import TrainConfig
from train.dictionary.crosscoder import Activations
from train.divergence import LossWatch, diverged, not_finite, what_is_spoilt
from train.evaluate import Evaluation, evaluate
from train.metrics import NoLog
from train.source import RowSource
from train.step_metrics import StepMetrics
from train.trainee import Trainee

RECENT = 1000  # steps whose metrics are kept to find a bad one


@dataclass
class Track:
    """One dictionary of the run with its folder, its log and the steps it had done before.

    settings: what its weights depend on; checked: the last step that was found to be good; recent:
    the steps since then, on the device.
    """

    trainee: Trainee
    folder: Path
    log: NoLog
    settings: dict[str, Any]
    start: int = 0
    best: Best | None = None
    watch: LossWatch = field(default_factory=LossWatch)
    validation_due: bool = False
    checked: int = 0
    recent: deque[tuple[int, StepMetrics]] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def config(self) -> TrainConfig:
        """Its own configuration: those of a sweep differ."""
        return self.trainee.config

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints lie."""
        return self.folder / "checkpoints"

    def step(self, activations: Activations, number: int) -> StepMetrics:
        """One step of its trainee."""
        result = self.trainee.step(activations, number)
        self.recent.append((number + 1, result))
        return result

    def go_on(self, progress: Progress) -> None:
        """Takes up what its checkpoint says; the marker of the best one follows it."""
        self.start = self.checked = progress.step
        self.watch = LossWatch(**progress.losses)
        self.validation_due = progress.validation_due
        self.best = best_from(progress.best, self.checkpoints) if self.config.keep_best else None
        if self.checkpoints.exists() and self.trainee.ranks.main:
            write_best(self.checkpoints, self.best)

    def save(self, source: RowSource, done: int) -> None:
        """Writes a checkpoint of this step if there is none; removes those that are not kept.

        Raises DictionaryError, and writes nothing, if a weight is not finite. Of several processes
        one writes.
        """
        if not self.trainee.ranks.main:
            return
        if done not in saved_steps(self.checkpoints):
            spoilt = what_is_spoilt(self.trainee)
            if spoilt is not None:
                raise self._past_saving(f"{spoilt} at step {done}")
            best = None if self.best is None else asdict(self.best)
            progress = Progress(
                done,
                source.state_dict(),
                self.log.bytes_written,
                best,
                asdict(self.watch),
                self.validation_due,
            )
            save_checkpoint(self.checkpoints, self.trainee, progress, self.settings)
        write_best(self.checkpoints, self.best)
        kept = None if self.best is None else self.best.step
        prune(self.checkpoints, self.config.keep_checkpoints, kept)

    def validate(self, source: RowSource, done: int, pause: Callable[[], None]) -> Evaluation:
        """Evaluates on held-out rows, logs it, and saves a checkpoint if it is the best.

        `pause` is called before every batch and may raise: then nothing was logged, and the
        validation is due.
        """
        self.validation_due = True

        def batches() -> Iterator[Batch]:
            for batch in source.validation():
                pause()
                yield batch

        result = evaluate(self.trainee.dictionary, batches())
        dead = dead_fraction(self.trainee)
        self.log.write({"step": done, "validation": asdict(result), "dead_fraction": dead})
        self.validation_due = False
        if self.config.keep_best and is_better(result.loss, self.best):
            assert result.loss is not None
            self.best = Best(done, result.loss)
            self.save(source, done)
        return result

    def refuse_divergence(self, source: RowSource, done: int) -> None:
        """Raises DictionaryError if a loss since the last look was not finite, or has diverged.

        The trainee leaves everything as it was at a batch whose loss or gradient is not finite, and
        counts it; more of them than `skip_bad_batches` are too many. Batches are then read again,
        to tell damaged rows from too high a rate.
        """
        bad, limit = int(self.trainee.bad_batches), self.config.skip_bad_batches
        if self.watch.first is None and self.recent:  # what diverges does so in the first steps
            self.watch.take(float(self.recent[0][1].loss))
        found = self._first_bad(bad) if bad > limit else diverged(self.recent[-1][1], self.watch)
        if found is not None:
            damage = source.damage(self.checked, done)
            if damage is not None:
                raise DictionaryError(f"{damage}, then {self._remedy()}")
            raise self._past_saving(found if bad > limit else f"{found} at step {done}")
        self.checked = done
        self.recent.clear()

    def _first_bad(self, bad: int) -> str:
        """The first of the recent steps that was not finite, and what of it."""
        limit = self.config.skip_bad_batches
        which = f", one of {bad} bad batches where train.skip_bad_batches is {limit}"
        for step, result in self.recent:
            wrong = not_finite(result)
            if wrong is not None:
                return f"{wrong} at step {step}" + (which if limit else "")
        return f"{bad} batches were not finite"

    def _past_saving(self, what: str) -> DictionaryError:
        return DictionaryError(
            f"{self.folder}: {self.trainee.name}: {what}; {self._remedy()}, "
            "or lower train.lr and start over with --fresh"
        )

    def _remedy(self) -> str:
        """What can be done, with the last good checkpoint named."""
        steps = saved_steps(self.checkpoints)
        if not steps:
            return "there is no checkpoint yet: run again with train.skip_bad_batches"
        last = self.checkpoints / f"step_{steps[-1]:08d}"
        return f"go on from the last good checkpoint, {last}, with train.skip_bad_batches"


def dead_fraction(trainee: Trainee) -> float:
    """Share of features that have not fired for `dead_after_rows` rows."""
    dead = trainee.rows_since_fired >= trainee.config.dead_after_rows
    return float(dead.double().mean())
