"""Passes for which a device is too small are an error that says what to lower."""

import numpy as np
import pytest
import torch

from analyze.causal import steer
from analyze.causal.models import open_models
from analyze.causal.passages import Reading
from pipeline.errors import ModelError


def test_steered_passes(harvested, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(steer, "scores_at_rows", too_large)
    model = open_models(harvested[1], harvested[0].models)["a"]
    reading = Reading(np.array([1, 2, 3]), np.array([1]))
    with pytest.raises(
        ModelError, match=r"^models.a: out of memory; lower analyze.batch_tokens \(now 64\)$"
    ):
        steer.effects(model, [reading], [{}], batch_tokens=64)
