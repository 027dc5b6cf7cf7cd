"""Compares two texts line by line."""

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal

_CONTEXT = 3  # lines around a difference
Step = tuple[Literal["replace", "delete", "insert", "equal"], int, int, int, int]


class _Matcher(SequenceMatcher[str]):
    """Finds equal lines, first at the same places of both texts.

    A file with many V-Nets repeats most of its lines, and the time of difflib's search grows with
    the square of the repetitions.
    """

    def __init__(self, was: Sequence[str], becomes: Sequence[str]) -> None:
        super().__init__(None, was, becomes)
        self._was, self._becomes = was, becomes

    def get_opcodes(self) -> list[Step]:
        was, becomes = self._was, self._becomes
        if len(was) != len(becomes):
            return super().get_opcodes()
        places = [number for number, line in enumerate(was) if line != becomes[number]]
        if len(places) > (Counter(was) - Counter(becomes)).total():
            return super().get_opcodes()  # difflib may find more equal lines
        return list(_steps(places, len(was)))


def _steps(places: Sequence[int], end: int) -> Iterator[Step]:
    """Yield difflib's opcodes for two texts of `end` lines that differ at `places`."""
    begin = at = 0
    for number, place in enumerate(places):
        if number and place == places[number - 1] + 1:
            at = place + 1
            continue
        if begin < at:
            yield "replace", begin, at, begin, at
        if at < place:
            yield "equal", at, place, at, place
        begin, at = place, place + 1
    if begin < at:
        yield "replace", begin, at, begin, at
    if at < end:
        yield "equal", at, end, at, end


def difference(was: Sequence[str], becomes: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a unified diff, with `@@` but no line numbers before each part.

    The numbers would differ between hosts that get the same change.
    """
    for group in _Matcher(was, becomes).get_grouped_opcodes(_CONTEXT):
        yield "@@"
        for what, first, last, start, end in group:
            if what == "equal":
                yield from (f" {line}" for line in was[first:last])
                continue
            yield from (f"-{line}" for line in was[first:last])
            yield from (f"+{line}" for line in becomes[start:end])
