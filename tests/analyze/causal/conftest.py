"""The models of the harvested store, and a dictionary of it with random directions, swept."""

import pytest

from analyze.causal.models import open_models
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.subject import open_subject
from analyze.sweep.gather import gather
from train.dictionary.partition import dedicated

from .directed import CONTEXTS, FEATURES, A, B, directed, saved


@pytest.fixture(scope="session")
def models(harvested):
    """The models of the store, opened."""
    config, store = harvested
    return open_models(store, config.models)


@pytest.fixture(scope="session")
def dictionary(harvested):
    """Features of a, of both and of b with random directions; each fires on 1% of the rows."""
    return directed(harvested[1], (A, B), dedicated(("a", "b"), FEATURES, {"a": 4, "b": 4}))


@pytest.fixture(scope="session")
def subject(harvested, dictionary, tmp_path_factory):
    """The store and that dictionary."""
    folder = saved(dictionary, tmp_path_factory.mktemp("directed") / "dictionary")
    return open_subject(harvested[1], folder, "cpu")


@pytest.fixture(scope="session")
def swept(subject):
    """How often its features fire, and the rows where they fire most."""
    firing, top = Firing(FEATURES, subject.labels), KeptRows("top", FEATURES, CONTEXTS)
    gather(subject, [firing, top], 64)
    return firing, top
