"""`harvest run`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harvest.config import HarvestConfig
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    make_app,
    next_command,
    read_config,
    run,
)
from pipeline.config import CorpusSpec, ModelSpec, describe
from store.config import StoreConfig

if TYPE_CHECKING:
    from harvest.estimate import Estimate
    from harvest.run import HarvestSummary

app = make_app("Reads a corpus with every model and writes aligned activations to a store.")

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what it would write and take; write nothing (default: off)."
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check", help="Only validate the configuration and look for its files (default: off)."
    ),
]


@app.callback()
def _commands() -> None:
    """Keeps `run` a subcommand although it is the only one."""


KEYS = "\n\n".join(
    [
        describe(HarvestConfig, "harvest"),
        describe(CorpusSpec, "corpus"),
        describe(ModelSpec, "models.NAME"),
        describe(StoreConfig, "store"),
    ]
)


@app.command("run", epilog=KEYS)
def run_(
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRun = False,
    check: Check = False,
    as_json: JsonOption = False,
) -> None:
    """Harvests, or continues a harvest that was interrupted."""
    from harvest.settings import Settings

    settings = Settings.read(read_config(config, set_))
    settings.check_files()
    if check:
        return
    from transformers.utils import logging

    logging.disable_progress_bar()
    if dry_run:
        from harvest.estimate import estimate

        expected = estimate(settings)
        print(json.dumps(asdict(expected), indent=2) if as_json else _expected(expected))
        return
    from harvest.run import harvest

    summary = harvest(settings)
    print(json.dumps(asdict(summary), indent=2) if as_json else _done(summary, config, set_))


def _done(summary: HarvestSummary, config: Path | None, overrides: list[str] | None) -> str:
    speed = summary.rows_per_second
    state = "was already complete" if speed is None else f"{speed:,.0f} rows/s"
    return "\n".join(
        [
            f"{summary.store}: {summary.rows:,} rows of {summary.documents:,} documents, "
            f"{summary.bytes / 1e6:,.1f} MB; {state}",
            _paired(summary.paired_fraction),
            f"next: {next_command('train run', config, overrides)}",
        ]
    )


def _expected(estimate: Estimate) -> str:
    speed = estimate.rows_per_second
    size = "size not known ahead (the corpus does not say how many documents it has)"
    if estimate.rows is not None and estimate.bytes is not None:
        seconds = "unknown time" if estimate.seconds is None else _duration(estimate.seconds)
        size = (
            f"about {estimate.rows:,} rows of {estimate.documents:,} documents, "
            f"{estimate.bytes / 1e6:,.1f} MB, {seconds}"
        )
    return "\n".join(
        [
            f"{estimate.store}: {size}"
            + ("" if speed is None else f" at {speed:,.0f} rows/s on this machine"),
            f"free disk space there: {estimate.free_bytes / 1e6:,.1f} MB",
            _paired(estimate.paired_fraction),
        ]
    )


def _paired(fractions: dict[str, float]) -> str:
    return "tokens paired: " + ", ".join(f"{name} {share:.1%}" for name, share in fractions.items())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def main() -> None:
    """Console entry point."""
    run(app)
