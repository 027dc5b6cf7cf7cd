"""Compares the kernel's devices and rules with those that a host should have."""

import socket
from collections.abc import Callable, Iterable, Sequence

import msgspec

from generator.desired.model import Device
from generator.observed import netlink

_LOCAL_TABLE = 255
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_UNREACHABLE = 7  # RTN_UNREACHABLE, linux/rtnetlink.h


class Difference(msgspec.Struct, frozen=True):
    """Something of the kernel's that is not as planned."""

    device: str
    text: str

    def __str__(self) -> str:
        return f"{self.device}: {self.text}"


def differences(expected: Sequence[Device], management: Iterable[str] = ()) -> list[Difference]:
    """Return what is missing or is not as expected: devices, rules and VRFs' default routes.

    `management` are addresses that the hook may have put on a bridge. They are no difference.
    """
    links = netlink.links()
    addresses = netlink.addresses()
    names = {link.index: link.name for link in links.values()}
    differing: list[Difference] = []
    movable = set(management)
    for device in expected:
        link = links.get(device.name)
        if link is None:
            differing.append(Difference(device.name, "is not there"))
            continue
        own = addresses.get(link.index, set()) - (movable - set(device.addresses))
        texts = _compare(device, link, names, own)
        differing.extend(Difference(device.name, text) for text in texts)
    if any(link.kind == "vrf" for link in links.values()):
        differing.extend(rule_order())
        differing.extend(_leaks([device for device in expected if device.table is not None]))
    return differing


def _leaks(vrfs: Sequence[Device]) -> Iterable[Difference]:
    """Yield VRFs that look in the host's own table for what their own table does not have."""
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
    """Return the names of devices that must be deleted and made again to become as expected.

    The kernel fixes a VXLAN's id and a VRF's table at creation. networkd does not change a VXLAN's
    local address.
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
    """Yield the families in which the kernel looks in table local before the VRFs' tables.

    A tenant must meet its VRF's table before the host's own addresses (kernel doc, vrf.rst).
    """
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
