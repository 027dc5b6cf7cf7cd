"""A change of a host in a network engineer's terms: pure.

What the change does to the host is words alone. Equal words on many hosts are one change.
"""

import msgspec

ADDED, CHANGED, REMOVED = "+", "~", "-"
_WORDS = {ADDED: "added", CHANGED: "changed", REMOVED: "removed"}


class Change(msgspec.Struct, frozen=True):
    """Something that a host gets, that becomes another, or that goes."""

    sign: str  # ADDED, CHANGED or REMOVED
    subject: str  # what it is: `V-Net red`, `uplink ens5`
    detail: str = ""
    risks: tuple[str, ...] = ()  # what a person should think of before
    vni: int | None = None  # of the V-Net whose gateway or MAC it sets
    diff: str = ""  # of a file, where words say no more

    @property
    def text(self) -> str:
        """The change on one line, without its risks."""
        if not self.detail:
            return f"{self.sign} {self.subject}"
        if self.sign == CHANGED:
            return f"{self.sign} {self.subject}: {self.detail}"
        return f"{self.sign} {self.subject} ({self.detail})"

    @property
    def marked(self) -> str:
        """The change on one line, with its risks behind a `!`."""
        return f"{self.text}   ! {', '.join(self.risks)}" if self.risks else self.text


def total(signs: list[str]) -> str:
    """Return how many changes are of each sign; a text that begins with the sign will do."""
    counts = {word: sum(each.startswith(sign) for each in signs) for sign, word in _WORDS.items()}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def arrow(before: object, after: object) -> str:
    """Return what something was and what it becomes. None is shown as none."""
    was, becomes = ("none" if each in {None, ""} else each for each in (before, after))
    return f"{was} → {becomes}"
