"""The kernel's tables, read once, and their entries for an address or a MAC."""

import socket
from ipaddress import ip_address, ip_network

import msgspec

from generator.desired.target import Target
from generator.observed import netlink
from generator.observed.netlink import Entry, Link, Neighbour, Route

# RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT (linux/rtnetlink.h)
UNREACHABLE = frozenset({6, 7, 8})


class Kernel(msgspec.Struct, frozen=True):
    """The kernel's tables, read once."""

    links: dict[str, Link]
    entries: list[Entry]
    neighbours: list[Neighbour]
    routes: dict[int, list[Route]]  # by table

    def name(self, index: int) -> str:
        """Return a device's name, "" if it does not exist."""
        return next((link.name for link in self.links.values() if link.index == index), "")

    def neighbour(self, device: str, address: str) -> Neighbour | None:
        """Return the neighbour entry of an address on a device."""
        link = self.links.get(device)
        on_device = (n for n in self.neighbours if link and n.index == link.index)
        return next((n for n in on_device if n.address == address), None)

    def longest(self, table: int, address: str) -> Route | None:
        """Return the route of a table that the kernel uses for an address."""
        ip = ip_address(address)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        fitting = [
            route
            for route in self.routes.get(table, ())
            if route.family == family
            if ip in ip_network(route.prefix, strict=False)
        ]
        length = {route: int(route.prefix.rpartition("/")[2]) for route in fitting}
        return min(fitting, key=lambda route: (-length[route], route.metric), default=None)


def read_kernel() -> Kernel:
    """Read the kernel's tables."""
    families = (socket.AF_INET, socket.AF_INET6)
    routes: dict[int, list[Route]] = {}
    for route in (route for family in families for route in netlink.routes(family)):
        routes.setdefault(route.table, []).append(route)
    return Kernel(
        netlink.links(),
        list(netlink.forwarding()),
        [each for family in families for each in netlink.neighbours(family)],
        routes,
    )


def vnis_of_mac(kernel: Kernel, mac: str) -> set[int]:
    """Return the VNIs of the bridges in which the kernel has a MAC."""
    bridges = {entry.bridge for entry in kernel.entries if entry.mac == mac}
    return {
        link.vni
        for link in kernel.links.values()
        if link.vni is not None and link.master in bridges
    }


def prefixes(kernel: Kernel, target: Target, address: str) -> dict[str, str]:
    """Return the prefix of each VRF's longest route to an address, unless it is unreachable."""
    by_vrf = {}
    for device in target.devices:
        if device.kind == "vrf" and device.table is not None:
            route = kernel.longest(device.table, address)
            if route and route.type not in UNREACHABLE:
                by_vrf[device.name] = route.prefix
    return by_vrf
