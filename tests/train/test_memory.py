"""A device that is too small for a run is said in a line, in the run and in its plan."""

import pytest
import torch

from pipeline.errors import ConfigError
from train.loop import train as train_run
from train.plan import plan
from train.source import StoreRows
from train.trainee import Trainee

from .conftest import tiny

TOO_LARGE = r"^train: out of memory; lower train.features \(now 40\) or train.batch_rows"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    def step(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Trainee, "step", step)


def test_a_run(store, tmp_path):
    with pytest.raises(ConfigError, match=TOO_LARGE) as caught:
        train_run(store, tiny(device="cpu"), tmp_path / "dictionary")
    assert "at once" not in str(caught.value)


def test_a_plan(store, tmp_path):
    config = tiny(device="cpu", recipes=["dfc", "batch_topk_crosscoder"])
    with pytest.raises(ConfigError, match=TOO_LARGE) as caught:
        plan(StoreRows(store, config), config, tmp_path)
    assert "fewer than 2 dictionaries at once" in str(caught.value)
