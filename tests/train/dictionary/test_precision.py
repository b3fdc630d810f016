import pytest
import torch

from store.reader import Store
from train.dictionary.precision import add_product, dense_product, tf32_products
from train.recipes.presets import planned
from train.recipes.recipe import build_trainee
from train.source import StoreRows
from train.trainee import Trainee

from ..conftest import tiny


def trainee_on(store: Store, **settings: object) -> tuple[Trainee, dict[str, torch.Tensor]]:
    """A trainee and the first batch."""
    config = tiny(**settings)
    source = StoreRows(store, config)
    rows = source.first_batch()
    return build_trainee(planned(config)[0], source, rows, torch.device("cpu")), rows


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


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_product_is_added_to_what_is_there(dtype):
    generator = torch.Generator().manual_seed(0)
    left, right, out = (torch.randn(4, 4, generator=generator) for _ in range(3))
    wanted = out + dense_product(left, right, dtype)
    add_product(out, left, right, dtype)
    torch.testing.assert_close(out, wanted)


def test_tf32_is_what_it_was_before_once_a_step_is_done(store):
    torch.set_float32_matmul_precision("highest")
    with tf32_products(wanted=True):
        assert torch.get_float32_matmul_precision() == "high"
        with tf32_products(wanted=False):
            assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "highest"
    seen = []
    for precision in ("tf32", "float32"):
        trainee, rows = trainee_on(store, recipes=["dfc"], precision=precision)
        trainee.dictionary.W_enc["0"].register_hook(
            lambda _: seen.append(torch.get_float32_matmul_precision())
        )
        trainee.step(rows, 0)
    assert seen == ["high", "highest"]
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("recipe", ["dfc", "standard", "jump_relu", "gated", "matryoshka"])
def test_a_bfloat16_run_keeps_to_float32_and_has_close_losses(store, recipe):
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainee, rows = trainee_on(
            store, recipes=[recipe], precision=precision, sparsity_weight=0.1
        )
        losses[precision] = [float(trainee.step(rows, step).loss) for step in range(5)]
        moments = [one["exp_avg"] for one in trainee.optimizer.state.values()]
        kinds = {tensor.dtype for tensor in (*trainee.dictionary.parameters(), *moments)}
        assert kinds == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
