"""The table of recipes, on a store of a second."""

from dataclasses import replace
from typing import get_args

import pytest

from benchmarks.demo_run import demo_training
from benchmarks.recipes import Row, compare, markdown, shortened
from store.reader import Store
from store.schema import Hookpoint
from train.config import RecipeName

from ..train.conftest import WIDTHS, tiny, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(write_store(tmp_path_factory.mktemp("recipes") / "store.zarr"))


def test_every_recipe_that_can_be_trained_on_the_store_has_a_row(store, tmp_path):
    rows = compare(store, shortened(tiny(), 8), tmp_path / "recipes")
    assert [row.recipe for row in rows] == [n for n in get_args(RecipeName) if n != "dsf"]
    for row in rows:
        assert row.fve.keys() == WIDTHS.keys()
        assert row.l0 > 0
        assert row.dead is not None
    table = markdown([*rows, Row("dsf", {"b": 0.5}, 3.0, 0.25)], list(WIDTHS)).splitlines()
    assert len(table) == 3 + len(rows)
    assert len({line.count("|") for line in table}) == 1
    assert table[-1] == "| `dsf` | - | 0.500 | 3.0 | 25.0% |"


def test_dsf_gets_hookpoints_that_are_equally_wide(store, tmp_path, monkeypatch):
    chosen = []
    hookpoints = (Hookpoint("a", "a", 12), Hookpoint("b", "b", 20), Hookpoint("c", "c", 20))
    schema = replace(store.schema, hookpoints=hookpoints)
    monkeypatch.setattr(store, "schema", schema)
    monkeypatch.setattr(
        "benchmarks.recipes.train", lambda store, config, *_: chosen.extend(config.recipes) or []
    )
    assert compare(store, tiny(), tmp_path) == []
    assert {"recipe": "dsf", "hookpoints": ["b", "c"]} in chosen


def test_schedules_shrink_with_the_steps():
    whole, short = demo_training(), shortened(demo_training(), 70)
    assert shortened(whole, whole.steps).model_dump() == {
        **whole.model_dump(),
        "validate_every": whole.steps,
        "checkpoint_every": whole.steps,
    }
    assert short.warmup_steps * 10 == whole.warmup_steps
    assert short.decay_start * 10 == whole.decay_start
    assert short.threshold_beta**70 == pytest.approx(whole.threshold_beta**whole.steps)
