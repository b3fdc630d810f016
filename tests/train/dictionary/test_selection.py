"""Which entries become codes, against sorting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.dictionary.codes import SparseCodes
from train.dictionary.selection import (
    BLOCK_ENTRIES,
    SAMPLE_STRIDES,
    above_threshold,
    batch_topk,
    largest_positive,
    topk_of_groups,
)

from ..pairs import make_config, make_trainee, random_batch


def random_scores(batch: int, features: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(batch, features, generator=generator)
    return pre, torch.rand(features, generator=generator) + 0.1


@pytest.mark.parametrize("k", [1, 3, 12])
def test_batch_topk_keeps_exactly_the_largest_scores_of_the_batch(k):
    pre, scale = random_scores(200, 40)
    pattern, smallest = batch_topk(pre, scale, k)
    scores = (pre.clamp(min=0) * scale).numpy().ravel()
    wanted = np.sort(np.argsort(scores)[-k * 200 :])
    assert pattern.flat.tolist() == wanted.tolist()
    assert float(smallest) == scores[wanted].min()


def test_batch_topk_ranks_by_scaled_scores_and_not_by_values():
    pre = torch.tensor([[1.0, 2.0, 3.0]])
    pattern, _ = batch_topk(pre, torch.tensor([9.0, 1.0, 1.0]), 1)
    assert pattern.flat.tolist() == [0]


def test_batch_topk_lets_one_row_take_more_than_k():
    pre = torch.tensor([[5.0, 4.0, 3.0], [1.0, 0.5, 0.2]])
    pattern, smallest = batch_topk(pre, torch.ones(3), 1)
    assert pattern.flat.tolist() == [0, 1]
    assert float(smallest) == 4.0


def test_batch_topk_keeps_all_positive_scores_where_there_are_too_few():
    pre = torch.tensor([[5.0, -1.0, 3.0], [-1.0, 0.0, 0.2]])
    pattern, smallest = batch_topk(pre, torch.ones(3), 3)
    assert pattern.flat.tolist() == [0, 2, 5]
    assert float(smallest) == 0.0


def test_kept_values_are_the_unscaled_preactivations():
    trainee = make_trainee("dfc", make_config())
    x = trainee.dictionary.scaled(random_batch(trainee, 0))
    pre = trainee.dictionary.preactivations(x)
    pattern, _ = batch_topk(pre.dense_BF, trainee.dictionary.code_scale().detach(), 3)
    codes = SparseCodes(pattern, pre.at(pattern).relu())
    assert (codes.values > 0).all()
    assert torch.equal(codes.values, pre.dense_BF.flatten()[pattern.flat])


SCORES = st.lists(st.integers(-3, 6), min_size=1, max_size=300)


@given(SCORES, st.integers(1, 300), st.sampled_from([1, 2, 5]))
@settings(max_examples=300, deadline=None)
def test_largest_positive_scores_are_those_of_a_sort_with_ties_taken_from_the_front(
    values, count, rows
):
    values = values[: len(values) // rows * rows] or [1.0] * rows
    count = min(count, len(values))
    pre = torch.tensor(values, dtype=torch.float32).view(rows, -1)
    positions, scores, smallest = largest_positive(pre, torch.ones(pre.shape[1]), count)
    ranked = sorted((-score, position) for position, score in enumerate(values) if score > 0)
    wanted = ranked[:count]
    assert positions.tolist() == sorted(position for _, position in wanted)
    assert torch.equal(scores, pre.view(-1)[positions])
    assert smallest == (-wanted[-1][0] if len(wanted) == count else 0)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([(7, 300), (300, 7), (40, 50)]),
    st.integers(1, 900),
    st.floats(-6, 6),
)
@settings(max_examples=100, deadline=None)
def test_largest_scores_are_those_of_the_written_out_scores(seed, dtype, shape, count, spread):
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(shape, dtype=dtype, generator=generator)
    scale = (torch.randn(shape[1], dtype=dtype, generator=generator) * spread).exp()
    scale[:: max(2, shape[1] // 3)] = 0
    positions, scores, smallest = largest_positive(pre, scale, count)
    written = (pre * scale).view(-1)
    wanted = written.topk(count)
    kept = wanted.values > 0
    assert positions.tolist() == wanted.indices[kept].sort().values.tolist()
    assert torch.equal(scores, written[positions])
    assert smallest == (wanted.values[-1] if kept.all() else 0)


@pytest.mark.parametrize("misleading", [1e6, 1e-6])
@pytest.mark.parametrize(("rows", "count"), [(200, 1000), (3000, 110_000)])
def test_largest_positive_scores_are_exact_where_the_sample_misleads(misleading, rows, count):
    scores = torch.from_numpy(np.random.default_rng(0).random(100 * rows).astype(np.float32))
    for stride in SAMPLE_STRIDES:
        scores[::stride] *= misleading
    positions, _, smallest = largest_positive(scores.view(rows, 100), torch.ones(100), count)
    wanted = scores.topk(count)
    assert positions.tolist() == wanted.indices.sort().values.tolist()
    assert smallest == wanted.values.min()


def test_more_rows_than_a_block_holds_are_all_looked_at():
    features = 1 << 19
    pre = torch.randn(5, features, generator=torch.Generator().manual_seed(0))
    assert 5 * features > 2 * BLOCK_ENTRIES
    positions, _, smallest = largest_positive(pre, torch.ones(features), 3000)
    top = pre.view(-1).topk(3000)
    assert positions.tolist() == top.indices.sort().values.tolist()
    assert smallest == top.values.min()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_do_no_harm_to_the_selection(bad):
    pre, scale = random_scores(30, 20)
    pre[3] = bad
    pattern, _ = batch_topk(pre, scale, 4)
    assert len(pattern.flat) <= 120


def test_above_threshold_keeps_every_score_above_it():
    pre, scale = random_scores(30, 20)
    pattern = above_threshold(pre, scale, torch.tensor(0.5))
    scores = pre.clamp(min=0) * scale
    mask = torch.zeros(600, dtype=torch.bool)
    mask[pattern.flat] = True
    assert torch.equal(mask.view(30, 20), scores > 0.5)


def test_a_threshold_of_zero_keeps_every_positive_score():
    pattern = above_threshold(torch.tensor([[0.0, -1.0, 1e-9]]), torch.ones(3), torch.tensor(0.0))
    assert pattern.flat.tolist() == [2]


def test_topk_of_groups_takes_the_largest_of_every_group_in_every_row():
    pre, _ = random_scores(7, 12)
    groups = [(torch.tensor([0, 2, 5]), 2), (torch.tensor([7]), 3), (torch.tensor([8, 9, 11]), 1)]
    pattern = topk_of_groups(pre, groups)
    wanted = []
    for row in range(7):
        for members, count in groups:
            best = sorted(members.tolist(), key=lambda f, row=row: -pre[row, f])[:count]
            wanted += [row * 12 + feature for feature in best]
    assert pattern.flat.tolist() == sorted(wanted)


def test_the_code_of_a_row_does_not_depend_on_the_other_rows_at_inference():
    trainee = make_trainee("dfc", make_config())
    trainee.dictionary.threshold.fill_(0.5)
    batch = random_batch(trainee, 0)
    other = {name: 5 * x for name, x in random_batch(trainee, 1).items()}
    other = {name: torch.cat([batch[name][:1], x[1:]]) for name, x in other.items()}
    code = trainee.dictionary.encode(batch).dense()
    assert (code[0] > 0).any()
    assert torch.equal(code[0], trainee.dictionary.encode(other).dense()[0])
