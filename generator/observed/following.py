"""Finds routes and addresses on the NIC that have to move with the management address. Pure.

Such routes have a next hop in its subnet or the address as their source, or they are routes on the
link in a table that a rule selects for it. The default route of table main is handled elsewhere.
"""

from collections.abc import Collection, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

import msgspec

from generator.desired.model import Management
from generator.observed.management import Observation
from generator.observed.routing import DEFAULTS, IPV6, MAIN
from generator.state.placement import Route

Network = IPv4Network | IPv6Network


def following(
    management: Management, observed: Observation, devices: Collection[str]
) -> list[Route]:
    """Return the routes on these devices that belong to the management address."""
    return [
        route
        for route in observed.routes
        if route.device in devices and _belongs(route, management, observed)
    ]


def _belongs(route: Route, management: Management, observed: Observation) -> bool:
    for address, gateway in management.pairs:
        if (":" in address) != (route.family == IPV6):
            continue
        interface = ip_interface(address)
        sources = [interface.ip, *(ip_interface(each).ip for each in observed.companions)]
        if (route.table, route.prefix, route.gateway) == (MAIN, DEFAULTS[route.family], gateway):
            return False
        if route.source in map(str, sources):
            return True
        others = other_subnets(management, observed, route.family)
        if route.gateway:
            smaller = [s for s in others if s.prefixlen > interface.network.prefixlen]
            hop = ip_address(route.gateway)
            return hop in interface.network and not any(hop in subnet for subnet in smaller)
        chosen = [ip_network(source) for source in observed.sources.get(route.table, ())]
        return any(source in prefix for source in sources for prefix in chosen) and not any(
            _inside(route.prefix, subnet) for subnet in others
        )
    return False


def other_subnets(management: Management, observed: Observation, family: int) -> list[Network]:
    """Return the subnets of the NIC's other addresses."""
    moving = [address for address, _ in management.pairs] + observed.companions
    own = {ip_interface(address).network for address in moving}
    on_nic = observed.addresses.get(management.ifname, {})
    subnets = {ip_interface(address).network for address in on_nic if "peer" not in address}
    return [each for each in subnets - own if (each.version == 6) == (family == IPV6)]


def _inside(prefix: str, subnet: Network) -> bool:
    if prefix in DEFAULTS.values():
        return False
    network = ip_network(prefix)
    return network.network_address in subnet and network.prefixlen >= subnet.prefixlen


class Staying(msgspec.Struct, frozen=True):
    """What stays on the NIC when the management address moves to the bridge."""

    what: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why} ({self.remedy})"


def staying(management: Management, observed: Observation) -> Iterator[Staying]:
    """Yield what can't move with the management address."""
    nic, bridge = management.ifname, management.bridge
    why = f"it stays on {nic} when the management address moves to {bridge}"
    for route in following(management, observed, {nic}):
        if route.obstacle:
            what = f"the route {route} has {route.obstacle}"
            yield Staying(what, why, "write it with one next hop")
    for priority, devices in observed.rules:
        if nic in devices and bridge not in devices:
            why_rule = f"it does not apply while the management address is on {bridge}"
            remedy = "have the rule name the management address instead of the NIC"
            yield Staying(f"the routing rule {priority} names {nic}", why_rule, remedy)
    for address in other_addresses(management, observed):
        if address in observed.companions:
            continue
        what = f"{nic} has {address}, another address of the management subnet"
        remedy = "set it in your own file, unless a daemon manages it; or use a V-Net for it"
        yield Staying(what, why, remedy)


def other_addresses(management: Management, observed: Observation) -> list[str]:
    """Return the NIC's other addresses in the management subnet."""
    own = [ip_interface(address) for address, _ in management.pairs]
    return sorted(
        address
        for address in observed.addresses.get(management.ifname, {})
        if "peer" not in address
        if all(ip_interface(address).ip != each.ip for each in own)
        if any(ip_interface(address).ip in each.network for each in own)
    )


def advertised_defaults(names: Collection[str], observed: Observation) -> Iterator[Staying]:
    """Yield the uplinks that have their IPv6 default route from router advertisements."""
    for default in observed.defaults:
        if default.device in names and "proto 9" in default.text:  # RTPROT_RA
            yield Staying(
                f"{default.device} has its IPv6 default route from router advertisements",
                "an uplink accepts none: on a routed port a leaf would send them. The route ends,"
                " and so do the addresses that came with it",
                "give the NIC a static one in your own file; mgmt.ipv6 and mgmt.gateway6 move it",
            )
