"""A small store whose features are known by construction, and a dictionary that reads them.

And a store harvested with the two tiny models, which differ in tokenizer, width and architecture.

Two models of widths 6 and 8. Every row is a word; what a word means decides the direction that
its activation takes: `a`-words move model a alone, `b`-words model b alone, `s`-words both.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import Config
from store.block import Block
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated, single_group

A, B = "a.mid.out", "b.mid.out"
DOMAINS = ("prose", "german", "code")
WORDS = {
    "prose": ["shared0", "shared1"],
    "german": ["shared0", "only_a"],
    "code": ["shared1", "only_b", "<script>alert(1)</script>"],
}
# Feature numbers in the partition [a: 2 | shared: 3 | b: 2]; features 1, 4 and 6 never fire.
FEATURE_OF_WORD = {
    "only_a": 0,
    "shared0": 2,
    "shared1": 3,
    "only_b": 5,
    "<script>alert(1)</script>": 5,
}

HOOKPOINTS = {"a": ["model.layers.1", "head.2.1"], "b": ["gpt_neox.layers.1"]}
MAX_TOKENS = 48


def _rows(words: list[str], generator: torch.Generator) -> dict[str, torch.Tensor]:
    features = torch.tensor([FEATURE_OF_WORD[word] for word in words], dtype=torch.long)
    strength = 1 + torch.rand(len(words), 1, generator=generator)
    codes = torch.zeros(len(words), 7)
    codes[torch.arange(len(words)), features] = strength[:, 0]
    a, b = codes[:, :5], codes[:, 2:]
    return {
        A: torch.nn.functional.pad(a, (0, 1)).bfloat16(),
        B: torch.nn.functional.pad(b, (0, 3)).bfloat16(),
    }


@pytest.fixture(scope="session")
def known_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """60 documents of 12 words in three domains, in chunks of 50 rows."""
    path = tmp_path_factory.mktemp("known") / "store.zarr"
    hookpoints = (Hookpoint(A, "a", 6), Hookpoint(B, "b", 8))
    schema = StoreSchema(hookpoints, 50, {"models.a": "1", "models.b": "2", "corpus": "3"}, {})
    generator = torch.Generator().manual_seed(0)
    pick = np.random.default_rng(0)
    with PartWriter(path, schema) as writer:
        for number in range(60):
            domain = DOMAINS[number % 3]
            words = [str(word) for word in pick.choice(WORDS[domain], 12)]
            ends = np.cumsum([len(word) + 1 for word in words]) - 1
            starts = ends - [len(word) for word in words]
            zeros = np.zeros(12, np.int32)
            block = Block(
                texts=[" ".join(words)],
                labels=[domain],
                sources=["corpus"],
                activations=_rows(words, generator),
                document=zeros,
                char_start=starts.astype(np.int32),
                char_end=ends.astype(np.int32),
                tokens={"a": zeros, "b": zeros},
                tokens_read={"a": 15, "b": 12},
                tokens_paired={"a": 12, "b": 12},
            )
            writer.append(block, number + 1)
        writer.finish()
    return Store(path)


def _identity(partition) -> Crosscoder:
    """Reads feature j off coordinate j of every model that sees it; codes are exact."""
    dictionary = Crosscoder((HookpointShape(A, "a", 6), HookpointShape(B, "b", 8)), partition)
    first_of_model = {0: 0, 1: 2}  # coordinate 0 of model b is feature 2
    with torch.no_grad():
        for number in range(2):
            visible = dictionary.visibility(number).features_V
            for place, feature in enumerate(visible.tolist()):
                coordinate = feature - first_of_model[number]
                if 0 <= coordinate < 5:
                    dictionary.W_dec[str(number)][place, coordinate] = 1.0
                    seen_by = 2 if 2 <= feature < 5 else 1
                    dictionary.W_enc[str(number)][place, coordinate] = 1 / seen_by
        dictionary.scale.copy_(torch.tensor([2.0, 0.5]))
        dictionary.W_enc["0"] /= 2.0
        dictionary.W_enc["1"] /= 0.5
        dictionary.W_dec["0"] *= 2.0
        dictionary.W_dec["1"] *= 0.5
    return dictionary


@pytest.fixture(scope="session")
def dfc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DFC with groups [a: 2 | shared: 3 | b: 2] that decodes `known_store` exactly."""
    folder = tmp_path_factory.mktemp("run") / "dictionary"
    partition = dedicated(("a", "b"), 7, {"a": 2 / 7, "b": 2 / 7})
    provenance = {"recipe": "dfc", "train": {"validation_fraction": 0.25}}
    save_dictionary(folder, _identity(partition), provenance)
    return folder


@pytest.fixture(scope="session")
def crosscoder_folder(dfc_folder: Path) -> Path:
    """The same features in one shared group, beside the DFC."""
    folder = dfc_folder.with_name("dictionary-batch_topk_crosscoder")
    provenance = {"recipe": "batch_topk_crosscoder", "train": {"validation_fraction": 0.25}}
    save_dictionary(folder, _identity(single_group(("a", "b"), 7)), provenance)
    return folder


@pytest.fixture(scope="session")
def configure(model_pair, corpus_file, tmp_path_factory):
    """The configuration of a run over the awkward corpus, in a folder of its own."""

    def configuration(models=("a", "b"), corpus=None, **harvest_keys) -> Config:
        raw = {
            "run_dir": str(tmp_path_factory.mktemp("harvested")),
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
