"""What FRR believes to be in the kernel and is not, with both of them stood in for.

Against the real ones: tests/lab/test_life.py, test_k8s01.py.
"""

import socket
from pathlib import Path

import pytest

from generator import frr, kernel, netlink

HOP = {"fib": True, "interfaceName": "ens4", "ip": "192.0.2.1", "weight": 1}
SHOWN = {"10.2.0.3/32": [{"selected": True, "installed": True, "nexthops": [HOP]}]}
ROUTE = netlink.Route(socket.AF_INET, 254, "10.2.0.3/32", 1, 186, 20, (("192.0.2.1", 2),))


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ([ROUTE], [ROUTE], []),
        ([], [], ["its route 10.2.0.3/32 is not in the kernel"]),
        ([], [ROUTE], []),  # FRR installed it while it was asked
        ([ROUTE], [], []),  # FRR withdrew it
    ],
)
def test_only_what_is_gone_before_and_after_is_lost(
    monkeypatch: pytest.MonkeyPatch,
    before: list[netlink.Route],
    after: list[netlink.Route],
    lost: list[str],
) -> None:
    """The kernel is read around FRR's answer: what comes or goes meanwhile is no loss."""
    reads = iter([before, [], after, []])  # IPv4, IPv6, and again
    monkeypatch.setattr(netlink, "links", dict)
    monkeypatch.setattr(netlink, "neighbours", lambda _: [])
    monkeypatch.setattr(netlink, "routes", lambda _: next(reads))
    monkeypatch.setattr(frr, "show", lambda *said: SHOWN if " ip " in said[1] else {})
    assert [each.text for each in kernel.lost(Path("/"))] == lost
