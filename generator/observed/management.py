"""Reads what the kernel has of the devices that the management address may be on."""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec

from generator.observed import netlink

HOOK = "evpn-host-failover.service"
_MAIN_TABLE = 254
_IPV4, _IPV6 = socket.AF_INET, socket.AF_INET6
_SCOPE_LINK = 253  # RT_SCOPE_LINK, linux/rtnetlink.h
_NOPREFIXROUTE, _ONLINK = 0x200, 4  # IFA_F_NOPREFIXROUTE, RTNH_F_ONLINK
# RTAX_… (linux/rtnetlink.h), as ip-route(8) names them.
_METRICS = {2: "mtu", 8: "advmss", 10: "hoplimit", 11: "initcwnd", 14: "initrwnd", 15: "quickack"}


class Device(msgspec.Struct, frozen=True):
    """A device that the address may be on."""

    index: int
    up: bool
    ipv6: bool  # whether it takes IPv6 addresses


class Default(msgspec.Struct, frozen=True):
    """A default route of table main; `text` is the rest of it, as ip-route(8) reads it."""

    family: int
    gateway: str
    device: str
    metric: int
    text: str


class Observation(msgspec.Struct, frozen=True):
    """What the kernel has: the NIC and the bridges that exist, their addresses, default routes."""

    devices: dict[str, Device]
    addresses: dict[str, dict[str, str]]  # device to address to what ip-address(8) adds to it
    defaults: list[Default]


def hook_runs(root: Path) -> bool:
    """Whether the hook's service runs. systemd's own file system says so: no command is run."""
    return (root / "sys/fs/cgroup/system.slice" / HOOK).is_dir()


def observe(names: set[str]) -> Observation:
    """Read what the kernel has of the devices of these names, and all default routes."""
    devices = {name: device for name in names if (device := _device(name))}
    addresses = {name: dict(_addresses(device.index)) for name, device in devices.items()}
    by_index = {device.index: name for name, device in devices.items()}
    defaults = [*_defaults(_IPV4, by_index), *_defaults(_IPV6, by_index)]
    return Observation(devices, addresses, defaults)


def _device(name: str) -> Device | None:
    """Read a device from sysfs: a dump would read thousands of devices for three."""
    try:
        index = _read_number(f"/sys/class/net/{name}/ifindex")
        flags = _read_number(f"/sys/class/net/{name}/flags")
    except (OSError, ValueError):
        return None
    try:
        ipv6_disabled = _read_number(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    except OSError:  # a kernel without IPv6
        ipv6_disabled = 1
    return Device(index, bool(flags & 1), ipv6_disabled == 0)


def _read_number(path: str) -> int:
    """Read a number with three system calls and no more: the hook reads often."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(file, 32), 0)
    finally:
        os.close(file)


def _addresses(index: int) -> Iterator[tuple[str, str]]:
    """Yield a device's addresses, each with the rest of it. Raises OSError if it is gone."""
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
        if (_number(attributes[8]) if 8 in attributes else flags) & _NOPREFIXROUTE:  # IFA_FLAGS
            words.append("noprefixroute")
        peer = attributes.get(1, raw)
        # To the kernel an address with a peer is not the same as that address without one.
        with_peer = f" peer {ip_address(peer)}" if peer != raw else ""
        yield f"{ip_address(raw)}{with_peer}/{length}", " ".join(words)


def _defaults(family: int, names: Mapping[int, str]) -> Iterator[Default]:
    """Yield default routes by a gateway. Only table main is dumped: tenants' tables are long."""
    request = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _MAIN_TABLE, 0, 0, 0, 0)
    try:
        for message in netlink.dump(netlink.RTM_GETROUTE, request):
            _, length, _, _, table, protocol, _, _, flags = struct.unpack_from(
                "=BBBBBBBBI", message
            )
            if length or table != _MAIN_TABLE:
                continue
            attributes = netlink.attributes_of(message, 12)
            if 5 not in attributes or 4 not in attributes:  # RTA_GATEWAY, RTA_OIF
                continue
            index = _number(attributes[4])
            try:
                device = names.get(index) or socket.if_indextoname(index)
            except OSError:  # removed meanwhile
                continue
            metric = _number(attributes[6]) if 6 in attributes else 0  # RTA_PRIORITY
            gateway = str(ip_address(attributes[5]))
            text = " ".join(_route_words(protocol, metric, flags, attributes))
            yield Default(family, gateway, device, metric, text)
    except OSError:  # a kernel without this table, or without IPv6, has no such route
        return


def _route_words(
    protocol: int, metric: int, flags: int, attributes: netlink.Attributes
) -> Iterator[str]:
    yield f"proto {protocol}"
    if metric:
        yield f"metric {metric}"
    if 7 in attributes:  # RTA_PREFSRC
        yield f"src {ip_address(attributes[7])}"
    if flags & _ONLINK:
        yield "onlink"
    if 8 in attributes:  # RTA_METRICS
        for kind, value in netlink.attributes_of(attributes[8], 0).items():
            if kind in _METRICS:
                yield f"{_METRICS[kind]} {_number(value)}"


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")
