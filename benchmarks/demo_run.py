"""The demo's store and training settings, for benchmarks on activations of trained models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.config import load_config
from store.reader import Store
from train.config import TrainConfig

CONFIG = Path("pipeline.yaml")


def demo_store(path: Path | None, scratch: Path) -> Store:
    """The store at `path`; without one, the demo is harvested into `scratch` (about a minute)."""
    return _harvested(scratch) if path is None else Store(path)


def two_layers(scratch: Path) -> Store:
    """The demo harvested once more, with two layers of model b, which are equally wide."""
    return _harvested(scratch, "models.b.hookpoint=[gpt_neox.layers.1, gpt_neox.layers.2]")


def _harvested(scratch: Path, *changes: str) -> Store:
    run = ["-P", "-m", "harvest", "run", "--config", str(CONFIG)]
    for change in (f"run_dir={scratch}", *changes):
        run += ["--set", change]
    # What it says goes beside the table, which is for standard output alone.
    subprocess.run([sys.executable, *run], check=True, stdout=sys.stderr)
    return Store(scratch / "store.zarr")


def demo_training(**changes: object) -> TrainConfig:
    """The demo's training section, changed."""
    section = load_config(CONFIG, []).section("train", TrainConfig)
    return TrainConfig.model_validate({**section.model_dump(), **changes})
