"""Decides the places of routes that move with the management address. Pure.

`place` decides that of the default route in table main by the management gateway.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from ipaddress import ip_address, ip_interface
from typing import NamedTuple

from generator.desired.model import Management
from generator.observed.following import following
from generator.observed.management import Observation
from generator.observed.routing import IPV6
from generator.state.placement import Key, Place, Route

Way = tuple[Place | None, Place]  # the last place of the address, and its new one


def remember(
    known: list[Route], management: Management, observed: Observation, way: Way
) -> list[Route]:
    """Return the routes that have moved, or would move now, as the operator has them on the NIC.

    Every route on the NIC counts as the operator's, at any time. A route that he deletes there is
    forgotten, unless a move may have deleted it. Routes that were added on the bridge while the
    address was there move to the NIC with it, because the kernel would delete them.
    """
    nic = management.ifname
    on_nic = [r for r in following(management, observed, {nic}) if not r.obstacle]
    if way == ("nic", "nic") and rests(management, observed):
        return on_nic
    new = {(r.key, r.gateway) for r in on_nic}
    merged = [
        r for r in known if (r.key, r.gateway) not in new and _is_current(r, management, observed)
    ]
    merged += on_nic
    if way[0] != "nic" and way[1] == "nic":
        keys = {r.key for r in merged}
        others = following(management, observed, observed.devices.keys() - {nic})
        merged += [r for r in others if r.key not in keys and not r.obstacle]
    return merged


def rests(management: Management, observed: Observation) -> bool:
    """Whether only the NIC has each address, so that no move is half done."""
    return all(
        [name for name, present in observed.addresses.items() if address in present]
        == [management.ifname]
        for address, _ in management.pairs
    )


def _is_current(route: Route, management: Management, observed: Observation) -> bool:
    """Whether a route that has moved still depends on the management address or its subnet."""
    interfaces = [ip_interface(address) for address, _ in management.pairs]
    if route.source or not route.gateway:
        interfaces += [ip_interface(address) for address in observed.companions]
        return not route.source or any(route.source == str(i.ip) for i in interfaces)
    return any(ip_address(route.gateway) in interface.network for interface in interfaces)


class Lines(NamedTuple):
    """Lines for `ip -batch` that bring routes to a device."""

    missing: list[str]  # set routes that it lacks
    again: list[str]  # set routes again that name an address which was deleted elsewhere
    delete: list[str]  # delete routes on other devices


def lines(  # noqa: PLR0913, PLR0917
    known: list[Route],
    observed: Observation,
    addresses: Sequence[str],
    device: str,
    others: Collection[str],
    stuck: Collection[str],
) -> Lines:
    """Return lines that bring the routes of one family to `device`, where the addresses are.

    `stuck` are routes that the kernel has refused there. They are left out.
    """
    result = Lines([], [], [])
    sources = {address.partition("/")[0] for address in addresses}
    routes = [r for r in known if (r.family == IPV6) == (":" in addresses[0])]
    counts = Counter(r.key for r in routes)
    present_by_key: dict[Key, list[Route]] = {}
    for present in observed.routes:
        present_by_key.setdefault(present.key, []).append(present)
    # Routes on the link come first, because next hops need them.
    for route in sorted(routes, key=lambda r: bool(r.gateway)):
        words = route.words(device)
        if words in stuck:
            continue
        same = present_by_key.get(route.key, [])
        # `replace` replaces any route with that key. It must not replace one of somebody else.
        ours = all(r.device in {device, *others} for r in same)
        alone = ours and counts[route.key] == 1
        line = f"route {'replace' if alone else 'append'} {words} {route.text}"
        is_there = any(_is_at(r, route, device) for r in same)
        if not is_there:
            result.missing.append(line)
        if route.source in sources:
            result.again.append(line)
        if is_there or not alone:
            away = [r for r in same if r.device in others and r.gateway == route.gateway]
            result.delete.extend(f"route delete {r.words(r.device)}" for r in away)
    for route in observed.routes:  # the kernel deletes them too
        if route.source in sources and route.device not in {device, *others}:
            result.again.append(f"route append {route.words(route.device)} {route.text}")
    return result


def _is_at(present: Route, route: Route, device: str) -> bool:
    return (present.device, present.gateway, present.text) == (device, route.gateway, route.text)


def missing(known: list[Route], observed: Observation, device: str) -> list[str]:
    """Return the routes that a device lacks, in the words of `Route.words`."""
    present = {(r.key, r.gateway, r.text) for r in observed.routes if r.device == device}
    return [r.words(device) for r in known if (r.key, r.gateway, r.text) not in present]
