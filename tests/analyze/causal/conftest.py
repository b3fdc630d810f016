"""A store harvested with the two tiny models, which differ in tokenizer, width and architecture.

And a dictionary of it with random directions, swept.
"""

import pytest

from analyze.causal.models import open_models
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.subject import open_subject
from analyze.sweep.gather import gather
from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import Config
from store.reader import Store
from train.dictionary.partition import dedicated

from .directed import CONTEXTS, FEATURES, A, B, directed, saved

HOOKPOINTS = {"a": ["model.layers.1", "head.2.1"], "b": ["gpt_neox.layers.1"]}
MAX_TOKENS = 48


@pytest.fixture(scope="session")
def configure(model_pair, corpus_file, tmp_path_factory):
    """The configuration of a run over the awkward corpus, in a folder of its own."""

    def configuration(models=("a", "b"), corpus=None, **harvest_keys) -> Config:
        raw = {
            "run_dir": str(tmp_path_factory.mktemp("causal")),
            "models": {
                name: {
                    "path": str(model_pair[name]),
                    "hookpoint": HOOKPOINTS[name],
                    "dtype": "float32",
                    "device": "cpu",
                }
                for name in models
            },
            "corpus": corpus or {"path": str(corpus_file), "label_column": "domain"},
            "harvest": {"max_tokens": MAX_TOKENS, "batch_tokens": 400, **harvest_keys},
            "store": {"chunk_rows": 128},
        }
        return Config("test.yaml", raw)

    return configuration


@pytest.fixture(scope="session")
def harvested(configure) -> tuple[Config, Store]:
    """A configuration and the store that was harvested with it."""
    config = configure()
    harvest(Settings.read(config))
    return config, Store(config.store_path)


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
