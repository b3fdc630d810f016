import pytest
import torch
from torch import Tensor

from train.dictionary.activation import Gated, JumpReLU, ReLU
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import FeatureGroup, Partition
from train.recipes.resample import resample, reset_moments

from .dense_codes import random

F, B = 14, 40
PARTITION = Partition(
    (
        FeatureGroup("a", ("a",), 4),
        FeatureGroup("shared", ("a", "b"), 8),
        FeatureGroup("b", ("b",), 2),
    )
)
HOOKPOINTS = (
    HookpointShape("a.out", "a", 5),
    HookpointShape("b.in", "b", 3, writes=False),
    HookpointShape("b.out", "b", 6, reads=False),
)
GROUP = ["a"] * 4 + ["shared"] * 8 + ["b"] * 2
SEES = {"a": [0], "shared": [0, 1, 2], "b": [1, 2]}
DEAD = [1, 3, 5, 6, 11, 13]


class Trained:
    """A dictionary and an Adam that has made steps on random gradients."""

    def __init__(self, activation=None, dead: list[int] = DEAD) -> None:
        self.dictionary = Crosscoder(
            HOOKPOINTS, PARTITION, "none", torch.float64, activation=activation or ReLU()
        )
        parameters = dict(self.dictionary.named_parameters())
        with torch.no_grad():
            for number, parameter in enumerate(parameters.values()):
                parameter.copy_(random(*parameter.shape, seed=number))
        self.optimizer = torch.optim.Adam(parameters.values(), lr=0.1)
        for number, parameter in enumerate(parameters.values()):
            parameter.grad = random(*parameter.shape, seed=50 + number)
        self.optimizer.step()
        self.before = {name: p.detach().clone() for name, p in parameters.items()}
        self.x = [random(B, h.width, seed=70 + h.width) for h in HOOKPOINTS]
        self.residuals = [random(B, 5, seed=80), random(B, 6, seed=81)]
        self.dead = torch.zeros(F, dtype=torch.bool)
        self.dead[dead] = True

    def resample(self, seed: int = 0, step: int = 500) -> Tensor:
        return resample(
            self.dictionary, self.optimizer, self.dead, self.x, self.residuals, seed, step
        )

    def row(self, side: str, n: int, feature: int) -> Tensor:
        place = int(self.dictionary.visibility(n).local_F[feature])
        return getattr(self.dictionary, side)[str(n)].detach()[place]

    def alive_norm(self, side: str, n: int) -> float:
        features = self.dictionary.visibility(n).features_V.tolist()
        rows = self.before[f"{side}.{n}"]
        alive = [float(r.norm()) for f, r in zip(features, rows, strict=True) if f not in DEAD]
        return sum(alive) / len(alive)

    def direction(self, n: int, row: int) -> Tensor:
        x = self.x[n][row]
        return x if n == 1 else x - self.before[f"b_dec.{n}"]  # b.in has no decoder bias

    def row_of(self, feature: int) -> int:
        """The input whose direction the feature has at its first hookpoint."""
        n = SEES[GROUP[feature]][0]
        found = self.row("W_enc", n, feature)
        near = [
            row
            for row in range(B)
            if torch.cosine_similarity(found, self.direction(n, row), dim=0) > 1 - 1e-12
        ]
        assert len(near) == 1
        return near[0]


def test_dead_features_get_one_rows_direction_at_all_their_hookpoints():
    trained = Trained()
    assert trained.resample().nonzero().squeeze(1).tolist() == DEAD
    for feature in DEAD:
        row = trained.row_of(feature)
        for n in SEES[GROUP[feature]]:
            unit = trained.direction(n, row) / trained.direction(n, row).norm()
            if HOOKPOINTS[n].reads:
                wanted = 0.2 * trained.alive_norm("W_enc", n) * unit
                torch.testing.assert_close(trained.row("W_enc", n, feature), wanted)
            if HOOKPOINTS[n].writes:
                wanted = trained.alive_norm("W_dec", n) * unit
                torch.testing.assert_close(trained.row("W_dec", n, feature), wanted)


def test_exactly_the_dead_rows_and_their_moments_change():
    trained = Trained()
    moments = {
        name: {k: v.clone() for k, v in trained.optimizer.state[p].items()}
        for name, p in trained.dictionary.named_parameters()
    }
    trained.resample()
    for name, parameter in trained.dictionary.named_parameters():
        side, _, number = name.partition(".")
        if side == "b_dec":
            dead = torch.zeros(len(parameter), dtype=torch.bool)
        elif number:
            dead = trained.dead[trained.dictionary.visibility(int(number)).features_V]
        else:
            dead = trained.dead
        value, state = parameter.detach(), trained.optimizer.state[parameter]
        assert torch.equal(value[~dead], trained.before[name][~dead]), name
        assert not (value[dead] == trained.before[name][dead]).any(), name
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state[key][~dead], moments[name][key][~dead]), name
            assert (moments[name][key][dead] != 0).all(), name
            assert (state[key][dead] == 0).all(), name
        assert state["step"] == 1
    assert (trained.dictionary.b_enc.detach()[trained.dead] == 0).all()


def test_unit_decoders_stay_unit_ones():
    trained = Trained()
    with torch.no_grad():
        for W in trained.dictionary.W_dec.values():
            W.div_(W.norm(dim=1, keepdim=True))
    trained.resample()
    for W in trained.dictionary.W_dec.values():
        torch.testing.assert_close(W.detach().norm(dim=1), torch.ones(len(W), dtype=torch.float64))


def test_the_outcome_depends_on_seed_and_step_alone():
    def rows(seed: int, step: int) -> list[int]:
        trained = Trained()
        torch.rand(step % 7)  # the global generator plays no part
        trained.resample(seed, step)
        return [trained.row_of(feature) for feature in DEAD]

    state = torch.get_rng_state()
    assert rows(0, 500) == rows(0, 500)
    assert len({tuple(rows(s, t)) for s, t in [(0, 500), (0, 501), (1, 500)]}) == 3
    torch.set_rng_state(state)
    Trained().resample()
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_are_drawn_in_proportion_to_their_squared_loss():
    counts = torch.zeros(3)
    for seed in range(300):
        trained = Trained(dead=[5])
        trained.residuals = [torch.zeros(B, 5).double(), torch.zeros(B, 6).double()]
        trained.residuals[0][0, 0] = 1  # loss 1, weight 1
        trained.residuals[1][1, 0] = 2**0.5  # loss 2, weight 4
        trained.residuals[0][2, 0] = 2**0.25  # loss sqrt 2, weight 2
        trained.resample(seed)
        counts[trained.row_of(5)] += 1
    share = counts / counts.sum()
    torch.testing.assert_close(share, torch.tensor([1 / 7, 4 / 7, 2 / 7]), atol=0.09, rtol=0)


def test_another_models_residual_plays_no_part_in_exclusive_features():
    first, second = Trained(), Trained()
    second.residuals[1] = random(B, 6, seed=99)
    second.x[1], second.x[2] = random(B, 3, seed=97), random(B, 6, seed=98)
    first.resample()
    second.resample()
    for feature in (1, 3):
        assert torch.equal(first.row("W_enc", 0, feature), second.row("W_enc", 0, feature))
        assert torch.equal(first.row("W_dec", 0, feature), second.row("W_dec", 0, feature))
    assert not torch.equal(first.row("W_enc", 1, 13), second.row("W_enc", 1, 13))


def test_no_two_features_of_a_group_get_one_row_and_the_surplus_waits():
    trained = Trained(dead=[4, 5, 6, 7, 8, 9, 10, 11])
    for residual in trained.residuals:
        residual[5:] = 0  # five rows have a loss
    chosen = trained.resample().nonzero().squeeze(1).tolist()
    assert chosen == [4, 5, 6, 7, 8]
    assert sorted(trained.row_of(feature) for feature in chosen) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("without", ["dead", "loss"])
def test_without_dead_features_or_without_a_loss_nothing_changes(without):
    trained = Trained(dead=[] if without == "dead" else DEAD)
    if without == "loss":
        trained.residuals = [torch.zeros_like(e) for e in trained.residuals]
    assert not trained.resample().any()
    for name, parameter in trained.dictionary.named_parameters():
        assert torch.equal(parameter.detach(), trained.before[name])


def test_where_all_are_dead_the_norms_of_all_count():
    trained = Trained(dead=list(range(F)))
    wanted = trained.before["W_dec.0"].norm(dim=1).mean()
    assert trained.resample().all()
    norms = trained.dictionary.W_dec["0"].detach().norm(dim=1)
    torch.testing.assert_close(norms, wanted.expand_as(norms))


def test_thresholds_become_the_alive_ones_mean_and_gates_start_again():
    jump, gated = Trained(JumpReLU()), Trained(Gated())
    jump.resample()
    gated.resample()
    alive = jump.before["threshold"][~jump.dead]
    found = jump.dictionary.threshold.detach()
    torch.testing.assert_close(found[jump.dead], alive.mean().expand(len(DEAD)))
    assert torch.equal(found[~jump.dead], alive)
    for name in ("r_mag", "mag_bias"):
        value = getattr(gated.dictionary, name).detach()
        assert (value[gated.dead] == 0).all()
        assert torch.equal(value[~gated.dead], gated.before[name][~gated.dead])


def test_moments_of_an_optimizer_that_has_not_stepped_are_none_to_reset():
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.Adam([parameter])
    reset_moments(optimizer, parameter, torch.tensor([1]))
    assert len(optimizer.state) == 0
