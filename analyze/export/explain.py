"""Explanations of features by a language model, and how well they tell where a feature fires.

Per feature two requests: one that shows contexts and asks for a sentence, one that shows the
sentence and other texts, held-back contexts mixed with stretches on which the feature is silent,
and asks which fit. The score is that of detection in arXiv 2410.13928: whole contexts are judged,
unmarked, and the figure is balanced accuracy, (sensitivity + specificity) / 2; chance is 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import polars as pl

from analyze.export.answers import choice_in, explanation_in
from analyze.export.endpoint import AnswerError, Chat
from analyze.export.examples import Evidence, evidence
from analyze.export.prompts import Message, detect_prompt, explain_prompt, tokens_of
from analyze.export.silent import Window, pick
from pipeline.errors import ConfigError

BLOCK = 256  # features whose contexts are looked at together
SENTENCE = "x" * 150  # an explanation as long as they usually are, for estimates
FAILURES = 8  # failed features in a row, after which no more are asked for


@dataclass(frozen=True)
class Explained:
    """A line of the table `explanations`.

    explanation: null where none was got; model: the explainer's name; detection: balanced accuracy,
    null where not scored; sensitivity, specificity: shares of held-back and of silent texts judged
    rightly; shown, held_back, silent: how many texts; error: what failed, in one line.
    """

    feature: int
    explanation: str | None
    model: str
    detection: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    shown: int = 0
    held_back: int = 0
    silent: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Job:
    """What is to be found out of one feature; known: what was found before."""

    evidence: Evidence
    silent: tuple[Window, ...]
    known: Explained | None = None

    @property
    def explains(self) -> bool:
        """Whether an explanation is asked for."""
        return self.known is None or self.known.explanation is None

    @property
    def scores(self) -> bool:
        """Whether there are texts of both kinds to test it on."""
        return bool(self.evidence.held_back and self.silent)

    def test(self, explanation: str) -> tuple[list[Message], set[int]]:
        """The request that tests an explanation, and the numbers of the texts that fit."""
        texts = [example.text for example in self.evidence.held_back]
        texts += [window.text for window in self.silent]
        order = np.random.default_rng([1, self.evidence.feature]).permutation(len(texts))
        right = {n for n, at in enumerate(order, 1) if at < len(self.evidence.held_back)}
        return detect_prompt(explanation, [texts[at] for at in order]), right


@dataclass(frozen=True)
class Estimate:
    """What a run would ask for; tokens of prompts, and at most of answers."""

    features: int
    requests: int
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Limits:
    """How much is asked: features at most, and contexts of each kind per feature."""

    features: int = 100
    shown: int = 12
    held_back: int = 5


def plan_jobs(
    contexts: pl.DataFrame,
    features: Sequence[int],
    windows: list[Window],
    known: Mapping[int, Explained],
    limits: Limits,
) -> list[Job]:
    """Jobs of the first features that lack an explanation, or a score that they could have.

    windows: what silent texts are taken from; none: nothing is scored.
    """
    held_back = limits.held_back if windows else 0
    lacking = [f for f in features if f not in known or known[f].detection is None]
    jobs: list[Job] = []
    for start in range(0, len(lacking), BLOCK):
        for one in evidence(contexts, lacking[start : start + BLOCK], limits.shown, held_back):
            silent = pick(windows, one.feature, len(one.held_back))
            job = Job(one, tuple(silent), known.get(one.feature))
            if job.explains or job.scores:
                jobs.append(job)
            if len(jobs) == limits.features:
                return jobs
    return jobs


def estimate(jobs: Sequence[Job], max_tokens: int) -> Estimate:
    """Costs nothing but the writing of the prompts."""
    prompts = [explain_prompt(job.evidence.shown) for job in jobs if job.explains]
    prompts += [job.test(SENTENCE)[0] for job in jobs if job.scores]
    tokens = sum(map(tokens_of, prompts))
    return Estimate(len(jobs), len(prompts), tokens, len(prompts) * max_tokens)


def explain_all(
    jobs: Sequence[Job], chat: Chat, model_name: str, parallel: int
) -> Iterator[Explained]:
    """Results as they come, of `parallel` requests at a time.

    Raises ConfigError if the endpoint cannot answer any request, or fails FAILURES in a row.
    """
    waiting = iter(jobs)
    failed = 0
    with ThreadPoolExecutor(parallel) as pool:

        def submit(job: Job) -> Future[Explained]:
            return pool.submit(explain_one, job, chat, model_name)

        try:
            running = {submit(job) for job in islice(waiting, parallel)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    yield result
                    failed = failed + 1 if result.explanation is None else 0
                    if failed >= FAILURES:
                        raise ConfigError(
                            f"--endpoint: {failed} features failed one after the other, the last "
                            f"with: {result.error}; what was explained is kept, run again to go on"
                        )
                running |= {submit(job) for job in islice(waiting, len(done))}
        finally:
            chat.stop.set()


def explain_one(job: Job, chat: Chat, model_name: str) -> Explained:
    """Asks for an explanation unless there is one, then for its test. Raises ConfigError."""
    result = job.known
    if result is None or result.explanation is None:
        shown = job.evidence.shown
        result = Explained(job.evidence.feature, None, model_name, shown=len(shown))
        try:
            text = explanation_in(chat.ask(explain_prompt(shown)))
        except AnswerError as error:
            return replace(result, error=str(error))
        if not text:
            return replace(result, error="the answer holds no explanation")
        result = replace(result, explanation=text)
    if not job.scores:
        return result
    try:
        return _scored(job, result, chat)
    except AnswerError as error:
        return replace(result, error=str(error))


def _scored(job: Job, result: Explained, chat: Chat) -> Explained:
    """The same with its score. Raises AnswerError."""
    assert result.explanation is not None
    messages, right = job.test(result.explanation)
    texts = len(job.evidence.held_back) + len(job.silent)
    chosen = choice_in(chat.ask(messages), texts)
    if chosen is None:
        raise AnswerError("score: the answer is not a list of numbers of the texts")
    sensitivity, specificity = rates(chosen, right, texts)
    return replace(
        result,
        detection=(sensitivity + specificity) / 2,
        sensitivity=sensitivity,
        specificity=specificity,
        held_back=len(job.evidence.held_back),
        silent=len(job.silent),
        error=None,
    )


def rates(chosen: set[int], right: set[int], texts: int) -> tuple[float, float]:
    """Share of the fitting texts 1 to `texts` that were chosen, and of the others that were not."""
    wrong = set(range(1, texts + 1)) - right
    return len(chosen & right) / len(right), len(wrong - chosen) / len(wrong)
