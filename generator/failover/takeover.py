"""Guests that take over the address of a guest on another host, as VRRP and keepalived do.

The new owner announces the address. But the kernel lets no announcement change an entry that FRR
has made for a guest elsewhere (NUD_NOARP, FRRouting/frr#14156), and a bridge that suppresses ARP
keeps announcements from the other hosts (net/bridge/br_arp_nd_proxy.c). So the fabric would go on
sending to the former owner, as long as that one is there. This module makes the kernel's entry one
of a guest here. FRR announces it with a higher sequence number, and the others follow.

A guest gains nothing by it that it does not have: who takes over the MAC of another member of the
V-Net takes over its addresses as well.
"""

import contextlib
import select
import socket
import struct
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.desired.target import Target
from generator.errors import EvpnHostError
from generator.failover import events
from generator.observed import netlink
from generator.observed.netlink import Neighbour
from generator.state import record

_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
_NOARP = 0x40  # linux/neighbour.h
_OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h
_PAUSE = 0.1  # seconds between two batches
_BATCH = 64  # announcements
_AGAIN = 5.0  # seconds after an error

# Classic BPF for a frame without its Ethernet header (linux/filter.h): code, jump if true, jump if
# false, value.
_LOAD, _LOAD_BYTE, _TO_X, _AND, _RETURN = 0x20, 0x30, 0x07, 0x54, 0x06
_EQUAL, _EQUAL_X = 0x15, 0x1D
_ALL, _NONE = (_RETURN, 0, 0, 0xFFFF), (_RETURN, 0, 0, 0)
# An ARP whose sender and target are the same address (RFC 5227, section 3).
_GRATUITOUS = (
    (_LOAD, 0, 0, 14),
    (_TO_X, 0, 0, 0),
    (_LOAD, 0, 0, 24),
    (_EQUAL_X, 0, 1, 0),
    _ALL,
    _NONE,
)
# An advertisement that nobody asked for (RFC 4861, section 7.2.6).
_UNSOLICITED = (
    (_LOAD_BYTE, 0, 0, 6),
    (_EQUAL, 0, 5, 58),
    (_LOAD_BYTE, 0, 0, 40),
    (_EQUAL, 0, 3, 136),
    (_LOAD_BYTE, 0, 0, 44),
    (_AND, 0, 0, 0x40),
    (_EQUAL, 0, 1, 0),
    _ALL,
    _NONE,
)


class Announcement(msgspec.Struct, frozen=True):
    """What somebody says on a device: this address is at this MAC."""

    index: int
    address: str
    mac: str


class Segment(msgspec.Struct, frozen=True):
    """A bridge with gateways: its VXLAN port, and the gateways' addresses."""

    bridge: str
    port: str
    gateways: tuple[IPv4Interface | IPv6Interface, ...]

    def has(self, address: str) -> bool:
        """Whether an address is one that a guest may have."""
        ip = ip_address(address)
        return any(ip in each.network for each in self.gateways) and ip not in {
            each.ip for each in self.gateways
        }


def parse(index: int, protocol: int, packet: bytes) -> Announcement | None:
    """Return what a packet announces, None if that is nothing."""
    if protocol == _ETH_P_ARP:
        if len(packet) < 28 or packet[:6] != struct.pack("!HHBB", 1, 0x0800, 6, 4):
            return None
        mac, address = packet[8:14], packet[14:18]
    else:
        options = packet[64:]
        # The target's MAC is the option that an announcement has.
        if len(options) < 8 or options[:2] != b"\x02\x01":
            return None
        mac, address = options[2:8], packet[48:64]
    if mac[0] & 1 or not any(mac):
        return None
    return Announcement(index, str(ip_address(address)), ":".join(f"{byte:02x}" for byte in mac))


def segments(target: Target, links: Iterable[netlink.Link]) -> dict[int, Segment]:
    """Return a host's bridges with gateways, by index."""
    ports = {each.master: each.name for each in target.devices if each.kind == "vxlan"}
    bridges = {
        each.name: Segment(each.name, ports[each.name], tuple(map(ip_interface, each.addresses)))
        for each in target.devices
        if each.kind == "bridge" and each.addresses and each.name in ports
    }
    return {link.index: bridges[link.name] for link in links if link.name in bridges}


def claims(
    announcements: Iterable[Announcement], neighbours: Iterable[Neighbour]
) -> list[Announcement]:
    """Return the announcements of addresses that the kernel knows of a guest elsewhere."""
    elsewhere = {
        (each.index, each.address): each.mac.lower() for each in neighbours if each.state == _NOARP
    }
    last = {(each.index, each.address): each for each in announcements}
    return [each for place, each in last.items() if elsewhere.get(place, each.mac) != each.mac]


def local_macs(forwarding: bytes, port: int) -> set[str]:
    """Return the MACs that a bridge knows on other ports than its VXLAN port.

    `forwarding` is what sysfs has as the bridge's brforward (struct __fdb_entry of if_bridge.h).
    """
    entries = struct.iter_unpack("=6sBBIBBH", forwarding[: len(forwarding) // 16 * 16])
    return {
        ":".join(f"{byte:02x}" for byte in mac)
        for mac, low, own, _, high, _, _ in entries
        if not own and low | high << 8 != port
    }


def follow(root: Path, log: Log) -> None:
    """Stay, and hand over addresses that guests of this host announce."""
    while True:
        try:
            with _socket(_ETH_P_ARP, _GRATUITOUS) as arp, _socket(_ETH_P_IPV6, _UNSOLICITED) as nd:
                while True:
                    ready = select.select([arp, nd], [], [])[0]
                    begun = time.monotonic()
                    _hand_over(root, [each for sock in ready for each in _read(sock)], log)
                    # Whatever guests send, most of the time is for others.
                    time.sleep(max(_PAUSE, 4 * (time.monotonic() - begun)))
        except (OSError, EvpnHostError) as error:
            print(f"guests' announcements: {error}; trying again", file=sys.stderr, flush=True)
            time.sleep(_AGAIN)


def _socket(protocol: int, program: Collection[tuple[int, int, int, int]]) -> socket.socket:
    """Open a socket for what the program lets pass. What came before its filter is dropped."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    events.attach(sock, program)
    sock.bind(("", protocol))
    return sock


def _read(sock: socket.socket) -> Iterator[Announcement]:
    """Read what was announced, a batch at most."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(_BATCH):
            packet, (device, protocol, kind, *_) = sock.recvfrom(256)
            if kind != _OUTGOING:
                with contextlib.suppress(OSError):  # a device that has gone
                    index = socket.if_nametoindex(device)
                    if announcement := parse(index, protocol, packet):
                        yield announcement


def _hand_over(root: Path, announcements: list[Announcement], log: Log) -> None:
    """Make the kernel's entries those of guests here, where they announce what it has elsewhere."""
    families = {
        socket.AF_INET6 if ":" in each.address else socket.AF_INET for each in announcements
    }
    neighbours = (each for family in families for each in netlink.neighbours(family))
    claimed = claims(announcements, neighbours)
    applied = record.read(root) if claimed else None
    if applied is None:
        return
    known = segments(applied.target, netlink.links().values())
    lines = [
        f"neighbour replace {each.address} lladdr {each.mac} dev {segment.bridge} nud stale\n"
        for each in claimed
        if (segment := known.get(each.index)) and segment.has(each.address)
        if each.mac in _guests(segment)
    ]
    if lines:
        reason = "guests of this host have taken over addresses of guests elsewhere"
        step = Step(("ip", "-force", "-batch", "-"), reason, 10, "".join(lines), may_fail=True)
        commands.run(step, log)
        for line in lines:
            log(f"ip {line.strip()}")


def _guests(segment: Segment) -> set[str]:
    """Return the MACs of a bridge's own guests."""
    base = Path("/sys/class/net")
    port = int((base / segment.port / "brport/port_no").read_bytes(), 16)
    return local_macs((base / segment.bridge / "brforward").read_bytes(), port)
