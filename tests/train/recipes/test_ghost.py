import pytest
import torch
from torch import Tensor

from train.recipes.ghost import ghost_loss

from .dense_codes import random

PRE = random(4, 3)
W_DEC = [random(3, 5, seed=1), random(3, 2, seed=2)]
W_DEC[1][0] = 0  # feature 0 is not seen by the second hookpoint
RESIDUALS = [random(4, 5, seed=3), random(4, 2, seed=4)]
SIZES = [torch.tensor(7.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)]


def by_the_formula(pre: Tensor, W_dec: list[Tensor]) -> Tensor:
    """Row by row; every scale is computed outside of the graph."""
    total = torch.zeros((), dtype=torch.float64)
    for W, residual, size in zip(W_dec, RESIDUALS, SIZES, strict=True):
        errors = []
        for row, e in zip(pre, residual, strict=True):
            ghost = row.exp() @ W
            scale = float(e.norm()) / (2 * float(ghost.detach().norm()))
            errors.append((e - scale * ghost).square().sum())
        error = sum(errors) / len(errors)
        total = total + error * (float(size) / float(error.detach()))
    return total


def leaves() -> tuple[Tensor, list[Tensor]]:
    return PRE.clone().requires_grad_(), [W.clone().requires_grad_() for W in W_DEC]


def test_value_and_gradients_are_those_of_the_formula():
    pre, W_dec = leaves()
    loss = ghost_loss(pre, W_dec, RESIDUALS, SIZES)
    assert float(loss.detach()) == pytest.approx(7.5)
    other_pre, other_W = leaves()
    found = torch.autograd.grad(loss, [pre, *W_dec])
    wanted = torch.autograd.grad(by_the_formula(other_pre, other_W), [other_pre, *other_W])
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two)
    assert found[0].abs().min() > 0


def test_residuals_and_reconstruction_loss_get_no_gradient():
    pre, W_dec = leaves()
    residuals = [e.clone().requires_grad_() for e in RESIDUALS]
    sizes = [residuals[0].square().mean(), residuals[1].square().mean()]
    ghost_loss(pre, W_dec, residuals, sizes).backward()
    assert [e.grad for e in residuals] == [None, None]


def test_a_step_along_the_gradient_brings_ghosts_nearer_to_the_residual():
    pre, W_dec = leaves()
    ghost_loss(pre, W_dec, RESIDUALS, SIZES).backward()

    def cosine(pre: Tensor) -> float:
        pairs = zip(W_DEC, RESIDUALS, SIZES, strict=True)
        return sum(
            float(size * torch.cosine_similarity(pre.exp() @ W, e, dim=1).mean())
            for W, e, size in pairs
        )

    with torch.no_grad():
        assert cosine(PRE - 1e-3 * pre.grad) > cosine(PRE)


def test_large_preactivations_do_not_overflow():
    pre = (PRE + 1000).float().requires_grad_()
    loss = ghost_loss(pre, [W.float() for W in W_DEC], [e.float() for e in RESIDUALS], SIZES)
    loss.backward()
    wanted = leaves()[0]
    ghost_loss(wanted, W_DEC, RESIDUALS, SIZES).backward()
    torch.testing.assert_close(pre.grad.double(), wanted.grad, rtol=1e-3, atol=1e-3)


def test_zeros_anywhere_leave_finite_gradients():
    for W_dec, residuals in (
        ([torch.zeros_like(W) for W in W_DEC], RESIDUALS),
        (W_DEC, [torch.zeros_like(e) for e in RESIDUALS]),
    ):
        pre = PRE.clone().requires_grad_()
        ghost_loss(pre, W_dec, residuals, SIZES).backward()
        assert pre.grad.isfinite().all()


def test_without_dead_features_there_is_nothing_to_add():
    empty = [W[:0] for W in W_DEC]
    assert float(ghost_loss(PRE[:, :0], empty, RESIDUALS, SIZES)) == 0


def test_one_hookpoint_does_not_change_what_the_other_one_asks_for():
    def gradient(other: float) -> Tensor:
        pre = PRE.clone().requires_grad_()
        residuals = [RESIDUALS[0] * other, RESIDUALS[1]]
        only_second = [torch.zeros_like(W_DEC[0]), W_DEC[1]]
        ghost_loss(pre, only_second, residuals, [SIZES[0] * other, SIZES[1]]).backward()
        return pre.grad

    assert torch.equal(gradient(1.0), gradient(3.0))


def test_the_gradient_of_a_single_direction_is_that_derived_by_hand():
    pre, W = PRE[:, :1].clone(), W_DEC[0][:1].clone().requires_grad_()
    ghost_loss(pre, [W], RESIDUALS[:1], SIZES[:1]).backward()
    assert W.grad.abs().max() > 0
    weight = RESIDUALS[0].norm(dim=1, keepdim=True) / (2 * W.detach().norm())
    ghost = weight * W.detach()  # exp(pre) cancels
    error = (RESIDUALS[0] - ghost).square().sum(dim=1).mean()
    wanted = (-2 * (RESIDUALS[0] - ghost) * weight).mean(dim=0) * SIZES[0] / error
    torch.testing.assert_close(W.grad[0], wanted)
