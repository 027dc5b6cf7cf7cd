"""Guests' announcements of addresses that EVPN has elsewhere, in a network namespace."""

import json
import struct
import sys
from ipaddress import ip_address

import pytest

from generator.errors import ActivationFailed
from generator.failover import announce, floating
from tests.conftest import in_namespace

GUEST, ELSEWHERE, REMOTE = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
# nbr-40 has a guest's port and one to other VTEPs, from which zebra has a MAC; nbr-14 is of the
# management V-Net, and br0 is nobody's.
NETWORK = f"""
link set lo up
link add nbr-40 type bridge
link add port type veth peer name guest address {GUEST}
link add vxlan type veth peer name far address {REMOTE}
link add br0 type bridge
link add port0 type veth peer name other address {GUEST}
link add nbr-14 type bridge
link add port14 type veth peer name pod address {GUEST}
link set port master nbr-40
link set vxlan master nbr-40
link set port0 master br0
link set port14 master nbr-14
""" + "".join(
    f"link set {name} up\n"
    for name in (
        "nbr-40",
        "port",
        "guest",
        "vxlan",
        "far",
        "br0",
        "port0",
        "other",
        "nbr-14",
        "port14",
        "pod",
    )
)
ENTRY = "nud noarp extern_learn"
# Device, address, MAC and kind of the entry before; who announces; who has the address afterwards.
CASES = [
    ("nbr-40", "10.9.0.1", ELSEWHERE, ENTRY, "guest", GUEST),
    ("nbr-40", "fd00:9::1", ELSEWHERE, ENTRY, "guest", GUEST),
    ("nbr-40", "10.9.0.2", ELSEWHERE, "nud permanent", "guest", ELSEWHERE),
    ("nbr-40", "fd00:9::2", ELSEWHERE, "nud permanent", "guest", ELSEWHERE),
    ("nbr-40", "10.9.0.3", ELSEWHERE, ENTRY, "far", ELSEWHERE),
    ("nbr-40", "fd00:9::3", ELSEWHERE, ENTRY, "far", ELSEWHERE),
    ("nbr-40", "10.9.0.4", GUEST, ENTRY, "guest", GUEST),
    ("nbr-40", "10.9.0.6", ELSEWHERE, "nud noarp", "guest", ELSEWHERE),
    ("br0", "10.9.0.5", ELSEWHERE, ENTRY, "other", ELSEWHERE),
    ("br0", "fd00:9::5", ELSEWHERE, ENTRY, "other", ELSEWHERE),
    ("nbr-14", "10.9.0.7", ELSEWHERE, ENTRY, "pod", ELSEWHERE),
    ("nbr-14", "fd00:9::7", ELSEWHERE, ENTRY, "pod", ELSEWHERE),
]
FOLLOW = f"""
import subprocess, sys, time
from ipaddress import ip_address
from generator.failover import announce, floating
subprocess.run(["ip", "-batch", "-"], input={NETWORK!r}.encode(), check=True)
fdb = "bridge fdb add {REMOTE} dev vxlan master dynamic extern_learn"
subprocess.run(fdb.split(), check=True)
cases = {[case[:5] for case in CASES]!r}
for device, address, mac, kind, _ in cases:
    argv = ["ip", "neighbour", "add", address, "lladdr", mac, "dev", device, *kind.split()]
    subprocess.run(argv, check=True)
floating.start(lambda line: None, lambda: ['nbr-14'])
macs = {{"guest": {GUEST!r}, "other": {GUEST!r}, "pod": {GUEST!r}, "far": {REMOTE!r}}}
for _ in range(20):
    for _, address, _, _, sender in cases:
        announce.announce(ip_address(address), sender, macs[sender], {{}})
    time.sleep(0.1)
subprocess.run(["ip", "-json", "neighbour", "show", "nud", "all"], check=True)
"""


def test_an_announcement_replaces_the_entry_of_zebra(root_user: None) -> None:
    """An announcement by a guest of this host replaces zebra's entry, and no other entry."""
    del root_user
    output = in_namespace(sys.executable, "-c", FOLLOW)
    shown = {(each["dev"], each["dst"]): each for each in json.loads(output)}
    for device, address, before, kind, sender, after in CASES:
        entry = shown[device, address]
        assert entry["lladdr"] == after, (device, address, sender)
        expected = "STALE" if before != after else kind.split()[1].upper()
        assert entry["state"] == [expected], entry


class Ended(Exception):
    """The test has seen enough."""


def test_it_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not answer, then `ip` can't be run: the thread tries again each time."""
    failures = [OSError("no answer"), ActivationFailed("ip can't be run"), Ended()]

    def follow(*_: object) -> None:
        raise failures.pop(0)

    monkeypatch.setattr(floating, "follow", follow)
    monkeypatch.setattr(floating, "_RETRY", 0.0)
    with pytest.raises(Ended):
        floating._follow(print, list)
    assert not failures


def frame(address: str) -> bytes:
    """Return an announcement of an address by a guest, from its network header on."""
    mac = bytes.fromhex(GUEST.replace(":", ""))
    ip = ip_address(address)
    if ip.version == 4:
        return next(iter(announce._arps(ip.packed, mac, {})))[14:]
    return next(iter(announce._advertisements(ip, mac, {})))[14:]


def test_an_announcement_has_address_and_mac() -> None:
    """An announcement has an address and a MAC, in each family."""
    assert floating.arp(frame("10.9.0.1")) == ("10.9.0.1", GUEST)
    assert floating.advertisement(frame("fd00:9::1")) == ("fd00:9::1", GUEST)


@pytest.mark.parametrize("length", range(72))
def test_a_frame_cut_short_says_nothing(length: int) -> None:
    """A frame that is cut short announces nothing."""
    if length < 28:
        assert floating.arp(frame("10.9.0.1")[:length]) is None
    assert floating.advertisement(frame("fd00:9::1")[:length]) is None


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        pytest.param(7, 254, id="it has passed a router"),
        pytest.param(41, 1, id="a code that nobody knows"),
        pytest.param(44, 0, id="it does not override"),
        pytest.param(64, 1, id="another option"),
        pytest.param(66, 3, id="a MAC of a group"),
    ],
)
def test_an_invalid_advertisement_is_ignored(offset: int, value: int) -> None:
    """An advertisement that the kernel would not accept announces nothing."""
    data = bytearray(frame("fd00:9::1"))
    data[offset] = value
    assert floating.advertisement(bytes(data)) is None


def test_another_arp_packet_is_ignored() -> None:
    """An ARP packet of another medium, or without a unicast MAC, announces nothing."""
    packet = frame("10.9.0.1")
    assert floating.arp(struct.pack("!H", 6) + packet[2:]) is None
    assert floating.arp(packet[:8] + b"\xff" * 6 + packet[14:]) is None
    assert floating.arp(packet[:8] + bytes(6) + packet[14:]) is None
