import numpy as np
import pytest

from analyze.features.shown import BANDS, PER_BAND, TOP, shown_firings
from analyze.labels import Labels
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.sweep.seen import Entries

F, DOCUMENTS, ROWS = 4, 60, 10  # rows of each document
FIRES = (600, 40, 1, 0)
WITHIN = 2**0.125  # a bin of the histogram that quantiles are read from


@pytest.fixture(scope="module")
def values():
    """Activations of each feature on all rows (F, rows), 0 where it is silent."""
    generator = np.random.default_rng(0)
    made = np.zeros((F, DOCUMENTS * ROWS), np.float32)
    for feature, fires in enumerate(FIRES):
        rows = generator.permutation(DOCUMENTS * ROWS)[:fires]
        made[feature, rows] = np.exp(generator.normal(0, 1, fires))
    return made


@pytest.fixture(scope="module")
def sums(values):
    features, rows = np.nonzero(values)
    entries = Entries(features, values[features, rows], rows, rows // ROWS)
    firing = Firing(F, Labels(["all"], np.zeros(DOCUMENTS, np.int32)))
    firing.add(entries, np.zeros(len(rows), np.int64), np.zeros(DOCUMENTS * ROWS, np.int64))
    top, sample = KeptRows("top", F, 8), KeptRows("sample", F, 64)
    for kept in (top, sample):
        kept.add(entries)
    return firing, top, sample


@pytest.fixture(scope="module")
def shown(sums):
    return shown_firings(*sums, np.array([2, 0, 1, 3]))


def test_features_come_in_the_order_asked_for_the_largest_firings_first(shown, sums):
    assert shown["feature"].unique(maintain_order=True).to_list() == [2, 0, 1]
    for feature in range(3):
        own = shown.filter(feature=feature)
        assert own["band"].unique(maintain_order=True).to_list() == [
            band for band in (TOP, *BANDS) if band in set(own["band"])
        ]
        largest = own.filter(band=TOP)
        pairs = list(zip(largest["row"], largest["activation"], strict=True))
        assert pairs == sums[1].of(feature)


def test_every_quarter_of_the_activations_is_shown_by_rows_that_lie_in_it(shown, values):
    own = shown.filter(feature=0)
    fired = values[0][values[0] > 0]
    for place, band in enumerate(BANDS):
        lines = own.filter(band=band)
        assert lines["rank"].to_list() == list(range(1, PER_BAND + 1))
        low, high = np.quantile(fired, [0.75 - place / 4, 1 - place / 4])
        assert (lines["activation"] >= low).all()
        assert (lines["activation"] <= high * WITHIN).all()


def test_activations_are_those_of_the_rows_and_no_row_is_shown_twice(shown, values):
    for line in shown.iter_rows(named=True):
        assert line["activation"] == values[line["feature"], line["row"]]
    assert not shown.select("feature", "row").is_duplicated().any()


def test_a_feature_that_fires_once_is_shown_once_and_a_silent_one_not_at_all(shown):
    assert shown.filter(feature=2)["band"].to_list() == [TOP]
    assert shown.filter(feature=3).is_empty()


def test_rows_of_the_quarters_are_of_different_documents(shown):
    for feature in range(2):
        own = shown.filter(feature=feature)
        rows = own.filter(own["band"] != TOP)["row"].to_numpy()
        assert len(set(rows // ROWS)) == len(rows)
