"""Which announcements of guests count, and which change nothing: pure."""

from __future__ import annotations

import struct

import pytest

from generator.desired import plan
from generator.desired.payload import load
from generator.failover.takeover import Announcement, claims, local_macs, parse, segments
from generator.observed.netlink import Link, Neighbour
from tests.strategies import LEAF1, LEAF2, encoded, host, tagged, vnet

MAC, OTHER = "02:00:00:00:00:0b", "02:00:00:00:00:0a"
HERE = Announcement(7, "10.26.0.9", MAC)
NOARP, STALE = 0x40, 0x04


def arp(mac: str = MAC, hardware: int = 1) -> bytes:
    sender = bytes.fromhex(mac.replace(":", "")) + bytes((10, 26, 0, 9))
    return struct.pack("!HHBBH", hardware, 0x0800, 6, 4, 1) + sender + bytes(6) + sender[6:]


def advertisement(options: bytes) -> bytes:
    address = bytes.fromhex("fd00002600000000" + "0" * 15 + "9")
    return bytes(40) + struct.pack("!BBHI", 136, 0, 0, 1 << 29) + address + options


def test_what_is_announced() -> None:
    """The sender of an ARP, and the target of an advertisement with the target's MAC."""
    assert parse(7, 0x0806, arp()) == HERE
    option = b"\x02\x01" + bytes.fromhex(MAC.replace(":", ""))
    heard = parse(7, 0x86DD, advertisement(option))
    assert heard == Announcement(7, "fd00:26::9", MAC)


@pytest.mark.parametrize(
    ("protocol", "packet"),
    [
        (0x0806, b""),
        (0x0806, arp()[:-1]),
        (0x0806, arp(hardware=6)),
        (0x0806, arp("03:00:00:00:00:0b")),
        (0x0806, arp("00:00:00:00:00:00")),
        (0x86DD, b""),
        (0x86DD, advertisement(b"")),
        (0x86DD, advertisement(b"\x02\x01\x02")),
        (0x86DD, advertisement(b"\x01\x01\x02\0\0\0\0\x0b")),
    ],
)
def test_nothing_is_announced(protocol: int, packet: bytes) -> None:
    """Whatever a guest sends, the worst that comes of it is nothing."""
    assert parse(7, protocol, packet) is None


def test_only_an_address_of_a_guest_elsewhere_is_claimed() -> None:
    """One that the kernel resolves by itself, does not know, or knows with this MAC, is not."""

    def claimed(*neighbours: Neighbour) -> list[Announcement]:
        return claims([HERE], neighbours)

    assert claimed(Neighbour(7, HERE.address, OTHER, NOARP)) == [HERE]
    assert not claimed(Neighbour(7, HERE.address, OTHER, STALE))
    assert not claimed(Neighbour(8, HERE.address, OTHER, NOARP))
    assert not claimed(Neighbour(7, HERE.address, MAC, NOARP))
    assert not claimed()
    last = Announcement(7, HERE.address, "02:00:00:00:00:0c")
    assert claims([HERE, last], [Neighbour(7, HERE.address, OTHER, NOARP)]) == [last]


def test_only_bridges_with_gateways_and_only_guests_addresses() -> None:
    """Another V-Net's subnet and the gateway's own address can't be claimed."""
    ports = tagged(LEAF1, LEAF2)
    document = host(
        vnet(26, prefixes=["10.26.0.1/24", "fd00:26::1/64"], ports=ports), vnet(27, ports=ports)
    )
    target = plan.target(plan.make(load(encoded(document)).hosts[0], "netplan"))
    links = [
        Link(index=index, name=name, up=True, mtu=1500, mac=MAC, master=0, kind="bridge")
        for index, name in ((7, "nbr-26"), (8, "nbr-27"), (9, "nbr-14"))
    ]
    known = segments(target, links)
    assert known.keys() == {7}
    assert known[7].port == "vxlan26"
    assert known[7].has("10.26.0.9")
    assert known[7].has("fd00:26::9")
    assert not [
        each for each in ("10.26.0.1", "fd00:26::1", "10.27.0.9", "fe80::9") if known[7].has(each)
    ]


def test_guests_are_those_on_other_ports_than_the_fabrics() -> None:
    """A MAC that is behind the fabric, or the bridge's own, is no guest here."""

    def entry(mac: str, port: int, own: int = 0) -> bytes:
        low, high = port & 255, port >> 8
        return struct.pack(
            "=6sBBIBBH", bytes.fromhex(mac.replace(":", "")), low, own, 0, high, 0, 0
        )

    forwarding = entry(MAC, 2) + entry(OTHER, 1) + entry("02:00:00:00:00:0c", 2, own=1)
    forwarding += entry("02:00:00:00:00:0d", 257)
    assert local_macs(forwarding, 1) == {MAC, "02:00:00:00:00:0d"}
