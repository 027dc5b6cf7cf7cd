"""The difference of two texts, line by line."""

from difflib import unified_diff

from hypothesis import given
from hypothesis import strategies as st

from generator.desired import lines

# Few different lines, each of them often, as in a file of many V-Nets.
TEXTS = st.lists(st.sampled_from("abc"), max_size=12)


def of_difflib(old: list[str], new: list[str]) -> list[str]:
    result = list(unified_diff(old, new, lineterm=""))[2:]
    return ["@@" if line.startswith("@@") else line for line in result]


def changes(difference: list[str]) -> int:
    return sum(line[0] in "+-" for line in difference)


@given(TEXTS, TEXTS)
def test_a_difference_changes_no_more_lines_than_difflib(old: list[str], new: list[str]) -> None:
    """The difference keeps the order of lines, and changes no more of them than difflib does."""
    result = list(lines.difference(old, new))
    if not result:
        assert old == new
        return
    shown = [line for line in result if line != "@@"]
    for text, sign in ((old, "-"), (new, "+")):
        rest = iter(text)
        assert all(line[1:] in rest for line in shown if line[0] in {sign, " "})
    assert changes(result) <= changes(of_difflib(old, new))


def test_lines_that_stay_at_their_places() -> None:
    """The difference equals that of difflib, with three lines of context."""
    old = [f"{n}" for n in range(60)]
    new = list(old)
    for place in (0, 20, 21, 25, 40, 59):
        new[place] = "new"
    result = list(lines.difference(old, new))
    assert result == of_difflib(old, new)
    assert result.count("@@") == 4


def test_a_line_that_comes_and_one_that_goes() -> None:
    """Lines between a new one and a removed one are the same, although the length is too."""
    old = [*"abcdefgh"]
    new = [*"bcdefghi"]
    assert list(lines.difference(old, new)) == of_difflib(old, new)
