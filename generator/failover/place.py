"""The two places of the management address: what the kernel has of them, and how it gets across.

`look` reads; `decide`, `remember` and `steps` are pure, and come to the same however often they
run. Only the management address itself, its default route and a stand-in of ours are ever changed.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address, ip_address, ip_interface
from typing import Literal

import msgspec

from generator.desired.model import Management
from generator.observed import netlink

Place = Literal["nic", "bridge"]

_MAIN = 254
_IPV4, _IPV6 = socket.AF_INET, socket.AF_INET6
_DISCARD = IPv6Address("100::")  # RFC 6666: reaches nobody
_METRIC6 = 1024  # what the kernel makes of an IPv6 route without a metric (IP6_RT_PRIO_USER)
_NOPREFIXROUTE, _ONLINK = 0x200, 4
# RTAX_… (linux/rtnetlink.h), as ip-route(8) names them.
_METRICS = {2: "mtu", 8: "advmss", 10: "hoplimit", 11: "initcwnd", 14: "initrwnd", 15: "quickack"}


class Device(msgspec.Struct, frozen=True):
    """A device that the address may be on."""

    index: int
    up: bool
    ipv6: bool  # whether it takes addresses of that family


class Default(msgspec.Struct, frozen=True):
    """A default route of table main; `text` is the rest of it, as ip-route(8) reads it."""

    family: int
    gateway: str
    device: str
    metric: int
    text: str


class Seen(msgspec.Struct, frozen=True):
    """What the kernel has, as far as it matters here."""

    devices: dict[str, Device]  # NIC and bridges, those that are there
    on: dict[str, dict[str, str]]  # device to its addresses, each with what ip-address(8) adds
    defaults: list[Default]


class Own(msgspec.Struct):
    """What the operator has on the NIC, to be put back there one day.

    An address or gateway that is not a key was never seen there; a gateway without routes was seen
    to have none.
    """

    addresses: dict[str, str] = {}
    routes: dict[str, list[str]] = {}


def look(wanted: set[str]) -> Seen:
    """Read what the kernel has of the devices of these names."""
    devices = {name: found for name in wanted if (found := _device(name))}
    on = {name: dict(_addresses(device.index)) for name, device in devices.items()}
    names = {device.index: name for name, device in devices.items()}
    return Seen(devices, on, [*_defaults(_IPV4, names), *_defaults(_IPV6, names)])


def _device(name: str) -> Device | None:
    """From sysfs: a dump would read thousands of devices for three."""
    try:
        index = _read(f"/sys/class/net/{name}/ifindex")
        flags = _read(f"/sys/class/net/{name}/flags")
    except (OSError, ValueError):
        return None
    try:
        off = _read(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    except OSError:  # a kernel without it
        off = 1
    return Device(index, bool(flags & 1), off == 0)


def _read(path: str) -> int:
    """A number of the kernel's, in the three system calls that it takes: the hook asks often."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(file, 32), 0)
    finally:
        os.close(file)


def _addresses(index: int) -> Iterator[tuple[str, str]]:
    """Addresses of the device, each with the rest of it. Raises OSError when it is gone."""
    for message in netlink.dump(netlink.RTM_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, index)):
        family, length, flags, scope = struct.unpack_from("=BBBB", message)
        if scope == 253:  # RT_SCOPE_LINK: IPv6's own
            continue
        attributes = netlink.attributes_of(message, 8)
        raw = attributes.get(2, attributes.get(1, b""))  # IFA_LOCAL, else IFA_ADDRESS
        words = []
        if 4 in attributes and family == _IPV4:
            words += ["brd", str(ip_address(attributes[4]))]
        if 9 in attributes:  # IFA_RT_PRIORITY
            words += ["metric", str(_number(attributes[9]))]
        if (_number(attributes[8]) if 8 in attributes else flags) & _NOPREFIXROUTE:
            words.append("noprefixroute")
        peer = attributes.get(1, raw)
        # An address with a peer is another one than the same without.
        peered = f" peer {ip_address(peer)}" if peer != raw else ""
        yield f"{ip_address(raw)}{peered}/{length}", " ".join(words)


def _defaults(family: int, names: Mapping[int, str]) -> Iterator[Default]:
    """Default routes by a gateway. Only table main is dumped: tenants' are long, and not ours."""
    request = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _MAIN, 0, 0, 0, 0)
    try:
        found = netlink.dump(netlink.RTM_GETROUTE, request)
        for message in found:
            _, length, _, _, table, protocol, _, _, flags = struct.unpack_from(
                "=BBBBBBBBI", message
            )
            if length or table != _MAIN:
                continue
            attributes = netlink.attributes_of(message, 12)
            if 5 not in attributes or 4 not in attributes:  # RTA_GATEWAY, RTA_OIF
                continue
            index = _number(attributes[4])
            try:
                device = names.get(index) or socket.if_indextoname(index)
            except OSError:  # gone meanwhile
                continue
            metric = _number(attributes[6]) if 6 in attributes else 0
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


def decide(
    established: list[str] | None, seen: Seen, nic: str, bridges: list[str]
) -> tuple[Place, str] | None:
    """Where the address belongs, and on which device; None: leave it where it is.

    `established` are the sessions that carry EVPN, None while FRR says nothing; `bridges` the
    bridge that should have it, then the one that last had it: while the one is not there yet, the
    other still carries.
    """
    ready = [name for name in bridges if name in seen.devices and seen.devices[name].up]
    if established is None:
        return None
    if established and ready:
        return "bridge", ready[0]
    return ("nic", nic) if nic in seen.devices else None


def remember(own: Own, management: Management, seen: Seen) -> Own:
    """What the operator has on the NIC, from what is seen there; what is missing is not forgotten.

    That he has no default route is believed only where no half of a move is to be seen.
    """
    nic, addresses, routes = management.ifname, dict(own.addresses), dict(own.routes)
    for address, gateway in management.pairs:
        on = [name for name, has in seen.on.items() if address in has]
        if nic in on:
            addresses[address] = seen.on[nic][address]
        if gateway:
            by = [d for d in seen.defaults if d.gateway == gateway]
            found = [d.text for d in by if d.device == nic]
            if found or (on == [nic] and not by and gateway not in routes):
                routes[gateway] = found
    return Own(addresses, routes)


class Move(msgspec.Struct, frozen=True):
    """What there is to do, and for whom."""

    management: Management
    place: Place
    device: str  # the device of that place
    others: list[str]  # where the address must not be
    loopback: str | None
    own: Own

    @property
    def stand_in(self) -> str:
        """What a NIC without any other IPv4 address gets, see `_stand_in`."""
        return f"{self.loopback}/32" if self.loopback else ""

    @property
    def next_hop(self) -> str:
        """What a NIC gets for an IPv6 address that went, see `next_hop`."""
        return f"{_DISCARD + int(ip_address(self.loopback))}/128" if self.loopback else ""


def steps(move: Move, seen: Seen) -> list[str]:
    """Lines for `ip -batch` that bring the address to where it belongs; none when it is there.

    The new place first, then the old goes. A route that names the address as its source goes with
    it (acassen/keepalived#1719), so the default route is said again at the end. An IPv6 address
    stays where it is while the place does not take any.
    """
    here, nic = move.device, move.management.ifname
    on = {name: seen.on.get(name, {}) for name in {here, nic, *move.others}}
    lines: list[str] = []
    if move.place == "nic" and move.next_hop in on[nic]:
        lines.append(f"address delete {move.next_hop} dev {nic}")
    for address, gateway in move.management.pairs:
        if ":" in address and not (here in seen.devices and seen.devices[here].ipv6):
            continue
        said, stale = _routes(move, seen, gateway) if gateway else ([], [])
        holders = [name for name in move.others if address in on[name]]
        if address not in on[here]:
            lines += [_add(move, address)]
        if address not in on[here] or holders or not _there(move, seen, gateway):
            lines += said
        for name in holders:
            if name == nic and ":" not in address:
                lines += _stand_in(move, on[nic])
            lines.append(f"address delete {address} dev {name}")
            lines += _bystanders(address, name, on[name])
        if holders:
            lines += said
        lines += stale
    if move.place == "nic" and move.stand_in in on[nic]:
        lines.append(f"address delete {move.stand_in} dev {nic}")
    return lines


def _add(move: Move, address: str) -> str:
    text = ""
    if move.place == "nic":
        text = move.own.addresses.get(address, "" if ":" in address else "brd +")
    words = ["address replace", address, "dev", move.device, text]
    return " ".join(filter(None, [*words, "nodad" if ":" in address else ""]))


def _stand_in(move: Move, on_nic: dict[str, str]) -> list[str]:
    """An address for a NIC that would have none left.

    With a device's last IPv4 address the kernel drops all IPv4 routes and neighbours of the device
    (fib_disable_ip), FRR's among them, without telling FRR. The loopback's is the host's own and
    says nothing new to anybody.
    """
    moving = {address for address, _ in move.management.pairs}
    if not move.stand_in or any(":" not in a for a in on_nic if a not in moving):
        return []
    return [f"address replace {move.stand_in} dev {move.management.ifname}"]


def next_hop(move: Move, seen: Seen) -> list[str]:
    """Lines that give bgpd a next hop again.

    It has a global IPv6 address of the uplink as next hop. When that goes it says ::ffff:… to the
    leaf instead, which then has no way to the loopback (FRRouting/frr#19910), until another comes.
    """
    nic, address = move.management.ifname, move.next_hop
    if move.place == "nic" or not address:
        return []
    gone = [f"address delete {address} dev {nic}"] if address in seen.on.get(nic, {}) else []
    return [*gone, f"address replace {address} dev {nic} nodad preferred_lft 0"]


def _bystanders(address: str, device: str, has: dict[str, str]) -> list[str]:
    """Addresses of the same subnet, which the kernel may drop with their primary one."""
    if ":" in address:
        return []
    subnet = ip_interface(address).network
    return [
        " ".join(filter(None, ["address replace", other, "dev", device, text]))
        for other, text in sorted(has.items())
        if other != address
        if "peer" not in other
        if ip_interface(other).network == subnet
    ]


def _wanted(move: Move, seen: Seen, gateway: str) -> list[str]:
    """The default routes by a gateway that belong to the place, as ip-route(8) reads them."""
    known = move.own.routes.get(gateway)
    if known is None:
        family = _IPV6 if ":" in gateway else _IPV4
        others = [d for d in seen.defaults if d.family == family and d.gateway != gateway]
        return [] if others else ["proto static"]
    if move.place == "nic":
        return known
    metrics = sorted({_metric(text, gateway) for text in known})
    return ["proto static" + (f" metric {m}" if m else "") for m in metrics]


def _metric(text: str, gateway: str) -> int:
    words = text.split()
    given = int(words[words.index("metric") + 1]) if "metric" in words else 0
    return given or (_METRIC6 if ":" in gateway else 0)


def _there(move: Move, seen: Seen, gateway: str | None) -> bool:
    """Whether all default routes by the gateway are there."""
    if not gateway:
        return True
    have = {d.metric for d in seen.defaults if (d.gateway, d.device) == (gateway, move.device)}
    return {_metric(text, gateway) for text in _wanted(move, seen, gateway)} <= have


def _routes(move: Move, seen: Seen, gateway: str) -> tuple[list[str], list[str]]:
    """Lines that say the default routes, and lines that take away what is left elsewhere."""
    family = _IPV6 if ":" in gateway else _IPV4
    elsewhere = [d for d in seen.defaults if d.gateway == gateway and d.device in move.others]
    said, taken = [], set()
    for text in _wanted(move, seen, gateway):
        metric = _metric(text, gateway)
        # `replace` takes the place of whatever has that metric: never of somebody else's.
        same = [d for d in seen.defaults if d.family == family and d.metric == metric]
        free = all(d.gateway == gateway and d.device in (move.device, *move.others) for d in same)
        if free:
            taken.add(metric)
        verb = "replace" if free else "append"
        said.append(f"route {verb} default via {gateway} dev {move.device} {text}")
    have = {d.metric for d in seen.defaults if (d.gateway, d.device) == (gateway, move.device)}
    stale = [
        f"route delete default via {gateway} dev {d.device}"
        + (f" metric {d.metric}" if d.metric else "")
        for d in elsewhere
        if d.metric not in taken or d.metric in have
    ]
    return said, stale
