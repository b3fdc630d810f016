"""How a dictionary of residuals starts, trains and goes on."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.toy_model import ToySpec, build_toy
from benchmarks.toy_score import decoder_cosines, recall_of, recovered
from benchmarks.toy_store import toy_store
from pipeline.errors import ConfigError, StoreError
from store.reader import Store
from train.config import TrainConfig
from train.dictionary.artifact import load_dictionary
from train.dictionary.crosscoder import Crosscoder
from train.linear_map import RIDGES
from train.loop import train
from train.recipes.presets import planned
from train.recipes.recipe import build_trainee
from train.recipes.residual import SAMPLE_ROWS, initialize_prediction
from train.source import StoreRows

from ..conftest import WIDTHS, tiny, write_store
from ..hookpoint_store import write_hookpoint_store
from ..test_linear_map import explicit

MAIN = {"recipes": ["residual_dfc"], "exclusive": {}}
CPU = torch.device("cpu")


def built(source: StoreRows, config: TrainConfig) -> Crosscoder:
    return build_trainee(planned(config)[0], source, source.first_batch(), CPU).dictionary


def sampled(source: StoreRows, rows: int = SAMPLE_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Both models' rows side by side: those that maps are fitted on, and those that judge them."""
    parts: tuple[list, list] = ([], [])
    for number, batch in enumerate(source.sample(rows)):
        both = torch.cat([x_BD.double() for x_BD in batch.activations.values()], dim=1)
        parts[number % 5 == 4].append(both.numpy())
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def best_map(fit, judge, source: slice, target: slice) -> tuple[float, np.ndarray, np.ndarray]:
    """Of explicit ridge regressions the one with the least error on `judge`, which comes first."""
    found = []
    for ridge in RIDGES:
        weight, bias = explicit(fit, source, target, ridge)
        error = ((judge[:, target] - judge[:, source] @ weight.T - bias) ** 2).sum()
        found.append((float(error), weight, bias))
    return min(found, key=lambda one: one[0])


@pytest.mark.parametrize(("own", "other"), [(0, 1), (1, 0)])
def test_maps_are_those_of_least_squares_with_the_ridge_that_predicts_unseen_rows_best(
    store, own, other
):
    source = StoreRows(store, tiny(**MAIN))
    prediction = built(source, tiny(**MAIN)).prediction
    fit, judge = sampled(source)
    edge, end = WIDTHS["a"], fit.shape[1]
    place = [slice(0, edge), slice(edge, end)]
    error, weight, bias = best_map(fit, judge, place[other], place[own])
    np.testing.assert_allclose(prediction.get_buffer(f"weight_{own}"), weight, atol=1e-6)
    np.testing.assert_allclose(prediction.get_buffer(f"bias_{own}"), bias, atol=1e-5)
    target = judge[:, place[own]]
    whole = ((target - target.mean(0)) ** 2).sum()
    assert float(prediction.r2[own]) == pytest.approx(1 - error / whole, abs=1e-5)
    assert 0.3 < float(prediction.r2[own]) < 0.99


def test_hookpoints_are_predicted_from_their_partners_alone(tmp_path):
    hookpoints = {"b.1": ("b", 5), "a.1": ("a", 6), "a.2": ("a", 4), "b.2": ("b", 7)}
    store = Store(write_hookpoint_store(tmp_path / "store.zarr", hookpoints))
    source = StoreRows(store, tiny(**MAIN))
    prediction = built(source, tiny(**MAIN)).prediction
    fit, judge = sampled(source)
    places = [slice(*ends) for ends in pairwise(np.cumsum([0, 5, 6, 4, 7]).tolist())]
    for own, other in enumerate([1, 0, 3, 2]):
        _, weight, bias = best_map(fit, judge, places[other], places[own])
        np.testing.assert_allclose(prediction.get_buffer(f"weight_{own}"), weight, atol=1e-6)
        np.testing.assert_allclose(prediction.get_buffer(f"bias_{own}"), bias, atol=1e-5)


def test_the_sample_is_spread_over_the_training_documents_and_has_each_row_once(store):
    source = StoreRows(store, tiny())
    rows = np.concatenate([batch.rows for batch in source.sample(600)])
    assert len(rows) == 600 == len(set(rows.tolist()))
    held_out = store.documents.validation_mask(0.2)[store.column("document")]
    assert not held_out[rows].any()
    assert set(rows // 128) == set(range(store.chunks))
    everything = np.concatenate([batch.rows for batch in source.sample(10**6)])
    assert set(everything) == set(np.flatnonzero(~held_out))


def test_residuals_are_as_long_as_rows_are_elsewhere_and_start_around_their_median(store):
    source, config = StoreRows(store, tiny(**MAIN)), tiny(**MAIN)
    dictionary = built(source, config)
    for r_BD in dictionary.scaled(source.first_batch()):
        assert float(r_BD.norm(dim=1).median()) == pytest.approx(16**0.5, rel=1e-4)
    residuals = dictionary.targets(source.first_batch())
    lengths = [r_BD.norm(dim=1).median() for r_BD in residuals.values()]
    wholes = [x_BD.float().norm(dim=1).median() for x_BD in source.first_batch().values()]
    assert all(part < 0.8 * whole for part, whole in zip(lengths, wholes, strict=True))


@pytest.mark.parametrize(("features", "sizes"), [(40, [20, 0, 20]), (41, [20, 0, 21])])
def test_half_of_the_features_are_each_models_own_if_nothing_else_is_said(store, features, sizes):
    groups = built(StoreRows(store, tiny()), tiny(**MAIN, features=features)).partition.groups
    assert [group.size for group in groups] == sizes


def test_what_the_user_says_of_the_groups_comes_first(store):
    config = tiny(recipes=["residual_dfc"], exclusive={"a": 0.25, "b": 4})
    groups = built(StoreRows(store, tiny()), config).partition.groups
    assert [group.size for group in groups] == [10, 26, 4]


def test_a_plain_crosscoder_of_residuals_is_had_by_the_key(store, tmp_path):
    config = tiny(recipes=["batch_topk_crosscoder"], residual=True)
    (trained,) = train(store, config, tmp_path)
    dictionary = load_dictionary(trained.folder)
    assert [group.name for group in dictionary.partition.groups] == ["shared"]
    assert dictionary.prediction is not None
    source = StoreRows(store, config)
    fresh = built(source, config).prediction.state_dict()
    torch.testing.assert_close(dictionary.prediction.state_dict(), fresh, rtol=0, atol=0)


def test_fve_is_that_of_the_residual(store, tmp_path):
    config = tiny(**MAIN, validation_rows=10_000)
    (trained,) = train(store, config, tmp_path)
    dictionary, source = load_dictionary(trained.folder), StoreRows(store, config)
    rows = [batch.activations for batch in source.validation()]
    residuals = [dictionary.targets(part) for part in rows]
    rebuilt = [dictionary.decode(dictionary.encode(part)) for part in rows]
    for name, fve in trained.validation.fve.items():
        x = torch.cat([part[name] for part in residuals]).double()
        x_hat = torch.cat([part[name] for part in rebuilt]).double()
        wanted = 1 - (x - x_hat).square().sum() / (x - x.mean(dim=0)).square().sum()
        assert fve == pytest.approx(float(wanted), abs=1e-6)
        assert fve > 0.1
    said = json.loads((trained.folder / "config.json").read_text())
    assert said["residual"] is True
    assert said["predicted"] == dict(zip("ab", dictionary.prediction.r2.tolist(), strict=True))


def bytes_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


BESIDE = {"recipes": ["dfc", {"recipe": "residual_dfc", "exclusive": {}, "k": 2, "features": 16}]}


@pytest.fixture(scope="module")
def undisturbed(store_path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "dictionary"
    train(Store(store_path), tiny(**BESIDE), folder)
    return folder


def test_a_dfc_that_shares_the_run_is_what_it_is_alone(store, undisturbed, tmp_path):
    train(store, tiny(), tmp_path / "alone")
    assert bytes_of(tmp_path / "alone") == bytes_of(undisturbed)


class KilledError(Exception):
    pass


def test_a_resumed_run_has_the_same_maps_and_ends_with_the_same_bytes(
    store, undisturbed, tmp_path, monkeypatch
):
    def kill(done: int, note: str) -> None:
        if done == 27:
            raise KilledError

    with pytest.raises(KilledError):
        train(store, tiny(**BESIDE), tmp_path / "dictionary", kill)
    monkeypatch.setattr(StoreRows, "sample", lambda self, rows: pytest.fail("fitted again"))
    train(store, tiny(**BESIDE), tmp_path / "dictionary")
    for name in ("dictionary", "dictionary-residual_dfc"):
        assert bytes_of(tmp_path / name) == bytes_of(undisturbed.with_name(name))


def test_a_checkpoint_from_before_there_were_residuals_is_gone_on_with(store, tmp_path):
    train(store, tiny(steps=30, decay_start=25), tmp_path)
    (*_, state) = sorted((tmp_path / "checkpoints").glob("step_*/state.json"))
    said = json.loads(state.read_text())
    del said["architecture"]["residual"], said["settings"]["residual"]
    state.write_text(json.dumps(said))
    (again,) = train(store, tiny(steps=30, decay_start=25), tmp_path)
    assert again.folder == tmp_path


@pytest.mark.parametrize(
    ("hookpoints", "said"),
    [
        ({"a": ("a", 6), "b": ("b", 6), "c": ("c", 6)}, "there are a 1, b 1, c 1: choose"),
        ({"a.1": ("a", 6), "a.2": ("a", 6), "b": ("b", 6)}, "there are a 2, b 1: choose"),
    ],
)
def test_models_that_are_not_two_with_as_many_hookpoints_are_refused(tmp_path, hookpoints, said):
    store = Store(write_hookpoint_store(tmp_path / "store.zarr", hookpoints))
    config = tiny(**MAIN)
    with pytest.raises(ConfigError, match=said):
        train(store, config, tmp_path / "dictionary")
    two = tiny(**MAIN, hookpoints=[next(iter(hookpoints)), "b"], steps=2, threshold_start=1)
    train(store, two, tmp_path / "dictionary")


class Rows(StoreRows):
    """A store's rows, in which the second model is a linear image of the first."""

    def sample(self, rows):
        for batch in super().sample(rows):
            yield self._changed(batch)

    def first_batch(self):
        return self._changed(super().whole_batch(0)).activations

    def _changed(self, batch):
        batch.activations["b"] = self.image(batch.activations["a"])
        return batch


def test_models_that_tell_all_of_each_other_leave_nothing_to_train_on(store):
    generator = torch.Generator().manual_seed(0)
    there = torch.randn(12, 20, generator=generator, dtype=torch.float64)
    source = Rows(store, tiny(**MAIN))
    source.image = lambda x_BD: x_BD.double() @ there + 3
    with pytest.raises(ConfigError, match=r"train\.residual: a is predicted.*use recipe dfc"):
        built(source, tiny(**MAIN))


def test_rows_that_are_not_finite_are_blamed_on_the_store(store):
    source = Rows(store, tiny(**MAIN))
    source.image = lambda x_BD: x_BD.new_full((len(x_BD), 20), torch.inf)
    with pytest.raises(StoreError, match="of a or b are not finite; look for the damage with"):
        built(source, tiny(**MAIN))


def test_a_store_too_small_for_rows_that_judge_still_has_maps(tmp_path):
    store = Store(write_store(tmp_path / "store.zarr", documents=3))
    config = tiny(**MAIN, batch_rows=256)
    source = StoreRows(store, config)
    dictionary = built(source, config)
    before = {n: v.clone() for n, v in dictionary.prediction.state_dict().items()}
    initialize_prediction(dictionary, source, CPU)
    torch.testing.assert_close(dictionary.prediction.state_dict(), before, rtol=0, atol=0)
    assert bool((dictionary.prediction.r2 > 0.3).all())


def test_more_exclusive_concepts_are_found_than_by_a_dfc_of_as_many_features(tmp_path):
    spec = ToySpec(concepts=60, widths=(20, 24), exclusive=0.1, active=2.0, decay=0.3, seed=3)
    toy = build_toy(spec)
    store = toy_store(tmp_path / "store.zarr", toy, 30_000)
    config = tiny(
        recipes=[
            {"recipe": "dfc", "exclusive": {"a": 0.3, "b": 0.3}, "k": 3},
            {"recipe": "residual_dfc", "exclusive": {}, "k": 1},
        ],
        features=24,
        k_start=None,
        steps=300,
        batch_rows=256,
        decay_start=240,
        lr=5e-3,
        auxk=8,
        dead_after_rows=20_000,
        checkpoint_every=300,
        validate_every=300,
    )
    plain, residuals = (
        recall_of(recovered(decoder_cosines(load_dictionary(one.folder), toy)), toy.owner)
        for one in train(store, config, tmp_path / "dictionary")
    )
    assert residuals.exclusive >= plain.exclusive + 0.3
    assert residuals.exclusive >= 0.7
