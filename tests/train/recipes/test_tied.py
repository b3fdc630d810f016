import pytest
import torch

from pipeline.errors import ConfigError
from train.recipes.tied import check_equal_widths, tie_gradients, tie_rows

from .dense_codes import random

ROWS = [torch.tensor([0, 2]), torch.tensor([3, 1])]


def weights() -> list[torch.Tensor]:
    return [torch.nn.Parameter(random(4, 3)), torch.nn.Parameter(random(5, 3, seed=1))]


def test_tied_rows_start_as_the_first_hookpoints_and_others_stay():
    a, b = weights()
    before = b.detach().clone()
    tie_rows([a, b], ROWS)
    assert torch.equal(a, weights()[0])
    assert torch.equal(b[3], a[0])
    assert torch.equal(b[1], a[2])
    assert torch.equal(b[[0, 2, 4]], before[[0, 2, 4]])


def test_gradients_of_tied_rows_become_their_sum():
    both = weights()
    for number, W in enumerate(both):
        W.grad = random(*W.shape, seed=7 + number)
    given = [W.grad.clone() for W in both]
    tie_gradients(both, ROWS)
    total = given[0][[0, 2]] + given[1][[3, 1]]
    for W, old, rows in zip(both, given, ROWS, strict=True):
        wanted = old.clone()
        wanted[rows] = total
        torch.testing.assert_close(W.grad, wanted)
    assert torch.equal(both[0].grad[ROWS[0]], both[1].grad[ROWS[1]])


def test_a_weight_without_gradient_counts_as_zero():
    a, b = weights()
    tie_gradients([a, b], ROWS)
    assert a.grad is None
    assert b.grad is None
    a.grad = random(4, 3)
    tie_gradients([a, b], ROWS)
    assert torch.equal(a.grad, random(4, 3))
    wanted = torch.zeros(5, 3, dtype=torch.float64)
    wanted[[3, 1]] = random(4, 3)[[0, 2]]
    assert torch.equal(b.grad, wanted)


def test_adam_keeps_tied_rows_equal_and_moves_them_as_one_shared_row():
    both = weights()
    tie_rows(both, ROWS)
    shared = torch.nn.Parameter(both[0].detach()[ROWS[0]].clone())
    targets = [random(2, 3, seed=11), random(2, 3, seed=12)]
    optimizer = torch.optim.Adam(both, lr=0.05)
    reference = torch.optim.Adam([shared], lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        reference.zero_grad()
        for W, rows, target in zip(both, ROWS, targets, strict=True):
            (W[rows] - target).square().sum().backward()
            (shared - target).square().sum().backward()
        tie_gradients(both, ROWS)
        optimizer.step()
        reference.step()
    assert torch.equal(both[0][ROWS[0]], both[1][ROWS[1]])
    torch.testing.assert_close(both[0].detach()[ROWS[0]], shared.detach())


def test_hookpoints_of_different_widths_cannot_be_tied():
    check_equal_widths({"a.out": 256, "b.out": 256})
    with pytest.raises(ConfigError, match=r"designated: a.out is 256 wide and b.out 320"):
        check_equal_widths({"a.out": 256, "c.out": 256, "b.out": 320})
