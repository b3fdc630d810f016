"""`analyze status`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from analyze.command import DictionaryOption, open_all, read_settings
from pipeline.command import ConfigOption, JsonOption, SetOption, StoreOption, next_command


def status(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the report (default: RUN_DIR of the config)."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Whether the report is there, and made of this dictionary, store and configuration."""
    settings, section = read_settings(config, set_)
    from analyze.baselines import baselines_of
    from analyze.status import status as read_status

    folder = out or settings.run_dir
    anywhere = section.model_copy(update={"device": "cpu", "incomplete_store": True})
    opened = open_all(settings, anywhere, store, dictionary, folder / "analysis")
    others = baselines_of(settings) if dictionary is None else []
    found = read_status(opened, [str(one) for one in others], folder / "report.html")
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    print(f"{found.page}: {found.state}" + (f": {found.reason}" if found.reason else ""))
    if found.tables:
        print(f"tables of this dictionary: {', '.join(found.tables)}")
    if found.state != "complete":
        options = {"store": store, "dictionary": dictionary, "out": out}
        print("next:", next_command("analyze report", config, set_, **options))
