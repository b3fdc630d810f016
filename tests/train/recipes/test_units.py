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
    given = config_of("jump_relu").model_copy(update={"bandwidth": 0.5, "sparsity_weight": 2.0})
    found = in_units(given, [9, 7])
    assert (found.bandwidth, found.sparsity_weight) == (0.5, 2.0)
    assert found.threshold_init == pytest.approx(0.001 * 8**0.5)
    assert in_units(found, [100]) == found


@pytest.mark.parametrize("case", CASES)
def test_inputs_and_thresholds_four_times_as_long_change_nothing_but_the_unit_of_the_loss(case):
    """Sixteen times the width is four times the norm: what `in_units` makes up for."""
    totals = []
    for longer in (1.0, 4.0):
        config = config_of(case)
        units = in_units(config, [int(longer**2)])
        shape = HookpointShape("a", "a", 6)
        trainee = Trainee("one", built(shape, units, longer), units)
        x = 1.5 * longer * torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
        result = trainee.loss([x.double()], trainee.scheduled(0))
        totals.append(float(result.total.detach()))
    unit = 4.0 if case == "l2" else 16.0
    assert totals[1] == pytest.approx(unit * totals[0])


def built(shape: HookpointShape, config: TrainConfig, longer: float) -> Crosscoder:
    dictionary = Crosscoder(
        (shape,),
        single_group(("a",), 12),
        "none",
        torch.float64,
        activation=activation_of(config),
        center=config.center,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in (dictionary.W_enc["0"], dictionary.W_dec["0"]):
            weights.copy_(torch.randn(12, 6, generator=generator))
        if config.activation == "jump_relu":
            dictionary.threshold.fill_(100 * config.threshold_init)
    return dictionary
