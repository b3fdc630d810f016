"""Texts that a steered model writes, against a loop that reads everything again for each token."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from analyze.causal.passages import find_passages, row_edges
from analyze.causal.steer_scenes import Looked, Scene
from analyze.causal.steer_steps import Step
from analyze.causal.steer_texts import (
    FEWEST_ROWS,
    MOST_ROWS,
    NEUTRAL_ROWS,
    Writing,
    find_prompts,
    steered_texts,
)
from tests.harvest.models import naive

A = "a.model.layers.1.out"


@pytest.fixture(scope="module")
def scene(harvested, models):
    _, store = harvested
    long = np.flatnonzero(np.diff(row_edges(store)) > 20)
    passages = find_passages(store, models, long).found
    at = [FEWEST_ROWS - 1, FEWEST_ROWS, 15, len(passages[3].rows) - 1]
    firing = tuple(
        Looked(passage, passage.rows[[0, n]], int(passage.rows[n]), 1.0)
        for passage, n in zip(passages, at, strict=False)
    )
    silent = tuple(Looked(p, p.rows[:2], int(p.rows[0]), 0.0) for p in passages[4:7])
    return Scene(0, firing, silent)


def step(vector) -> Step:
    return Step(0, "a", "a", 0, A, 0.5, vector)


def test_prompts_of_both_models_are_the_same_text_up_to_the_strongest_row(harvested, models, scene):
    _, store = harvested
    prompts = find_prompts(scene, models, 3)
    assert [prompt.kind for prompt in prompts] == ["firing"] * 3 + ["neutral"] * 3
    char_end = store.column("char_end")
    for prompt, looked in zip(prompts, [*scene.firing[1:], *scene.silent], strict=True):
        text = store.documents.text(looked.passage.document)
        last = looked.strongest - 1
        if prompt.kind == "neutral":
            last = int(looked.passage.rows[NEUTRAL_ROWS - 1])
        rows = int(np.searchsorted(looked.passage.rows, last)) + 1
        start = 0
        if rows > MOST_ROWS:
            start = char_end[looked.passage.rows[rows - MOST_ROWS - 1]]
        wanted = text[start : char_end[last]]
        for name, model in models.items():
            ids = prompt.ids[name].tolist()
            if name == "a":
                assert ids[0] == model.tokenizer.bos_token_id
                ids = ids[1:]
            assert model.tokenizer.decode(ids).strip() == wanted.strip()
        assert prompt.text.strip() == wanted.strip()


def test_a_firing_without_text_before_it_gives_no_prompt(models, scene):
    only = Scene(0, scene.firing[:1], ())
    assert find_prompts(only, models, 3) == []
    assert len(steered_texts(models["a"], [], step(None), [0.0], Writing(5))) == 0


@pytest.mark.parametrize("alpha", [-1.5, 0.0, 1.5])
def test_texts_are_those_of_a_loop_with_plain_hooks(harvested, models, scene, alpha):
    config, _ = harvested
    plain = AutoModelForCausalLM.from_pretrained(config.models["a"].path, dtype=torch.float32)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prompts = find_prompts(scene, models, 2)
    table = steered_texts(models["a"], prompts, step(vector), [alpha], Writing(6))
    if alpha:
        naive.hook(plain, "model.layers.1", "out", lambda x: x + alpha * vector.float())
    for line, prompt in zip(table.iter_rows(named=True), prompts, strict=True):
        ids = naive.continuation(
            plain, prompt.ids["a"].tolist(), 6, lambda scores, _: int(scores.argmax())
        )
        wanted = models["a"].tokenizer.decode(ids, skip_special_tokens=True)
        assert (line["text"], line["prompt"]) == (wanted, prompt.text)
        assert (line["alpha"], line["kind"], line["decoding"]) == (alpha, prompt.kind, "greedy")


def test_a_line_per_prompt_and_alpha_with_draws_that_the_seed_decides(models, scene):
    vector = torch.ones(32, dtype=torch.float64)
    prompts = find_prompts(scene, models, 1)
    drawn = [
        steered_texts(models["a"], prompts, step(vector), [-1.0, 0.0, 1.0], Writing(8, 1.0, seed))
        for seed in (0, 0, 1)
    ]
    assert drawn[0].equals(drawn[1])
    assert not drawn[0].equals(drawn[2])
    assert drawn[0]["alpha"].to_list() == [-1.0, 0.0, 1.0] * 2
    assert drawn[0]["kind"].to_list() == ["firing"] * 3 + ["neutral"] * 3
    assert set(drawn[0]["decoding"]) == {"temperature 1"}
