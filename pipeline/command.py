"""What every command line here shares: its options, its one-line errors, its progress bar."""

from __future__ import annotations

import errno
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from pipeline.config import DEFAULT_FILE, Config, load_config
from pipeline.errors import CrossdiffError
from pipeline.memory import ran_out

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help=f"Configuration file (default: {DEFAULT_FILE}). Its shared keys are run_dir (where "
        "everything is written; default: runs/default), models and corpus.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override one key of the file: section.key=value. May be repeated (default: none).",
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The store (default: RUN_DIR/store.zarr of the config)."),
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Only validate the configuration (default: off).")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON (default: off).")
]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EROFS)
STOPPED = {128 + signal.SIGINT: "interrupted", 128 + signal.SIGTERM: "stopped by SIGTERM"}

console = Console(stderr=True, highlight=False)


def note(text: str) -> None:
    """Says something on stderr that a user should know of what goes on all the same."""
    console.print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


def read_config(file: Path | None, overrides: list[str] | None) -> Config:
    """The configuration that `--config` and `--set` describe. Raises ConfigError."""
    return load_config(file or DEFAULT_FILE, overrides or [], explicit=file is not None)


def next_command(
    words: str, file: Path | None, overrides: list[str] | None, **paths: Path | None
) -> str:
    """A command to run next, with the options that the user gave to this one, quoted."""
    file = None if file == DEFAULT_FILE else file
    options = [("--config", file), *(("--set", text) for text in overrides or [])]
    options += [(f"--{name}", path) for name, path in paths.items()]
    given = [f"{name} {shlex.quote(str(value))}" for name, value in options if value is not None]
    return " ".join([words, *given])


def make_app(help: str) -> typer.Typer:
    """A Typer program in the house style."""
    return typer.Typer(
        help=help,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Add --debug to any command to see the traceback of an error.",
    )


def run(app: typer.Typer) -> NoReturn:
    """Console entry point: a user's error is one line on stderr and exit code 1."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except CrossdiffError as error:
        if debug:
            raise
        _fail(str(error))
    except SystemExit as stop:  # what Typer makes of Ctrl-C, and a stage of a signal, wordlessly
        for code, reason in STOPPED.items():
            if stop.code == code:
                _fail(f"{reason}; run the same command again to continue", code)
        raise
    except OSError as error:
        if debug or (error.filename is None and error.errno not in (*NO_ROOM, *REFUSED)):
            raise
        remedy = "name another path"
        if error.errno in NO_ROOM:
            remedy = "free space and run the same command again, or choose another run_dir"
        elif error.errno in REFUSED:
            remedy = "make it writable, or choose another run_dir"
        _fail(f"{error.filename or 'output'}: {error.strerror}; {remedy}")
    except (RuntimeError, MemoryError) as error:
        if debug or not ran_out(error):
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        _fail(
            f"out of memory: {said}; lower batch_rows or batch_tokens of the stage, or set its "
            "device to cpu (--debug says where it was)"
        )
    sys.exit(0)


def _fail(message: str, code: int = 1) -> NoReturn:
    console.print(f"[bold red]error:[/] {escape(' '.join(message.split()))}", soft_wrap=True)
    sys.exit(code)


class RateColumn(ProgressColumn):
    """Completed units per second."""

    def __init__(self, unit: str) -> None:
        super().__init__(Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The text of the column."""
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:,.0f} {self.unit}/s")


def progress_bar(unit: str) -> Progress:
    """A progress bar with rate and ETA; its task may carry a `note` field (last loss, ...)."""
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=10),
        TaskProgressColumn(),
        RateColumn(unit),
        TimeRemainingColumn(
            elapsed_when_finished=True, table_column=Column(no_wrap=True, min_width=7)
        ),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
        console=console,
    )
