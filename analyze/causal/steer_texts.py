"""What a steered model writes beside what it writes unsteered, from the same prompts.

Prompts end right before a row at which the feature fires most in its document, or are the
beginnings of documents on which it never fires; they are cut between rows, so that both models
are given the same text. Costs one generation per step and alpha, all prompts together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Int64

from analyze.causal.passages import Passage
from analyze.causal.steer_scenes import Scene
from analyze.causal.steer_steps import Step
from harvest.models.generate import generate
from harvest.models.hooked import HookedModel
from harvest.models.texts import TextReader

FEWEST_ROWS, MOST_ROWS, NEUTRAL_ROWS = 4, 48, 12

TEXT_COLUMNS = {
    "feature": pl.Int64,
    "steered": pl.String,
    "mapped": pl.Boolean,
    "alpha": pl.Float64,
    "kind": pl.String,
    "decoding": pl.String,
    "prompt": pl.String,
    "text": pl.String,
}


@dataclass(frozen=True)
class Prompt:
    """The same text for each model: kind is firing or neutral; ids by model, specials included."""

    kind: str
    text: str
    ids: Mapping[str, Int64[np.ndarray, " tokens"]]


@dataclass(frozen=True)
class Writing:
    """How to write on: new tokens at most, 0 for the likeliest ones or a temperature, and seed."""

    new_tokens: int
    temperature: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """For the table."""
        return f"temperature {self.temperature:g}" if self.temperature else "greedy"


def find_prompts(scene: Scene, models: Mapping[str, HookedModel], count: int) -> list[Prompt]:
    """At most `count` prompts of each kind; firing ones first, of the strongest rows first.

    Where fewer than FEWEST_ROWS rows stand before a firing there is no prompt to be had of it.
    """
    prefixes = {name: TextReader(model.tokenizer, name).prefix for name, model in models.items()}
    firing = [
        (looked.passage, int(np.searchsorted(looked.passage.rows, looked.strongest)))
        for looked in scene.firing
    ]
    silent = [
        (looked.passage, min(NEUTRAL_ROWS, len(looked.passage.rows))) for looked in scene.silent
    ]
    found = []
    for kind, ends in (("firing", firing), ("neutral", silent)):
        long_enough = [(passage, rows) for passage, rows in ends if rows >= FEWEST_ROWS]
        for passage, rows in long_enough[:count]:
            ids = {
                name: _before(passage, rows, name, np.array(prefix, np.int64))
                for name, prefix in prefixes.items()
            }
            first = next(iter(models))
            text = models[first].tokenizer.decode(ids[first][len(prefixes[first]) :])
            found.append(Prompt(kind, text, ids))
    return found


def _before(
    passage: Passage, rows: int, model: str, prefix: Int64[np.ndarray, " prefix"]
) -> Int64[np.ndarray, " tokens"]:
    """The special tokens, then the tokens of the last MOST_ROWS of the passage's first rows."""
    reading = passage.readings[model]
    start = len(prefix)
    if rows > MOST_ROWS:
        start = int(reading.positions[rows - MOST_ROWS - 1]) + 1
    return np.concatenate([prefix, reading.ids[start : reading.positions[rows - 1] + 1]])


def steered_texts(
    model: HookedModel,
    prompts: Sequence[Prompt],
    step: Step,
    alphas: Sequence[float],
    writing: Writing,
) -> pl.DataFrame:
    """TEXT_COLUMNS, a line per prompt and alpha, prompts in order. Raises ModelError.

    The draws of a prompt are the same at every alpha.
    """
    if not prompts:
        return pl.DataFrame(schema=TEXT_COLUMNS)
    ids = [torch.from_numpy(prompt.ids[model.name]) for prompt in prompts]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    lengths = torch.tensor([len(one) for one in ids])
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    texts = {
        alpha: generate(
            model,
            padded,
            mask,
            step.edits(alpha),
            max_new_tokens=writing.new_tokens,
            temperature=writing.temperature,
            seed=writing.seed,
        )
        for alpha in alphas
    }
    lines = [
        {
            "feature": step.feature,
            "steered": step.steered,
            "mapped": step.mapped,
            "alpha": alpha,
            "kind": prompt.kind,
            "decoding": writing.name,
            "prompt": prompt.text,
            "text": model.tokenizer.decode(texts[alpha][number], skip_special_tokens=True),
        }
        for number, prompt in enumerate(prompts)
        for alpha in alphas
    ]
    return pl.DataFrame(lines, schema=TEXT_COLUMNS)
