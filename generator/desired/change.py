"""A change of a host in a network engineer's terms: pure.

A change holds only words, so equal changes of many hosts compare equal.
"""

import msgspec

ADDED, CHANGED, REMOVED = "+", "~", "-"
_WORDS = {ADDED: "added", CHANGED: "changed", REMOVED: "removed"}


class Change(msgspec.Struct, frozen=True):
    """Something that is added to a host, changed on it or removed from it."""

    sign: str  # ADDED, CHANGED or REMOVED
    subject: str  # what it is: `V-Net red`, `uplink ens5`
    detail: str = ""
    risks: tuple[str, ...] = ()  # what a person should consider first
    vni: int | None = None  # the V-Net whose gateway or MAC it sets
    diff: str = ""  # of a file that words can't describe

    @property
    def text(self) -> str:
        """The change on one line, without its risks."""
        if not self.detail:
            return f"{self.sign} {self.subject}"
        if self.sign == CHANGED:
            return f"{self.sign} {self.subject}: {self.detail}"
        return f"{self.sign} {self.subject} ({self.detail})"

    @property
    def text_with_risks(self) -> str:
        """The change on one line, with its risks after a `!`."""
        return f"{self.text}   ! {', '.join(self.risks)}" if self.risks else self.text


def total(signs: list[str]) -> str:
    """Return how many changes have each sign. `signs` may be whole lines that begin with it."""
    counts = {word: sum(each.startswith(sign) for each in signs) for sign, word in _WORDS.items()}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def arrow(before: object, after: object) -> str:
    """Return `before → after`; None and "" are shown as none."""
    was, becomes = ("none" if each in {None, ""} else each for each in (before, after))
    return f"{was} → {becomes}"
