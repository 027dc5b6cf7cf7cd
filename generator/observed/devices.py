"""Compares the kernel's devices and routing rules with those that a host should have."""

import itertools
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from generator.desired.model import UNREACHABLE_METRIC, Device
from generator.observed import netlink, routing_rules
from generator.observed.routing_rules import LOCAL, TABLES, Rule
from generator.state import placement

VRF_RULE = 1000  # priority that the kernel gives it
LOCAL_RULE = 32765  # priority at which we put table local
_MAIN_RULE = 32766
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_UNREACHABLE = 7  # RTN_UNREACHABLE, linux/rtnetlink.h


class Difference(msgspec.Struct, frozen=True):
    """Something in the kernel that is not as planned."""

    device: str
    text: str
    line: str = ""  # the line for `ip -batch` that corrects it, "" if there is none
    what: str = ""  # what differs: `mtu`, `address 10.0.0.1/24`
    lasting: bool = False  # no apply can correct it

    def __str__(self) -> str:
        return f"{self.device}: {self.text}"


class Kernel(msgspec.Struct, frozen=True):
    """The kernel's devices, and their addresses by index."""

    links: dict[str, netlink.Link]
    addresses: dict[int, set[str]]

    def addresses_of(self, name: str) -> set[str]:
        """Return the addresses of a device."""
        link = self.links.get(name)
        return self.addresses.get(link.index, set()) if link else set()


def read() -> Kernel:
    """Read the kernel's devices and addresses."""
    return Kernel(netlink.links(), netlink.addresses())


def differences(
    expected: Sequence[Device], management: Iterable[str] = (), kernel: Kernel | None = None
) -> list[Difference]:
    """Return what is missing or is not as expected: devices, rules and VRFs' default routes.

    `management` are addresses that the hook may have put on a bridge: they are no difference.
    """
    kernel = kernel or read()
    names = {link.index: link.name for link in kernel.links.values()}
    differing: list[Difference] = []
    movable = {*management, *placement.companions()}
    for device in expected:
        link = kernel.links.get(device.name)
        if link is None:
            differing.append(Difference(device.name, "is not there"))
            continue
        own = kernel.addresses_of(device.name) - (movable - set(device.addresses))
        differing.extend(_compare(device, link, names, own))
    if any(link.kind == "vrf" for link in kernel.links.values()):
        differing.extend(misordered_rules())
        differing.extend(_leaks([device for device in expected if device.table is not None]))
    return differing


def _leaks(vrfs: Sequence[Device]) -> Iterable[Difference]:
    """Yield VRFs that would use the host's own routes, as no unreachable default stops them."""
    for family, default in ((socket.AF_INET, "0.0.0.0/0"), (socket.AF_INET6, "::/0")):
        closed = {
            route.table
            for route in netlink.routes(family)
            if route.type == _UNREACHABLE and route.prefix == default
        }
        for vrf in vrfs:
            if vrf.table not in closed:
                route = f"unreachable {default} table {vrf.table} metric {UNREACHABLE_METRIC}"
                text = f"has no unreachable default route ({default})"
                yield Difference(vrf.name, text, f"route replace {route}")


def unchangeable(expected: Iterable[Device]) -> list[str]:
    """Return the names of devices that must be deleted and created again to be as expected.

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
                and (link.vni, link.local, link.port, link.learning, link.bound)
                != (device.vni, device.local, 4789, False, False)
            )
        )
    ]


def _compare(
    device: Device, link: netlink.Link, names: Mapping[int, str], addresses: set[str]
) -> Iterator[Difference]:
    if link.kind != device.kind:
        yield Difference(device.name, f"is a {link.kind or 'NIC'}, not a {device.kind}")
        return
    to = f"link set dev {device.name}"
    master = f"{to} master {device.master}" if device.master else f"{to} nomaster"
    checks: list[Check] = [
        ("up", link.up, True, f"{to} up"),
        ("master", names.get(link.master), device.master, master),
        ("mtu", link.mtu, device.mtu or link.mtu, f"{to} mtu {device.mtu}"),
        ("mac", link.mac, device.mac or link.mac, f"{to} address {device.mac}"),
        *_OF_KIND[device.kind](device, link),
    ]
    for what, current, planned, line in checks:
        if current != planned:
            text = f"{what} is {_text(current)}, not {_text(planned)}"
            yield Difference(device.name, text, line, what)
    if device.kind == "bridge":
        for address in sorted(set(device.addresses) - addresses):
            yield missing_address(device.name, address)
        for address in sorted(addresses - set(device.addresses)):
            line = f"address delete {address} dev {device.name}"
            text = f"has the address {address}, which is not ours"
            yield Difference(device.name, text, line, f"address {address}")


def missing_address(device: str, address: str) -> Difference:
    """Return the difference of a device that lacks an address."""
    # As the backends add it. Without nodad: an anycast address is on other hosts too.
    how = "nodad" if ":" in address else "" if address.endswith(("/31", "/32")) else "brd +"
    line = f"address replace {address} {how} dev {device}"
    return Difference(device, f"has no address {address}", line)


Check = tuple[str, object, object, str]
"""What is compared, its current and its planned value, and the line that corrects it, or ""."""


def _of_bridge(device: Device, link: netlink.Link) -> list[Check]:
    to = f"link set dev {device.name} type bridge"
    return [
        ("stp", link.stp, False, f"{to} stp_state 0"),
        ("forward delay", link.forward_delay, 0, f"{to} forward_delay 0"),
        ("VLAN filtering", link.vlans, False, f"{to} vlan_filtering 0"),
        ("ARP", link.arp, True, f"link set dev {device.name} arp on"),
    ]


def _of_vrf(device: Device, link: netlink.Link) -> list[Check]:
    return [("table", link.table, device.table, "")]


def _of_vxlan(device: Device, link: netlink.Link) -> list[Check]:
    to, port = f"link set dev {device.name} type vxlan", f"link set dev {device.name}"
    port = f"{port} type bridge_slave"
    suppress = "on" if device.suppress else "off"
    checks: list[Check] = [
        ("id", link.vni, device.vni, ""),
        ("local", link.local, device.local, ""),
        ("port", link.port, 4789, ""),
        ("learning", link.learning, False, f"{to} nolearning"),
        ("flooding to one address or NIC", link.bound, False, ""),
    ]
    if link.master:
        open_ = "state 3 flood on mcast_flood on bcast_flood on isolated off locked off"
        checks += [
            (
                "forwarding of all frames",
                link.port_open or not link.up,
                True,
                f"{port} {open_}",
            ),
            ("learning as a port", link.port_learning, False, f"{port} learning off"),
            (
                "neighbour suppression",
                link.port_suppress,
                device.suppress,
                f"{port} neigh_suppress {suppress}",
            ),
        ]
    return checks


_OF_KIND: dict[str, Callable[[Device, netlink.Link], list[Check]]] = {
    "bridge": _of_bridge,
    "vrf": _of_vrf,
    "vxlan": _of_vxlan,
}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def misordered_rules() -> Iterable[Difference]:
    """Yield the families whose routing rules are in the wrong order.

    The VRFs' rule must come before table local, the host's own addresses (kernel doc, vrf.rst).
    Both must come before a table of somebody else, which may lead anywhere.
    """
    rules = routing_rules.read()
    for family in _FAMILIES:
        ours = [rule for rule in rules if rule.family == family]
        vrf = min((rule.priority for rule in ours if rule.l3mdev), default=None)
        local = min((rule.priority for rule in ours if _is_local(rule)), default=None)
        name = "IPv4 rules" if family == socket.AF_INET else "IPv6 rules"
        if vrf is None:
            yield Difference(name, "no rule for VRFs (l3mdev)")
        elif local is None:
            yield Difference(name, "no rule for table local")
        elif first := _first(ours, lambda rule: rule.l3mdev):
            yield Difference(name, f"{_words(first)} stands before the VRFs' ({vrf})")
        elif first := _first(ours, _is_local):
            yield Difference(name, f"{_words(first)} stands before table local ({local})")


class RulePlaces(msgspec.Struct, frozen=True):
    """The priorities at which our rules belong: before rules of others for every packet."""

    vrf: int
    local: int


def rule_places(family: int) -> RulePlaces:
    """Return the priorities for the VRFs' rule, and for that of table local after it.

    The kernel's own rule for table local does not count, because we move it.
    """
    rules = [rule for rule in routing_rules.read() if rule.family == family and _takes_all(rule)]
    others = min((rule.priority for rule in rules if not _is_local(rule)), default=_MAIN_RULE)
    local = min(LOCAL_RULE, max(1, others - 1))
    present = (rule.priority for rule in rules if _is_local(rule) and rule.priority)
    return RulePlaces(min(VRF_RULE, min(local, *present, others) - 1), local)


def local_place(family: int) -> int:
    """Return the priority at which table local is looked up: ours, or an earlier one of others."""
    rules = [rule for rule in routing_rules.read() if rule.family == family]
    present = (rule.priority for rule in rules if _is_local(rule) and rule.priority)
    return min(rule_places(family).local, *present, LOCAL_RULE)


def vrf_rules(family: int) -> list[int]:
    """Return the priorities of the VRFs' rules."""
    return [rule.priority for rule in routing_rules.read() if rule.family == family and rule.l3mdev]


def is_local_moved(family: int) -> bool:
    """Whether somebody else has put table local at another priority than the kernel and we do."""
    ours = {0, LOCAL_RULE, rule_places(family).local}
    rules = [rule for rule in routing_rules.read() if rule.family == family]
    return any(_is_local(rule) and rule.priority not in ours for rule in rules)


def _first(rules: Iterable[Rule], what: Callable[[Rule], bool]) -> Rule | None:
    """Return the first rule for every packet that comes before the first rule of a kind."""
    before = itertools.takewhile(lambda rule: not what(rule), rules)
    return next(filter(_takes_all, before), None)


def _takes_all(rule: Rule) -> bool:
    """Whether a rule is for every packet, and looks up a table or refuses the packet."""
    return bool(rule.plain and (rule.table or rule.refusal) and not rule.l3mdev)


def _is_local(rule: Rule) -> bool:
    return rule.plain and rule.table == LOCAL


def _words(rule: Rule) -> str:
    does = rule.refusal or f"table {TABLES.get(rule.table, rule.table)}"
    return f"{does} (priority {rule.priority})"
