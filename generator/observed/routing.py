"""Reads the operator's routes, and the source addresses for which rules select their tables.

It reads only tables that rules look up, and decodes no routes of FRR and of the kernel: tenants'
tables and the fabric's routes are long.
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

import msgspec

from generator.observed import netlink, routing_rules
from generator.state.placement import Route

MAIN = 254
IPV4, IPV6 = int(socket.AF_INET), int(socket.AF_INET6)
_LOCAL, _UNICAST, _ONLINK = 255, 1, 4  # RT_TABLE_LOCAL, RTN_UNICAST, RTNH_F_ONLINK
# Protocols whose routes a daemon manages, not the operator (RTPROT_… of linux/rtnetlink.h):
# redirects, the kernel, gated, router advertisements, routing daemons, keepalived, FRR.
_DAEMONS = frozenset({1, 2, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 42, 84, 99, *range(186, 200)})
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host"}
_PREFERENCES = {1: "high", 3: "low"}  # of IPv6 routes, RFC 4191
# RTAX_… (linux/rtnetlink.h), as ip-route(8) names them.
_METRICS = {
    2: "mtu", 3: "window", 6: "ssthresh", 7: "cwnd", 8: "advmss", 9: "reordering", 10: "hoplimit",
    11: "initcwnd", 14: "initrwnd", 15: "quickack", 17: "fastopen_no_cookie",
}  # fmt: skip
_LOCK, _RTO_MIN, _CONGESTION = 1, 13, 16
DEFAULTS: dict[int, str] = {IPV4: "default", IPV6: "::/0"}  # ip-route(8) takes "default" for IPv4's


class Default(msgspec.Struct, frozen=True):
    """A default route of table main; `text` is the rest of it, in the words of ip-route(8)."""

    family: int
    gateway: str
    device: str
    metric: int
    text: str


class Routing(msgspec.Struct, frozen=True):
    """What was read: default routes of table main, all routes, tables with their sources."""

    defaults: list[Default]
    routes: list[Route]
    sources: dict[int, list[str]]  # table to the source prefixes for which rules select it
    rules: list[tuple[int, tuple[str, ...]]]  # those for devices: priority and their names


def read(names: Mapping[int, str]) -> Routing:
    """Read the operator's routes; `names` are the devices that matter, by index."""
    rules = [rule for rule in routing_rules.read() if not rule.l3mdev and rule.table != _LOCAL]
    sources: dict[int, list[str]] = {}
    for rule in rules:
        if rule.source and rule.table != MAIN:
            sources.setdefault(rule.table, []).append(rule.source)
    defaults: list[Default] = []
    routes: list[Route] = []
    for family in (IPV4, IPV6):
        for table in sorted({MAIN, *(rule.table for rule in rules if rule.family == family)}):
            for default, route in _table(family, table, names):
                defaults += [default] if default else []
                routes += [route] if route else []
    of_devices = [(rule.priority, rule.devices) for rule in rules if rule.devices]
    return Routing(defaults, routes, sources, of_devices)


def _table(
    family: int, table: int, names: Mapping[int, str]
) -> Iterator[tuple[Default | None, Route | None]]:
    """Yield the routes of a table; in table main a default route with a gateway in both forms."""
    request = struct.pack("=BBBBBBBBIHHI", family, *[0] * 8, 8, 15, table)  # RTA_TABLE
    try:
        for message in netlink.dump(netlink.RTM_GETROUTE, request):
            header = struct.unpack_from("=BBBBBBBBI", message)
            _, length, _, tos, _, protocol, scope, kind, flags = header
            own = kind == _UNICAST and protocol not in _DAEMONS
            if not own and (length or table != MAIN):
                continue
            attributes = netlink.attributes_of(message, 12)
            device = _device(attributes, names)
            if device is None:
                continue
            metric = _number(attributes[6]) if 6 in attributes else 0  # RTA_PRIORITY
            gateway = str(ip_address(attributes[5])) if 5 in attributes else ""
            words = list(_words(protocol, flags, attributes))
            default = route = None
            if table == MAIN and not length and gateway and 4 in attributes:  # RTA_OIF
                first, *rest = words
                text = " ".join([first, *([f"metric {metric}"] if metric else []), *rest])
                default = Default(family, gateway, device, metric, text)
            if own:
                prefix = f"{ip_address(attributes[1])}/{length}" if length else DEFAULTS[family]
                text = " ".join([*words, *_more_words(family, scope, attributes)])
                key = (family, table, prefix, tos, metric)
                route = Route(*key, gateway, device, text, _obstacle(attributes))
            yield default, route
    except OSError:  # a kernel without this table, or without IPv6, has no such route
        return


def _device(attributes: netlink.Attributes, names: Mapping[int, str]) -> str | None:
    """Return a route's device, of several the first one in `names`; None if it was removed."""
    indexes = [index for _, index in netlink.hops_of(attributes)]
    for index in indexes:
        if index in names:
            return names[index]
    try:
        return socket.if_indextoname(indexes[0])
    except (OSError, IndexError):  # removed meanwhile
        return None


def _words(protocol: int, flags: int, attributes: netlink.Attributes) -> Iterator[str]:
    yield f"proto {protocol}"
    if 7 in attributes:  # RTA_PREFSRC
        yield f"src {ip_address(attributes[7])}"
    if flags & _ONLINK:
        yield "onlink"
    if 8 in attributes:  # RTA_METRICS
        yield from _metrics(netlink.attributes_of(attributes[8], 0))


def _metrics(metrics: netlink.Attributes) -> Iterator[str]:
    locked = _number(metrics[_LOCK]) if _LOCK in metrics else 0
    for kind, value in metrics.items():
        lock = "lock " if locked & (1 << kind) else ""
        if kind == _CONGESTION:
            yield f"congctl {lock}{value.rstrip(bytes(1)).decode(errors='replace')}"
        elif kind == _RTO_MIN:  # ip-route(8) always locks it
            yield f"rto_min {_number(value)}ms"
        elif kind in _METRICS:
            yield f"{_METRICS[kind]} {lock}{_number(value)}"


def _more_words(family: int, scope: int, attributes: netlink.Attributes) -> Iterator[str]:
    if family == IPV4:
        yield f"scope {_SCOPES.get(scope, scope)}"
    if 11 in attributes:  # RTA_FLOW
        realms = _number(attributes[11])
        yield f"realms {realms >> 16}/{realms & 0xFFFF}"
    if 20 in attributes and attributes[20][0] in _PREFERENCES:  # RTA_PREF
        yield f"pref {_PREFERENCES[attributes[20][0]]}"


def _obstacle(attributes: netlink.Attributes) -> str:
    """Return the attribute that keeps us from adding a route to another device, "" for none."""
    names = {9: "several next hops", 18: "a next hop of another family"}
    names |= {22: "an encapsulation", 30: "a next-hop object"}  # RTA_ENCAP, RTA_NH_ID
    return next((text for kind, text in names.items() if kind in attributes), "")


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")
