"""Some features alone have the codes that they have among all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.dictionary.activation import BatchTopK, TopK
from train.dictionary.narrow import narrowed

from ..names.randomised import CASES, DFC, FEATURES, TWO, build, close, make, rows_of

ALONE = [case for case, (_, _, activation, *_) in CASES.items() if not isinstance(activation, TopK)]


@pytest.mark.parametrize("case", ALONE)
@settings(deadline=None, max_examples=15)
@given(features=st.sets(st.integers(0, FEATURES - 1)))
def test_codes_are_those_of_the_whole_dictionary(case, features):
    core = make(case)
    chosen = torch.tensor(sorted(features), dtype=torch.long)
    rows = rows_of(core)
    found = narrowed(core, chosen).encode(rows)
    close(found.dense(), core.encode(rows).dense()[:, chosen])


def test_thresholds_of_groups_stay_with_their_groups():
    core = build(TWO, DFC, BatchTopK((0.2, 0.5, 0.3)), "crosscoder", False, False, torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        core.threshold.copy_(torch.tensor([0.1, 9.0, 30.0]))
    chosen, rows = torch.tensor([1, 7, 8, 21, 23]), rows_of(core)
    wanted = core.encode(rows).dense()[:, chosen]
    assert 0 < int((wanted > 0).sum()) < wanted.numel()
    close(narrowed(core, chosen).encode(rows).dense(), wanted)


def test_features_that_compete_for_a_rows_places_cannot_be_taken_alone():
    assert narrowed(make("topk"), torch.tensor([0, 1])) is None
