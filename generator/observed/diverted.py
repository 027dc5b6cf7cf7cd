"""Finds routing rules of others that keep packets for the host itself from reaching it."""

import socket
from collections.abc import Iterator
from ipaddress import ip_interface

from generator.desired.target import Target
from generator.observed import devices, netlink, routing_rules
from generator.observed.preflight import Finding
from generator.observed.routing_rules import Own, Rule

_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def findings(target: Target, previous: Target | None = None) -> Iterator[Finding]:
    """Yield a finding for each rule that diverts packets for the host.

    With `previous` the target is not applied yet. A rule that diverts them already stops no apply.
    """
    local = {int(family): devices.local_place(family) for family in _FAMILIES}
    before = dict(_diverting(previous, local)) if previous else {}
    for rule, address in _diverting(target, local):
        new = previous is not None and rule not in before
        comes, are = ("would come", "would be") if new else ("comes", "are")
        fate = "dropped" if rule.refusal else "forwarded"
        yield Finding(
            what=f"the routing rule {rule} {comes} before table local",
            why=f"packets for {address} {are} {fate}, not delivered: with VPCs table local"
            f" comes after the VRFs' rule, at {local[rule.family]}",
            remedy="delete the rule, or restrict it to its destinations with `to`",
            stops=new,
        )


def _diverting(target: Target, local: dict[int, int]) -> Iterator[tuple[Rule, str]]:
    """Yield such rules, each with an address of the host. Without VRFs table local comes first."""
    if not any(device.kind == "vrf" for device in target.devices):
        return iter(())
    management = target.management
    pairs = [ip_interface(address) for address in target.moving_addresses]
    names = (management.ifname, management.bridge) if management else ()
    own = Own(
        addresses=[*(str(each.ip) for each in pairs), *sorted(target.loopbacks)],
        devices={*(target.uplinks or ()), *names},
        senders=[str(each.network) for each in pairs],
    )
    routes = (route for family in _FAMILIES for route in netlink.routes(family))
    return routing_rules.diverting(routing_rules.read(), routes, own, local)
