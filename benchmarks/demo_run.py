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
    if path is not None:
        return Store(path)
    run = ["-P", "-m", "harvest", "run", "--config", str(CONFIG), "--set", f"run_dir={scratch}"]
    subprocess.run([sys.executable, *run], check=True)
    return Store(scratch / "store.zarr")


def demo_training(**changes: object) -> TrainConfig:
    """The demo's training section, changed."""
    section = load_config(CONFIG, []).section("train", TrainConfig)
    return TrainConfig.model_validate({**section.model_dump(), **changes})
