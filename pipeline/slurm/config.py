"""The `slurm` section of the configuration file: what each stage's job asks the cluster for."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.specs import Section

TIME = re.compile(r"^(?:(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?|(?:(\d+):)?(\d+)(?::(\d+))?)$")
SIGNAL_EARLY = 60  # seconds: Slurm's signals come so much earlier than asked for, or less


def _one_line(text: str) -> str:
    if not text.strip() or any(not character.isprintable() for character in text):
        raise ValueError("must be one line of text")
    return text


def _option(text: str) -> str:
    if not text.startswith("-"):
        raise ValueError("must be an option of sbatch, e.g. --constraint=h100")
    return _one_line(text)


def time_seconds(text: str) -> int:
    """Seconds of a time as sbatch takes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    found = TIME.fullmatch(text)
    if not found:
        raise ValueError("must be minutes, H:M:S or D-H:M:S, e.g. 24:00:00")
    days, hours, minutes, seconds, *rest = (int(part or 0) for part in found.groups())
    if "-" in text:
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    first, second, third = rest
    if text.count(":") == 2:
        return (first * 60 + second) * 60 + third
    return second * 60 + third if ":" not in text or found.group(5) is None else first * 60 + second


def _time(text: str) -> str:
    time_seconds(text)
    return text


def _text(value: Any) -> Any:
    """mem: 64000 is a number to YAML."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _quoted_time(value: Any) -> Any:
    if isinstance(value, int):
        raise ValueError('write it in quotes, e.g. "24:00:00": without, YAML makes it a number')
    return value


OneLine = Annotated[str, BeforeValidator(_text), AfterValidator(_one_line)]
Option = Annotated[str, AfterValidator(_option)]
Time = Annotated[str, BeforeValidator(_quoted_time), AfterValidator(_time)]


class Resources(Section):
    """What a job asks for; null is left to the cluster, or to the common keys of the section."""

    partition: OneLine | None = Field(None, description="partition(s), as sbatch --partition")
    account: OneLine | None = Field(None, description="account, as sbatch --account")
    gres: OneLine | None = Field(None, description="devices per node, e.g. gpu:1 or gpu:h100:8")
    cpus: int | None = Field(None, gt=0, description="CPU cores per node of the job")
    mem: OneLine | None = Field(None, description="memory per node, e.g. 64G")
    time: Time | None = Field(
        None, description="time limit, e.g. 24:00:00 or 2-00:00:00; a job that comes near it saves "
        "its work and goes back into the queue",
    )  # fmt: skip
    extra: list[Option] = Field(
        [], description="further options of sbatch, e.g. [--constraint=h100, --qos=low]"
    )


class HarvestJobs(Resources):
    """The job array of the harvest."""

    tasks: int = Field(
        1, gt=0, description="jobs of the array; each writes its own part of the store"
    )
    at_once: int | None = Field(
        None, gt=0, description="how many of them run at the same time at most (null: all)"
    )


class TrainJob(Resources):
    """The training job."""

    nodes: int = Field(1, gt=0, description="nodes; several are connected by torchrun")
    processes: int = Field(
        1, gt=0, description="processes per node, one per GPU; several are started by torchrun"
    )


class AnalyzeJobs(Resources):
    """The analysis."""

    tasks: int = Field(
        1, gt=0, description="jobs of an array that share the pass over the store (analyze sweep) "
        "before the report is made",
    )  # fmt: skip


class SlurmConfig(Resources):
    """How `pipeline submit` puts the stages into a cluster's queue.

    The keys of Resources are common to all stages; each may have its own.
    """

    prologue: str = Field(
        "", description="shell lines that every job runs first: modules, environments, variables"
    )
    python: OneLine | None = Field(
        None, description="the Python that jobs run (null: the one that `pipeline submit` runs)"
    )
    stop_seconds: int = Field(
        120,
        gt=0,
        description="a stage saves its work and ends this long before its time limit; give more "
        "where checkpoints are large",
    )
    # The keys above may stand in each of these as well, for one stage.
    harvest: HarvestJobs = HarvestJobs()
    train: TrainJob = TrainJob()
    analyze: AnalyzeJobs = AnalyzeJobs()

    @model_validator(mode="after")
    def _long_enough(self) -> SlurmConfig:
        least = 2 * (self.stop_seconds + 2 * SIGNAL_EARLY)
        for name in ("harvest", "train", "analyze"):
            time = self.of(name).time
            if time is not None and 0 < time_seconds(time) < least:
                raise ValueError(
                    f"{name} has a time limit of {time}, under {least // 60} minutes: with "
                    f"stop_seconds {self.stop_seconds} a job would do nothing else than begin and "
                    "end; raise time, or lower stop_seconds"
                )
        return self

    def of(self, stage: str) -> Resources:
        """What a stage's job asks for: its own keys, the common ones where it has none."""
        own: Resources = getattr(self, stage)
        keys = [key for key in Resources.model_fields if key != "extra"]
        common = {key: getattr(self, key) for key in keys if getattr(own, key) is None}
        return own.model_copy(update={**common, "extra": [*self.extra, *own.extra]})
