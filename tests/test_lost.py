"""What FRR believes to be in the kernel and is not, with both of them stood in for.

Against the real ones: tests/lab/test_life.py, test_k8s01.py.
"""

import socket
from pathlib import Path

import pytest

from generator import frr, kernel, netlink
from generator.model import Device

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


def test_addresses_that_frr_does_not_know_are_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bridge that it knows, and of one that it has yet to hear of; others' play no part."""
    shown = {"nbr-26": {"addresses": ["10.0.0.254/24"]}, "ens4": {"addresses": []}}
    monkeypatch.setattr(frr, "show", lambda *_: shown)
    bridges = [
        Device(name="nbr-26", kind="bridge", addresses=("10.0.0.254/24", "fd00::254/64")),
        Device(name="nbr-31", kind="bridge", addresses=("10.1.0.254/24",)),
        Device(name="vxlan26", kind="vxlan"),
    ]
    assert [each.line for each in kernel.unheard(bridges, Path("/"))] == [
        "address replace fd00::254/64 dev nbr-26 nodad",
        "address replace 10.1.0.254/24 dev nbr-31",
    ]
