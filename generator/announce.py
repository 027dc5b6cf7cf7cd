"""Telling neighbours where an address is now: gratuitous ARP, unsolicited advertisement."""

import contextlib
import socket
import struct
from ipaddress import ip_interface

_BROADCAST = b"\xff" * 6
_ETH_P_ARP = 0x0806
_ALL_NODES = "ff02::1"


def announce(address: str, device: str, mac: str) -> None:
    """Say on `device` that `address` (with or without length) is at `mac`; failing is no error.

    IPv4: an ARP request of and for the address (RFC 5227, section 2.3). IPv6: a neighbour
    advertisement with the override flag (RFC 4861, section 7.2.6).
    """
    found = ip_interface(address).ip
    hardware = bytes.fromhex(mac.replace(":", ""))
    with contextlib.suppress(OSError):
        if found.version == 4:
            _arp(found.packed, device, hardware)
        else:
            _advertise(found.packed, device, hardware)


def _arp(address: bytes, device: str, mac: bytes) -> None:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address + bytes(6) + address
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP)) as sock:
        sock.bind((device, _ETH_P_ARP))
        sock.send(_BROADCAST + mac + struct.pack("!H", _ETH_P_ARP) + body)


def _advertise(address: bytes, device: str, mac: bytes) -> None:
    override = 0x20000000
    body = struct.pack("!BBHI", 136, 0, 0, override) + address + b"\x02\x01" + mac
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        index = socket.if_nametoindex(device)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.bind((socket.inet_ntop(socket.AF_INET6, address), 0, 0, 0))
        sock.sendto(body, (_ALL_NODES, 0, 0, index))
