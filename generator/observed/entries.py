"""Reads single entries of the kernel's neighbour and forwarding tables (linux/neighbour.h)."""

import socket
import struct
from ipaddress import ip_address

import msgspec

from generator.observed import netlink

_NDMSG = struct.Struct("=BxHiHBB")  # family, …, device, state, flags, type
_DESTINATION, _MAC, _MASTER = 1, 2, 9  # NDA_DST, NDA_LLADDR, NDA_MASTER
_NOARP, _PERMANENT, _EXTERNAL = 0x40, 0x80, 0x10  # NUD_…, NTF_EXT_LEARNED


class Entry(msgspec.Struct, frozen=True):
    """An entry of such a table."""

    mac: str
    external: bool  # a program, such as zebra, has set it
    noarp: bool  # no packet changes it
    permanent: bool  # it is the bridge's own MAC, or never expires


def neighbour(device: int, address: str) -> Entry | None:
    """Return the neighbour entry of an address on a device (index), None without one."""
    packed = ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    head = _NDMSG.pack(family, 0, device, 0, 0, 0)
    return _entry(head + netlink.attribute(_DESTINATION, packed))


def forwarding(bridge: int, mac: str) -> Entry | None:
    """Return a bridge's forwarding entry of a MAC, None without one."""
    head = _NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0, 0)
    key = netlink.attribute(_MAC, bytes.fromhex(mac.replace(":", "")))
    return _entry(head + key + netlink.attribute(_MASTER, struct.pack("=I", bridge)))


def _entry(body: bytes) -> Entry | None:
    answer = netlink.get(netlink.RTM_GETNEIGH, body)
    if answer is None:
        return None
    _, _, _, state, flags, _ = _NDMSG.unpack_from(answer)
    mac = netlink.attributes_of(answer, _NDMSG.size).get(_MAC, b"").hex(":")
    return Entry(mac, bool(flags & _EXTERNAL), bool(state & _NOARP), bool(state & _PERMANENT))


def remote_macs(port: int) -> set[str]:
    """Return the MACs that a VXLAN device (index) sends to another VTEP."""
    only = struct.pack("=HHI", 8, 8, port)  # NDA_IFINDEX
    body = _NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0, 0) + only
    messages = netlink.dump(netlink.RTM_GETNEIGH, body)
    entries = [netlink.attributes_of(message, _NDMSG.size) for message in messages]
    return {entry[_MAC].hex(":") for entry in entries if _DESTINATION in entry and _MAC in entry}
