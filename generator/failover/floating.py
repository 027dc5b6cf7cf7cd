"""Guests' announcements of an address that EVPN still has elsewhere.

A floating address (VRRP, keepalived) moves to a guest on this host, and the guest announces it with
its own MAC. zebra's entry for the address says where it was. That entry is NUD_NOARP, and the
kernel lets no packet change one (`__neigh_update` of net/core/neighbour.c), so zebra hears nothing
until the host of the former owner finds that it does not answer any more. So the entry is set here
as the kernel sets any other one. zebra then announces the address, with a higher sequence number
(RFC 9721).

The management V-Net is left out: its gateway and the controller are in it, and nobody's guest may
take their place.
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

_BRIDGES = "nbr-"  # of V-Nets
_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
# Between two rounds, and how many frames a round takes: a guest that sends nothing but
# announcements costs little, and those that the socket has no room for are lost.
_PAUSE, _ROUND = 0.05, 64
_PATIENCE = 5.0  # seconds after which the kernel is asked again, when it could not be asked

# Classic BPF, as in `events`. Numbers of a packet are big-endian, as BPF reads them.
_LOAD_WORD, _LOAD_BYTE, _TO_X = 0x20, 0x30, 0x07
_EQUAL, _EQUAL_X, _RETURN = 0x15, 0x1D, 0x06
_TAKE, _LEAVE = (_RETURN, 0, 0, 0xFFFF), (_RETURN, 0, 0, 0)
_GRATUITOUS = [
    (_LOAD_WORD, 0, 0, 14),  # the sender's address
    (_TO_X, 0, 0, 0),
    (_LOAD_WORD, 0, 0, 24),  # the target's
    (_EQUAL_X, 0, 1, 0),
    _TAKE,
    _LEAVE,
]
_ADVERTISEMENT = [
    (_LOAD_BYTE, 0, 0, 6),  # next header
    (_EQUAL, 0, 3, socket.IPPROTO_ICMPV6),
    (_LOAD_BYTE, 0, 0, 40),  # type
    (_EQUAL, 0, 1, 136),
    _TAKE,
    _LEAVE,
]


class Announcement(NamedTuple):
    """What a guest says: an address is at a MAC."""

    bridge: str
    address: str
    mac: str


def start(log: Log, management: Callable[[], list[str]]) -> None:
    """Follow announcements in a thread of its own, to the end of the process.

    `management` returns the bridges of the management V-Net, none while they are not known.
    """
    threading.Thread(target=_follow, args=(log, management), name="floating", daemon=True).start()


def _follow(log: Log, management: Callable[[], list[str]]) -> None:
    while True:
        try:
            follow(log, management)
        except (OSError, EvpnHostError) as error:
            print(f"announcements of guests: {error}; trying again", file=sys.stderr, flush=True)
        time.sleep(_PATIENCE)


def follow(log: Log, management: Callable[[], list[str]]) -> None:
    """Set the neighbours that guests announce in other V-Nets than management.

    Raises OSError, or `ActivationFailed` if `ip` can't be run.
    """
    with _listen(_ETH_P_ARP, _GRATUITOUS) as arp, _listen(_ETH_P_IPV6, _ADVERTISEMENT) as ipv6:
        while True:
            ready, _, _ = select.select([arp, ipv6], [], [])
            apart = management()
            seen = {said for sock in ready for said in _read(sock) if said.bridge not in apart}
            if lines := [_line(said) for said in sorted(seen) if apart and _came_here(said)]:
                reason = "a guest of this host announces an address that was elsewhere"
                text = "".join(f"{line}\n" for line in lines)
                batch = ("ip", "-force", "-batch", "-")
                commands.run(Step(batch, reason, timeout=10, input=text, may_fail=True), log)
            time.sleep(_PAUSE)


def _listen(protocol: int, steps: list[events.Instruction]) -> socket.socket:
    """Open a socket for frames that this host itself takes in, on whatever device."""
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_PACKET, kind, socket.htons(protocol))
    events.attach(sock, steps)
    with contextlib.suppress(BlockingIOError):
        while True:  # what came before there was a filter
            sock.recv(1)
    return sock


def _read(sock: socket.socket) -> Iterator[Announcement]:
    """Yield what a socket has, of guests' bridges."""
    for _ in range(_ROUND):
        try:
            packet, (device, protocol, *_) = sock.recvfrom(256)
        except BlockingIOError:
            return
        if device.startswith(_BRIDGES):
            said = arp(packet) if protocol == _ETH_P_ARP else advertisement(packet)
            if said:
                yield Announcement(device, *said)


def arp(packet: bytes) -> tuple[str, str] | None:
    """Return the address and the MAC of an ARP packet (RFC 826), None if it is no good one."""
    if len(packet) < 28 or packet[:6] != struct.pack("!HHBB", 1, 0x0800, 6, 4):
        return None
    return _said(packet[14:18], packet[8:14])


def advertisement(packet: bytes) -> tuple[str, str] | None:
    """Return the address and the MAC of a neighbour advertisement (RFC 4861, section 4.4)."""
    if len(packet) < 72 or packet[7] != 255 or packet[41] or not packet[44] & 0x20:  # override
        return None
    return _said(packet[48:64], packet[66:72]) if packet[64:66] == b"\x02\x01" else None


def _said(address: bytes, mac: bytes) -> tuple[str, str] | None:
    if mac[0] & 1 or not any(mac):
        return None
    return str(ipaddress.ip_address(address)), mac.hex(":")


def _came_here(said: Announcement) -> bool:
    """Whether zebra has the address elsewhere with another MAC, and this MAC is on a port here."""
    try:
        index = socket.if_nametoindex(said.bridge)
    except OSError:  # it has just gone
        return False
    known = entries.neighbour(index, said.address)
    if not (known and known.external and known.noarp and known.mac != said.mac):
        return False
    entry = entries.forwarding(index, said.mac)
    return bool(entry and not entry.external and not entry.permanent)


def _line(said: Announcement) -> str:
    """Return a line for `ip -batch`. STALE, as the kernel has what nobody has confirmed yet."""
    return f"neighbour replace {said.address} lladdr {said.mac} dev {said.bridge} nud stale"
