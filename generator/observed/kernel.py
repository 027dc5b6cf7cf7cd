"""What the kernel and FRR have against what they should have: each difference in a line."""

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from generator.desired.model import Device
from generator.observed import frr, netlink

_LOCAL_TABLE = 255
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_MAIN_TABLE = 254
_UNREACHABLE = 7  # RTN_UNREACHABLE, linux/rtnetlink.h
_BGP = 186  # RTPROT_BGP, linux/rtnetlink.h
_FAILED = 0x20  # NUD_FAILED
_ROUTER_MAC = re.compile(r"\bRmac:([0-9a-f:]{17})")
STAND_IN = "169.254.0.1"  # FRR's next hop for a leaf that has an IPv6 address only (RFC 5549)


class Difference(msgspec.Struct, frozen=True):
    """Something of the kernel's that is not as planned."""

    device: str
    text: str

    def __str__(self) -> str:
        return f"{self.device}: {self.text}"


def differences(expected: Sequence[Device], management: Iterable[str] = ()) -> list[Difference]:
    """Devices that are missing or are not what they should be. Reads the kernel only.

    `management` are addresses that the hook may have put on a bridge: no difference there.
    """
    links = netlink.links()
    addresses = netlink.addresses()
    names = {link.index: link.name for link in links.values()}
    found: list[Difference] = []
    moved = set(management)
    for device in expected:
        link = links.get(device.name)
        if link is None:
            found.append(Difference(device.name, "is not there"))
            continue
        has = addresses.get(link.index, set()) - (moved - set(device.addresses))
        found.extend(Difference(device.name, text) for text in _compare(device, link, names, has))
    if any(link.kind == "vrf" for link in links.values()):
        found.extend(rule_order())
        found.extend(_leaks([device for device in expected if device.table is not None]))
    return found


def _leaks(vrfs: Sequence[Device]) -> Iterable[Difference]:
    """VRFs that leave what their table does not know to the host's own table."""
    for family, default in ((socket.AF_INET, "0.0.0.0/0"), (socket.AF_INET6, "::/0")):
        closed = {
            route.table
            for route in netlink.routes(family)
            if route.type == _UNREACHABLE and route.prefix == default
        }
        for vrf in vrfs:
            if vrf.table not in closed:
                yield Difference(vrf.name, f"has no unreachable default route ({default})")


def unchangeable(expected: Iterable[Device]) -> list[str]:
    """Devices that are there and can't become what they should be: they must be made anew.

    A VXLAN's id and a VRF's table are fixed at creation; networkd does not change a local address.
    """
    links = netlink.links()
    return [
        device.name
        for device in expected
        if (link := links.get(device.name))
        and (
            link.kind != device.kind
            or (device.kind == "vrf" and link.table != device.table)
            or (
                device.kind == "vxlan"
                and (link.vni, link.local, link.port, link.learning)
                != (device.vni, device.local, 4789, False)
            )
        )
    ]


def _compare(
    device: Device, link: netlink.Link, names: dict[int, str], addresses: set[str]
) -> Iterable[str]:
    if link.kind != device.kind:
        yield f"is a {link.kind or 'NIC'}, not a {device.kind}"
        return
    checks: list[tuple[str, object, object]] = [
        ("up", link.up, True),
        ("master", names.get(link.master), device.master),
        ("mtu", link.mtu, device.mtu or link.mtu),
        ("mac", link.mac, device.mac or link.mac),
        *_OF_KIND[device.kind](device, link),
    ]
    for what, is_, should in checks:
        if is_ != should:
            yield f"{what} is {_text(is_)}, not {_text(should)}"
    if device.kind == "bridge":
        for address in sorted(set(device.addresses) - addresses):
            yield f"has no address {address}"
        for address in sorted(addresses - set(device.addresses)):
            yield f"has the address {address}, which is not ours"


_OF_KIND: dict[str, Callable[[Device, netlink.Link], list[tuple[str, object, object]]]] = {
    "bridge": lambda _, link: [("stp", link.stp, False)],
    "vrf": lambda device, link: [("table", link.table, device.table)],
    "vxlan": lambda device, link: [
        ("id", link.vni, device.vni),
        ("local", link.local, device.local),
        ("port", link.port, 4789),
        ("learning", link.learning, False),
        ("learning as a port", link.port_learning, False),
        ("neighbour suppression", link.port_suppress, device.suppress),
    ],
}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def rule_order() -> Iterable[Difference]:
    """A tenant must meet its VRF's table before the host's own addresses (kernel doc, vrf.rst)."""
    rules = netlink.rules()
    for family in _FAMILIES:
        ours = [rule for rule in rules if rule.family == family]
        vrf = min((rule.priority for rule in ours if rule.l3mdev), default=None)
        local = min((rule.priority for rule in ours if rule.table == _LOCAL_TABLE), default=None)
        name = "IPv4" if family == socket.AF_INET else "IPv6"
        if vrf is None:
            yield Difference(f"{name} rules", "no rule for VRFs (l3mdev)")
        elif local is None or local < vrf:
            text = f"table local (priority {local}) stands before the VRFs' ({vrf})"
            yield Difference(f"{name} rules", text)


class Hop(msgspec.Struct, frozen=True):
    """A next hop as the kernel has it, and the leaf's own address where that is another."""

    address: str
    device: str
    weight: int
    leaf: str = ""  # IPv6 link-local, of a route that FRR gives its stand-in

    @property
    def text(self) -> str:
        """Words for `ip route`."""
        onlink = " onlink" if self.leaf else ""
        return f"nexthop via {self.address} dev {self.device}{onlink} weight {self.weight}"


class Lost(msgspec.Struct, frozen=True):
    """What FRR and the kernel do not agree on, and how to bring them together."""

    text: str
    line: str = ""  # for `ip -batch`
    prefix: str = ""  # of a route
    undo: str = ""  # for `ip -batch`, should FRR have withdrawn it meanwhile
    entries: tuple[str, ...] = ()  # for `bridge -batch`


def lost(root: Path) -> list[Lost]:
    """What was taken from under FRR: neighbours of its next hops, then routes. Raises `Silent`.

    The kernel drops every route through a NIC along with the NIC's last IPv4 address, and tells
    nobody (fib_disable_ip); networkd up to 255 takes addresses away and adds them again whenever
    it reconfigures a link. And FRR itself forgets router MACs.
    """
    # Before FRR is asked and after: what it installs or withdraws in between is no loss.
    there = _there()
    routes = dict(_installed(root))
    missing = _missing(routes, there)
    if not missing and not there.mute:
        return []
    again = _there()
    still = {each.text for each in _missing(routes, again)}
    found = [each for each in missing if each.text in still]
    for router in sorted(there.mute.keys() & again.mute.keys()):
        found += _told(router, again.mute[router], root)
    return found


class Router(NamedTuple):
    """A next hop in a VPC, which is another VTEP: the L3VNI's bridge, and the address there."""

    device: str
    address: str


class Use(NamedTuple):
    """What leads to a router: a route's prefix and VRF, the L3VNI's VXLAN port, and the L3VNI."""

    prefix: str
    vrf: str
    port: str
    vni: int | None


class _There(msgspec.Struct, frozen=True):
    """FRR's routes as (family, prefix), the MACs of neighbours by (device, address).

    And the routers to which the kernel knows no way, for want of a MAC or of what VTEP has it.
    """

    routes: set[tuple[int, str]]
    neighbours: dict[tuple[str, str], str]
    mute: dict[Router, Use]


def _there() -> _There:
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
    reached = {
        port: netlink.remote_macs(port) for port in {port.index for _, port in used.values()}
    }
    mute = {
        router: Use(route.prefix, vrfs[route.table], port.name, port.vni)
        for router, (route, port) in used.items()
        if neighbours.get(router) not in reached[port.index]
    }
    return _There(main, neighbours, mute)


def _told(router: Router, use: Use, root: Path) -> Iterator[Lost]:
    """What the kernel has to be told of a router, if FRR knows its MAC. Raises `Silent`.

    zebra forgets it with the last IPv6 host route from that VTEP, whatever other routes there are
    (FRRouting/frr#16340). What is routed to it goes nowhere then.
    """
    vtep = _ipv4(router.address)
    if mac := _known_to_bgp(vtep, use, root) or _known_to_zebra(router, use, root):
        neighbour = f"{router.address} lladdr {mac} dev {router.device}"
        entry = f"fdb replace {mac} dev {use.port}"
        yield Lost(
            f"it has forgotten the router MAC of {router.address} on {router.device}",
            f"neighbour replace {neighbour} nud noarp extern_learn proto zebra",
            entries=(f"{entry} dst {vtep} self extern_learn", f"{entry} master extern_learn"),
        )


def _known_to_bgp(vtep: str, use: Use, root: Path) -> str | None:
    family = "ipv6" if ":" in use.prefix else "ipv4"
    command = f"show bgp vrf {use.vrf} {family} unicast {use.prefix} json"
    for path in frr.show("bgpd", command, root).get("paths", ()):
        mac = _ROUTER_MAC.search(path.get("extendedCommunity", {}).get("string", ""))
        if mac and any(hop.get("ip") == vtep for hop in path.get("nexthops", ())):
            return mac[1]
    return None


def _known_to_zebra(router: Router, use: Use, root: Path) -> str | None:
    """From FRR 10.4 on the routes of a VRF are without it, and zebra does not forget it."""
    shown = frr.show("zebra", f"show evpn next-hops vni {use.vni} json", root)
    found = shown.get(router.address, {}).get("routerMac")
    return found if isinstance(found, str) else None


def _ipv4(address: str) -> str:
    """A VTEP's address, which as the next hop of an IPv6 route is mapped."""
    found = ip_address(address)
    return str(getattr(found, "ipv4_mapped", None) or found)


def _missing(routes: dict[tuple[int, str], list[Hop]], there: _There) -> list[Lost]:
    """What of FRR's routes and their next hops is not there."""
    stand_ins = {hop.device: hop for hops in routes.values() for hop in hops if hop.leaf}
    known = there.neighbours
    found = []
    for device, hop in sorted(stand_ins.items()):
        if (device, STAND_IN) not in known:
            mac = known.get((device, hop.leaf)) or _mac_of(hop.leaf)
            neighbour = f"{STAND_IN} lladdr {mac} dev {device}"
            line = f"neighbour replace {neighbour} nud permanent proto zebra"
            found.append(Lost(f"its next hop {STAND_IN} on {device} is gone", line))
    for (family, prefix), hops in sorted(routes.items()):
        if (family, prefix) not in there.routes:
            route = f"{prefix} proto bgp metric 20"
            line = f"route replace {route} {' '.join(hop.text for hop in hops)}"
            text = f"its route {prefix} is not in the kernel"
            found.append(Lost(text, line, prefix, f"route delete {route}"))
    return found


def unheard(devices: Iterable[Device], root: Path) -> list[Lost]:
    """Addresses of bridges that FRR does not know of. Raises `Silent`.

    zebra before 9.0 hears of links and of addresses in two threads, and drops an address of a link
    that it has yet to know (FRRouting/frr#13288). To it the prefix is then not here, and it sends
    what is for guests to another VTEP that announces it.
    """
    shown = frr.show("zebra", "show interface vrf all brief json", root)
    return [
        _said_again(address, device.name)
        for device in devices
        for address in device.addresses
        if address not in shown.get(device.name, {}).get("addresses", ())
    ]


def _said_again(address: str, device: str) -> Lost:
    """The kernel tells of an address once more when it is replaced by itself."""
    nodad = " nodad" if ":" in address else ""
    line = f"address replace {address} dev {device}{nodad}"
    return Lost(f"it does not know {address} of {device}", line)


def installed(root: Path) -> set[str]:
    """Prefixes of the underlay that FRR says are in the kernel. Raises `Silent`."""
    return {prefix for (_, prefix), _ in _installed(root)}


def _installed(root: Path) -> Iterable[tuple[tuple[int, str], list[Hop]]]:
    """The BGP routes of the underlay that FRR says are in the kernel, with their next hops."""
    for family, word in ((socket.AF_INET, "ip"), (socket.AF_INET6, "ipv6")):
        for prefix, routes in frr.show("zebra", f"show {word} route bgp json", root).items():
            for route in routes:
                if route.get("selected") and route.get("installed"):
                    hops = [_hop(family, hop) for hop in route["nexthops"] if hop.get("fib")]
                    yield (family, prefix), hops


def _hop(family: int, shown: dict[str, Any]) -> Hop:
    device, address = shown.get("interfaceName", ""), shown.get("ip", "")
    weight = shown.get("weight", 1)
    if family == socket.AF_INET and ":" in address:
        return Hop(STAND_IN, device, weight, address)
    return Hop(address, device, weight)


def _mac_of(link_local: str) -> str:
    """The MAC from which an IPv6 link-local address was made (RFC 4291, appendix A)."""
    raw = ip_address(link_local).packed[8:]
    return bytes([raw[0] ^ 2, *raw[1:3], *raw[5:]]).hex(":")
