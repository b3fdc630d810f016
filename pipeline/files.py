"""The configuration file as `pipeline` takes it: an argument, or --config like everywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.config import DEFAULT_FILE
from pipeline.errors import ConfigError

FileArgument = Annotated[
    Path | None, typer.Argument(help=f"Configuration file (default: {DEFAULT_FILE}).")
]


def chosen_file(file: Path | None, config: Path | None) -> Path:
    """The one that was named. Raises ConfigError if two were."""
    if file is not None and config is not None and file != config:
        raise ConfigError(f"--config {config}: given beside FILE {file}; name one")
    return file or config or DEFAULT_FILE
