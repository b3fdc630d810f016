"""No loss term can change a weight of A through B's exclusive features.

BatchTopK's competition for k * batch places is no loss term; k is so large here that every
positive pre-activation is kept. Dead features in every group keep AuxK at work.
"""

import pytest
import torch
from torch import Tensor

from train.recipes.objective import Scheduled

from .dense_reference import DenseReference
from .pairs import (
    FEATURES,
    full_parameters,
    make_config,
    make_dead,
    make_trainee,
    random_batch,
    reference_of,
)

DEAD = [0, 1, 2, 3, 8, 9, 10, 14, 15, 20, 21, 22]
AUXK = 6


def gradients(partition: str, other_b: bool, loss: str) -> tuple[list[Tensor], float, slice]:
    """Full-width gradients, AuxK's value and A's exclusive features; x of A is always the same.

    Shared features do not read B here, so that x of B reaches B's exclusive features alone.
    """
    trainee, _ = without_shared_reading_b(partition, loss)
    result = trainee.loss(inputs(trainee, other_b), Scheduled(FEATURES, 0.0))
    result.total.backward()
    only_a = trainee.dictionary.partition.slices["a"]
    return full_parameters(trainee, gradients=True), float(result.terms["auxk"].detach()), only_a


def without_shared_reading_b(partition: str, loss: str):
    trainee = make_trainee(partition, make_config(loss=loss, auxk=AUXK))
    groups = trainee.dictionary.partition
    if "shared" in groups.slices:
        with torch.no_grad():
            trainee.dictionary.W_enc["1"][: groups.slices["b"].start - groups.slices["a"].stop] = 0
    reference = reference_of(trainee)
    make_dead(trainee, reference, DEAD)
    trainee.dead[DEAD] = True
    trainee.refresh_dead_features()
    reference.dead[DEAD] = True
    return trainee, reference


def inputs(trainee, other_b: bool) -> list[Tensor]:
    x = trainee.dictionary.scaled(random_batch(trainee, 0))
    if other_b:
        x[1] = 3 * trainee.dictionary.scaled(random_batch(trainee, 1))[1]
    return x


@pytest.mark.parametrize("loss", ["squared", "l2"])
def test_without_shared_features_no_gradient_of_a_depends_on_b(loss):
    before, auxk_before, only_a = gradients("nothing shared", False, loss)
    after, auxk_after, _ = gradients("nothing shared", True, loss)
    assert auxk_before != auxk_after
    for number in (1, 3, 6):  # W_enc, W_dec, b_dec of B
        assert not torch.equal(before[number], after[number])
    for number in (0, 2, 5):
        assert before[number].abs().max() > 0
        assert torch.equal(before[number], after[number])
    assert torch.equal(before[4][only_a], after[4][only_a])


@pytest.mark.parametrize("loss", ["squared", "l2"])
def test_beside_shared_features_b_only_ones_change_no_gradient_of_a(loss):
    before, _, only_a = gradients("dfc", False, loss)
    after, _, _ = gradients("dfc", True, loss)
    assert not torch.equal(before[3], after[3])
    for mine, mine_after in zip(
        [before[0][only_a], before[2], before[4][only_a], before[5]],
        [after[0][only_a], after[2], after[4][only_a], after[5]],
        strict=True,
    ):
        assert mine.abs().max() > 0
        assert torch.equal(mine, mine_after)


@pytest.mark.parametrize(("leak", "leaks"), [("", False), ("selection", True), ("variance", True)])
def test_the_comparison_notices_an_auxk_that_leaks(leak, leaks):
    def gradient_of_a(other_b: bool) -> Tensor:
        trainee, reference = without_shared_reading_b("nothing shared", "squared")
        x = inputs(trainee, other_b)
        return dense_gradients(reference, x, leak)[0]

    assert torch.equal(gradient_of_a(False), gradient_of_a(True)) != leaks


def dense_gradients(reference: DenseReference, x: list[Tensor], leak: str) -> list[Tensor]:
    loss, _, _ = reference.loss(x, FEATURES, AUXK, 0.25, leak)
    return reference.backward(loss)
