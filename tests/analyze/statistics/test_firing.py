from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analyze.labels import Labels
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.sweep.seen import Entries

FEATURES, LABELS = 4, 3
entry = st.tuples(
    st.integers(0, FEATURES - 1),
    st.integers(1, 6).map(lambda n: n / 4),
    st.integers(0, 30),
)
batches = st.lists(st.lists(entry, max_size=12), max_size=6)


def _firing(features, labels):
    return Firing(features, Labels([str(n) for n in range(labels)], np.zeros(0, np.int32)))


def _entries(batch, first_row):
    features, values, places = (list(column) for column in zip(*batch, strict=True))
    rows = np.array(places, np.int64) + first_row
    return Entries(np.array(features), np.array(values, np.float32), rows, rows // 5)


@given(batches)
def test_top_rows_are_the_largest_of_each_document_whatever_the_batches(batches):
    top = KeptRows("top", FEATURES, 2)
    best = defaultdict(dict)
    for number, batch in enumerate(batches):
        unique = {(feature, row): value for feature, value, row in batch}
        if not unique:
            continue
        entries = _entries([(f, v, r) for (f, r), v in unique.items()], 31 * number)
        top.add(entries)
        for feature, value, document in zip(
            entries.features, entries.values, entries.documents, strict=True
        ):
            seen = best[int(feature)]
            seen[int(document)] = max(float(value), seen.get(int(document), 0.0))
    for feature in range(FEATURES):
        expected = sorted(best[feature].values(), reverse=True)[:2]
        found = top.of(feature)
        assert [value for _, value in found] == expected
        documents = [row // 5 for row, _ in found]
        assert len(set(documents)) == len(documents)


def test_sums_equal_those_of_plain_loops():
    generator = np.random.default_rng(0)
    sums = _firing(FEATURES, LABELS)
    fires, activation = np.zeros((FEATURES, LABELS)), np.zeros((FEATURES, LABELS))
    rows, largest = np.zeros(LABELS), np.zeros(FEATURES)
    for _ in range(3):
        row_labels = generator.integers(0, LABELS, 20)
        in_batch = generator.integers(0, 20, 30)
        features = generator.integers(0, FEATURES, 30)
        values = generator.random(30).astype(np.float32)
        entries = Entries(features, values, in_batch, in_batch)
        sums.add(entries, row_labels[in_batch], row_labels)
        for feature, value, row in zip(features, values, in_batch, strict=True):
            fires[feature, row_labels[row]] += 1
            activation[feature, row_labels[row]] += value
            largest[feature] = max(largest[feature], value)
        for label in row_labels:
            rows[label] += 1
    np.testing.assert_array_equal(sums.fires, fires)
    np.testing.assert_allclose(sums.activation, activation, rtol=1e-12)
    np.testing.assert_array_equal(sums.rows, rows)
    np.testing.assert_array_equal(sums.largest, largest)
    np.testing.assert_allclose(sums.density, fires.sum(1) / rows.sum())
    np.testing.assert_allclose(sums.shares(), fires / fires.sum(1, keepdims=True))


def test_rate_ratio_compares_rates_per_row_and_knows_its_edges():
    sums = _firing(3, 2)
    sums.rows[:] = [100, 300]
    sums.fires[:] = [[10, 10], [5, 0], [0, 0]]
    ratio = sums.rate_ratio(0)
    assert ratio[0] == 3.0
    assert ratio[1] == np.inf
    assert np.isnan(ratio[2])
