"""Which task a process is: from options, from a Slurm job array, or neither."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.tasks import WHOLE, Task
from pipeline.errors import ConfigError


def array(index, least, most, count=None, step=1) -> dict[str, str]:
    """The environment that Slurm gives task `index` of `--array=least-most:step`."""
    values = {
        "ID": index,
        "MIN": least,
        "MAX": most,
        "COUNT": (most - least) // step + 1 if count is None else count,
        "STEP": step,
    }
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def test_without_options_and_array_one_task_does_everything():
    assert Task.read(None, None, {}) == WHOLE == Task(0, 1)


def test_options_say_which_task_it_is():
    assert Task.read(2, 4, {}) == Task(2, 4)
    assert Task.read(0, 1, {}) == WHOLE


def test_a_job_array_says_it_too_and_options_go_before_it():
    assert Task.read(None, None, array(3, 0, 7)) == Task(3, 8)
    assert Task.read(1, 2, array(3, 0, 7)) == Task(1, 2)


def test_a_failed_task_submitted_alone_is_told_how_many_there_are():
    assert Task.read(None, 8, array(3, 3, 3)) == Task(3, 8)


@pytest.mark.parametrize("environment", [array(3, 3, 3), array(1, 1, 4), array(2, 0, 6, step=2)])
def test_an_array_that_is_not_numbered_from_zero_is_refused_with_the_remedy(environment):
    with pytest.raises(ConfigError, match=r"add --of N, or submit --array=0-\(N-1\)"):
        Task.read(None, None, environment)


@pytest.mark.parametrize(
    ("index", "of", "environment", "said"),
    [
        (1, None, {}, "give both"),
        (None, 4, {}, "give both"),
        (4, 4, {}, "--task 4 --of 4: tasks are numbered from 0 to 3"),
        (-1, 4, {}, "--task -1"),
        (0, 0, {}, "--of 0: a store has at least one task"),
        (None, 2, array(5, 0, 7), "--task 5 --of 2"),
        (None, None, {"SLURM_ARRAY_TASK_ID": "x"}, "SLURM_ARRAY_TASK_ID='x'"),
        (None, None, {"SLURM_ARRAY_TASK_ID": "0"}, "SLURM_ARRAY_TASK_MIN is not set"),
    ],
)
def test_what_makes_no_sense_is_refused(index, of, environment, said):
    with pytest.raises(ConfigError) as error:
        Task.read(index, of, environment)
    assert said in str(error.value)


@given(st.integers(1, 50), st.integers(0, 10_000))
def test_the_shares_of_all_tasks_are_equal_to_one_row_and_add_up(of, rows):
    shares = [Task(index, of).share(rows) for index in range(of)]
    assert sum(shares) == rows
    assert max(shares) - min(shares) <= 1


def test_without_a_number_of_rows_there_is_no_share():
    assert Task(1, 4).share(None) is None
