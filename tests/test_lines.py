"""The difference of two texts, line by line."""

from difflib import unified_diff

from hypothesis import given
from hypothesis import strategies as st

from generator.desired import lines

# Few different lines, each of them often, as in a file of many V-Nets.
TEXTS = st.lists(st.sampled_from("abc"), max_size=12)


def of_difflib(was: list[str], becomes: list[str]) -> list[str]:
    found = list(unified_diff(was, becomes, lineterm=""))[2:]
    return ["@@" if line.startswith("@@") else line for line in found]


def changes(difference: list[str]) -> int:
    return sum(line[0] in "+-" for line in difference)


@given(TEXTS, TEXTS)
def test_says_how_a_text_becomes_the_other(was: list[str], becomes: list[str]) -> None:
    """Each line is there in its order, and no more lines change than difflib says."""
    found = list(lines.difference(was, becomes))
    if not found:
        assert was == becomes
        return
    shown = [line for line in found if line != "@@"]
    for text, sign in ((was, "-"), (becomes, "+")):
        rest = iter(text)
        assert all(line[1:] in rest for line in shown if line[0] in {sign, " "})
    assert changes(found) <= changes(of_difflib(was, becomes))


def test_lines_that_stay_at_their_places() -> None:
    """It is what difflib says, with three lines of context."""
    was = [f"{n}" for n in range(60)]
    becomes = list(was)
    for place in (0, 20, 21, 25, 40, 59):
        becomes[place] = "new"
    found = list(lines.difference(was, becomes))
    assert found == of_difflib(was, becomes)
    assert found.count("@@") == 4


def test_a_line_that_comes_and_one_that_goes() -> None:
    """Both texts are of the same length, and yet the lines between them are the same."""
    was = [*"abcdefgh"]
    becomes = [*"bcdefghi"]
    assert list(lines.difference(was, becomes)) == of_difflib(was, becomes)
