"""A whole run on a store, float32, against the dense reference from the same initial weights."""

import json

import pytest
import torch

from train.loop import train
from train.recipes.presets import planned
from train.recipes.recipe import build_trainee
from train.source import StoreRows, make_loader

from .conftest import tiny
from .dense_reference import train_reference
from .pairs import recipe_of, reference_of

STEPS = 24


@pytest.mark.parametrize("recipe", ["dfc", "batch_topk_crosscoder"])
@pytest.mark.parametrize("loss", ["squared", "l2"])
def test_losses_of_a_run_are_those_of_the_dense_reference(store, tmp_path, recipe, loss):
    config = tiny(
        recipes=[recipe],
        loss=loss,
        steps=STEPS,
        decay_start=15,
        auxk=8,
        dead_after_rows=300,
        threshold_start=3,
        log_every=1,
    )
    loader = make_loader(store, config)
    device = torch.device("cpu")
    source = StoreRows(store, config)
    start = build_trainee(planned(config)[0], source, source.first_batch(), device)
    batches = [start.dictionary.scaled(loader.read(n).activations) for n in range(STEPS)]
    wanted, _ = train_reference(reference_of(start), batches, recipe_of(start.config))

    train(store, config, tmp_path)
    read = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = [line["loss"] for line in read if "loss" in line]
    assert any("auxk" in line for line in read)
    assert found == pytest.approx(wanted, rel=2e-4)
    assert sum(found[-8:]) < 0.97 * sum(found[:8])
