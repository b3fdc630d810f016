"""What features are called: by tags of norms, or by verdicts where both dictionaries have them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analyze.compare.sides import check_models, find_verdicts, side_of
from analyze.config import AnalyzeConfig
from analyze.subject import Subject, open_subject
from analyze.tables import Tables
from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import HookpointShape
from train.dictionary.partition import single_group

from .test_directions import randomised

CONFIG = AnalyzeConfig(norm_shared=0.85, min_fires=5)
FIRES = np.array([9, 9, 9, 9, 4, 9, 0])
# Of the features of dfc_folder, whose relative norms are 1, 1, 0.8, 0.8, 0.8, 0, 0.
VERDICTS = pl.DataFrame(
    {
        "feature": [0, 1, 3, 5, 6],
        "claimed_for": ["a", "a", "a", "b", "b"],
        "verdict": ["exclusive", "not shown", "exclusive", "too rare", "exclusive"],
    }
)


@pytest.fixture
def subject(known_store, dfc_folder):
    return open_subject(known_store, dfc_folder)


def test_without_verdicts_the_tags_call_features(subject):
    side = side_of(subject, "dfc", FIRES, CONFIG, VERDICTS, by_verdict=False)
    assert side.tag == ["a_only", "a_only", "shared", "shared", "shared", "b_only", "b_only"]
    assert side.called == ["a_only", "a_only", "shared", "shared", "rare", "b_only", "rare"]
    said = dict(zip(VERDICTS["feature"], VERDICTS["verdict"], strict=True))
    assert side.verdict == [said.get(feature) for feature in range(7)]
    assert side.relative.tolist() == pytest.approx([1, 1, 0.8, 0.8, 0.8, 0, 0])
    assert side.alive.tolist() == [True] * 6 + [False]


def test_verdicts_decide_what_is_exclusive_and_norms_only_what_is_shared(subject):
    side = side_of(subject, "dfc", FIRES, CONFIG, VERDICTS, by_verdict=True)
    assert side.called == ["a_only", "other", "shared", "a_only", "rare", "rare", "rare"]


def test_shares_of_calls_are_of_features_that_fire(subject):
    side = side_of(subject, "dfc", FIRES, CONFIG, None, by_verdict=False)
    assert side.share_called("a_only") == pytest.approx(2 / 6)
    silent = side_of(subject, "dfc", np.zeros(7), CONFIG, None, by_verdict=False)
    assert silent.share_called("a_only") is None


def test_verdicts_are_those_of_this_dictionary_wherever_they_lie(subject, tmp_path):
    folders = (tmp_path / "of_another", tmp_path / "here", tmp_path / "nowhere")
    Tables(folders[0], "another").write("exclusivity", VERDICTS.head(1))
    assert find_verdicts(subject, folders) is None
    Tables(folders[1], subject.fingerprint).write("exclusivity", VERDICTS)
    assert find_verdicts(subject, folders).equals(VERDICTS)


def test_dictionaries_of_other_models_are_refused(subject, known_store):
    shapes = (HookpointShape("a.out", "a", 3), HookpointShape("c.out", "c", 3))
    other = randomised(shapes, single_group(("a", "c"), 4), 0)
    with pytest.raises(DictionaryError, match="nowhere a and c"):
        check_models(subject, Subject(known_store, other, Path("nowhere")))
