"""Scenes: the rows at which a feature is looked at are those that its dense codes name."""

import numpy as np
import pytest
import torch

from analyze.causal.passages import find_passages, row_edges
from analyze.causal.steer import steered_curve
from analyze.causal.steer_scenes import find_scenes
from analyze.causal.steer_steps import own_steps
from analyze.causal.steer_table import steer_table
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.subject import open_subject
from analyze.sweep.gather import gather

from .directed import (
    CONTEXTS,
    FEATURES,
    SHARED,
    A,
    B,
    dense_codes,
    directed,
    document_of_rows,
    saved,
)


@pytest.fixture(scope="module")
def scenes(subject, models, swept):
    found = find_scenes(subject, models, range(FEATURES), swept[1], 64)
    assert found.left_out == {}
    return {scene.feature: scene for scene in found.of}


@pytest.fixture(scope="module")
def first_windows(harvested, models):
    _, store = harvested
    every = np.arange(len(row_edges(store)) - 1)
    return {one.document: one for one in find_passages(store, models, every).found}


def test_a_feature_is_looked_at_wherever_it_fires_in_its_strongest_documents(
    harvested, dictionary, swept, scenes, first_windows
):
    _, store = harvested
    codes_NF, documents = dense_codes(store, dictionary), document_of_rows(store)
    beyond = 0
    for feature, scene in scenes.items():
        fires = codes_NF[:, feature] > 0
        strongest = [int(documents[row]) for row, _ in swept[1].of(feature)]
        found = [looked.passage.document for looked in scene.firing]
        there = [at for at, one in first_windows.items() if fires[one.rows].any()]
        assert len(found) == len(set(found)) == min(len(strongest), len(there))
        own = [document for document in strongest if document in found]
        assert found[: len(own)] == own
        beyond += len(found) - len(own)
        for document in set(strongest) - set(own):
            assert not fires[first_windows[document].rows].any()
        for looked in scene.firing:
            inside = [row for row in looked.passage.rows if fires[row]]
            assert looked.rows.tolist() == inside
            assert looked.strongest == max(inside, key=lambda row: float(codes_NF[row, feature]))
            exact = float(codes_NF[looked.strongest, feature])
            assert looked.activation == pytest.approx(exact, rel=1e-3, abs=1e-5)
            for model in ("a", "b"):
                whole, cut = looked.passage.readings[model], looked.reading(model)
                assert cut.ids.tolist() == whole.ids[: len(cut.ids)].tolist()
                assert len(cut.ids) == cut.positions[-1] + 1
                tokens = store.column(f"token_{model}")[looked.rows]
                assert cut.ids[cut.positions].tolist() == tokens.tolist()
        others = [looked.activation for looked in scene.firing[len(own) :]]
        assert others == sorted(others, reverse=True)
    assert beyond  # one that fires only late in long documents is found in others


def test_silent_rows_are_as_many_and_of_documents_without_a_firing(
    harvested, dictionary, subject, models, swept, scenes, first_windows
):
    _, store = harvested
    codes_NF, documents = dense_codes(store, dictionary), document_of_rows(store)
    for feature, scene in scenes.items():
        fires_in = set(documents[codes_NF[:, feature] > 0].tolist())
        there = sum(len(one.rows) for at, one in first_windows.items() if at not in fires_in)
        assert not fires_in & {looked.passage.document for looked in scene.silent}
        firing, silent = (
            sum(len(one.rows) for one in looked) for looked in (scene.firing, scene.silent)
        )
        assert silent == min(firing, there)
        for looked in scene.silent:
            assert set(looked.rows) <= set(looked.passage.rows)
    again = find_scenes(subject, models, [SHARED], swept[1], 7, 0).of[0]
    rows = [looked.rows.tolist() for looked in scenes[SHARED].silent]
    assert [looked.rows.tolist() for looked in again.silent] == rows
    others = [
        find_scenes(subject, models, [SHARED], swept[1], 64, seed).of[0] for seed in (1, 2, 3)
    ]
    assert any([looked.rows.tolist() for looked in other.silent] != rows for other in others)


def test_a_feature_that_fires_in_every_document_has_no_silent_rows(
    harvested, dictionary, models, tmp_path
):
    everywhere = directed(harvested[1], (A, B), dictionary.partition)
    with torch.no_grad():
        everywhere.b_enc[SHARED] = 1e4
    subject = open_subject(harvested[1], saved(everywhere, tmp_path / "d"), "cpu")
    top = KeptRows("top", FEATURES, CONTEXTS)
    firing = Firing(FEATURES, subject.labels)
    gather(subject, [firing, top], 64)
    (scene,) = find_scenes(subject, models, [SHARED], top, 64).of
    assert scene.silent == ()
    (step,) = own_steps(subject, SHARED, float(firing.largest[SHARED]), ["a"])
    table = steer_table([steered_curve(models["a"], scene, step, (0.0, 1.0), 500)])
    assert table["positions_silent"].to_list() == [0, 0]
    nothing = table.select("kl_silent", "kl_random_silent", "top1_changed_silent")
    assert nothing.null_count().row(0) == (2, 2, 2)
    assert table["kl_firing"].null_count() == 0
