import pytest
import torch
from torch import Tensor

from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import FeatureGroup, Partition
from train.recipes.matryoshka import feature_levels, prefix_reconstructions, stack_levels

from .dense_codes import FORMS, codes_of, random

SHARES = [0.25, 0.5, 1.0]
PARTITION = Partition(
    (
        FeatureGroup("a", ("a",), 4),
        FeatureGroup("shared", ("a", "b"), 8),
        FeatureGroup("b", ("b",), 2),
    )
)
LEVELS = [0, 1, 2, 2, 0, 0, 1, 1, 2, 2, 2, 2, 1, 2]  # of b: round(0.25 * 2) = 0
F, B, M = 14, 5, 3
SEEN = [list(range(12)), list(range(4, 14))]
WIDTHS = [6, 3]


def test_every_group_is_cut_by_the_same_shares():
    assert feature_levels(PARTITION, SHARES).tolist() == LEVELS


def test_one_prefix_is_an_ordinary_dictionary():
    assert set(feature_levels(PARTITION, [1.0]).tolist()) == {0}


@pytest.mark.parametrize("shares", [[0.1, 0.37, 0.9, 1.0], [1 / 32, 3 / 32, 1.0]])
def test_prefixes_nest_in_every_group(shares):
    level = feature_levels(PARTITION, shares)
    for group in PARTITION.groups:
        own = level[PARTITION.slices[group.name]]
        assert torch.equal(own, own.sort().values)
        for number, share in enumerate(shares):
            assert int((own <= number).sum()) == round(share * group.size)


def dense_example() -> Tensor:
    dense = random(B, F, seed=3).relu()
    dense[1] = 0
    return dense


@pytest.mark.parametrize("form", FORMS)
def test_stacked_codes_are_those_of_each_level(form):
    dense, level = dense_example(), torch.tensor(LEVELS)
    stacked = stack_levels(codes_of(form, dense), level, M)
    assert stacked.batch == M * B
    for number, part in enumerate(stacked.dense().view(M, B, F)):
        assert torch.equal(part, dense * (level == number))
    if form == "sparse":
        assert torch.equal(stacked.pattern.flat, stacked.pattern.flat.sort().values)
        assert len(stacked.values) == int((dense > 0).sum())


def test_entries_that_are_on_for_some_hookpoints_stay_so():
    codes = codes_of("sparse", dense_example())
    on_HN = random(2, len(codes.values), seed=8) > 0
    codes = SparseCodes(codes.pattern, codes.values, on_HN)
    stacked = stack_levels(codes, torch.tensor(LEVELS), M)
    for number in range(2):
        before = SparseCodes(codes.pattern, codes.values * on_HN[number]).dense()
        after = SparseCodes(stacked.pattern, stacked.values * stacked.on_HN[number]).dense()
        assert torch.equal(after.view(M, B, F).sum(dim=0), before)


def random_dictionary() -> Crosscoder:
    shapes = tuple(HookpointShape(m, m, width) for m, width in zip(("a", "b"), WIDTHS, strict=True))
    dictionary = Crosscoder(shapes, PARTITION, "none", torch.float64)
    with torch.no_grad():
        for number, parameter in enumerate(dictionary.parameters()):
            parameter.copy_(random(*parameter.shape, seed=30 + number))
    return dictionary


def prefixes_of(dictionary: Crosscoder, codes, level: Tensor) -> list[list[Tensor]]:
    decoded = dictionary.decode_scaled(stack_levels(codes, level, M), bias=False)
    return prefix_reconstructions(decoded, list(dictionary.b_dec.values()), M)


@pytest.mark.parametrize("form", FORMS)
def test_prefixes_and_gradients_are_those_of_plain_masked_dictionaries(form):
    positive, level = dense_example() > 0, torch.tensor(LEVELS)
    dictionary = random_dictionary()
    x = [random(B, width, seed=20 + width) for width in WIDTHS]
    values = dense_example()[positive].requires_grad_()
    leaves = [values, *dictionary.W_dec.values(), *dictionary.b_dec.values()]
    dense = torch.zeros(B, F, dtype=torch.float64).index_put((positive,), values)

    prefixes = prefixes_of(dictionary, codes_of(form, dense, positive), level)
    found = wanted = torch.zeros((), dtype=torch.float64)
    for number in range(M):
        part = dense * (level <= number)
        for h, seen in enumerate(SEEN):
            x_hat = part[:, seen] @ dictionary.W_dec[str(h)] + dictionary.b_dec[str(h)]
            torch.testing.assert_close(prefixes[number][h], x_hat)
            found = found + (x[h] - prefixes[number][h]).square().sum()
            wanted = wanted + (x[h] - x_hat).square().sum()
    for one, two in zip(
        torch.autograd.grad(found, leaves, retain_graph=True),
        torch.autograd.grad(wanted, leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


def test_the_last_prefix_is_the_whole_dictionary():
    dictionary, codes = random_dictionary(), codes_of("sparse", dense_example())
    prefixes = prefixes_of(dictionary, codes, torch.tensor(LEVELS))
    assert len(prefixes) == M
    for whole, last in zip(dictionary.decode_scaled(codes), prefixes[-1], strict=True):
        torch.testing.assert_close(last, whole)
