"""Dead-feature counters and the inference threshold."""

import pytest
import torch

from train.dictionary.codes import Pattern, SparseCodes
from train.recipes.objective import Scheduled
from train.trainee import DEAD_REFRESH, Trainee

from .pairs import ROWS, make_config, make_trainee, random_batch


def silence(trainee: Trainee, features: list[int]) -> None:
    """Makes these features unable to fire."""
    with torch.no_grad():
        trainee.dictionary.b_enc[features] = -1e3


def count(trainee: Trainee, fired: list[tuple[int, float]], rows: int) -> None:
    """Shows the counters one batch in which row 0 has these features with these values."""
    flat = torch.tensor([feature for feature, _ in fired])
    values = torch.tensor([value for _, value in fired])
    pattern = Pattern(flat, rows, trainee.dictionary.partition.features)
    trainee._count(SparseCodes(pattern, values), torch.tensor(True))


def test_counters_count_rows_since_a_feature_last_fired():
    trainee = make_trainee("dfc", make_config())
    count(trainee, [(3, 1.0)], rows=10)
    count(trainee, [(5, 1.0), (6, 0.0)], rows=7)
    wanted = [17] * 24
    wanted[3], wanted[5] = 7, 0
    assert trainee.rows_since_fired.tolist() == wanted


@pytest.mark.parametrize(("dead_after", "dead"), [(16 * ROWS, True), (16 * ROWS + 1, False)])
def test_a_feature_is_dead_after_exactly_so_many_rows_without_firing(dead_after, dead):
    trainee = make_trainee("dfc", make_config(dead_after_rows=dead_after))
    silence(trainee, [4, 11])
    for step in range(DEAD_REFRESH + 1):
        trainee.step(random_batch(trainee, step), step)
    assert trainee.dead[[4, 11]].tolist() == [dead, dead]


def test_auxk_uses_the_dead_features_and_no_others():
    trainee = make_trainee("dfc", make_config(auxk=24))
    trainee.rows_since_fired[[1, 9]] = trainee.config.dead_after_rows
    trainee.step(random_batch(trainee, 0), 0)
    groups = trainee._dead_features.groups
    assert [members.tolist() for members, _ in groups] == [[1], [9]]


def test_auxk_alone_moves_features_that_batch_topk_does_not_select():
    moved = []
    for weight in (0.0, 1.0):
        trainee = make_trainee("dfc", make_config(auxk_weight=weight, k_start=1, k=1))
        trainee.rows_since_fired[:] = trainee.config.dead_after_rows
        before = trainee.dictionary.W_dec["0"].detach().clone()
        trainee.step(random_batch(trainee, 0), 0)
        moved.append((trainee.dictionary.W_dec["0"] != before).any(dim=1).sum())
    assert moved[0] < moved[1]


def test_the_threshold_stays_zero_until_its_start_and_begins_with_the_smallest_score():
    trainee = make_trainee("dfc", make_config(threshold_start=2))
    seen = []
    smallest = []
    for step in range(5):
        batch = random_batch(trainee, step)
        k = [9, 8, 8, 8, 7][step]  # k_start 9, k 3, 12 steps, rounded half to even
        result = trainee.loss(trainee.dictionary.scaled(batch), Scheduled(k, 0.0))
        smallest.append(float(result.smallest_score))
        trainee.step(batch, step)
        seen.append(float(trainee.dictionary.threshold))
    third = 0.8 * smallest[2] + 0.2 * smallest[3]
    wanted = [0, 0, smallest[2], third, 0.8 * third + 0.2 * smallest[4]]
    assert seen == pytest.approx(wanted, rel=1e-12)


def test_step_metrics_are_those_of_the_training_batch():
    trainee = make_trainee("dfc", make_config(k_start=4))
    batch = random_batch(trainee, 0)
    x = trainee.dictionary.scaled(batch)
    result = trainee.loss(x, Scheduled(4, 0.0))
    metrics = trainee.step(batch, 0)
    assert float(metrics.loss) == float(result.total.detach())
    assert float(metrics.l0) == 4
    for fve, x_BD, e_BD in zip(metrics.fve.tolist(), x, result.residuals, strict=True):
        variance = ((x_BD - x_BD.mean(0)) ** 2).sum()
        assert fve == pytest.approx(1 - float((e_BD.detach() ** 2).sum() / variance))
