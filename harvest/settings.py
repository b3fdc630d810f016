"""What a harvest reads of the configuration file, validated before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harvest.config import HarvestConfig
from harvest.corpus.reader import check_corpus
from harvest.models.local import local_folder
from pipeline.config import Config
from pipeline.specs import CorpusSpec, ModelSpec, SourceSpec
from store.config import StoreConfig


@dataclass(frozen=True)
class Settings:
    """The models, the corpus, how to read them, and the store to write."""

    models: dict[str, ModelSpec]
    corpus: CorpusSpec
    harvest: HarvestConfig
    store: StoreConfig
    path: Path

    @classmethod
    def read(cls, config: Config) -> Settings:
        """Validates every key that a harvest uses. Raises ConfigError."""
        return cls(
            models=config.models,
            corpus=config.corpus,
            harvest=config.section("harvest", HarvestConfig),
            store=config.section("store", StoreConfig),
            path=config.store_path,
        )

    def check_files(self) -> None:
        """Raises ModelError or CorpusError if a local file or folder is plainly not there."""
        for name, spec in self.models.items():
            local_folder(name, spec)
        check_corpus(self.corpus)

    def recorded(self) -> dict[str, Any]:
        """The settings that shape a store's content; a resumed harvest may use another device.

        Local folders and files may be moved as well: their fingerprints stand for them.
        """
        corpus = self.corpus.model_dump(exclude=_moveable(self.corpus), mode="json")
        for name, source in self.corpus.sources.items():
            corpus["sources"][name] = source.model_dump(exclude=_moveable(source), mode="json")
        return {
            "models": {
                name: spec.model_dump(
                    exclude={
                        "device",
                        "device_map",
                        *({"path"} if local_folder(name, spec) else ()),
                    },
                    mode="json",
                )
                for name, spec in self.models.items()
            },
            "corpus": corpus,
            "harvest": self.harvest.model_dump(mode="json"),
        }


def _moveable(source: SourceSpec) -> set[str]:
    """What says where a source lies, and not what it is."""
    local = source.path is not None and Path(source.path).expanduser().exists()
    return {"path"} if local else set()
