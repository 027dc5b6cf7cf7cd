"""Guests' announcements of addresses that EVPN has elsewhere, in a network namespace."""

import json
import struct
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from generator.errors import ActivationFailed
from generator.failover import announce, floating
from tests.conftest import unavailable

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


def test_an_announced_address_is_here(root_user: None) -> None:
    """zebra's entry gives way to a guest of this host; no other entry and no other bridge does."""
    del root_user
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    if probe.returncode:
        unavailable(f"no network namespace: {probe.stderr.decode().strip()}")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", FOLLOW],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert not done.returncode, done.stderr
    shown = {(each["dev"], each["dst"]): each for each in json.loads(done.stdout)}
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
    """An announcement of an address by a guest, from its network header on."""
    mac = bytes.fromhex(GUEST.replace(":", ""))
    ip = ip_address(address)
    if ip.version == 4:
        return next(iter(announce._arps(ip.packed, mac, {})))[14:]
    return next(iter(announce._advertisements(ip, mac, {})))[14:]


def test_what_an_announcement_says() -> None:
    """An address and a MAC, of each family."""
    assert floating.arp(frame("10.9.0.1")) == ("10.9.0.1", GUEST)
    assert floating.advertisement(frame("fd00:9::1")) == ("fd00:9::1", GUEST)


@pytest.mark.parametrize("length", range(72))
def test_a_frame_cut_short_says_nothing(length: int) -> None:
    """Whatever a guest sends."""
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
def test_an_advertisement_that_is_none(offset: int, value: int) -> None:
    """The kernel would not take it either."""
    data = bytearray(frame("fd00:9::1"))
    data[offset] = value
    assert floating.advertisement(bytes(data)) is None


def test_an_arp_packet_of_another_kind() -> None:
    """Of another medium, or with a MAC of a group or none."""
    packet = frame("10.9.0.1")
    assert floating.arp(struct.pack("!H", 6) + packet[2:]) is None
    assert floating.arp(packet[:8] + b"\xff" * 6 + packet[14:]) is None
    assert floating.arp(packet[:8] + bytes(6) + packet[14:]) is None
