"""The count of instructions, which replaces a clock, and the profile of the random tests."""

from functools import partial

import pytest
from hypothesis import settings

from tests.counting import instructions
from tests.profiles import rounds


def pairs(count: int) -> int:
    """Look at each pair of so many numbers."""
    numbers = range(count)
    return sum(1 for one in numbers for other in numbers if one == other)


def test_the_count_shows_a_loop_within_a_loop() -> None:
    """Four times the numbers are sixteen times the work; the count is the same each time."""
    few, many = (instructions(partial(pairs, count)) for count in (100, 400))
    assert few > 100**2
    assert 15 * few < many < 17 * few
    assert instructions(partial(pairs, 100)) == few


def test_the_profile_is_that_of_the_run(pytestconfig: pytest.Config) -> None:
    """The gate has the same examples each time; `--all` has new ones, and more."""
    long = bool(pytestconfig.getoption("all_of_it"))
    assert rounds(short=1, long=2) == 1 + long
    assert settings().derandomize is not long
    assert settings().print_blob
    assert settings().deadline is None
