"""Follows announcements of guests for an address that EVPN still has elsewhere.

A floating address (VRRP, keepalived) moves to a guest on this host, and the guest announces it with
its own MAC. zebra's neighbour entry still has the former place. That entry is NUD_NOARP, and no
packet can change such an entry (`__neigh_update` of net/core/neighbour.c). So zebra learns nothing
until the former owner's host finds that its guest no longer answers. Therefore this module sets the
entry, as the kernel sets any other one. zebra then announces the address, with a higher sequence
number (RFC 9721).

Announcements in the management V-Net are ignored: its gateway and the controller are in it, and no
guest may take over their addresses.
"""

import contextlib
import ipaddress
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.errors import EvpnHostError
from generator.failover import events
from generator.observed import entries

_BRIDGES = "nbr-"  # the prefix of V-Nets' bridges
_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
# Seconds between two rounds, and frames that a round reads. So a guest that floods announcements
# costs little; frames that do not fit into the socket's buffer are lost.
_PAUSE, _ROUND = 0.05, 64
_RETRY = 5.0  # seconds until the next try after an error

# Classic BPF, as in `events`. Numbers of a packet are big-endian, as BPF reads them.
_LOAD_WORD, _LOAD_BYTE, _TO_X = 0x20, 0x30, 0x07
_EQUAL, _EQUAL_X, _RETURN = 0x15, 0x1D, 0x06
_ACCEPT, _DROP = (_RETURN, 0, 0, 0xFFFF), (_RETURN, 0, 0, 0)
_GRATUITOUS = [
    (_LOAD_WORD, 0, 0, 14),  # the sender's address
    (_TO_X, 0, 0, 0),
    (_LOAD_WORD, 0, 0, 24),  # the target's
    (_EQUAL_X, 0, 1, 0),
    _ACCEPT,
    _DROP,
]
_ADVERTISEMENT = [
    (_LOAD_BYTE, 0, 0, 6),  # next header
    (_EQUAL, 0, 3, socket.IPPROTO_ICMPV6),
    (_LOAD_BYTE, 0, 0, 40),  # type
    (_EQUAL, 0, 1, 136),
    _ACCEPT,
    _DROP,
]


class Announcement(NamedTuple):
    """A guest's announcement that an address is at a MAC."""

    bridge: str
    address: str
    mac: str


def start(log: Log, management: Callable[[], list[str]]) -> None:
    """Follow announcements in a separate thread until the process ends.

    `management` returns the bridges of the management V-Net, none as long as they are not known.
    """
    threading.Thread(target=_follow, args=(log, management), name="floating", daemon=True).start()


def _follow(log: Log, management: Callable[[], list[str]]) -> None:
    while True:
        try:
            follow(log, management)
        except (OSError, EvpnHostError) as error:
            print(f"announcements of guests: {error}; trying again", file=sys.stderr, flush=True)
        time.sleep(_RETRY)


def follow(log: Log, management: Callable[[], list[str]]) -> None:
    """Set the neighbour entries that guests announce, except in the management V-Net.

    Raises OSError, or `ActivationFailed` if `ip` can't be run.
    """
    with _listen(_ETH_P_ARP, _GRATUITOUS) as arp, _listen(_ETH_P_IPV6, _ADVERTISEMENT) as ipv6:
        while True:
            ready, _, _ = select.select([arp, ipv6], [], [])
            ignored = management()
            announced = {each for sock in ready for each in _read(sock)}
            lines = [
                _line(each)
                for each in sorted(announced)
                if ignored and each.bridge not in ignored and _has_moved_here(each)
            ]
            if lines:
                reason = "a guest of this host announces an address that was elsewhere"
                text = "".join(f"{line}\n" for line in lines)
                batch = ("ip", "-force", "-batch", "-")
                commands.run(Step(batch, reason, timeout=10, input=text, may_fail=True), log)
            time.sleep(_PAUSE)


def _listen(protocol: int, steps: list[events.Instruction]) -> socket.socket:
    """Open a socket for frames that this host itself receives, on any device."""
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_PACKET, kind, socket.htons(protocol))
    events.attach(sock, steps)
    with contextlib.suppress(BlockingIOError):
        while True:  # drop frames that came before the filter was attached
            sock.recv(1)
    return sock


def _read(sock: socket.socket) -> Iterator[Announcement]:
    """Yield the announcements in a socket that came by bridges of V-Nets."""
    for _ in range(_ROUND):
        try:
            packet, (device, protocol, *_) = sock.recvfrom(256)
        except BlockingIOError:
            return
        if device.startswith(_BRIDGES):
            pair = arp(packet) if protocol == _ETH_P_ARP else advertisement(packet)
            if pair:
                yield Announcement(device, *pair)


def arp(packet: bytes) -> tuple[str, str] | None:
    """Return the address and the MAC of an ARP packet (RFC 826), None if it is not valid."""
    if len(packet) < 28 or packet[:6] != struct.pack("!HHBB", 1, 0x0800, 6, 4):
        return None
    return _pair(packet[14:18], packet[8:14])


def advertisement(packet: bytes) -> tuple[str, str] | None:
    """Return the address and the MAC of a neighbour advertisement (RFC 4861, section 4.4)."""
    if len(packet) < 72 or packet[7] != 255 or packet[41] or not packet[44] & 0x20:  # override
        return None
    return _pair(packet[48:64], packet[66:72]) if packet[64:66] == b"\x02\x01" else None


def _pair(address: bytes, mac: bytes) -> tuple[str, str] | None:
    if mac[0] & 1 or not any(mac):
        return None
    return str(ipaddress.ip_address(address)), mac.hex(":")


def _has_moved_here(announced: Announcement) -> bool:
    """Whether zebra has the address elsewhere with another MAC, and this MAC is on a port here."""
    try:
        index = socket.if_nametoindex(announced.bridge)
    except OSError:  # the bridge was just deleted
        return False
    known = entries.neighbour(index, announced.address)
    if not (known and known.external and known.noarp and known.mac != announced.mac):
        return False
    entry = entries.forwarding(index, announced.mac)
    return bool(entry and not entry.external and not entry.permanent)


def _line(announced: Announcement) -> str:
    """Return a line for `ip -batch`. STALE is the kernel's own state for an unconfirmed entry."""
    bridge, address, mac = announced
    return f"neighbour replace {address} lladdr {mac} dev {bridge} nud stale"
