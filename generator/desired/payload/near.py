"""Finds the known name that an unknown name probably means."""

from collections.abc import Iterable

NEAR = 2  # characters that are added, missing or different


def distance(one: str, other: str, most: int = NEAR) -> int:
    """Return how many characters differ between two texts; `most` + 1 stands for more."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    start = 0
    shorter = min(len(one), len(other))
    while start < shorter and one[start] == other[start]:
        start += 1
    end = 0
    while end < shorter - start and one[-1 - end] == other[-1 - end]:
        end += 1
    one, other = one[start : len(one) - end], other[start : len(other) - end]
    if not one or not other or most == 0:
        return min(max(len(one), len(other)), most + 1)
    ways = ((one[1:], other[1:]), (one[1:], other), (one, other[1:]))
    return 1 + min(distance(*way, most - 1) for way in ways)


class Names:
    """Known names: `port@switch`, or of any other form.

    The two parts of a name are compared separately, because a fabric has few switches and few port
    names. After `BUDGET` comparisons no name is near any more: so many unknown names are no typing
    mistakes.
    """

    BUDGET = 100_000

    def __init__(self, known: Iterable[str]) -> None:
        self._known = {name.lower(): name for name in sorted(known, reverse=True)}
        self._all = list(self._known)
        parts = [name.rpartition("@") for name in self._all]
        self._starts = list(dict.fromkeys(start for start, _, _ in parts))
        self._ends = list(dict.fromkeys(end for _, _, end in parts))
        self._near_starts: dict[str, list[tuple[int, str]]] = {}
        self._near_ends: dict[str, list[tuple[int, str]]] = {}
        self._left = self.BUDGET

    def nearest(self, name: str) -> str:
        """Return the known name that differs from `name` by at most `NEAR` characters, else ""."""
        lower = name.lower()
        start, _, end = lower.rpartition("@")
        if not start:
            near = min(self._compared(lower, self._all), default=(0, ""))
            return self._known.get(near[1], "")
        starts = self._cached(start, self._starts, self._near_starts)
        ends = self._cached(end, self._ends, self._near_ends)
        # Looking up a name costs less than comparing it.
        self._left -= len(starts) * len(ends) // 16
        if self._left < 0:
            return ""
        pairs = (
            (away + further, f"{first}@{last}")
            for away, first in starts
            for further, last in ends
            if away + further <= NEAR
        )
        known = ((away, self._known[each]) for away, each in pairs if each in self._known)
        return min(known, default=(0, ""))[1]

    def hint(self, name: str) -> str:
        """Return the hint of a refusal for a name that is nearly a known one, else ""."""
        near = self.nearest(name)
        return f"did you mean {near}?" if near else ""

    def _cached(
        self, part: str, known: list[str], cache: dict[str, list[tuple[int, str]]]
    ) -> list[tuple[int, str]]:
        if part not in cache:
            cache[part] = self._compared(part, known)
        return cache[part]

    def _compared(self, text: str, known: list[str]) -> list[tuple[int, str]]:
        """Return the known texts that are near, each with its distance."""
        compared = known[: max(self._left, 0)]
        self._left -= len(compared)
        return [(away, each) for each in compared if (away := distance(text, each)) <= NEAR]
