from types import SimpleNamespace

import numpy as np

from analyze.labels import MOST, read_labels


def _documents(names, counts):
    of_document = np.repeat(np.arange(len(names)), counts)
    return SimpleNamespace(label_names=names, labels=of_document)


def test_few_labels_stay_as_they_are_and_none_is_nameless():
    labels = read_labels(_documents(["", "code"], [2, 3]))
    assert labels.names == ["(none)", "code"]
    assert labels.of_document.tolist() == [0, 0, 1, 1, 1]


def test_of_many_labels_the_rarest_count_as_one():
    names = [f"url{number}" for number in range(100)]
    counts = [1 + (number * 37) % 100 for number in range(100)]
    labels = read_labels(_documents(names, counts))
    kept = {name for name, count in zip(names, counts, strict=True) if count > 100 - (MOST - 1)}
    assert set(labels.names) == {*kept, "(other)"}
    for name, number in zip(labels.names[:-1], range(MOST - 1), strict=True):
        assert np.count_nonzero(labels.of_document == number) == counts[names.index(name)]
    other = np.count_nonzero(labels.of_document == MOST - 1)
    assert other == sum(count for count in counts if count <= 100 - (MOST - 1))
