"""Numbers of tasks as Slurm reads them."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.wording import number_ranges


@given(st.sets(st.integers(0, 60)).map(sorted))
def test_ranges_hold_just_the_numbers(numbers):
    found = []
    for part in number_ranges(numbers).split(",") if numbers else []:
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    assert found == numbers


def test_neighbours_are_joined():
    assert number_ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
