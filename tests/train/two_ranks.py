"""Run by torchrun as several processes: trains every scenario, one after the other.

Arguments: the store, a folder, and a file of {name: settings}. A setting "stop_at" of a scenario
ends it by Ctrl-C after that step. What is in its folder already is gone on with.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from store.reader import Store
from train.config import TrainConfig
from train.loop import train_on
from train.ranks import ALONE, Ranks, connected
from train.source import StoreRows


def run(store: Path, folder: Path, settings: dict[str, Any], ranks: Ranks = ALONE) -> None:
    """Trains one scenario."""
    settings = dict(settings)
    last = settings.pop("stop_at", None)

    def on_step(done: int, note: str) -> None:
        if done == last:
            raise KeyboardInterrupt

    config = TrainConfig.model_validate(settings)
    source = StoreRows(Store(store), config, ranks)
    with suppress(KeyboardInterrupt):
        train_on(source, config, folder, on_step, ranks=ranks)


def main() -> None:
    torch.set_num_threads(1)
    store, out, scenarios = (Path(argument) for argument in sys.argv[1:])
    with connected() as ranks:
        for name, settings in json.loads(scenarios.read_text()).items():
            run(store, out / name, settings, ranks)


if __name__ == "__main__":
    main()
