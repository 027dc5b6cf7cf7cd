"""The lab tells silence of the network from pings that were not sent."""

from __future__ import annotations

import pytest

from lab.ping import parse


def output(*replies: tuple[float, int, float], sent: int) -> str:
    """Return the output of `ping -D` for replies: time of arrival, number, seconds on the way."""
    lines = [
        f"[{at:.6f}] 64 bytes from 10.0.0.1: icmp_seq={number} ttl=64 time={took * 1000:g} ms"
        for at, number, took in replies
    ]
    end = f"{sent} packets transmitted, {len(replies)} received"
    return "\n".join(["PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.", *lines, "", end, ""])


@pytest.mark.parametrize(
    ("replies", "gap"),
    [
        ([(100.0, 1, 0.001), (101.0, 2, 0.001), (105.0, 6, 0.001)], 4.0),
        ([(100.0, 1, 0.001), (104.0, 2, 3.0), (104.1, 3, 2.1)], 3.0),
        ([(100.0, 1, 0.001), (104.0, 2, 0.5)], 0.5),
        ([(100.0, 1, 0.001), (100.05, 2, 2.0)], 0.05),
        ([(103.0, 2, 0.001), (100.0, 1, 0.001), (107.0, 3, 6.0)], 4.0),
        ([(100.0, 1, 0.001)], 0.0),
        ([], 0.0),
    ],
    ids=["lost", "late", "not sent", "all late", "in any order", "one", "none"],
)
def test_a_late_reply_is_a_gap(replies: list[tuple[float, int, float]], gap: float) -> None:
    """A lost or late reply is a gap; a ping that was not sent is none."""
    assert parse(output(*replies, sent=6)).longest_gap_s == pytest.approx(gap)


def test_a_ping_that_sent_nothing_has_no_success() -> None:
    """As when no route leads to the address: no packet is lost, because none was sent."""
    unsent = parse("ping: connect: Network is unreachable\n")
    assert not unsent
    assert unsent.lost == 0
    assert parse(output((100.0, 1, 0.001), sent=1))
    assert not parse(output((100.0, 1, 0.001), sent=2))


def test_packets_on_their_way_at_the_end_are_not_lost() -> None:
    """A ping that was cut off had its last packets on their way."""
    text = output((100.0, 1, 0.001), (102.0, 3, 0.001), sent=5)
    assert (parse(text).sent, parse(text).lost) == (5, 3)
    assert (parse(text, cut_off=True).sent, parse(text, cut_off=True).lost) == (3, 1)
