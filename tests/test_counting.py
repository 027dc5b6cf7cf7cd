"""What counts in place of a clock, and how much random tests try: both have to be what they say."""

from functools import partial

import pytest
from hypothesis import settings

from tests.counting import instructions
from tests.profiles import rounds


def pairs(count: int) -> int:
    """Look at each pair of so many numbers."""
    numbers = range(count)
    return sum(1 for one in numbers for other in numbers if one == other)


def test_a_loop_within_a_loop_shows() -> None:
    """Four times as much to look at is sixteen times the work; and the count is always the same."""
    few, many = (instructions(partial(pairs, count)) for count in (100, 400))
    assert few > 100**2
    assert 15 * few < many < 17 * few
    assert instructions(partial(pairs, 100)) == few


def test_the_profile_is_that_of_the_run(pytestconfig: pytest.Config) -> None:
    """The gate repeats itself; with `--all` examples are new each time, and there are more."""
    long = bool(pytestconfig.getoption("all_of_it"))
    assert rounds(short=1, long=2) == 1 + long
    assert settings().derandomize is not long
    assert settings().print_blob
    assert settings().deadline is None
