"""Routes and neighbours of FRR that the kernel has lost; FRR and kernel are simulated here.

tests/lab/test_life.py and test_k8s01.py test the same with real ones.
"""

import json
import socket
from pathlib import Path

import pytest

from generator.desired.model import Device
from generator.observed import entries, frr, netlink, routes

HOP = {"fib": True, "interfaceName": "ens4", "ip": "192.0.2.1", "weight": 1}
SHOWN = {"10.2.0.3/32": [{"selected": True, "installed": True, "nexthops": [HOP]}]}
ROUTE = netlink.Route(socket.AF_INET, 254, "10.2.0.3/32", 1, 186, 20, (("192.0.2.1", 2),))


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ([ROUTE], [ROUTE], []),
        ([], [], ["its route 10.2.0.3/32 is not in the kernel"]),
        ([], [ROUTE], []),  # FRR installed it while it answered
        ([ROUTE], [], []),  # FRR withdrew it
    ],
)
def test_a_route_is_lost_when_it_is_missing_before_and_after(
    monkeypatch: pytest.MonkeyPatch,
    before: list[netlink.Route],
    after: list[netlink.Route],
    lost: list[str],
) -> None:
    """We read the kernel before and after FRR answers: a change between the two is no loss."""
    reads = iter([before, [], after, []])  # IPv4, IPv6, and again
    monkeypatch.setattr(netlink, "links", dict)
    monkeypatch.setattr(netlink, "neighbours", lambda _: [])
    monkeypatch.setattr(netlink, "routes", lambda _: next(reads))
    answer = json.dumps(SHOWN)
    monkeypatch.setattr(frr, "ask", lambda *words: answer if " ip " in words[1] else "")
    assert [each.text for each in routes.losses(Path("/"))] == lost


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
    ("neighbour", "remote", "shown", "hops", "repaired"),
    [
        (MAC, {MAC}, PATHS, {}, False),
        (MAC, set(), PATHS, {}, True),  # the forwarding table lacks it
        ("", {MAC}, PATHS, {}, True),  # the neighbours lack it
        ("", set(), PATHS, {}, True),
        ("", set(), BARE, HOPS, True),  # FRR 10.4 and later
        (MAC, {MAC}, BARE, HOPS, False),
        ("", set(), BARE, {"numNextHops": 0}, False),  # FRR does not know it
        ("", set(), {}, {}, False),
    ],
)
def test_restores_router_macs_that_the_kernel_lost(  # noqa: PLR0917 - the state of kernel and FRR
    monkeypatch: pytest.MonkeyPatch,
    route: netlink.Route,
    neighbour: str,
    remote: set[str],
    shown: dict[str, object],
    hops: dict[str, object],
    repaired: bool,
) -> None:
    """The kernel gets the router MAC that FRR has for this VTEP, and not that of another."""
    address = route.hops[0][0]
    neighbours = [netlink.Neighbour(6, address, neighbour, 0x40)]
    monkeypatch.setattr(netlink, "links", lambda: {link.name: link for link in LINKS})
    monkeypatch.setattr(netlink, "neighbours", lambda _: neighbours)
    monkeypatch.setattr(entries, "remote_macs", lambda _: remote)
    monkeypatch.setattr(netlink, "routes", lambda family: [route] * (family == route.family))

    def ask(daemon: str, command: str, *_: object) -> str:
        known = {"show evpn next-hops vni 1033 json": hops}
        return json.dumps(shown if daemon == "bgpd" else known.get(command, {}))

    monkeypatch.setattr(frr, "ask", ask)
    losses = [(each.text, each.line, each.entries) for each in routes.losses(Path("/"))]
    line = f"neighbour replace {address} lladdr {MAC} dev l3br-1033"
    entry = f"fdb replace {MAC} dev l3vx-1033"
    lost = (
        f"it has forgotten the router MAC of {address} on l3br-1033",
        f"{line} nud noarp extern_learn proto zebra",
        (f"{entry} dst 10.2.0.3 self extern_learn", f"{entry} master extern_learn"),
    )
    assert losses == ([lost] if repaired else [])


def test_repeats_addresses_that_frr_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """FRR may know the bridge or not. Other devices' addresses are not repeated."""
    shown = {"nbr-26": {"addresses": ["10.0.0.254/24"]}, "ens4": {"addresses": []}}
    monkeypatch.setattr(frr, "ask", lambda *_: json.dumps(shown))
    bridges = [
        Device(name="nbr-26", kind="bridge", addresses=("10.0.0.254/24", "fd00::254/64")),
        Device(name="nbr-31", kind="bridge", addresses=("10.1.0.254/24",)),
        Device(name="vxlan26", kind="vxlan"),
    ]
    assert [each.line for each in routes.unknown_addresses(bridges, Path("/"))] == [
        "address replace fd00::254/64 dev nbr-26 nodad",
        "address replace 10.1.0.254/24 dev nbr-31",
    ]
