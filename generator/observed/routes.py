"""Compares the routes and neighbours that FRR has installed with those in the kernel.

A difference has the lines that remove it. `activation.frr` runs them.
"""

import re
import socket
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import msgspec

from generator.desired.model import Device
from generator.observed import entries, frr, netlink

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_MAIN_TABLE = 254
_BGP = 186  # RTPROT_BGP, linux/rtnetlink.h
_FAILED = 0x20  # NUD_FAILED, linux/neighbour.h
_ROUTER_MAC = re.compile(r"\bRmac:([0-9a-f:]{17})")
# FRR's next hop in IPv4 for a leaf that has an IPv6 address only (RFC 5549).
ONLINK_NEXT_HOP = "169.254.0.1"


class Loss(msgspec.Struct, frozen=True):
    """A difference between FRR and the kernel, and the lines that remove it."""

    text: str
    line: str = ""  # for `ip -batch`
    prefix: str = ""  # of a route
    undo: str = ""  # for `ip -batch`, in case FRR has withdrawn the route meanwhile
    entries: tuple[str, ...] = ()  # for `bridge -batch`


def losses(root: Path) -> list[Loss]:
    """Return what FRR has installed and the kernel lacks: neighbours, routes, router MACs.

    Raises `frr.Silent`.

    The kernel drops every route through a NIC along with the NIC's last IPv4 address, without a
    message (fib_disable_ip). networkd up to 255 removes addresses and adds them again whenever it
    reconfigures a link. And FRR itself forgets router MACs.
    """
    # The kernel is read before and after FRR answers. What FRR installs or withdraws in between
    # is no loss.
    before = _read_kernel()
    routes = dict(_installed_routes(root))
    missing = _missing(routes, before)
    if not missing and not before.unreachable:
        return []
    after = _read_kernel()
    still_missing = {each.text for each in _missing(routes, after)}
    listed = [each for each in missing if each.text in still_missing]
    for router in sorted(before.unreachable.keys() & after.unreachable.keys()):
        listed += _router_mac_lost(router, after.unreachable[router], root)
    return listed


class Hop(msgspec.Struct, frozen=True):
    """A next hop as the kernel has it, and the leaf's own address if that is a different one."""

    address: str
    device: str
    weight: int
    leaf: str = ""  # IPv6 link-local address of a leaf to which `address` is `ONLINK_NEXT_HOP`

    @property
    def text(self) -> str:
        """The words for `ip route`."""
        onlink = " onlink" if self.leaf else ""
        return f"nexthop via {self.address} dev {self.device}{onlink} weight {self.weight}"


class Router(NamedTuple):
    """A next hop in a VPC, which is another VTEP: the L3VNI's bridge, and the address there."""

    device: str
    address: str


class Use(NamedTuple):
    """A route to a router: its prefix and VRF, the L3VNI's VXLAN port, and the L3VNI."""

    prefix: str
    vrf: str
    port: str
    vni: int | None


class _Kernel(msgspec.Struct, frozen=True):
    """What the kernel has from FRR."""

    routes: set[tuple[int, str]]  # family and prefix, of table main
    neighbours: dict[tuple[str, str], str]  # device and address to MAC
    # Routers to which the kernel can't send: it lacks their MAC, or the VTEP of that MAC.
    unreachable: dict[Router, Use]


def _read_kernel() -> _Kernel:
    links = {link.index: link for link in netlink.links().values()}
    neighbours = {
        (links[neighbour.index].name, neighbour.address): neighbour.mac
        for family in _FAMILIES
        for neighbour in netlink.neighbours(family)
        if neighbour.index in links and neighbour.mac and not neighbour.state & _FAILED
    }
    routes = [
        route for family in _FAMILIES for route in netlink.routes(family) if route.protocol == _BGP
    ]
    main = {(route.family, route.prefix) for route in routes if route.table == _MAIN_TABLE}
    vrfs = {link.table: link.name for link in links.values() if link.kind == "vrf"}
    ports = {link.master: link for link in links.values() if link.kind == "vxlan"}
    used = {
        Router(links[index].name, address): (route, ports[index])
        for route in routes
        if route.table in vrfs
        for address, index in route.hops
        if index in ports
    }
    remote_macs = {
        port: entries.remote_macs(port) for port in {port.index for _, port in used.values()}
    }
    unreachable = {
        router: Use(route.prefix, vrfs[route.table], port.name, port.vni)
        for router, (route, port) in used.items()
        if neighbours.get(router) not in remote_macs[port.index]
    }
    return _Kernel(main, neighbours, unreachable)


def _router_mac_lost(router: Router, use: Use, root: Path) -> Iterator[Loss]:
    """Yield the loss of a router's MAC, if FRR can restore it. Raises `frr.Silent`.

    zebra forgets a router MAC with the last IPv6 host route from that VTEP, whatever other routes
    there are (FRRouting/frr#16340). Then packets that are routed to it are lost.
    """
    vtep = _ipv4(router.address)
    if mac := _mac_in_bgp(vtep, use, root) or frr.router_mac(use.vni, router.address, root):
        neighbour = f"{router.address} lladdr {mac} dev {router.device}"
        entry = f"fdb replace {mac} dev {use.port}"
        yield Loss(
            f"it has forgotten the router MAC of {router.address} on {router.device}",
            f"neighbour replace {neighbour} nud noarp extern_learn proto zebra",
            entries=(f"{entry} dst {vtep} self extern_learn", f"{entry} master extern_learn"),
        )


def _mac_in_bgp(vtep: str, use: Use, root: Path) -> str | None:
    """Return the router MAC from bgpd's paths, which have it up to FRR 10.3."""
    for path in frr.paths(use.vrf, use.prefix, root):
        mac = _ROUTER_MAC.search(path.extended_community.string)
        if mac and any(hop.ip == vtep for hop in path.nexthops):
            return mac[1]
    return None


def _ipv4(text: str) -> str:
    """Return a VTEP's IPv4 address. As the next hop of an IPv6 route it is IPv4-mapped."""
    address = ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _missing(routes: dict[tuple[int, str], list[Hop]], kernel: _Kernel) -> list[Loss]:
    """Return FRR's routes that the kernel lacks, and next hops that it lacks."""
    onlink = {hop.device: hop for hops in routes.values() for hop in hops if hop.leaf}
    neighbours = kernel.neighbours
    listed = []
    for device, hop in sorted(onlink.items()):
        if (device, ONLINK_NEXT_HOP) not in neighbours:
            mac = neighbours.get((device, hop.leaf)) or _mac_of(hop.leaf)
            neighbour = f"{ONLINK_NEXT_HOP} lladdr {mac} dev {device}"
            line = f"neighbour replace {neighbour} nud permanent proto zebra"
            listed.append(Loss(f"its next hop {ONLINK_NEXT_HOP} on {device} is missing", line))
    for (family, prefix), hops in sorted(routes.items()):
        if (family, prefix) not in kernel.routes:
            route = f"{prefix} proto bgp metric 20"
            line = f"route replace {route} {' '.join(hop.text for hop in hops)}"
            text = f"its route {prefix} is not in the kernel"
            listed.append(Loss(text, line, prefix, f"route delete {route}"))
    return listed


def unknown_addresses(devices: Iterable[Device], root: Path) -> list[Loss]:
    """Return addresses of bridges that FRR does not know. Raises `frr.Silent`.

    zebra before 9.0 reads links and addresses in two threads, and drops an address of a link that
    it does not know yet (FRRouting/frr#13288). Then it routes the prefix to another VTEP, and so
    packets for guests of this host.
    """
    interfaces = frr.interfaces(root)
    unknown = frr.Interface()
    return [
        _unknown_address(address, device.name)
        for device in devices
        for address in device.addresses
        if address not in interfaces.get(device.name, unknown).addresses
    ]


def _unknown_address(address: str, device: str) -> Loss:
    """Return the loss. Replacing an address by itself has the kernel announce it again."""
    nodad = " nodad" if ":" in address else ""
    line = f"address replace {address} dev {device}{nodad}"
    return Loss(f"it does not know {address} of {device}", line)


def installed_prefixes(root: Path) -> set[str]:
    """Return the underlay's prefixes that FRR says are in the kernel. Raises `frr.Silent`."""
    return {prefix for (_, prefix), _ in _installed_routes(root)}


def _installed_routes(root: Path) -> Iterable[tuple[tuple[int, str], list[Hop]]]:
    """Yield the underlay's BGP routes that FRR says are in the kernel, with their next hops."""
    for family, word in ((socket.AF_INET, "ip"), (socket.AF_INET6, "ipv6")):
        for prefix, routes in frr.underlay_routes(word, root).items():
            for route in routes:
                if route.selected and route.installed:
                    yield (family, prefix), [_hop(family, hop) for hop in route.nexthops if hop.fib]


def _hop(family: int, shown: frr.NextHop) -> Hop:
    if family == socket.AF_INET and ":" in shown.ip:
        return Hop(ONLINK_NEXT_HOP, shown.interface_name, shown.weight, shown.ip)
    return Hop(shown.ip, shown.interface_name, shown.weight)


def _mac_of(link_local: str) -> str:
    """Return the MAC from which an IPv6 link-local address is derived (RFC 4291, appendix A)."""
    raw = ip_address(link_local).packed[8:]
    return bytes([raw[0] ^ 2, *raw[1:3], *raw[5:]]).hex(":")
