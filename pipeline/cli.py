"""`pipeline run [FILE]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline.command import CheckOption, ConfigOption, SetOption, console, make_app, read_config
from pipeline.command import run as run_app
from pipeline.config import DEFAULT_FILE
from pipeline.errors import ConfigError
from pipeline.run import STAGES, check_all, run_all

app = make_app("Diff two language models: harvest, train and analyze, from one file.")


@app.callback()
def _commands() -> None:
    """Diff two language models: harvest, train and analyze, from one file."""


@app.command()
def run(
    file: Annotated[
        Path | None, typer.Argument(help=f"Configuration file (default: {DEFAULT_FILE}).")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            help="First stage to run: harvest, train or analyze (default: harvest).",
            show_default=False,
        ),
    ] = "harvest",
    check: CheckOption = False,
) -> None:
    """Runs every stage in order; what is already done is not done again."""
    if file is not None and config is not None and file != config:
        raise ConfigError(f"--config {config}: given beside FILE {file}; name one")
    chosen = file or config or DEFAULT_FILE
    settings = read_config(chosen, set_)
    names = [stage.name for stage in STAGES]
    if start not in names:
        raise ConfigError(f"--from {start}: no such stage; one of {', '.join(names)}")
    stages = STAGES[names.index(start) :]
    check_all(stages, chosen, set_ or [])
    if check:
        console.print(f"{escape(str(chosen))}: every section is valid")
        return
    seconds = run_all(stages, chosen, set_ or [])
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    print(f"{settings.run_dir}: done ({times})")


def main() -> None:
    """Console entry point."""
    run_app(app)
