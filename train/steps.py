"""The steps of a run: every dictionary trains on each batch; logs, validations, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress

from train.config import TrainConfig
from train.interrupt import STOPPED, PostponedStop, postponed_stop
from train.lines import metrics_line, progress_note, validation_note
from train.source import RowSource
from train.step_metrics import StepMetrics
from train.track import Track

OnStep = Callable[[int, str], None]


class Steps:
    """Takes the tracks of a run from where the source stands to the last step."""

    def __init__(
        self, tracks: list[Track], source: RowSource, config: TrainConfig, on_step: OnStep
    ) -> None:
        self.tracks, self.source, self.config, self.on_step = tracks, source, config, on_step
        self.ranks = tracks[0].trainee.ranks
        self.done = self.begun = self.logged = source.batches_taken
        self.clock = time.perf_counter()
        self.results: list[tuple[Track, StepMetrics]] = []
        self.notes = ("", "")  # of the last logged batch, of the last validation

    def run(self) -> None:
        """Trains. After Ctrl-C or SIGTERM a checkpoint is written, then its exception raised."""
        with closing(iter(self.source)) as batches, postponed_stop() as stop:
            stop.together = self.ranks.size > 1
            try:
                self._validate_what_is_due(stop)
                while self.done < self.config.steps:
                    with stop.at_once():
                        batch = next(batches)
                    active = [track for track in self.tracks if track.start <= self.done]
                    self.results = [
                        (track, track.step(batch.activations, self.done)) for track in active
                    ]
                    self.done += 1
                    self._after_step(stop)
                    self.on_step(self.done, "".join(self.notes))
                    stop.share(self.ranks)
                    stop.raise_if_shared()
            except STOPPED:
                # Stopped amid a step, not all dictionaries have done what the source counts.
                whole = self.source.batches_taken == self.done > self.begun
                if whole and not stop.hurried:
                    self._save()
                    self.ranks.barrier()  # torchrun ends the others when one has left
                raise

    def _after_step(self, stop: PostponedStop) -> None:
        config, done = self.config, self.done
        last = done == config.steps
        logs = done % config.log_every == 0 or last
        validates = done % config.validate_every == 0 and not last
        saves = done % config.checkpoint_every == 0 or last
        if logs or validates:
            self._refuse_divergence()
        if logs:
            self._log()
        if validates:
            for track, _ in self.results:
                track.validation_due = True
            self._validate_what_is_due(stop)
        if saves:
            self._save()

    def _validate_what_is_due(self, stop: PostponedStop) -> None:
        """Held-out rows may take long, so a signal cuts this short; a resumed run makes it up.

        Of several processes one validates. A signal then ends all after this step.
        """
        if not self.ranks.main:
            return
        with suppress(*STOPPED) if stop.together else nullcontext():
            self._validate(stop)

    def _validate(self, stop: PostponedStop) -> None:
        for number, track in enumerate(self.tracks):
            if track.validation_due:
                step = max(self.done, track.start)
                result = track.validate(self.source, step, stop.raise_if_set)
                if number == 0:
                    self.notes = (self.notes[0], validation_note(result))

    def _log(self) -> None:
        now = time.perf_counter()
        rate = (self.done - self.logged) * self.config.batch_rows / (now - self.clock)
        self.logged, self.clock = self.done, now
        for track, result in self.results:
            line = metrics_line(track, result, self.done - 1, rate)
            track.watch.take(line["loss"])
            track.log.write(line)
        self.notes = (progress_note(*self.results[0]), self.notes[1])

    def _save(self) -> None:
        self._refuse_divergence()
        for track, _ in self.results:
            track.save(self.source, self.done)

    def _refuse_divergence(self) -> None:
        for track, _ in self.results:
            if track.checked < self.done:
                track.refuse_divergence(self.source, self.done)
