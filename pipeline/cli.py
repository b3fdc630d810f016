"""`pipeline run`, `pipeline submit` and `pipeline status`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from pipeline.command import CheckOption, ConfigOption, SetOption, console, make_app, read_config
from pipeline.command import run as run_app
from pipeline.config import describe
from pipeline.errors import ConfigError
from pipeline.files import FileArgument, chosen_file
from pipeline.run import check_all, run_all
from pipeline.slurm.config import SlurmConfig
from pipeline.slurm.submit_cli import submit
from pipeline.stages import chosen_stages
from pipeline.status_cli import status

app = make_app("Diff two language models: harvest, train and analyze, from one file.")


@app.callback()
def _commands() -> None:
    """Diff two language models: harvest, train and analyze, from one file."""


@app.command()
def run(
    file: FileArgument = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="First stage to run: harvest, train or analyze (default: harvest)."
        ),
    ] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(
            "--force",
            help="Do this stage anew, and remove what it has made before; may be repeated.",
        ),
    ] = None,
    check: CheckOption = False,
) -> None:
    """Runs every stage in order; what is complete and still what the file asks for is skipped."""
    chosen = chosen_file(file, config)
    settings = read_config(chosen, set_)
    stages = chosen_stages(start=start)
    forced = {stage.name for stage in chosen_stages(force)} if force else set()
    for name in forced - {stage.name for stage in stages}:
        raise ConfigError(f"--force {name}: is before --from {start}; begin with it, or drop one")
    check_all(stages, chosen, set_ or [])
    if check:
        console.print(f"{escape(str(chosen))}: every section is valid")
        return
    seconds = run_all(settings, stages, chosen, set_ or [], forced)
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    print(f"{settings.run_dir}: done ({times or 'everything was complete'})")


SLURM_KEYS = (
    "partition to extra may stand in slurm.harvest, slurm.train and slurm.analyze as well, for "
    "that stage alone."
)
app.command(epilog=f"{describe(SlurmConfig, 'slurm')}\n\n{SLURM_KEYS}")(submit)
app.command()(status)


def main() -> None:
    """Console entry point."""
    run_app(app)
