import pytest
import torch

from train.config import TrainConfig
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import single_group
from train.recipes.presets import planned
from train.recipes.recipe import activation_of
from train.recipes.units import in_units
from train.trainee import Trainee

CASES = ["standard", "p_anneal", "jump_relu", "gated", "entropy", "l2"]


def config_of(case: str) -> TrainConfig:
    keys = {"entropy": {"recipe": "standard", "sparsity": "entropy"}}
    keys["l2"] = {"recipe": "standard", "loss": "l2"}
    recipe = keys.get(case, {"recipe": case})
    (plan,) = planned(TrainConfig.model_validate({"recipes": [recipe], "features": 12, "k": 3}))
    return plan.config


def test_what_the_user_gave_stays():
    given = config_of("jump_relu").model_copy(update={"sparsity_weight": 2.0})
    found = in_units(given, [9, 7])
    assert found.sparsity_weight == 2
    assert found.bandwidth == pytest.approx(0.001 * 8**0.5)
    assert in_units(found, [100]) == found


def test_hookpoints_that_are_only_read_add_no_loss_and_no_weight():
    config = config_of("standard")
    both, one = in_units(config, [8, 8]), in_units(config, [8, 8], written=1)
    assert both.sparsity_weight == pytest.approx(2 * one.sparsity_weight)
    assert one.sparsity_weight == pytest.approx(0.1 * 8**0.5)


@pytest.mark.parametrize("normalization", ["none", "crosscoder", "sae", "mixed", "per_model"])
@pytest.mark.parametrize("case", ["standard", "p_anneal", "gated", "jump_relu", "entropy", "l2"])
def test_a_hookpoint_read_twice_doubles_the_loss_and_changes_nothing_else(case, normalization):
    """Un-squared, the loss is a mean over hookpoints, and stays."""
    totals = []
    for times in (1, 2):
        shapes = tuple(HookpointShape(f"{n}", f"{n}", 6) for n in range(times))
        config = config_of(case).model_copy(update={"code_normalization": normalization})
        config = in_units(config, [6] * times)
        trainee = Trainee("one", built(shapes, config, 1.0), config)
        x = 3 * torch.randn(8, 6, generator=torch.Generator().manual_seed(1)).double()
        result = trainee.loss([x] * times, trainee.scheduled(0))
        totals.append(float(result.total.detach()))
    assert totals[1] == pytest.approx((1 if case == "l2" else 2) * totals[0])


@pytest.mark.parametrize("case", CASES)
def test_inputs_and_thresholds_four_times_as_long_change_nothing_but_the_unit_of_the_loss(case):
    """Sixteen times the width is four times the norm: what `in_units` makes up for."""
    totals = []
    for longer in (1.0, 4.0):
        config = config_of(case)
        units = in_units(config, [int(longer**2)])
        shape = HookpointShape("a", "a", 6)
        trainee = Trainee("one", built((shape,), units, longer), units)
        x = 1.5 * longer * torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
        result = trainee.loss([x.double()], trainee.scheduled(0))
        totals.append(float(result.total.detach()))
    unit = 4.0 if case == "l2" else 16.0
    assert totals[1] == pytest.approx(unit * totals[0])


def built(shapes: tuple[HookpointShape, ...], config: TrainConfig, longer: float) -> Crosscoder:
    """The same unit directions at every hookpoint, each of which adds its share to the codes."""
    dictionary = Crosscoder(
        shapes,
        single_group(tuple(shape.model for shape in shapes), 12),
        config.code_normalization,
        torch.float64,
        activation=activation_of(config),
        center=config.center,
    )
    directions = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)).double()
    directions /= directions.norm(dim=1, keepdim=True)
    with torch.no_grad():
        for n in range(len(shapes)):
            dictionary.W_enc[str(n)].copy_(directions / len(shapes))
            dictionary.W_dec[str(n)].copy_(directions)
        if config.activation == "jump_relu":
            dictionary.threshold.fill_(0.1 * longer)
    return dictionary
