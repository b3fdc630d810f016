import pytest
import torch

from train.dictionary.precision import dense_product
from train.recipes.presets import planned
from train.recipes.recipe import build_trainee
from train.source import StoreRows

from ..conftest import tiny


def test_a_narrow_product_is_that_of_the_rounded_factors_and_so_is_its_gradient():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(4, 4, generator=generator).requires_grad_() for _ in range(2))
    found = dense_product(left, right, torch.bfloat16)
    rounded = [x.detach().bfloat16() for x in (left, right)]
    assert found.dtype == torch.float32
    assert torch.equal(found, (rounded[0] @ rounded[1]).float())
    found.sum().backward()
    ones = torch.ones(4, 4, dtype=torch.bfloat16)
    assert torch.equal(left.grad, (ones @ rounded[1].T).float())
    assert torch.equal(right.grad, (rounded[0].T @ ones).float())


@pytest.mark.parametrize("recipe", ["dfc", "standard", "jump_relu", "gated", "matryoshka"])
def test_a_bfloat16_run_keeps_to_float32_and_has_close_losses(store, recipe):
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = tiny(recipes=[recipe], precision=precision, sparsity_weight=0.1)
        source = StoreRows(store, config)
        rows = source.first_batch()
        trainee = build_trainee(planned(config)[0], source, rows, torch.device("cpu"))
        losses[precision] = [float(trainee.step(rows, step).loss) for step in range(5)]
        moments = [one["exp_avg"] for one in trainee.optimizer.state.values()]
        kinds = {tensor.dtype for tensor in (*trainee.dictionary.parameters(), *moments)}
        assert kinds == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
