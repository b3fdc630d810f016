"""How a dictionary starts."""

import pytest
import torch

from pipeline.errors import StoreError
from store.reader import Store
from train.config import TrainConfig
from train.dictionary.crosscoder import Crosscoder
from train.recipes.initialize import geometric_median, initialize_scale
from train.recipes.presets import planned
from train.recipes.recipe import build_trainee
from train.source import StoreRows

from ..conftest import WIDTHS, concept_rows, tiny, write_store


def fresh(store: Store, config: TrainConfig) -> Crosscoder:
    rows = concept_rows(64, seed=5)
    source = StoreRows(store, config)
    return build_trainee(planned(config)[0], source, rows, torch.device("cpu")).dictionary


def sum_of_distances(x: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    return (x - point).norm(dim=1).sum()


@pytest.mark.parametrize(
    "points",
    [[1.0, 2.0, 10.0], [-4.0, 0.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 7.0, 9.0]],
    ids=["plain", "the mean is one of the points", "the median is there three times"],
)
def test_geometric_median_of_points_on_a_line_is_their_median(points):
    line = torch.tensor([3.0, -4.0]) / 5
    x = torch.tensor(points)[:, None] * line + 10.0
    median = torch.tensor(points).median() * line + 10.0
    torch.testing.assert_close(geometric_median(x), median, atol=2e-2, rtol=0)


def test_geometric_median_of_a_symmetric_set_is_its_centre():
    half = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centre = torch.arange(6, dtype=torch.float64)
    x = torch.cat([centre + half, centre - half])
    torch.testing.assert_close(geometric_median(x), centre, atol=1e-4, rtol=0)


def test_geometric_median_hardly_moves_for_one_far_outlier():
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    spoilt = torch.cat([x, torch.full((1, 4), 1e6)])
    assert (geometric_median(spoilt) - geometric_median(x)).norm() < 0.1


def test_geometric_median_of_one_point_is_the_point():
    x = torch.tensor([[1.0, -2.0]])
    assert torch.equal(geometric_median(x), x[0])


def test_no_point_nearby_has_a_smaller_sum_of_distances_than_the_geometric_median():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(31, 5, generator=generator, dtype=torch.float64).exp()
    best = geometric_median(x)
    lowest = sum_of_distances(x, best)
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(100):
            step = size * torch.randn(5, generator=generator, dtype=torch.float64)
            assert sum_of_distances(x, best + step) >= lowest - 1e-9


def test_median_norms_of_both_models_become_equal(store, config):
    dictionary = fresh(store, config)
    rows = {name: concept_rows(4000, seed=0)[name] for name in WIDTHS}
    target = (sum(WIDTHS.values()) / len(WIDTHS)) ** 0.5
    for x in dictionary.scaled(rows):
        assert float(x.norm(dim=1).median()) == pytest.approx(target, rel=0.05)


def test_decoders_start_at_the_configured_norm(store, config):
    norms = fresh(store, config.model_copy(update={"decoder_init_norm": 0.7})).decoder_norms()
    assert norms[norms > 0].tolist() == pytest.approx([0.7] * int((norms > 0).sum()), rel=1e-5)


def test_the_encoder_starts_as_the_decoder_transposed(store, config):
    dictionary = fresh(store, config)
    for encoder, decoder in zip(dictionary.W_enc.values(), dictionary.W_dec.values(), strict=True):
        assert torch.equal(encoder, decoder)


def first_rows(dictionary: Crosscoder) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Pre-activations, and inputs less the bias, by the formula."""
    x = [x.double() for x in dictionary.scaled(concept_rows(64, seed=5))]
    off = [b.detach().double() for b in dictionary.b_dec.values()]
    inner = [a - b if dictionary.center else a for a, b in zip(x, off, strict=True)]
    weights = [W.detach().double() for W in dictionary.W_enc.values()]
    pre = torch.stack([a @ W.T for a, W in zip(inner, weights, strict=True)]).sum(dim=0)
    return pre, [a - b for a, b in zip(x, off, strict=True)]


@pytest.mark.parametrize("recipe", ["standard", "gated", "topk", "batch_topk", "matryoshka"])
def test_with_a_unit_norm_decoder_first_reconstructions_are_as_long_as_the_inputs(store, recipe):
    config = tiny(recipes=[recipe])
    dictionary = fresh(store, config)
    pre, wanted = first_rows(dictionary)
    codes = pre.relu()
    if recipe == "topk":
        codes = codes * (codes >= codes.topk(config.k_start, dim=1).values[:, -1:])
    if recipe in ("batch_topk", "matryoshka"):
        codes = codes * (codes >= codes.flatten().topk(config.k_start * 64).values[-1])
    found = [codes @ W.detach().double() for W in dictionary.W_dec.values()]
    assert total(found) == pytest.approx(total(wanted), rel=1e-4)
    for encoder, decoder in zip(dictionary.W_enc.values(), dictionary.W_dec.values(), strict=True):
        ratio = encoder.detach() / decoder.detach()
        assert float(ratio.std()) < 1e-5 * float(ratio.mean())


def total(parts: list[torch.Tensor]) -> float:
    return sum(float(part.square().sum()) for part in parts)


def test_jump_relu_starts_with_twice_the_wanted_features_active(store):
    config = tiny(recipes=["jump_relu"], target_l0=3.0)
    dictionary = fresh(store, config)
    pre, wanted = first_rows(dictionary)
    threshold = dictionary.threshold.detach()
    assert float(threshold.std()) == 0
    # The entry that is the threshold itself may fall on either side.
    assert int((pre > threshold).sum()) == pytest.approx(2 * 3 * 64, abs=1)
    codes = pre * (pre > threshold * (1 - 1e-5))
    found = [codes @ W.detach().double() for W in dictionary.W_dec.values()]
    assert total(found) == pytest.approx(total(wanted), rel=1e-4)


def test_thresholds_start_where_the_user_says(store):
    dictionary = fresh(store, tiny(recipes=["jump_relu"], threshold_init=0.25))
    assert (dictionary.threshold == 0.25).all()


def test_what_is_only_read_counts_in_codes_and_not_in_lengths(store):
    keys = {"encoder_hookpoints": ["a"], "decoder_hookpoints": ["b"]}
    dictionary = fresh(store, tiny(recipes=[{"recipe": "standard", **keys}]))
    a, b = (x.double() for x in dictionary.scaled(concept_rows(64, seed=5)))
    codes = (a @ dictionary.W_enc["0"].detach().double().T).relu()
    found = codes @ dictionary.W_dec["1"].detach().double()
    wanted = b - dictionary.b_dec["1"].detach().double()
    assert total([found]) == pytest.approx(total([wanted]), rel=1e-4)


def test_the_decoder_bias_starts_at_the_geometric_median_of_the_first_batch(store, config):
    dictionary = fresh(store, config)
    for x, bias in zip(
        dictionary.scaled(concept_rows(64, seed=5)), dictionary.b_dec.values(), strict=True
    ):
        assert torch.equal(bias, geometric_median(x))


def test_another_seed_gives_other_weights(store, config):
    other = config.model_copy(update={"seed": 1})
    assert not torch.equal(fresh(store, config).W_enc["0"], fresh(store, other).W_enc["0"])


def test_scaling_by_rows_without_any_norm_is_refused(store, config, monkeypatch):
    monkeypatch.setattr("store.statistics.RowStatistics.norm_quantile", lambda self, q: 0.0)
    with pytest.raises(Exception, match=r"a: median norm 0\.0; rows are empty or zero"):
        initialize_scale(fresh_without_scale(), StoreRows(store, tiny()))


def test_a_store_of_zero_rows_is_refused(tmp_path, monkeypatch):
    zeros = {name: torch.zeros_like(x) for name, x in concept_rows(1000, seed=0).items()}
    monkeypatch.setattr("tests.train.conftest.concept_rows", lambda rows, seed: zeros)
    store = Store(write_store(tmp_path / "store.zarr", documents=20))
    with pytest.raises(StoreError, match=r"a: median norm .*; rows are empty or zero"):
        initialize_scale(fresh_without_scale(), StoreRows(store, tiny()))


def fresh_without_scale() -> Crosscoder:
    from train.dictionary.crosscoder import HookpointShape
    from train.dictionary.partition import single_group

    return Crosscoder((HookpointShape("a", "a", 12),), single_group(("a",), 4))
