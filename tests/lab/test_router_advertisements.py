"""A V-Net's gateway tells guests its prefix, its address and DNS servers (RFC 4861, RFC 8106).

V-Net 40 advertises, V-Net 41 does not.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest

from lab.fabric import Host, Lab, Node, Router, eventually
from tests.lab import second_host
from tests.lab.advertising import ADVERTISE
from tests.lab.k8s01 import (
    DUAL,
    DUAL_2,
    Payload,
    bring_up,
    change,
    no_reload_pending,
    payload,
    resets,
)
from tests.lab.systems import SYSTEMS
from tests.lab.test_silent_guests import plug

DNS = "fd00:53::53"
ADVERTISED: Payload = {
    "mode": "enabled",
    "interval": 4,
    "routerLifetime": 60,
    "rdnss": {"servers": [DNS], "lifetime": 120},
}
ROUTER = "fe80::4638:39ff:feff:28"  # the identifier that RFC 4291 makes of the gateway's MAC
PREFIX, GATEWAY = "fd00:188:4:", "fd00:188:4::254"
LEAF = "ns-leaf-2"
IS_ADVERTISEMENT = "icmp6 and ip6[40] = 134"


def advertising_payload(**fields: Any) -> Payload:
    """Return K8S01's payload with V-Net 40 that advertises, and V-Net 41 that does not."""
    return payload(copy.deepcopy(DUAL) | {"ipv6NeighborDiscovery": ADVERTISED | fields}, DUAL_2)


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """K8S01 as a VTEP; the third leaf advertises as well."""
    lab: Lab = fresh_lab(*request.param)
    bring_up(lab, advertising_payload())
    return lab


@pytest.fixture
def host(lab: Lab) -> Host:
    """The host under test, which advertises in V-Net 40."""
    if not advertises(lab.host):
        change(lab, advertising_payload())
    return lab.host


def advertises(router: Host | Router, bridge: str = "nbr-40") -> bool:
    """Return whether a router's FRR sends advertisements on a bridge."""
    return "router advertisements are sent" in router.show(f"show interface {bridge}")


def own_addresses(guest: Node) -> list[str]:
    """Return the IPv6 addresses that a guest has configured by itself."""
    [shown] = guest.run("ip -6 -json address show dev eth0".split()).json
    return [each["local"] for each in shown["addr_info"] if each.get("dynamic") and "local" in each]


def routers(guest: Node) -> set[str]:
    """Return a guest's default routers."""
    routes = guest.run("ip -6 -json route show default".split()).json
    return {hop["gateway"] for route in routes for hop in route.get("nexthops", [route])}


def wait_until_configured(guest: Node) -> Node:
    """Wait until a guest has an address of the prefix and a router; give it with that address."""
    eventually(lambda: own_addresses(guest) and routers(guest))
    [address] = own_addresses(guest)
    assert address.startswith(PREFIX)
    return Node(guest.machine, guest.name, "", address)


@pytest.mark.claim(
    "9.3",
    "A guest with nothing configured gets its prefix, default router and DNS server from its host",
)
def test_a_guest_with_nothing_configured(host: Host) -> None:
    """A guest with nothing configured reaches its gateway and another V-Net."""
    blank = host.pod("blank", "nbr-40")
    guest = wait_until_configured(blank)
    assert routers(guest) == {ROUTER}
    eventually(lambda: guest.ping(GATEWAY, count=1, family=6))
    eventually(lambda: guest.ping("fd00:188:5::254", count=1, family=6))
    [neighbour] = guest.run(["ip", "-json", "neighbour", "show", ROUTER]).json
    assert neighbour["lladdr"] == "44:38:39:ff:00:28"
    with guest.capture("eth0", IS_ADVERTISEMENT, count=1) as capture:
        pass
    assert f"addr: {DNS}" in capture.text
    assert "router lifetime 60s" in capture.text
    assert f"{PREFIX}:/64" in capture.text
    assert no_reload_pending(host)


@pytest.mark.claim(
    "9.4",
    "A guest's router is the same on every host and leaf, and the guest keeps it while it moves",
)
def test_the_router_is_the_same_everywhere(lab: Lab, host: Host) -> None:
    """A guest moves to another host; a server behind a leaf has the same router as both."""
    second = second_host.start(lab, advertising_payload())
    leaf = lab.fabric.leaf(LEAF)
    lab.fabric.server("metal", vni=40, ipv4="", gateway="")
    server = wait_until_configured(Node(lab.machine, "metal"))
    host.pod("mover", "nbr-40")
    mover = wait_until_configured(Node(lab.machine, "mover"))
    eventually(lambda: server.ping(mover, count=1, family=6))
    plug(mover, host, second)
    eventually(lambda: mover.ping("fd00:188:5::254", count=1, family=6))
    eventually(lambda: server.ping(mover, count=1, family=6))
    assert own_addresses(mover) == [mover.ipv6]
    for router, bridge in ((host, "nbr-40"), (second, "nbr-40"), (leaf, "br-40")):
        assert advertises(router, bridge)
        [shown] = router.run(["ip", "-6", "-json", "address", "show", "dev", bridge]).json
        assert ROUTER in {each["local"] for each in shown["addr_info"]}
    for guest in (mover, server):
        assert routers(guest) == {ROUTER}


@pytest.mark.claim("9.5", "Without `ipv6NeighborDiscovery` a V-Net has no router advertisements")
def test_another_vnet_hears_nothing(host: Host) -> None:
    """A guest of V-Net 41 gets no advertisement, while one of V-Net 40 gets three."""
    other, guest = host.pod("other", "nbr-41"), host.pod("guest", "nbr-40")
    with (
        other.capture("eth0", IS_ADVERTISEMENT, count=1, timeout=1) as nothing,
        guest.capture("eth0", IS_ADVERTISEMENT, count=3),
    ):
        pass
    assert "advertisement" not in nothing.text
    assert not own_addresses(other)
    assert not routers(other)


@pytest.mark.claim("9.6", "The advertisements change with the payload, and no session is reset")
def test_what_is_advertised_changes(lab: Lab, host: Host) -> None:
    """FRR has the lines of its file after each change: longer times, shorter ones, off, on again.

    What the host itself sends counts: other hosts and leaves may go on as before.
    """
    guest = host.pod("changes", "nbr-40")
    steps: list[tuple[Payload, int]] = [
        ({"interval": 600, "routerLifetime": 1800, "managed": True}, 1800),
        ({"interval": 4, "routerLifetime": 30, "other": True}, 30),
        ({"routerLifetime": 0}, 0),
        ({"prefix": {"validLifetime": 7200, "autoconfig": False}}, 60),
        ({"mode": "disabled"}, 0),
        ({}, 60),
    ]
    before = resets(host)
    for fields, lifetime in steps:
        change(lab, advertising_payload(**fields))
        assert no_reload_pending(host), fields
        assert advertises(host) == (fields.get("mode") != "disabled")
        if advertises(host):
            with host.capture("nbr-40", IS_ADVERTISEMENT, count=1, direction="out") as sent:
                for state in ("down", "up"):  # a guest that starts asks for routers
                    guest.run(["ip", "link", "set", "eth0", state])
            assert f"router lifetime {lifetime}s" in sent.text
    assert resets(host) == before


FILTER = "/etc/nftables.d/evpn-host.nft"


def hears(listener: Node, sender: Node) -> bool:
    """Return whether the advertisements of a guest or a server reach another one."""
    expression = f"{IS_ADVERTISEMENT} and not src {ROUTER}"
    with listener.capture("eth0", expression, count=1, timeout=4) as capture:
        sender.run(["python3", "-c", ADVERTISE])
    return "fd00:bad::/64" in capture.text


def filter_frames(host: Host) -> None:
    """Load the part of our filter that is for frames: the lab's kernel has no other.

    test_emulated.py has a whole kernel.
    """
    text = host.machine.read(FILTER)
    host.machine.write("/root/frames.nft", text[text.index("define advertising") :])
    host.run(["nft", "-f", "/root/frames.nft"])


LINK_LOCAL = ["ip", "-6", "address", "show", "dev", "eth0", "scope", "link"]


def members(lab: Lab, bridge: str) -> tuple[Node, Node]:
    """Add a guest and a bare-metal server to a V-Net; each can send IPv6."""
    lab.fabric.server("router", vni=int(bridge.removeprefix("nbr-")), ipv4="", gateway="")
    nodes = lab.host.pod("listener", bridge), Node(lab.machine, "router")
    for node in nodes:
        eventually(partial(_is_ready, node))
    return nodes


def _is_ready(node: Node) -> bool:
    """Return whether a node has a link-local address after duplicate address detection."""
    out = node.run(LINK_LOCAL).out
    return "fe80" in out and "tentative" not in out


@pytest.mark.claim(
    "9.8", "Router advertisements of guests mislead nobody on other hosts, in either direction"
)
def test_a_guest_that_advertises_itself(lab: Lab, host: Host) -> None:
    """The filter stops a guest's advertisements at the fabric, and lets the gateway's pass."""
    guest, server = members(lab, "nbr-40")
    near = host.pod("near", "nbr-40")
    host.run(["nft", "delete", "table", "bridge", "evpn-host"], check=False)
    eventually(lambda: hears(server, guest))
    eventually(lambda: hears(guest, server))
    filter_frames(host)
    assert not hears(server, guest)
    assert not hears(guest, server)
    assert hears(near, guest)  # they pass on its segment (docs/isolation.md)
    with server.capture("eth0", f"{IS_ADVERTISEMENT} and src {ROUTER}", count=1) as capture:
        pass
    assert "advertisement" in capture.text
    eventually(lambda: ROUTER in routers(guest))


@pytest.mark.claim(
    "9.9", "Without `ipv6NeighborDiscovery` a tenant's own router works across the fabric"
)
def test_a_router_of_the_tenants_own(lab: Lab, host: Host) -> None:
    """In V-Net 41 a bare-metal server can be the router of a guest, and the other way round."""
    guest, server = members(lab, "nbr-41")
    filter_frames(host)
    assert hears(guest, server)
    assert hears(server, guest)


@pytest.mark.claim("9.7", "After a power cut guests get the same advertisements as before")
def test_after_a_power_cut(lab: Lab, host: Host) -> None:
    """The files alone bring the advertisements back."""
    assert advertises(host)
    lab.reboot(hard=True)
    guest = host.pod("blank", "nbr-40")
    wait_until_configured(guest)
    assert routers(guest) == {ROUTER}
