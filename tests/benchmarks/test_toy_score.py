"""Scoring, against loops and against dictionaries whose score is known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.toy_model import ToyModel, ToySpec, build_toy
from benchmarks.toy_score import (
    claimed_by_group,
    claimed_by_norm,
    decoder_cosines,
    half_step,
    recovered,
    score,
    truth_of,
)
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import Partition, dedicated, single_group

WIDTHS = (12, 9)


def toy_of(seed: int = 0, concepts: int = 40, exclusive: float = 0.1) -> ToyModel:
    return build_toy(ToySpec(concepts, WIDTHS, exclusive, active=3.0, seed=seed))


def empty(partition: Partition) -> Crosscoder:
    shapes = [HookpointShape(f"{m}.toy", m, d) for m, d in zip("ab", WIDTHS, strict=True)]
    return Crosscoder(tuple(shapes), partition)


def perfect(toy: ToyModel, partition: Partition) -> Crosscoder:
    """Feature by feature the concepts, those of A alone first, those of B alone last."""
    dictionary = empty(partition)
    order = np.concatenate([np.flatnonzero(toy.owner == o) for o in ("a", "shared", "b")])
    with torch.no_grad():
        for n, model in enumerate("ab"):
            seen = order[dictionary.visibility(n).features_V.numpy()]
            dictionary.W_dec[str(n)].copy_(3.0 * toy.concepts(model)[seen])
    return dictionary


def random_dictionary(toy: ToyModel, seed: int, partition: Partition) -> Crosscoder:
    """Features near concepts or nowhere, many of them much longer at one model."""
    dictionary = empty(partition)
    random = torch.Generator().manual_seed(seed)
    sizes = 10 ** torch.randn(partition.features, 2, generator=random)
    concept = torch.randint(0, len(toy.owner), (partition.features,), generator=random)
    with torch.no_grad():
        for n, model in enumerate("ab"):
            features = dictionary.visibility(n).features_V
            near = toy.concepts(model)[concept[features]]
            away = 0.7 * torch.rand(len(features), 1, generator=random)
            noise = torch.randn(near.shape, generator=random) / WIDTHS[n] ** 0.5
            dictionary.W_dec[str(n)].copy_(sizes[features, n : n + 1] * (near + away * noise))
    return dictionary


@pytest.mark.parametrize("kind", ["dedicated", "single"])
def test_a_perfect_dictionary_has_recall_one_and_no_false_claim(kind):
    toy = toy_of()
    partition = {
        "dedicated": dedicated(("a", "b"), 40, {"a": 4, "b": 4}),
        "single": single_group(("a", "b"), 40),
    }[kind]
    result = score(perfect(toy, partition), toy)
    assert vars(result.recall) == dict.fromkeys(("a", "b", "shared", "exclusive"), 1.0)
    verdicts = [result.by_norm, result.by_group] if kind == "dedicated" else [result.by_norm]
    assert (result.by_group is None) == (kind == "single")
    for verdict in verdicts:
        assert (verdict.claimed, verdict.false) == (8, 0)
        assert (verdict.precision, verdict.false_positive_rate) == (1.0, 0.0)
        assert (verdict.recall.a, verdict.recall.b, verdict.recall.exclusive) == (1.0, 1.0, 1.0)


def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = x.double(), y.double()
    return float(x @ y / (x.norm() * y.norm())) if x.norm() > 0 and y.norm() > 0 else 0.0


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), grouped=st.booleans(), masked=st.booleans())
def test_every_measure_is_that_of_a_plain_loop(seed, grouped, masked):
    toy = toy_of(seed, exclusive=0.2)
    partition = dedicated(("a", "b"), 30, {"a": 6, "b": 5})
    partition = partition if grouped else single_group(("a", "b"), 30)
    dictionary = random_dictionary(toy, seed, partition)
    alive = np.random.default_rng(seed).random(30) < 0.7 if masked else None
    result = score(dictionary, toy, alive)

    decoders = []  # per feature, its direction at a and at b, None where it is not seen
    for feature in range(30):
        own = {}
        for n, model in enumerate("ab"):
            place = (dictionary.visibility(n).features_V == feature).nonzero()
            own[model] = dictionary.W_dec[str(n)][int(place)].detach() if len(place) else None
        decoders.append(own)
    near: list[set[tuple[int, str]]] = []
    truth = []
    for own in decoders:
        best = (0.8, -1)
        found = set()
        for model, direction in own.items():
            for concept in range(len(toy.owner)) if direction is not None else ():
                value = cosine(direction, toy.concepts(model)[concept])
                if value > 0.8:
                    found.add((concept, model))
                    best = max(best, (value, concept))
        near.append(found)
        truth.append(best[1])
    everything = {concept for found in near for concept, _ in found}
    for owner in ("a", "b", "shared"):
        of = np.flatnonzero(toy.owner == owner)
        share = sum(concept in everything for concept in of) / len(of)
        assert getattr(result.recall, owner) == pytest.approx(share)

    by_norm, by_group = [], []
    groups = partition.group_of_feature()
    for feature, own in enumerate(decoders):
        x, y = (0.0 if v is None else float(v.norm()) for v in own.values())
        gone = alive is not None and not alive[feature]
        R = x / (x + y)
        by_norm.append("" if gone else "a" if R > 0.8 else "b" if R < 0.2 else "")
        by_group.append("" if gone or groups[feature] == "shared" else groups[feature])
    verdicts = [(by_norm, result.by_norm)] + ([(by_group, result.by_group)] if grouped else [])
    for claims, verdict in verdicts:
        assert verdict is not None
        true = [
            claim and truth[f] >= 0 and toy.owner[truth[f]] == claim
            for f, claim in enumerate(claims)
        ]
        claimed = sum(bool(claim) for claim in claims)
        assert verdict.claimed == claimed
        assert verdict.false == claimed - sum(map(bool, true))
        for owner in "ab":
            of = np.flatnonzero(toy.owner == owner)
            found = {
                concept
                for f, claim in enumerate(claims)
                for concept, model in near[f]
                if claim == owner == model and toy.owner[concept] == owner
            }
            assert getattr(verdict.recall, owner) == pytest.approx(len(found) / len(of))


def test_a_feature_counts_for_the_concept_that_is_nearest_at_either_model():
    toy = toy_of()
    shared, alone = np.flatnonzero(toy.owner == "shared")[0], np.flatnonzero(toy.owner == "a")[0]
    dictionary = empty(single_group(("a", "b"), 3))
    with torch.no_grad():
        dictionary.W_dec["0"][0] = 9 * toy.concepts_A[alone]
        dictionary.W_dec["1"][1] = 2 * toy.concepts_B[shared]
        dictionary.W_dec["0"][2] = -toy.concepts_A[alone]
    truth = truth_of(decoder_cosines(dictionary, toy), toy)
    assert truth.concept.tolist() == [alone, shared, -1]
    assert truth.owner.tolist() == ["a", "shared", ""]
    assert claimed_by_norm(dictionary).tolist() == ["a", "b", "a"]
    verdict = score(dictionary, toy).by_norm
    assert (verdict.claimed, verdict.false) == (3, 2)
    assert verdict.precision == pytest.approx(1 / 3)


def test_features_that_never_fired_or_have_no_decoder_are_claimed_by_nothing():
    partition = dedicated(("a", "b"), 10, {"a": 2, "b": 2})
    dictionary = empty(partition)
    assert not claimed_by_norm(dictionary).any()
    alive = np.ones(10, bool)
    alive[0] = False
    assert claimed_by_group(dictionary, alive).tolist() == ["", "a", *[""] * 6, "b", "b"]
    nothing = score(dictionary, toy_of(), np.zeros(10, bool))
    assert nothing.by_norm.false_positive_rate is None
    assert nothing.by_norm.precision is None
    assert not recovered(decoder_cosines(dictionary, toy_of())).any()


def test_scale_and_norm_units_do_not_matter_to_directions_and_do_to_claims():
    toy = toy_of()
    dictionary = perfect(toy, single_group(("a", "b"), 40))
    before = score(dictionary, toy)
    dictionary.scale.copy_(torch.tensor([5.0, 0.1]))
    assert score(dictionary, toy) == before
    dictionary.norm_scale.copy_(torch.tensor([1.0, 100.0]))
    after = score(dictionary, toy)
    assert after.recall == before.recall
    assert after.by_norm.false > 0


def test_the_half_step_is_the_first_that_reaches_half_of_the_end():
    assert half_step([10, 20, 30, 40], [0.0, 0.2, 0.1, 0.4]) == 20
    assert half_step([10, 20], [0.3, 0.0]) is None
    assert half_step([], []) is None
