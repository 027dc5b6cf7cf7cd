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


LINKS = [
    netlink.Link(5, "Vrf_33", True, 65575, "", 0, "vrf", table=1033),
    netlink.Link(6, "l3br-1033", True, 1500, "", 5, "bridge"),
    netlink.Link(7, "l3vx-1033", True, 1500, "", 6, "vxlan", vni=1033),
]
MAC, OTHER = "02:1e:af:03:04:09", "02:1e:af:02:04:09"
IN_A_VPC = [
    netlink.Route(socket.AF_INET, 1033, "10.0.0.20/32", 1, 186, 20, (("10.2.0.3", 6),)),
    netlink.Route(socket.AF_INET6, 1033, "fd00::20/128", 1, 186, 20, (("::ffff:10.2.0.3", 6),)),
]
PATHS = {
    "paths": [
        {
            "nexthops": [{"ip": address}],
            "extendedCommunity": {"string": f"RT:1:2 ET:8 Rmac:{mac}"},
        }
        for address, mac in (("10.2.0.2", OTHER), ("10.2.0.3", MAC))
    ]
}

BARE = {"paths": [{"nexthops": [{"ip": "10.2.0.3"}]}]}
HOPS = {
    "numNextHops": 4,
    **{
        mapped + address: {"nexthopIp": mapped + address, "routerMac": mac}
        for address, mac in (("10.2.0.2", OTHER), ("10.2.0.3", MAC))
        for mapped in ("", "::ffff:")
    },
}


@pytest.mark.parametrize("route", IN_A_VPC, ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("neighbour", "remote", "shown", "hops", "told"),
    [
        (MAC, {MAC}, PATHS, {}, False),
        (MAC, set(), PATHS, {}, True),  # forgotten in the forwarding table
        ("", {MAC}, PATHS, {}, True),  # and as a neighbour
        ("", set(), PATHS, {}, True),
        ("", set(), BARE, HOPS, True),  # FRR 10.4 and later
        (MAC, {MAC}, BARE, HOPS, False),
        ("", set(), BARE, {"numNextHops": 0}, False),  # nobody knows it
        ("", set(), {}, {}, False),
    ],
)
def test_router_macs_that_frr_forgot(  # noqa: PLR0917 - what stands in for the kernel
    monkeypatch: pytest.MonkeyPatch,
    route: netlink.Route,
    neighbour: str,
    remote: set[str],
    shown: dict[str, object],
    hops: dict[str, object],
    told: bool,
) -> None:
    """The kernel is told of a VTEP what FRR has of that one, and not of another."""
    address = route.hops[0][0]
    there = [netlink.Neighbour(6, address, neighbour, 0x40)]
    monkeypatch.setattr(netlink, "links", lambda: {link.name: link for link in LINKS})
    monkeypatch.setattr(netlink, "neighbours", lambda _: there)
    monkeypatch.setattr(netlink, "remote_macs", lambda _: remote)
    monkeypatch.setattr(netlink, "routes", lambda family: [route] * (family == route.family))

    def show(daemon: str, command: str, _: Path) -> dict[str, object]:
        known = {"show evpn next-hops vni 1033 json": hops}
        return shown if daemon == "bgpd" else known.get(command, {})

    monkeypatch.setattr(frr, "show", show)
    found = [(each.text, each.line, each.entries) for each in kernel.lost(Path("/"))]
    line = f"neighbour replace {address} lladdr {MAC} dev l3br-1033"
    entry = f"fdb replace {MAC} dev l3vx-1033"
    lost = (
        f"it has forgotten the router MAC of {address} on l3br-1033",
        f"{line} nud noarp extern_learn proto zebra",
        (f"{entry} dst 10.2.0.3 self extern_learn", f"{entry} master extern_learn"),
    )
    assert found == ([lost] if told else [])


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
