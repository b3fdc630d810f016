"""A plan from assumptions has the sizes of the dictionaries that would be trained."""

import pytest

from store.reader import Store
from train.assumed import assumed
from train.config import TrainConfig
from train.plan import plan
from train.source import StoreRows

from .conftest import WIDTHS

CONFIG = TrainConfig.model_validate(
    {
        "recipes": ["dfc", "batch_topk_crosscoder", {"recipe": "batch_topk", "hookpoints": ["a"]}],
        "features": 48,
        "exclusive": {"a": 5, "b": 3},
        "k": 4,
        "steps": 30,
        "batch_rows": 64,
        "warmup_steps": 2,
        "threshold_start": 5,
        "device": "cpu",
    }
)


def test_sizes_are_those_that_are_measured(store_path, tmp_path):
    measured = plan(StoreRows(Store(store_path), CONFIG), CONFIG, tmp_path)
    found = assumed(CONFIG, 1000, WIDTHS, 20.0)
    assert found.parameters == measured.parameters
    assert found.checkpoint_bytes == measured.checkpoint_bytes
    assert found.rows_trained == measured.rows_trained == 1920
    assert found.seconds == pytest.approx(96)
    assert found.memory_bytes == 16 * found.parameters
