"""Reads from the kernel the devices that the management address may be on, and their routes."""

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import msgspec

from generator.observed import netlink, routing
from generator.observed.routing import Default
from generator.state.placement import Route

HOOK = "evpn-host-failover.service"
_IPV4 = socket.AF_INET
_SCOPE_LINK = 253  # RT_SCOPE_LINK, linux/rtnetlink.h
_NOPREFIXROUTE = 0x200  # IFA_F_NOPREFIXROUTE
_DEPRECATED = 0x20 | 0x80  # IFA_F_DEPRECATED, IFA_F_PERMANENT: not preferred, valid for ever


class Device(msgspec.Struct, frozen=True):
    """A device that the address may be on."""

    index: int
    up: bool
    ipv6: bool  # whether it takes IPv6 addresses
    vxlan: bool = True  # whether a VXLAN device is a port of it


class Observation(msgspec.Struct, frozen=True):
    """What the kernel has: the NIC and the bridges that exist, their addresses, routes."""

    devices: dict[str, Device]
    addresses: dict[str, dict[str, str]]  # device to address to its attributes (ip-address(8))
    defaults: list[Default]
    routes: list[Route] = []  # the operator's, of all tables that a rule looks up
    sources: dict[int, list[str]] = {}  # table to the source prefixes for which rules select it
    rules: list[tuple[int, tuple[str, ...]]] = []  # those for devices: priority and their names
    companions: list[str] = []  # other addresses that move with the management address


def hook_runs(root: Path) -> bool:
    """Whether the hook's service runs. Its cgroup exists then: no command is needed."""
    return (root / "sys/fs/cgroup/system.slice" / HOOK).is_dir()


def observe(names: set[str]) -> Observation:
    """Read the devices of these names with their addresses, and the operator's routes."""
    devices = {name: device for name in names if (device := _device(name))}
    addresses = {name: dict(_addresses(device.index, name)) for name, device in devices.items()}
    by_index = {device.index: name for name, device in devices.items()}
    routes = routing.read(by_index)
    return Observation(devices, addresses, *msgspec.structs.astuple(routes))


def _device(name: str) -> Device | None:
    """Read a device from sysfs: a netlink dump would read thousands of devices for three."""
    try:
        index = _read_number(f"/sys/class/net/{name}/ifindex")
        flags = _read_number(f"/sys/class/net/{name}/flags")
    except (OSError, ValueError):
        return None
    try:
        ipv6_disabled = _read_number(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    except OSError:  # a kernel without IPv6
        ipv6_disabled = 1
    return Device(index, bool(flags & 1), ipv6_disabled == 0, _has_vxlan(name))


def _has_vxlan(name: str) -> bool:
    try:
        ports = Path(f"/sys/class/net/{name}/brif").iterdir()
        return any(port.name.startswith("vxlan") for port in ports)
    except OSError:  # no bridge
        return False


def _read_number(path: str) -> int:
    """Read a number with only three system calls: the hook reads often."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(file, 32), 0)
    finally:
        os.close(file)


def _addresses(index: int, name: str) -> Iterator[tuple[str, str]]:
    """Yield a device's addresses with their attributes. Raises OSError without the device."""
    for message in netlink.dump(netlink.RTM_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, index)):
        family, length, flags, scope = struct.unpack_from("=BBBB", message)
        if scope == _SCOPE_LINK:  # IPv6's own
            continue
        attributes = netlink.attributes_of(message, 8)
        raw = attributes.get(2, attributes.get(1, b""))  # IFA_LOCAL, else IFA_ADDRESS
        words = []
        if 4 in attributes and family == _IPV4:  # IFA_BROADCAST
            words += ["brd", str(ip_address(attributes[4]))]
        if 9 in attributes:  # IFA_RT_PRIORITY
            words += ["metric", str(_number(attributes[9]))]
        flags = _number(attributes[8]) if 8 in attributes else flags  # IFA_FLAGS
        if flags & _NOPREFIXROUTE:
            words.append("noprefixroute")
        label = attributes.get(3, b"").rstrip(bytes(1)).decode(errors="replace")  # IFA_LABEL
        if label not in {"", name}:
            words += ["label", label]
        if flags & _DEPRECATED == _DEPRECATED:
            words += ["preferred_lft", "0"]
        peer = attributes.get(1, raw)
        # The kernel can have an address with a peer, and the same address without one.
        with_peer = f" peer {ip_address(peer)}" if peer != raw else ""
        yield f"{ip_address(raw)}{with_peer}/{length}", " ".join(words)


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")
