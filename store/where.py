"""Which store a command means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.command import read_config

StorePath = Annotated[
    Path | None, typer.Argument(help="The store (default: RUN_DIR/store.zarr of the config).")
]


def store_path(path: Path | None, config: Path | None, overrides: list[str] | None) -> Path:
    """The given path, or the store of the configuration's run."""
    return path if path is not None else read_config(config, overrides).store_path
