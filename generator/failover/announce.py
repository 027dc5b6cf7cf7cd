"""Sends frames: announcements of an address, and router solicitations.

A bridge with neighbour suppression does not forward the usual announcements to its VXLAN port, and
every EVPN switch has such bridges, as we do: net/bridge/br_arp_nd_proxy.c drops an ARP whose sender
and target are the same, and an unsolicited advertisement. An ARP reply for another target passes,
and so does a frame to a single station. Both update stations that already know the address.
"""

import contextlib
import socket
import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from pathlib import Path

from generator.desired.model import Management
from generator.observed import netlink

_BROADCAST = b"\xff" * 6
_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
_REQUEST, _REPLY = 1, 2
_ALL_NODES, _ALL_ROUTERS = ip_address("ff02::1"), ip_address("ff02::2")


def announce_all(management: Management, device: str, companions: Iterable[str] = ()) -> None:
    """Announce each management address and its companions on `device` to their neighbours."""
    try:
        mac = (Path("/sys/class/net") / device / "address").read_text().strip()
    except OSError:
        return
    for text in (*(address for address, _ in management.pairs), *companions):
        interface = ip_interface(text)
        family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
        neighbours = {
            neighbour.address: neighbour.mac
            for neighbour in netlink.neighbours(family)
            if neighbour.mac and ip_interface(neighbour.address).ip in interface.network
        }
        announce(interface.ip, device, mac, neighbours)


def announce(
    address: IPv4Address | IPv6Address, device: str, mac: str, neighbours: Mapping[str, str]
) -> None:
    """Announce on `device` that `address` is at `mac`. A failure is no error.

    `neighbours` (address to MAC) may have an old MAC for the address.
    """
    hardware = _hardware(mac)
    stations = {ip_address(name): _hardware(at) for name, at in neighbours.items()}
    with contextlib.suppress(OSError):
        if address.version == 4:
            _send(device, _ETH_P_ARP, list(_arps(address.packed, hardware, stations)))
        else:
            _send(device, _ETH_P_IPV6, list(_advertisements(address, hardware, stations)))


def solicit(device: str) -> None:
    """Ask on `device` for router advertisements (RFC 4861, section 4.1). A failure is no error."""
    with contextlib.suppress(OSError):
        mac = (Path("/sys/class/net") / device / "address").read_text()
        _send(device, _ETH_P_IPV6, [_solicitation(_hardware(mac.strip()))])


def _hardware(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _send(device: str, protocol: int, frames: list[bytes]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((device, protocol))
        for frame in frames:
            sock.send(frame)


def _arps(
    address: bytes, mac: bytes, stations: Mapping[IPv4Address | IPv6Address, bytes]
) -> list[bytes]:
    """Build an announcement (RFC 5227, section 2.3), and replies to 0.0.0.0 and to all stations."""
    frames = [(_BROADCAST, _REQUEST, bytes(6), address), (_BROADCAST, _REPLY, bytes(6), bytes(4))]
    frames += [(at, _REPLY, at, name.packed) for name, at in stations.items()]
    return [
        to + mac + struct.pack("!HHHBBH", _ETH_P_ARP, 1, 0x0800, 6, 4, kind)
        + mac + address + target + asked
        for to, kind, target, asked in frames
    ]  # fmt: skip


def _advertisements(
    address: IPv6Address, mac: bytes, stations: Mapping[IPv4Address | IPv6Address, bytes]
) -> list[bytes]:
    """Build advertisements with the override flag (RFC 4861, 7.2.6), to all and to each station."""
    receivers = {_ALL_NODES: _multicast(_ALL_NODES), **stations}
    return [
        to + mac + struct.pack("!H", _ETH_P_IPV6) + _advertisement(address.packed, name.packed, mac)
        for name, to in receivers.items()
    ]


def _advertisement(address: bytes, receiver: bytes, mac: bytes) -> bytes:
    override = 0x20000000
    body = struct.pack("!BBHI", 136, 0, 0, override) + address + b"\x02\x01" + mac
    return _icmpv6(address, receiver, body)


def _solicitation(mac: bytes) -> bytes:
    """Build a solicitation from the unspecified address, so that routers answer by multicast."""
    body = struct.pack("!BBHI", 133, 0, 0, 0)
    frame = _multicast(_ALL_ROUTERS) + mac + struct.pack("!H", _ETH_P_IPV6)
    return frame + _icmpv6(bytes(16), _ALL_ROUTERS.packed, body)


def _multicast(group: IPv4Address | IPv6Address) -> bytes:
    return b"\x33\x33" + group.packed[-4:]


def _icmpv6(source: bytes, receiver: bytes, body: bytes) -> bytes:
    """Build a packet of neighbour discovery; hop limit 255 shows that it was sent on this link."""
    pseudo = source + receiver + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + receiver + body


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
