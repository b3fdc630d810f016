"""A store harvested with the two tiny models, and a dictionary of random directions for it."""

import pytest
import torch

from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import Config
from store.reader import Store
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated

RESIDUAL = {"a": "model.layers.1", "b": "gpt_neox.layers.1"}
INSIDE = {"a": "model.layers.1.mlp", "b": "gpt_neox.layers.0"}
FEATURES = 20
CUT = 0.6  # of a feature's pre-activations, below which it is silent


def configuration(models, corpus, hookpoints, run_dir) -> Config:
    return Config(
        "test.yaml",
        {
            "run_dir": str(run_dir),
            "models": {
                name: {
                    "path": str(path),
                    "hookpoint": hookpoints[name],
                    "dtype": "float32",
                    "device": "cpu",
                }
                for name, path in models.items()
            },
            "corpus": {"path": str(corpus), "label_column": "domain"},
            "harvest": {"max_tokens": 48, "batch_tokens": 400},
            "store": {"chunk_rows": 128},
        },
    )


def random_dictionary(store: Store) -> Crosscoder:
    """Directions at random, a bias that keeps each feature silent on most rows."""
    shapes = tuple(HookpointShape(h.name, h.model, h.width) for h in store.schema.hookpoints)
    made = Crosscoder(shapes, dedicated(("a", "b"), FEATURES, {"a": 5, "b": 6}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in (*made.W_enc.values(), *made.W_dec.values()):
            weights.copy_(torch.randn(weights.shape, generator=generator))
        rows = {
            h.name: torch.cat([store.activations(h.name, c) for c in range(store.chunks)])
            for h in store.schema.hookpoints
        }
        x = made.scaled(rows)
        pre_BF = made._dense_preactivations({n: x[n] for n in made.inputs}, made.b_enc)
        made.b_enc.copy_(-pre_BF.quantile(CUT, dim=0))
    return made


@pytest.fixture(scope="session")
def run(model_pair, corpus_file, tmp_path_factory):
    """What a harvest with these hookpoints leaves, and a dictionary: (configuration, store)."""

    def made(hookpoints):
        folder = tmp_path_factory.mktemp("features")
        config = configuration(model_pair, corpus_file, hookpoints, folder)
        harvest(Settings.read(config))
        store = Store(config.store_path)
        save_dictionary(config.dictionary_path, random_dictionary(store), {"recipe": "dfc"})
        return config, store

    return made


@pytest.fixture(scope="session")
def residual(run):
    """Both models at the output of a layer."""
    return run(RESIDUAL)


@pytest.fixture(scope="session")
def inside(run):
    """Model a inside a layer, model b at the output of one."""
    return run(INSIDE)
