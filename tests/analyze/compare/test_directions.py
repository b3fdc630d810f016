"""Nearest directions beside cosines written out pair by pair in float64."""

import math

import numpy as np
import pytest
import torch

from analyze.compare import directions
from analyze.compare.directions import nearest
from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.fold import fold
from train.dictionary.partition import dedicated, single_group

A0, A1 = HookpointShape("a.0", "a", 3), HookpointShape("a.1", "a", 5)
B0, B1 = HookpointShape("b.0", "b", 4), HookpointShape("b.1", "b", 2)
MODELS = ("a", "b")


def randomised(hookpoints, partition, seed) -> Crosscoder:
    dictionary = Crosscoder(hookpoints, partition)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        dictionary.scale.copy_(0.2 + torch.rand(len(hookpoints), generator=generator))
    return dictionary


def decoders(dictionary) -> list[dict[str, list[float]]]:
    """Per feature, its decoder at each hookpoint that sees it."""
    found = [{} for _ in range(dictionary.partition.features)]
    for n, hookpoint in enumerate(dictionary.hookpoints):
        for place, feature in enumerate(dictionary.visibility(n).features_V.tolist()):
            found[feature][hookpoint.name] = dictionary.W_dec[str(n)][place].double().tolist()
    return found


def cosines(first, other) -> np.ndarray:
    """(F_1, F_2); NaN where the features have no hookpoint in common, or no norm there."""
    table = np.full((first.partition.features, other.partition.features), np.nan)
    for j, own in enumerate(decoders(first)):
        for k, facing in enumerate(decoders(other)):
            x = [value for name in own if name in facing for value in own[name]]
            y = [value for name in own if name in facing for value in facing[name]]
            norms = math.hypot(*x) * math.hypot(*y)
            if norms:
                table[j, k] = sum(p * q for p, q in zip(x, y, strict=True)) / norms
    return table


def check(candidates, table) -> None:
    """The candidates are the largest of each line of the table, largest first."""
    count = candidates.features.shape[1]
    for own, line in enumerate(table):
        known = np.sort(line[~np.isnan(line)])[::-1][:count]
        found, features = candidates.cosines[own].numpy(), candidates.features[own].tolist()
        np.testing.assert_allclose(found[: len(known)], known, atol=1e-6)
        np.testing.assert_allclose(line[features[: len(known)]], known, atol=1e-6)
        assert features[len(known) :] == [-1] * (count - len(known))
        assert np.isnan(found[len(known) :]).all()


@pytest.fixture(params=[1, 7, 1 << 25])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(directions, "BLOCK_COSINES", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("count", [1, 4, 50])
@pytest.mark.parametrize("kind", ["dfc", "crosscoder"])
def test_candidates_are_the_nearest_over_the_hookpoints_that_both_features_see(count, kind):
    first = randomised((A0, B0, B1), dedicated(MODELS, 12, {"a": 3, "b": 2}), 0)
    partition = dedicated(MODELS, 9, {"a": 2, "b": 4}) if kind == "dfc" else single_group(MODELS, 9)
    other = randomised((B1, A0, A1), partition, 1)
    told = []
    found = nearest(first, other, count, told.append)
    table = cosines(first, other)
    check(found.of_first, table)
    check(found.of_other, table.T)
    assert sum(told) == 12 * 9
    without = [(j, k) for j, k in np.argwhere(np.isnan(table)).tolist()]
    listed = [
        (j, k) for rows, columns in found.apart for j in range(12)[rows] for k in range(9)[columns]
    ]
    assert sorted(listed) == sorted(without)


def test_folded_weights_have_the_same_neighbours():
    first = randomised((A0, B0), dedicated(MODELS, 12, {"a": 3, "b": 2}), 0)
    other = randomised((A0, B0), single_group(MODELS, 9), 1)
    folded, _ = fold(other)
    plain, same = nearest(first, other, 3), nearest(first, folded, 3)
    torch.testing.assert_close(plain.of_first.cosines, same.of_first.cosines, atol=1e-5, rtol=1e-5)
    assert plain.of_first.features.equal(same.of_first.features)


def test_a_feature_without_a_decoder_is_nobodys_neighbour():
    first = randomised((A0, B0), single_group(MODELS, 5), 0)
    other = randomised((A0, B0), single_group(MODELS, 4), 1)
    with torch.no_grad():
        for n in ("0", "1"):
            other.W_dec[n][2] = 0
    found = nearest(first, other, 4)
    assert 2 not in found.of_first.features
    assert found.of_other.features[2].tolist() == [-1] * 4


def test_without_a_common_hookpoint_there_is_nothing_to_compare():
    first = randomised((A0, B0), single_group(MODELS, 5), 0)
    other = randomised((A1, B1), single_group(MODELS, 4), 1)
    with pytest.raises(DictionaryError, match=r"one has a\.0, b\.0, the other a\.1, b\.1"):
        nearest(first, other, 4)
