"""Pings whose result is numbers: how many, how many lost, and the longest silence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

REPLY = re.compile(
    r"^\[(?P<at>[\d.]+)\] .*icmp_seq=(?P<number>\d+) .*time=(?P<took>[\d.]+) ms", re.MULTILINE
)
SUMMARY = re.compile(r"^(\d+) packets transmitted", re.MULTILINE)


@dataclass(frozen=True)
class Ping:
    """What came of a series of pings."""

    sent: int
    received: int
    silence: tuple[float, float]  # the longest wait for an answer; seconds since the epoch
    said: str

    @property
    def longest_gap_s(self) -> float:
        """How long that was."""
        return self.silence[1] - self.silence[0]

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
    """Read what `ping -D` said; when it was `cut_off`, its last packets were still on their way.

    A silence lasts from one answer to the next. Where no packet between them is missing, it begins
    with the sending of the second at the earliest: before that, ping itself was kept from sending.
    """
    summary = SUMMARY.search(said)
    sent = int(summary[1]) if summary else 0
    replies = {
        int(reply["number"]): (float(reply["at"]), float(reply["took"]) / 1000)
        for reply in REPLY.finditer(said)
    }
    if cut_off:
        sent = min(sent, max(replies, default=0))
    in_time = sorted((at, number, took) for number, (at, took) in replies.items())
    silences = [
        (max(before, at - took) if number == last + 1 else before, at)
        for (before, last, _), (at, number, took) in pairwise(in_time)
    ]
    silence = max(silences, key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))
    return Ping(sent, len(replies), silence, said)
