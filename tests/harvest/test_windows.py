"""Windows of long documents: nothing lost, nothing above the budget, no pair torn apart."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harvest.windows import cut_windows


@st.composite
def documents(draw):
    """Token counts, paired positions and budgets of 1 to 3 models."""
    models = draw(st.integers(1, 3))
    lengths = [draw(st.integers(0, 60)) for _ in range(models)]
    rows = draw(st.integers(0, min(lengths)))
    positions = [
        np.array(sorted(draw(st.permutations(range(length)))[:rows]), np.int64)
        for length in lengths
    ]
    budgets = [draw(st.integers(1, 25)) for _ in range(models)]
    return lengths, positions, budgets


@given(documents())
def test_every_token_is_in_exactly_one_window_and_no_window_is_over_budget(document):
    lengths, _, budgets = document
    edges = cut_windows(*document)
    assert edges[0].tolist() == [0] * len(lengths)
    assert edges[-1].tolist() == lengths
    sizes = np.diff(edges, axis=0)
    assert (sizes >= 0).all()
    assert (sizes.sum(1) > 0).all()
    assert (sizes <= budgets).all()


@given(documents())
def test_both_tokens_of_every_pair_are_in_the_same_window(document):
    _, positions, _ = document
    edges = cut_windows(*document)
    windows = [
        np.searchsorted(edges[:, model], paired, side="right")
        for model, paired in enumerate(positions)
    ]
    # An empty window ends where the next begins; counted by its end, a token's window is unique.
    for one in windows[1:]:
        assert one.tolist() == windows[0].tolist()


def test_cuts_fall_behind_the_last_pair_within_reach():
    a, b = np.array([1, 3, 5, 7]), np.array([0, 4, 5, 9])
    assert cut_windows([8, 10], [a, b], [6, 6]).tolist() == [[0, 0], [6, 6], [8, 10]]
    assert cut_windows([8, 10], [a, b], [5, 6]).tolist() == [[0, 0], [4, 5], [8, 10]]


def test_a_document_within_the_budget_is_one_window():
    edges = cut_windows([8, 10], [np.array([7]), np.array([9])], [8, 10])
    assert edges.tolist() == [[0, 0], [8, 10]]


def test_a_stretch_without_pairs_is_cut_at_the_budget():
    edges = cut_windows([10, 3], [np.array([9]), np.array([1])], [4, 4])
    assert edges.tolist() == [[0, 0], [4, 1], [8, 1], [10, 3]]


def test_an_empty_document_has_no_window():
    empty = np.array([], np.int64)
    assert cut_windows([0, 0], [empty, empty], [4, 4]).tolist() == [[0, 0]]
