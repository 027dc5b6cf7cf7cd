"""Reads the output of ping: how many packets were sent and lost, and the longest silence."""

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
    """The outcome of a series of pings."""

    sent: int
    received: int
    silence: tuple[float, float]  # begin and end of the longest wait for an answer, since the epoch
    output: str  # the output of ping

    @property
    def longest_gap_s(self) -> float:
        """The length of the longest silence, in seconds."""
        return self.silence[1] - self.silence[0]

    @property
    def lost(self) -> int:
        """How many packets were never answered."""
        return self.sent - self.received

    def __bool__(self) -> bool:
        """Return whether packets were sent and all of them answered."""
        return self.sent > 0 and not self.lost

    def __str__(self) -> str:
        """Return the outcome as a phrase."""
        return f"{self.received} of {self.sent} answered, longest gap {self.longest_gap_s:.2f} s"


def parse(text: str, cut_off: bool = False) -> Ping:
    """Read the output of `ping -D`; if `cut_off`, packets after the last answer don't count.

    Those packets were still on their way when ping ended.

    A silence lasts from one answer to the next. If no packet is missing between the two, it begins
    no earlier than the second packet was sent: until then ping itself was kept from sending.
    """
    summary = SUMMARY.search(text)
    sent = int(summary[1]) if summary else 0
    replies = {
        int(reply["number"]): (float(reply["at"]), float(reply["took"]) / 1000)
        for reply in REPLY.finditer(text)
    }
    if cut_off:
        sent = min(sent, max(replies, default=0))
    by_time = sorted((at, number, took) for number, (at, took) in replies.items())
    silences = [
        (max(before, at - took) if number == previous + 1 else before, at)
        for (before, previous, _), (at, number, took) in pairwise(by_time)
    ]
    silence = max(silences, key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))
    return Ping(sent, len(replies), silence, text)
