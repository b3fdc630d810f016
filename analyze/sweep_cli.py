"""`analyze sweep`."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from analyze.command import (
    SWEEP,
    DictionaryOption,
    OutOption,
    open_all,
    orderly,
    read_settings,
)
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    next_command,
)
from pipeline.errors import ConfigError


def sweep(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    task: Annotated[
        int | None,
        typer.Option(
            "--task",
            min=0,
            help="Read this share of the store alone, from 0 on (default: the index in a Slurm job "
            "array, or 0).",
        ),
    ] = None,
    of: Annotated[int, typer.Option("--of", min=1, help="Shares that the store is cut into.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Reads the store once for all commands: alone, or as one of several processes.

    Every other command makes the pass by itself if it is not there; this one is for stores that
    take hours. Started as N processes with --task 0 to N-1 and --of N, each reads its share; the
    next command adds them up. Killed, it goes on from what it saved a minute before.
    """
    settings, section = read_settings(config, set_)
    task = int(os.environ.get("SLURM_ARRAY_TASK_ID", 0)) if task is None else task
    if not task < of:
        raise ConfigError(f"--task {task}: tasks of --of {of} are 0 to {of - 1}")
    from analyze.everything import everything
    from analyze.sweep.saved import Share

    opened = open_all(settings, section, store, dictionary, out)
    accumulators = everything(opened.subject, section)
    with orderly():
        opened.sweep(accumulators, Share(task, of))
    files = [str(Share(task, of).file(opened.out / SWEEP, one.name)) for one in accumulators]
    if as_json:
        print(json.dumps({"files": files}, indent=2))
        return
    print(f"written: {opened.out / SWEEP}/, {len(files)} statistics")
    print("next:", next_command("analyze report", config, set_, store=store, dictionary=dictionary))
