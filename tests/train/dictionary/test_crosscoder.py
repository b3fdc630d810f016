"""The windows form against the dense reference, in float64."""

from itertools import product

import pytest
import torch

from train.recipes.objective import Scheduled
from train.trainee import Trainee

from ..dense_reference import DenseReference, train_reference
from ..pairs import (
    NORMALIZATIONS,
    PARTITIONS,
    ROWS,
    full_parameters,
    make_config,
    make_dead,
    make_trainee,
    random_batch,
    recipe_of,
    reference_of,
)

DEAD = [0, 1, 2, 7, 8, 9, 10, 11, 20, 22, 23]  # some of every group
STEPS = 20
CASES = [
    pytest.param(*case, id="-".join(case))
    for case in [
        *product(["dfc", "single", "three models"], NORMALIZATIONS, ["squared"], ["dead", "alive"]),
        *product(["dfc", "single", "three models"], ["crosscoder"], ["l2"], ["dead", "alive"]),
        *product(PARTITIONS, ["per_model"], ["l2"], ["dead"]),
    ]
]


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def pair(
    partition: str, normalization: str, loss: str, dead: str, **changes: object
) -> tuple[Trainee, DenseReference]:
    config = make_config(code_normalization=normalization, loss=loss, **changes)
    trainee = make_trainee(partition, config)
    reference = reference_of(trainee)
    if dead == "dead":
        make_dead(trainee, reference, DEAD)
    return trainee, reference


def one_loss(trainee: Trainee, reference: DenseReference, k: int = 4):
    """The loss of both on one batch; dead features as the first step would find them."""
    x = trainee.dictionary.scaled(random_batch(trainee, 0))
    config = trainee.config
    trainee.dead = trainee.rows_since_fired >= config.dead_after_rows
    trainee.refresh_dead_features()
    reference.dead = reference.rows_since_fired >= config.dead_after_rows
    return trainee.loss(x, Scheduled(k)), reference.loss(x, k, config.auxk, config.auxk_weight)


@pytest.mark.parametrize(("partition", "normalization", "loss", "dead"), CASES)
def test_codes_are_those_of_the_dense_form(partition, normalization, loss, dead):
    found, (_, codes, smallest) = one_loss(*pair(partition, normalization, loss, dead))
    assert (codes > 0).sum() == 4 * ROWS
    assert_close(found.codes.dense(), codes)
    assert_close(found.smallest_score, torch.tensor(smallest, dtype=torch.float64))


@pytest.mark.parametrize(("partition", "normalization", "loss", "dead"), CASES)
def test_loss_is_that_of_the_dense_form(partition, normalization, loss, dead):
    found, (wanted, _, _) = one_loss(*pair(partition, normalization, loss, dead))
    assert ("auxk" in found.terms) == (dead == "dead")
    assert_close(found.total, wanted)


@pytest.mark.parametrize(("partition", "normalization", "loss", "dead"), CASES)
def test_gradients_are_those_of_the_dense_form(partition, normalization, loss, dead):
    trainee, reference = pair(partition, normalization, loss, dead)
    found, (wanted, _, _) = one_loss(trainee, reference)
    found.total.backward()
    for mine, theirs in zip(
        full_parameters(trainee, gradients=True), reference.backward(wanted), strict=True
    ):
        assert theirs.abs().max() > 1e-4
        assert_close(mine, theirs)


@pytest.mark.parametrize(("partition", "normalization", "loss", "dead"), CASES)
def test_weights_after_20_steps_are_those_of_the_dense_form(partition, normalization, loss, dead):
    trainee, reference = pair(partition, normalization, loss, dead)
    raw = [random_batch(trainee, number) for number in range(STEPS)]
    before = full_parameters(trainee)
    scaled = [trainee.dictionary.scaled(batch) for batch in raw]
    losses, _ = train_reference(reference, scaled, recipe_of(trainee.config))
    found = [float(trainee.step(batch, number).loss) for number, batch in enumerate(raw)]
    assert found == pytest.approx(losses, rel=1e-9, abs=1e-9)
    for start, mine, theirs in zip(
        before, full_parameters(trainee), reference.parameters, strict=True
    ):
        assert (theirs - start).abs().max() > 1e-3
        assert_close(mine, theirs.detach())
    assert trainee.rows_since_fired.tolist() == reference.rows_since_fired.tolist()
    assert float(trainee.dictionary.threshold) == pytest.approx(reference.threshold, rel=1e-9)


@pytest.mark.parametrize("clip", [1e-2, 1e6])
def test_gradients_are_clipped_by_their_global_norm_as_in_the_dense_form(clip):
    trainee, reference = pair("dfc", "crosscoder", "squared", "dead", gradient_clip=clip)
    raw = [random_batch(trainee, number) for number in range(3)]
    scaled = [trainee.dictionary.scaled(batch) for batch in raw]
    train_reference(reference, scaled, recipe_of(trainee.config))
    for number, batch in enumerate(raw):
        trainee.step(batch, number)
    for mine, theirs in zip(full_parameters(trainee), reference.parameters, strict=True):
        assert_close(mine, theirs.detach())


@pytest.mark.parametrize("clip", [1e-2, 1e6])
def test_float32_gradients_are_clipped_as_those_of_float64(clip):
    config = make_config(gradient_clip=clip)
    exact, single = make_trainee("dfc", config), make_trainee("dfc", config)
    single = Trainee("dfc", single.dictionary.to(torch.float32), config)
    for number in range(3):
        batch = random_batch(exact, number)
        norms = [float(one.step(batch, number).gradient_norm) for one in (exact, single)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    for found, wanted in zip(
        single.dictionary.parameters(), exact.dictionary.parameters(), strict=True
    ):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
        moments = [
            one.optimizer.state[p]["exp_avg"] for one, p in ((single, found), (exact, wanted))
        ]
        torch.testing.assert_close(
            moments[0].double(), moments[1], rtol=1e-3, atol=float(moments[1].abs().max()) / 1e3
        )


@pytest.mark.parametrize("partition", PARTITIONS)
def test_inference_codes_are_the_scores_above_the_threshold(partition):
    trainee, reference = pair(partition, "crosscoder", "squared", "alive")
    dictionary = trainee.dictionary
    batch = random_batch(trainee, 0)
    dictionary.threshold.fill_(0.9)
    values = reference.preactivations(dictionary.scaled(batch)).relu().detach()
    wanted = torch.where(values * reference.code_scale() > 0.9, values, 0)
    assert 0 < (wanted > 0).sum() < (values > 0).sum()
    assert_close(dictionary.encode(batch).dense(), wanted)


def test_reconstructions_come_back_in_the_raw_units_of_the_models():
    trainee, reference = pair("dfc", "crosscoder", "squared", "alive")
    dictionary = trainee.dictionary
    codes = dictionary.encode(random_batch(trainee, 0))
    scaled = reference.reconstruct(codes.dense())
    for number, (name, found) in enumerate(dictionary.decode(codes).items()):
        assert name == dictionary.hookpoints[number].name
        assert_close(found, scaled[number].detach() / dictionary.scale[number])


def test_decoder_norms_are_zero_where_a_model_does_not_see_a_feature():
    trainee, reference = pair("three models", "crosscoder", "squared", "alive")
    wanted = torch.stack([W.detach().norm(dim=1) for W in reference.W_dec])
    assert_close(trainee.dictionary.decoder_norms(), wanted)


def test_a_batch_without_any_positive_preactivation_trains_the_decoder_bias():
    trainee, _ = pair("dfc", "crosscoder", "squared", "alive")
    with torch.no_grad():
        trainee.dictionary.b_enc.fill_(-1e3)
    before = [b.detach().clone() for b in trainee.dictionary.b_dec.values()]
    metrics = trainee.step(random_batch(trainee, 0), 0)
    assert float(metrics.l0) == 0
    for old, new in zip(before, trainee.dictionary.b_dec.values(), strict=True):
        assert (old != new).all()


def test_auxk_of_a_single_row_which_has_no_variance_leaves_the_weights_finite():
    trainee, reference = pair("dfc", "crosscoder", "squared", "dead")
    make_dead(trainee, reference, DEAD)
    batch = {name: x[:1] for name, x in random_batch(trainee, 0).items()}
    metrics = trainee.step(batch, 0)
    assert float(metrics.terms["auxk"]) == 0
    for parameter in trainee.dictionary.parameters():
        assert parameter.isfinite().all()
