"""Decides where the management address belongs, and which commands bring it there.

Everything here is pure, and the commands can be repeated. They change only the management address,
what moves with it, its routes, and the substitutes that we put in its place.
"""

import socket
from collections.abc import Set
from ipaddress import IPv6Address, ip_address, ip_interface

import msgspec

from generator.desired.model import Management
from generator.desired.target import FormerAddress
from generator.failover import further
from generator.observed.management import Observation
from generator.state.placement import Original, Place

_IPV4, _IPV6 = socket.AF_INET, socket.AF_INET6
_DISCARD = IPv6Address("100::")  # RFC 6666: packets to it are discarded
# A number: if a batch has numbers and names, iproute2 misreads the names (seen with 6.1).
_STATIC = "proto 4"
_METRIC6 = 1024  # the kernel's metric of an IPv6 route without one (IP6_RT_PRIO_USER)


def decide(
    established: list[str] | None,
    observed: Observation,
    nic: str,
    bridges: list[str],
    here: str = "",
) -> tuple[Place, str] | None:
    """Return where the address belongs and on which device; None: leave it where it is.

    `established` are the sessions that carry EVPN, None while FRR does not answer. `bridges` are
    the bridge that should have the address, then the one that last had it. The second keeps the
    address as long as the first does not exist. If the device `here` has lost its VXLAN port, the
    address stays: an apply may be creating the port again. But the address never moves to a bridge
    without a VXLAN port, as on a kernel without VXLAN.
    """
    present = [(name, observed.devices[name]) for name in bridges if name in observed.devices]
    ready = [name for name, device in present if device.up and (device.vxlan or name == here)]
    if established is None:
        return None
    if established and ready:
        return "bridge", ready[0]
    return ("nic", nic) if nic in observed.devices else None


class Move(msgspec.Struct, frozen=True):
    """The place that the address should have, and the facts that its commands need."""

    management: Management
    place: Place
    device: str  # the device of that place
    others: list[str]  # where the address must not be
    loopback: str | None
    original: Original
    former: list[FormerAddress] = []
    stuck: list[str] = []  # routes that the kernel refuses there

    @property
    def former_addresses(self) -> set[str]:
        """Former management addresses, which have to be deleted."""
        return {f.address for f in self.former} - {a for a, _ in self.management.pairs}

    @property
    def former_gateways(self) -> set[str]:
        """Former gateways, whose default routes have to be deleted."""
        return {f.gateway for f in self.former if f.gateway} - {
            gateway for _, gateway in self.management.pairs if gateway
        }

    def companions(self, address: str) -> list[str]:
        """Return the operator's other addresses of an address's subnet, which move with it."""
        network = ip_interface(address).network
        return [a for a in self.original.companions if ip_interface(a).ip in network]

    @property
    def substitute(self) -> str:
        """The address that keeps a NIC from losing its last IPv4 address, see `_substitute`."""
        return f"{self.loopback}/32" if self.loopback else ""

    @property
    def next_hop(self) -> str:
        """The address that replaces the NIC's IPv6 address as a next hop, see `next_hop`."""
        return f"{_DISCARD + int(ip_address(self.loopback))}/128" if self.loopback else ""


def steps(move: Move, observed: Observation) -> list[str]:
    """Return lines for `ip -batch` that bring the address to its place; none if it is there.

    The address is added in the new place before it is deleted in the old one. A route that names
    the address as its source is deleted with it (acassen/keepalived#1719), so the default route is
    set again at the end. An IPv6 address stays where it is as long as IPv6 is off in the new place.
    Former addresses are deleted last, so that the host always has the old or the new one.
    """
    here, nic = move.device, move.management.ifname
    present = {name: observed.addresses.get(name, {}) for name in {here, nic, *move.others}}
    lines: list[str] = []
    if move.place == "nic" and move.next_hop in present[nic]:
        lines.append(f"address delete {move.next_hop} dev {nic}")
    for address, gateway in move.management.pairs:
        if ":" in address and not (here in observed.devices and observed.devices[here].ipv6):
            continue
        set_routes, delete_routes = _routes(move, observed, gateway) if gateway else ([], [])
        companions = move.companions(address)
        together = [address, *companions]
        more = further.lines(
            move.original.further, observed, together, here, move.others, move.stuck
        )
        holders = [name for name in move.others if present[name].keys() & {*together}]
        lines += _add_all(move, address, companions, present[here])
        if address not in present[here] or holders or not _routes_are_set(move, observed, gateway):
            lines += set_routes
        lines += more.missing
        for name in holders:
            lines += _delete_all(move, together, name, present[name])
        if holders:
            lines += set_routes + more.again
        lines += delete_routes + more.delete
    lines += _delete_former(move, observed, present)
    if move.place == "nic" and move.substitute in present[nic]:
        lines.append(f"address delete {move.substitute} dev {nic}")
    return lines


def _add_all(move: Move, address: str, companions: list[str], present: dict[str, str]) -> list[str]:
    """Add the management address and its companions, in the order of the NIC."""
    lines = []
    if address not in present:
        lines += [*_make_room(move, address, present), _add(move, address)]
    missing = [_add(move, each) for each in companions if each not in present]
    ahead = [line for line in missing if line.split()[2] in move.original.ahead]
    return [*ahead, *lines, *(line for line in missing if line not in ahead)]


def _delete_all(move: Move, together: list[str], name: str, present: dict[str, str]) -> list[str]:
    """Delete the management address and its companions from a device.

    The address is deleted last, because the kernel may delete others of its subnet with it.
    """
    address, *companions = together
    lines = []
    if name in {move.management.ifname, *(f.ifname for f in move.former)} and ":" not in address:
        lines += _substitute(move, name, present)
    here = [each for each in (*companions, address) if each in present]
    lines += [f"address delete {each} dev {name}" for each in here]
    return lines + _add_others_again(address, name, present, set(companions))


def _add(move: Move, address: str) -> str:
    text = "" if ":" in address else "brd +"
    original = move.original.addresses | move.original.companions
    if move.place == "nic":
        text = original.get(address, text)
    elif "preferred_lft 0" in original.get(address, ""):
        text += " preferred_lft 0"
    words = ["address replace", address, "dev", move.device, text]
    return " ".join(filter(None, [*words, "nodad" if ":" in address else ""]))


def _make_room(move: Move, address: str, present: dict[str, str]) -> list[str]:
    """Delete an IPv6 address with another prefix length: a device can have it only once."""
    ip = ip_interface(address).ip
    return [
        f"address delete {former} dev {move.device}"
        for former in sorted(move.former_addresses & present.keys())
        if ":" in former and ip_interface(former).ip == ip
    ]


def _delete_former(
    move: Move, observed: Observation, present: dict[str, dict[str, str]]
) -> list[str]:
    """Delete former management addresses, and default routes by former gateways."""
    lines: list[str] = []
    takes_ipv6 = move.device in observed.devices and observed.devices[move.device].ipv6
    for name, addresses in present.items():
        for address in sorted(move.former_addresses & addresses.keys()):
            if ":" in address and not takes_ipv6:
                continue
            if name != move.device and ":" not in address:
                lines += _substitute(move, name, addresses)
            lines.append(f"address delete {address} dev {name}")
            lines += _add_others_again(address, name, addresses, move.former_addresses)
            if name == move.device:  # the kernel may have deleted the new address with this one
                lines += [_add(move, new) for new, _ in move.management.pairs if ":" not in new]
    if lines:
        for _, gateway in move.management.pairs:
            lines += _routes(move, observed, gateway)[0] if gateway else []
    return lines + [
        f"route delete default via {d.gateway} dev {d.device}"
        + (f" metric {d.metric}" if d.metric else "")
        for d in observed.defaults
        if d.gateway in move.former_gateways and d.device in present
    ]


def _substitute(move: Move, nic: str, on_nic: dict[str, str]) -> list[str]:
    """Add an address to a NIC that would otherwise have none.

    With a device's last IPv4 address the kernel drops all IPv4 routes and neighbours of the device
    (fib_disable_ip), FRR's among them, without telling FRR. The loopback's address is harmless
    there, because the host answers for it anyway.
    """
    moving = {address for address, _ in move.management.pairs} | move.former_addresses
    moving |= move.original.companions.keys()
    if not move.substitute or any(":" not in a for a in on_nic if a not in moving):
        return []
    return [f"address replace {move.substitute} dev {nic}"]


def next_hop(move: Move, observed: Observation) -> list[str]:
    """Return lines that give bgpd a valid IPv6 next hop again.

    bgpd sends leaves a global IPv6 address of the uplink as next hop. Once that address is deleted,
    it sends ::ffff:… instead, by which the leaf can't reach the loopback (FRRouting/frr#19910),
    until the uplink gets another address.
    """
    nic, address = move.management.ifname, move.next_hop
    if move.place == "nic" or not address:
        return []
    present = address in observed.addresses.get(nic, {})
    delete = [f"address delete {address} dev {nic}"] if present else []
    return [*delete, f"address replace {address} dev {nic} nodad preferred_lft 0"]


def _add_others_again(
    address: str, device: str, present: dict[str, str], former: Set[str] = frozenset()
) -> list[str]:
    """Add the other addresses of the subnet again, which the kernel may delete with this one."""
    if ":" in address:
        return []
    subnet = ip_interface(address).network
    return [
        " ".join(filter(None, ["address replace", other, "dev", device, text]))
        for other, text in sorted(present.items())
        if other != address and other not in former
        if "peer" not in other
        if ip_interface(other).network == subnet
    ]


def _default_routes(move: Move, observed: Observation, gateway: str) -> list[str]:
    """Return the default routes by a gateway that the place should have, as ip-route(8) reads."""
    known = move.original.routes.get(gateway)
    old = _routes_of_former_gateway(move, gateway) if known is None else None
    if known is None and old is None:
        family = _IPV6 if ":" in gateway else _IPV4
        own = {gateway, *move.former_gateways}
        others = [d for d in observed.defaults if d.family == family and d.gateway not in own]
        return [] if others else [_STATIC]
    if known is not None and move.place == "nic":
        return known
    metrics = sorted({_metric(text, gateway) for text in known or old or []})
    return [_STATIC + (f" metric {m}" if m else "") for m in metrics]


def _routes_of_former_gateway(move: Move, gateway: str) -> list[str] | None:
    """Return the operator's default routes by the former gateway; None: not known."""
    for former in sorted(move.former_gateways):
        if (":" in former) == (":" in gateway) and former in move.original.routes:
            return move.original.routes[former]
    return None


def _metric(text: str, gateway: str) -> int:
    words = text.split()
    explicit = int(words[words.index("metric") + 1]) if "metric" in words else 0
    return explicit or (_METRIC6 if ":" in gateway else 0)


def _metrics_here(move: Move, observed: Observation, gateway: str) -> set[int]:
    """Return the metrics of the default routes by the gateway that the place has."""
    return {d.metric for d in observed.defaults if (d.gateway, d.device) == (gateway, move.device)}


def _routes_are_set(move: Move, observed: Observation, gateway: str | None) -> bool:
    """Whether the place has all its default routes by the gateway."""
    if not gateway:
        return True
    metrics = {_metric(text, gateway) for text in _default_routes(move, observed, gateway)}
    return metrics <= _metrics_here(move, observed, gateway)


def _routes(move: Move, observed: Observation, gateway: str) -> tuple[list[str], list[str]]:
    """Return lines that set the default routes, and lines that delete those elsewhere."""
    family = _IPV6 if ":" in gateway else _IPV4
    elsewhere = [d for d in observed.defaults if d.gateway == gateway and d.device in move.others]
    set_routes, replaced = [], set()
    for text in _default_routes(move, observed, gateway):
        metric = _metric(text, gateway)
        # `replace` replaces any route with that metric. It must not replace one of somebody else.
        same = [d for d in observed.defaults if d.family == family and d.metric == metric]
        own = {gateway, *move.former_gateways}
        ours = all(d.gateway in own and d.device in (move.device, *move.others) for d in same)
        if ours:
            replaced.add(metric)
        verb = "replace" if ours else "append"
        set_routes.append(f"route {verb} default via {gateway} dev {move.device} {text}")
    here = _metrics_here(move, observed, gateway)
    delete_routes = [
        f"route delete default via {gateway} dev {d.device}"
        + (f" metric {d.metric}" if d.metric else "")
        for d in elsewhere
        if d.metric not in replaced or d.metric in here
    ]
    return set_routes, delete_routes
