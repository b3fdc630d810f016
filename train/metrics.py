"""Where metrics go: metrics.jsonl always, wandb if asked and installed.

A resumed run cuts the file back to what had been written at its checkpoint, so that every step
appears once.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.command import note
from pipeline.errors import ConfigError
from train.config import WandbConfig


class NoLog:
    """What a process has that leaves writing to another."""

    def write(self, metrics: dict[str, Any]) -> None:
        """Nothing."""

    @property
    def bytes_written(self) -> int:
        """None."""
        return 0

    def __enter__(self) -> NoLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class MetricsLog(NoLog):
    """Appends one JSON object per line, flushed line by line."""

    def __init__(self, folder: Path, start_bytes: int, wandb: WandbConfig, run_name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._wandb = _start_wandb(wandb, folder, run_name)
        self._file = open(folder / "metrics.jsonl", "ab")  # noqa: SIM115 (closed by __exit__)
        self._file.truncate(min(start_bytes, self._file.tell()))
        self._file.seek(0, os.SEEK_END)

    def write(self, metrics: dict[str, Any]) -> None:
        """Logs one line; `metrics` holds `step`. Numbers that are not finite become null."""
        self._file.write(json.dumps(_finite(metrics), allow_nan=False).encode() + b"\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(metrics, step=metrics["step"])

    @property
    def bytes_written(self) -> int:
        """Length of the file, durable."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(config: WandbConfig, folder: Path, run_name: str) -> Any:
    """A wandb run, or None if it is off or not installed."""
    if config.mode == "off":
        return None
    try:
        import wandb
    except ImportError:
        note(
            "wandb is not installed; metrics go to metrics.jsonl only "
            "(pip install 'crossdiff[wandb]')"
        )
        return None
    try:
        return wandb.init(
            project=config.project,
            name=run_name,
            dir=str(folder),
            mode=config.mode,
            reinit="create_new",  # one run for each dictionary of the sweep
        )
    except wandb.errors.Error as error:  # UsageError: not logged in; CommError: not reachable
        raise ConfigError(
            f"train.wandb.mode: given {config.mode!r}, but wandb refuses "
            f"({' '.join(str(error).split())}); "
            "run `wandb login`, or set train.wandb.mode to offline or off"
        ) from None


def _finite(value: Any) -> Any:
    """The same JSON value with null in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
