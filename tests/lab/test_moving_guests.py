"""A guest moves thirty times between two hosts and a leaf, and nothing is stuck afterwards.

It is announced as QEMU does: by RARP, or by the guest's own kernel with a gratuitous ARP and an
unsolicited neighbour advertisement. It is pinged from its own V-Net, from another V-Net and from
bare metal all the time; the gaps are printed, and not judged.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from lab.fabric import Host, Lab, Node, eventually
from tests.lab import second_host
from tests.lab.evpn import VTEP
from tests.lab.k8s01 import DUAL, DUAL_2, bring_up, no_reload_pending, payload
from tests.lab.mover import (
    IPV4,
    IPV6,
    MAC,
    Announcement,
    Mover,
    Place,
    announcing_vteps,
    wrong_entries,
)
from tests.lab.systems import SYSTEMS
from tests.lab.test_silent_guests import (
    FAMILIES,
    GATEWAYS,
    GATEWAYS_41,
    LEAF,
    address_of,
    check_reached,
    plug,
)
from tests.profiles import rounds

MOVES = 30


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """K8S01 as a VTEP, with two V-Nets of both families."""
    lab: Lab = fresh_lab(*request.param)
    bring_up(lab, payload(DUAL, DUAL_2))
    return lab


@pytest.fixture(scope="module")
def mover(lab: Lab) -> Mover:
    """The guest, which can be on K8S01, on K8S02 and behind the third leaf."""
    second = second_host.start(lab, payload(DUAL, DUAL_2))
    leaf = lab.fabric.leaf(LEAF)
    # `evpn-host leaves` sets the same: the leaf heeds what a guest announces.
    for setting in ("ipv4.conf.br-40.arp_accept", "ipv6.conf.br-40.accept_untracked_na"):
        leaf.run(["sysctl", "-qw", f"net.{setting}=2"])
    places = (
        Place(lab.host, "nbr-40", "vxlan40", VTEP),
        Place(second, "nbr-40", "vxlan40", second_host.VTEP),
        Place(leaf, "br-40", "vx-40", leaf.ipv4),
    )
    return Mover(lab, places, list(GATEWAYS.values()))


@pytest.fixture(scope="module")
def askers(lab: Lab, mover: Mover) -> dict[str, Node]:
    """A guest of V-Net 40 here, one of V-Net 41 on K8S02, and a server of it behind a leaf."""
    near = lab.host.pod(
        "near", "nbr-40", "10.188.4.11/24", GATEWAYS[4], "fd00:188:4::11/64", GATEWAYS[6]
    )
    other = lab.host.pod(
        "other", "nbr-41", "10.188.5.12/24", GATEWAYS_41[4], "fd00:188:5::12/64", GATEWAYS_41[6]
    )
    plug(other, lab.host, mover.places[1].router, "nbr-41")
    metal = lab.fabric.server(
        "metal", leaf="ns-leaf-1", vni=41, ipv4="10.188.5.13/24", gateway=GATEWAYS_41[4],
        ipv6="fd00:188:5::13/64", gateway6=GATEWAYS_41[6],
    )  # fmt: skip
    for node, family in itertools.product((near, other, metal), FAMILIES):
        gateways = GATEWAYS if node is near else GATEWAYS_41
        eventually(partial(node.ping, gateways[family], count=1, family=family))
    return {"its V-Net": near, "another V-Net": other, "bare metal": metal}


@pytest.mark.long
@pytest.mark.parametrize("announcement", ["rarp", "garp"])
@pytest.mark.parametrize("interval", [1, 10], ids=lambda seconds: f"every-{seconds}s")
@pytest.mark.claim(
    "8.8", "A guest that moves thirty times between hosts and a leaf leaves no stale entry"
)
def test_a_guest_that_moves(
    host: Host, mover: Mover, askers: dict[str, Node], interval: int, announcement: Announcement
) -> None:
    """Forwarding entries, neighbours, FRR's caches and type-2 routes agree on its place."""
    moves = MOVES if interval == 1 else rounds(short=4, long=MOVES)
    for family in FAMILIES:
        eventually(partial(mover.node.ping, GATEWAYS[family], count=1, family=family))
    with ExitStack() as stack:
        pings = {
            (name, family): stack.enter_context(
                node.pinging(mover.node, interval=0.1, family=family)
            )
            for (name, node), family in itertools.product(askers.items(), FAMILIES)
        }
        mover.travel(moves, interval, announcement)
    for (name, family), ping in pings.items():
        print(f"from {name}, IPv{family}: {ping.result}")
    check_settled(host, mover, askers)


def check_settled(host: Host, mover: Mover, askers: dict[str, Node]) -> None:
    """Fail unless all reach the guest, and all VTEPs know its place."""
    for node, family in itertools.product(askers.values(), FAMILIES):
        check_reached(node, address_of(mover.node, family), family)
    for place in mover.places:
        wrong: list[str] = []

        def right(place: Place = place, wrong: list[str] = wrong) -> bool:
            wrong[:] = wrong_entries(mover, place)
            return not wrong

        try:
            eventually(right, within=30)
        except AssertionError:
            pytest.fail(f"{place.vtep} while the guest is at {mover.place.vtep}: {wrong}")
    announcements = [announcing_vteps(place.router) for place in mover.places]
    print(f"after {mover.moves} moves: {announcements[0]}")
    # All have one path, with the MAC's sequence number. A move makes it larger by one, if the route
    # from the place before has not been withdrawn yet.
    [path] = announcements[0][IPV4]
    assert all(each == {IPV4: {path}, IPV6: {path}} for each in announcements), announcements
    vtep, sequence = path
    assert vtep == mover.place.vtep
    assert mover.moves // 2 < sequence <= mover.moves
    for subject in (IPV4, IPV6, MAC):
        text = host.evpn_host("trace", subject, check=False).out
        # The lab's links are too narrow for full packets, which trace says of a guest elsewhere.
        assert "nothing is wrong with" in text or "\nwrong: path: packets of 1550" in text, text
    assert host.evpn_host("status", "--json", check=False).json["differences"] == []
    assert no_reload_pending(host)
