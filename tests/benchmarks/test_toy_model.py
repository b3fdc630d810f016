"""The toy model: rows are the sums that they should be, as often as they should be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.toy_model import BLOCK_ROWS, ToySpec, build_toy, firing_rates
from benchmarks.toy_store import HOOKPOINTS, toy_store
from pipeline.errors import StoreError

SPEC = ToySpec(concepts=80, widths=(24, 16), exclusive=0.1, active=4.0, seed=3)


@pytest.fixture(scope="module")
def toy():
    return build_toy(SPEC)


def test_concepts_fire_as_often_as_their_rates_say(toy):
    rows = 50_000
    sample = toy.sample(rows, seed=1)
    counts = np.bincount(sample.concepts_N.numpy(), minlength=SPEC.concepts)
    deviation = (counts - rows * toy.rates) / np.sqrt(rows * toy.rates * (1 - toy.rates))
    assert np.abs(deviation).max() < 5
    assert toy.rates.sum() == pytest.approx(SPEC.active)
    assert np.all(np.diff(toy.rates) < 0)


def test_rates_are_means_over_the_correlated_logits():
    base, spread = np.array([-6.0, -1.0, 0.5]), 1.3
    steps = np.linspace(-9, 9, 200_001)
    density = np.exp(-(steps**2) / 2)
    direct = (density / (1 + np.exp(-(base[:, None] + spread * steps)))).sum(1) / density.sum()
    assert firing_rates(base, spread) == pytest.approx(direct, rel=1e-6)


def test_scales_are_uniform_and_concepts_with_like_loadings_fire_together(toy):
    sample = toy.sample(40_000, seed=2)
    scales = np.sort(sample.scales_N.numpy())
    assert np.abs(scales - np.linspace(0, 1, len(scales))).max() < 0.01
    assert scales[0] > 0
    dense_BC = (sample.dense(SPEC.concepts)[:, :12] > 0).double()
    found = torch.corrcoef(dense_BC.T)
    alike = toy.loadings_CR[:12] @ toy.loadings_CR[:12].T
    pairs = torch.triu_indices(12, 12, 1)
    together = torch.stack([found[*pairs], alike.double()[*pairs]])
    assert torch.corrcoef(together)[0, 1] > 0.9


@pytest.mark.parametrize("model", ["a", "b"])
def test_rows_are_the_sum_of_the_concepts_that_the_model_has_and_noise(toy, model):
    sample = toy.sample(BLOCK_ROWS + 700, seed=5)
    wanted = sample.dense(SPEC.concepts).double() @ toy.concepts(model).double()
    noise = sample.x_BD[model].double() - wanted
    assert noise.std() == pytest.approx(SPEC.noise, rel=0.02)
    assert noise.abs().max() < 7 * SPEC.noise
    lacking = toy.owner == ("b" if model == "a" else "a")
    assert np.array_equal(~toy.concepts(model).any(1).numpy(), lacking)


def test_one_map_takes_every_shared_concept_from_a_to_b(toy):
    """More shared concepts than dimensions: an exact solution is no accident."""
    shared = toy.owner == "shared"
    x, y = toy.concepts_A[shared].double(), toy.concepts_B[shared].double()
    assert len(x) > 2 * SPEC.widths[0]
    M = torch.linalg.lstsq(x, y).solution
    assert (x @ M - y).norm() < 1e-5 * y.norm()
    assert x.norm(dim=1) == pytest.approx(np.ones(len(x)), abs=1e-6)
    assert 0.8 < toy.concepts_B[toy.owner != "a"].norm(dim=1).median() < 1.2


@settings(deadline=None, max_examples=20)
@given(
    concepts=st.integers(20, 300),
    share=st.floats(0, 0.3),
    seed=st.integers(0, 2**31),
    d=st.integers(2, 9),
)
def test_the_share_of_exclusive_concepts_is_kept_whatever_the_size(concepts, share, seed, d):
    spec = ToySpec(concepts=concepts, widths=(8, d), exclusive=share, active=2.0, seed=seed)
    toy = build_toy(spec)
    names, counts = np.unique(toy.owner, return_counts=True)
    found = dict(zip(names.tolist(), counts.tolist(), strict=True))
    assert found.get("a", 0) == found.get("b", 0) == round(share * concepts)
    assert toy.concepts_B.shape == (concepts, d)
    assert toy.rates.sum() == pytest.approx(2.0)


def test_the_seeds_decide_everything(toy):
    again, other = build_toy(SPEC), build_toy(ToySpec(**{**vars(SPEC), "seed": 4}))
    assert torch.equal(again.concepts_B, toy.concepts_B)
    assert not torch.equal(other.concepts_B, toy.concepts_B)
    first, same, next_ = (toy.sample(300, seed).x_BD["a"] for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, next_)


def test_the_store_holds_the_rows_in_bfloat16(toy, tmp_path: Path):
    rows = BLOCK_ROWS + 300
    store = toy_store(tmp_path / "store.zarr", toy, rows, seed=7)
    wanted = toy.sample(rows, seed=7)
    for name, model in zip(HOOKPOINTS, "ab", strict=True):
        stored = torch.cat([store.activations(name, chunk) for chunk in range(store.chunks)])
        assert torch.equal(stored, wanted.x_BD[model].bfloat16())
    assert store.complete
    assert len(store.documents.hashes) == len(set(store.documents.hashes.tolist())) == 18


def test_a_store_of_another_toy_model_is_refused(toy, tmp_path: Path):
    toy_store(tmp_path / "store.zarr", toy, 300)
    told: list[int] = []
    assert toy_store(tmp_path / "store.zarr", toy, 300, on_rows=told.append).rows == 300
    assert told == []
    with pytest.raises(StoreError):
        toy_store(tmp_path / "store.zarr", toy, 600)
