"""What the kernel and FRR have against what they should have: each difference in a line."""

import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from generator import frr, netlink
from generator.model import Device

_LOCAL_TABLE = 255
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_BGP = 186  # RTPROT_BGP, linux/rtnetlink.h
_FAILED = 0x20  # NUD_FAILED


class Difference(msgspec.Struct, frozen=True):
    """Something of the kernel's that is not as planned."""

    device: str
    text: str

    def __str__(self) -> str:
        return f"{self.device}: {self.text}"


def differences(expected: Iterable[Device], management: Iterable[str] = ()) -> list[Difference]:
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
    return found


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


def lost_routes(root: Path) -> list[str]:
    """Prefixes that FRR believes to be installed and the kernel does not have. Raises `Silent`."""
    lost = []
    for family, command in (
        (socket.AF_INET, "show ip route bgp json"),
        (socket.AF_INET6, "show ipv6 route bgp json"),
    ):
        shown = frr.show("zebra", command, root)
        wanted = {prefix for prefix, routes in shown.items() if _installed(routes)}
        if not wanted:
            continue
        have = {
            route.prefix
            for route in netlink.routes(family)
            if route.table == 254 and route.protocol == _BGP
        }
        lost.extend(sorted(wanted - have))
    return lost


def _installed(routes: list[dict[str, object]]) -> bool:
    return any(route.get("selected") and route.get("installed") for route in routes)


def lost_next_hops() -> list[tuple[int, str]]:
    """(device index, address) of BGP next hops whose permanent neighbour entry is gone."""
    hops = {
        (index, address)
        for route in netlink.routes(socket.AF_INET)
        if route.table == 254 and route.protocol == _BGP
        for address, index in route.hops
        if address == "169.254.0.1"  # FRR's stand-in for the leaf's IPv6 link-local (RFC 5549)
    }
    alive = {
        (neighbour.index, neighbour.address)
        for neighbour in netlink.neighbours(socket.AF_INET)
        if not neighbour.state & _FAILED
    }
    return sorted(hops - alive)
