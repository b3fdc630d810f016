"""A store harvested with the two tiny models, which differ in tokenizer, width and architecture."""

import pytest

from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import Config
from store.reader import Store

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
