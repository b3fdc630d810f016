"""Top-k by way of blocks, against a sort of everything."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.dictionary.block_topk import BLOCK, block_maxima, largest_of_blocks


def random_scores(seed: int, rows: int, features: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(rows, features, generator=generator)
    return pre, torch.rand(features, generator=generator) + 0.1


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(1, 2 * BLOCK), (9, 5 * BLOCK), (40, BLOCK), (7, 50)]),
    st.floats(0.001, 1.0),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_largest_of_blocks_are_the_largest_of_all(seed, shape, share, crowded):
    pre, scale = random_scores(seed, *shape)
    if crowded:  # all that is large in a few neighbouring blocks
        pre.view(-1)[: pre.numel() // 5] += 10
    count = max(1, round(share * pre.numel()))
    flat, scores, smallest = largest_of_blocks(pre, scale, count)
    written = (pre * scale).relu().view(-1)
    wanted = written.topk(count).values
    assert (flat.diff() > 0).all()
    assert torch.equal(scores, written[flat])
    assert torch.equal(scores.sort(descending=True).values, wanted)
    assert smallest == wanted[-1]


@given(st.lists(st.integers(0, 2), min_size=8 * BLOCK, max_size=8 * BLOCK), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_of_equal_scores_as_many_are_taken_as_are_wanted(values, count):
    pre = torch.tensor(values, dtype=torch.float32).view(4, -1)
    flat, scores, smallest = largest_of_blocks(pre, torch.ones(2 * BLOCK), count)
    wanted = sorted(values, reverse=True)[:count]
    assert sorted(scores.tolist(), reverse=True) == wanted
    assert smallest == wanted[-1]
    assert len(flat.unique()) == count


@pytest.mark.parametrize("rows", [1, 3])
def test_maxima_are_those_of_positive_scores(rows):
    pre, scale = random_scores(0, rows, 4 * BLOCK)
    pre[0, :BLOCK] = -1
    found = block_maxima(pre, scale).view(rows, -1)
    assert found[0, 0] == 0
    assert torch.equal(found[0, 1], (pre * scale)[0, BLOCK : 2 * BLOCK].max())
