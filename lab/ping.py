"""Pings whose result is numbers: how many, how many lost, and the longest silence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

REPLY = re.compile(r"^\[(?P<at>[\d.]+)\] .*icmp_seq=(?P<number>\d+) .*time=", re.MULTILINE)
SUMMARY = re.compile(r"^(\d+) packets transmitted", re.MULTILINE)


@dataclass(frozen=True)
class Ping:
    """What came of a series of pings."""

    sent: int
    received: int
    longest_gap_s: float
    said: str

    @property
    def lost(self) -> int:
        """How many were never answered."""
        return self.sent - self.received

    def __bool__(self) -> bool:
        """Whether something was sent and all of it answered."""
        return self.sent > 0 and not self.lost

    def __str__(self) -> str:
        """Say it as a person would."""
        return f"{self.received} of {self.sent} answered, longest gap {self.longest_gap_s:.2f} s"


def parse(said: str, cut_off: bool = False) -> Ping:
    """Read what `ping -D` said; when it was `cut_off`, its last packet may still be on its way."""
    summary = SUMMARY.search(said)
    sent = int(summary[1]) if summary else 0
    replies = {int(reply["number"]): float(reply["at"]) for reply in REPLY.finditer(said)}
    if cut_off and sent and sent not in replies:
        sent -= 1
    times = sorted(replies.values())
    gap = max((after - before for before, after in pairwise(times)), default=0)
    return Ping(sent, len(replies), gap, said)
