import torch

from train.recipes.unit_norm import normalize_rows, project_gradients

from .dense_codes import random


def weights() -> list[torch.Tensor]:
    found = [torch.nn.Parameter(3 * random(4, 3)), torch.nn.Parameter(random(6, 2, seed=1))]
    with torch.no_grad():
        found[0][2] = 0
    return found


def test_gradients_lose_their_part_along_each_row():
    both = weights()
    given = []
    for number, W in enumerate(both):
        W.grad = random(*W.shape, seed=5 + number)
        given.append(W.grad.clone())
    project_gradients(both)
    for W, before in zip(both, given, strict=True):
        for row, old, new in zip(W.detach(), before, W.grad, strict=True):
            if row.norm() == 0:
                torch.testing.assert_close(new, old)
                continue
            unit = row / row.norm()
            torch.testing.assert_close(new, old - (old @ unit) * unit)


def test_a_weight_without_gradient_is_left_alone():
    W = weights()[0]
    project_gradients([W])
    assert W.grad is None


def test_rows_get_norm_one_and_rows_of_zeros_stay():
    both = weights()
    before = [W.detach().clone() for W in both]
    normalize_rows(both)
    for W, old in zip(both, before, strict=True):
        for new_row, old_row in zip(W.detach(), old, strict=True):
            length = old_row.norm() if old_row.norm() > 0 else 1
            torch.testing.assert_close(new_row, old_row / length)


def test_steps_of_adam_stay_on_the_sphere_and_fit_a_direction():
    W = torch.nn.Parameter(random(1, 3))
    target = torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64)
    optimizer = torch.optim.Adam([W], lr=0.02)
    normalize_rows([W])
    for _ in range(400):
        optimizer.zero_grad()
        (W - target).square().sum().backward()
        project_gradients([W])
        optimizer.step()
        normalize_rows([W])
        assert abs(float(W.detach().norm()) - 1) < 1e-12
    torch.testing.assert_close(W.detach(), target / 2, atol=1e-2, rtol=0)
