"""Stand-ins for the stages' sections, a configuration file, and what is said of a wrong one."""

import pytest
from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.specs import Section


class Schedule(Section):
    """A section inside a section."""

    warmup: int = Field(10, description="steps of warm-up")


class Training(Section):
    """Stands for a stage's section."""

    k: int = Field(32, gt=0, description="active features per row")
    lr: float = Field(1e-3, description="learning rate")
    schedule: Schedule = Schedule()
    steps: tuple[Schedule, ...] = ()


FILE = """
run_dir: runs/x
models:
  a: {path: demo/a, hookpoint: model.layers.1}
  b: {path: demo/b, hookpoint: gpt_neox.layers.2}
corpus: {path: corpus.parquet}
train: {k: 16}
"""


def message(action) -> str:
    with pytest.raises(ConfigError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)
