"""What the section may hold, and what each stage's job gets of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.slurm.config import SlurmConfig, time_seconds


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_times_are_read_as_sbatch_reads_them(days, hours, minutes, seconds):
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert time_seconds(f"{days}-{hours}:{minutes}:{seconds}") == total
    assert time_seconds(f"{days}-{hours}:{minutes}") == total - seconds
    assert time_seconds(f"{days}-{hours}") == (days * 24 + hours) * 3600
    assert time_seconds(f"{hours}:{minutes}:{seconds}") == total - days * 86400
    assert time_seconds(f"{minutes}:{seconds}") == minutes * 60 + seconds
    assert time_seconds(f"{minutes}") == minutes * 60


@pytest.mark.parametrize("text", ["", "10\n", "an hour", "1:2:3:4", "1-", "-1", "1-2-3"])
def test_other_times_are_refused(text):
    with pytest.raises(ValidationError):
        SlurmConfig(time=text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time": 86400}, "write it in quotes"),  # what YAML makes of 24:00:00
        ({"partition": "a\n#SBATCH --uid=0"}, "must be one line"),
        ({"extra": ["rm -rf"]}, "must be an option of sbatch"),
        ({"extra": ["--a\n--b"]}, "must be one line"),
        ({"time": "5"}, "harvest has a time limit of 5, under 8 minutes"),
        ({"train": {"time": "4:00"}}, "train has a time limit of 4:00"),
    ],
)
def test_what_no_job_can_have_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        SlurmConfig.model_validate(values)


def test_a_stage_has_its_own_keys_and_the_common_ones():
    section = SlurmConfig.model_validate(
        {
            "partition": "gpu",
            "mem": 64000,
            "time": "24:00:00",
            "extra": ["--qos=low"],
            "train": {"time": "2-00:00:00", "gres": "gpu:8", "extra": ["--exclusive"]},
        }
    )
    train, harvest = section.of("train"), section.of("harvest")
    assert (train.partition, train.mem, train.time) == ("gpu", "64000", "2-00:00:00")
    assert (train.gres, harvest.gres) == ("gpu:8", None)
    assert train.extra == ["--qos=low", "--exclusive"]
    assert harvest.extra == ["--qos=low"]
    assert harvest.time == "24:00:00"
