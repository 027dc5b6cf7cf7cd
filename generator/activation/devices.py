"""Changes devices, rules and addresses that no backend changes, or not in the order needed."""

import socket
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.backend import Activation
from generator.activation.commands import Log, Step
from generator.desired.model import UNREACHABLE_METRIC, UPLINK_PEERS, Device
from generator.desired.target import Target, loopbacks
from generator.errors import see_gone
from generator.observed import devices, netlink, nics, running, settings
from generator.observed.devices import Difference
from generator.observed.machine import MODULES as MODULE_NAMES

SYSCTL = settings.FILE
_FAMILIES = {socket.AF_INET: "-4", socket.AF_INET6: "-6"}
_LOCAL = "table local"
_BY = "protocol kernel"  # networkd never removes such a rule
_ROUNDS = 3  # what a device is given may be lost when it is put right in another way
MODULES = "etc/modules-load.d/evpn-host.conf"


def modules() -> Step:
    """Load the kernel modules that the devices need. At boot modules-load.d does it."""
    return Step(("modprobe", "-a", *MODULE_NAMES), "kernel modules of the devices")


def sysctl(root: Path) -> Step:
    """Set the kernel's settings. At boot, and for each new device, systemd does it."""
    return Step(("/usr/lib/systemd/systemd-sysctl", str(root / SYSCTL)), "kernel settings")


# --- Routing rules ---


def order_rules(target: Target, log: Log) -> None:
    """Have the kernel look in the VRFs' tables before all others, if the target has VRFs."""
    if vrfs(target) and any(devices.rule_order()):
        commands.run_all(_ordered_rules(), log)


def _ordered_rules() -> list[Step]:
    """Move the kernel's rule for table local after the VRFs' rule, in both families.

    A rule of somebody else that every packet meets stays where it is: Cilium puts table local at
    100, behind rules of its own, and NetBird table main. The VRFs, and table local where it would
    come later, get another rule before it.

    The kernel makes the VRFs' own rule with the first VRF of its life, and never again. If it is
    gone (uninstall deletes it) it is made here.
    """
    reason = "a tenant meets its own table before the host's addresses"
    return [
        _rule(option, line, reason)
        for family, option in _FAMILIES.items()
        for places in [devices.rule_places(family)]
        for line in (
            *(f"add pref {p} l3mdev {_BY}" for p in sorted({places.vrf, devices.VRF_RULE})),
            *(f"add pref {p} {_LOCAL} {_BY}" for p in sorted({places.local, devices.LOCAL_RULE})),
            f"del pref 0 {_LOCAL}",
        )
    ]


def restore_rules(log: Log) -> None:
    """Restore the kernel's own rules, unless someone else has VRFs, which need ours.

    Where somebody else has moved table local, such as Cilium, it stays there.
    """
    if any(link.kind == "vrf" for link in netlink.links().values()):
        return
    reason = "rules as the kernel makes them"
    steps = [
        _rule(option, line, reason)
        for family, option in _FAMILIES.items()
        for line in (
            *([] if devices.is_local_moved(family) else [f"add pref 0 {_LOCAL} {_BY}"]),
            *(
                f"del pref {place} {_LOCAL}"
                for place in {devices.LOCAL_RULE, devices.rule_places(family).local}
            ),
            # The kernel never deletes its own.
            *(f"del pref {place} l3mdev" for place in devices.vrf_rules(family)),
        )
    ]
    commands.run_all(steps, log)
    see_gone(
        f"ip {option} rule pref {place} l3mdev"
        for family, option in _FAMILIES.items()
        for place in devices.vrf_rules(family)
    )


def _rule(option: str, line: str, reason: str) -> Step:
    return Step(("ip", option, "rule", *line.split()), reason, may_fail=True)


# --- Devices ---


def mend(activation: Activation, log: Log, *, all_nics: bool = False) -> None:
    """Put right what others have changed of devices that were to stay as they were.

    With `all_nics` also what no tool has set of NICs that were to change: FRR's start script gives
    uplinks the loopback's address, and a new loopback comes without a start of FRR.

    Of what a line of `ip` puts right the backends need not hear. networkd, for example, does not
    change a bridge's STP. What is shut down in FRR comes up by FRR alone: set up by somebody else
    it would stay down for FRR.
    """
    for _ in range(_ROUNDS):
        changed = [each for each in _changed_by_others(activation, all_nics=all_nics) if each.line]
        shut = running.shut_down(activation.root) if changed else set()
        lines = [each.line for each in changed if each.device not in shut]
        if not lines:
            return
        step = Step(
            ("ip", "-force", "-batch", "-"),
            f"somebody has changed what stays: {'; '.join(lines)}",
            input="".join(f"{line}\n" for line in lines),
            may_fail=True,
        )
        commands.run(step, log)


def _changed_by_others(activation: Activation, *, all_nics: bool) -> list[Difference]:
    before = activation.previous.target if activation.previous else None
    if before is None:
        return []
    known = {*before.devices, *before.nics}
    expected = [device for device in activation.target.devices if device in known]
    current = [nic for nic in activation.target.nics if all_nics or nic in known]
    kernel = devices.read()
    target = msgspec.structs.replace(activation.target, nics=current)
    management = [*before.moving_addresses, *target.moving_addresses]
    return [
        *devices.differences(expected, management, kernel),
        *nics.differences(target, kernel),
    ]


def vrfs(target: Target) -> list[str]:
    """Return the names of a target's VRFs."""
    return [device.name for device in target.devices if device.kind == "vrf"]


def delete_unchangeable(target: Target, log: Log) -> None:
    """Delete devices that the kernel or networkd can't change into what they should be."""
    _delete(devices.unchangeable(target.devices), log)


def delete(removed: Iterable[Device], log: Log) -> None:
    """Delete devices of ours; a VRF's routes before the VRF, or zebra may crash (10.3).

    Raises `ActivationFailed` if one stays.
    """
    removed = list(removed)
    vrfs = [device for device in removed if device.kind == "vrf"]
    _delete(_existing(device for device in removed if device.kind != "vrf"), log)
    if vrfs:
        commands.run_all(_empty_tables(vrfs), log)
    _delete(_existing(vrfs), log)
    see_gone(f"device {name}" for name in _existing(removed))


def _existing(ours: Iterable[Device]) -> list[str]:
    """Return the names of those devices that exist, ports before their bridges and VRFs."""
    links = netlink.links()
    order = {"vxlan": 0, "bridge": 1, "vrf": 2}
    existing = [d for d in ours if d.name in links and links[d.name].kind == d.kind]
    return [device.name for device in sorted(existing, key=lambda d: (order[d.kind], d.name))]


def _delete(names: list[str], log: Log) -> None:
    """Delete devices in one go. A missing one is no error."""
    if not names:
        return
    step = Step(
        ("ip", "-force", "-batch", "-"),
        f"devices that are gone or can't be changed in place: {', '.join(names)}",
        timeout=60 + len(names) / 5,
        input="".join(f"link delete dev {name}\n" for name in names),
        may_fail=True,
    )
    commands.run(step, log)


def _empty_tables(vrfs: Iterable[Device]) -> list[Step]:
    """Empty the routing tables of VRFs that go: an unreachable route belongs to no device.

    A table that our VRF does not have for itself may be somebody else's. There only the unreachable
    default is ours.
    """
    tables = {device.table: device.name for device in vrfs}
    owners: dict[int | None, set[str]] = {table: set() for table in tables}
    for link in netlink.links().values():
        if link.kind == "vrf" and link.table in owners:
            owners[link.table].add(link.name)
    lines = "".join(
        f"route flush table {table}\n"
        if owners[table] == {name}
        else f"route delete unreachable default table {table} metric {UNREACHABLE_METRIC}\n"
        for table, name in sorted(tables.items())
    )
    return [
        Step(
            ("ip", family, "-force", "-batch", "-"),
            f"no routes of VRFs that go: {', '.join(sorted(tables.values()))}",
            timeout=60 + len(tables) / 5,
            input=lines,
            may_fail=True,
        )
        for family in ("-4", "-6")
    ]


# --- Routes and addresses that no backend removes ---


def forget_routers(target: Target, log: Log) -> None:
    """Remove the routes that router advertisements gave an uplink before it was one.

    networkd keeps them until they expire, which may take half an hour. The default route among them
    leads into the underlay.
    """
    names = {link.index: link.name for link in netlink.links().values()}
    steps = [
        _without(route, names[index])
        for route in netlink.advertised_routes()
        for _, index in route.hops
        if names.get(index) in (target.uplinks or ())
    ]
    commands.run_all(steps, log)


def _without(route: netlink.Route, nic: str) -> Step:
    """Remove a route. networkd from version 256 on gives it a next-hop object."""
    hop = ("nhid", str(route.next_hop_object)) if route.next_hop_object else ("dev", nic)
    words = (route.prefix, *hop, "metric", str(route.metric), "table", str(route.table))
    argv = ("ip", "-6", "route", "delete", *words)
    return Step(argv, f"{nic} is an uplink, and takes no router advertisements", may_fail=True)


def remove_stale_addresses(activation: Activation, log: Log) -> None:
    """Remove addresses that were ours and that the backend leaves where they are.

    Raises `ActivationFailed` if one stays.
    """
    _remove_addresses(lambda: _stale_addresses(activation), log)


def remove_all_addresses(applied: Iterable[Device], log: Log) -> None:
    """Remove the VTEP's addresses, from the loopback and from all uplinks.

    Raises `ActivationFailed` if one stays.
    """
    ours = loopbacks(list(applied))
    _remove_addresses(lambda: [*_on_loopback(ours), *_on_uplinks(ours, set())], log)


def _remove_addresses(present: Callable[[], list[Step]], log: Log) -> None:
    """Delete what is `present`, and see that it is gone."""
    if steps := present():
        commands.run_all(steps, log)
        see_gone(f"address {' '.join(step.argv[3:])}" for step in present())


def _stale_addresses(activation: Activation) -> list[Step]:
    """Return a step for each address that was ours and that the target does not have."""
    ours = activation.previous_loopbacks | activation.target.loopbacks
    uplinks = activation.target.uplinks
    return [
        *_on_loopback(activation.previous_loopbacks - activation.target.loopbacks),
        *(_on_uplinks(ours, set(uplinks)) if uplinks is not None else ()),
        *_numbered(activation),
    ]


def _on_loopback(stale: Set[str]) -> Iterator[Step]:
    """Neither backend removes an address from `lo` that its files no longer have."""
    present = netlink.addresses().get(1, set()) if stale else set()
    for address in sorted(stale):
        if f"{address}/32" in present:
            argv = ("ip", "address", "delete", f"{address}/32", "dev", "lo")
            yield Step(argv, "the VTEP goes", may_fail=True)


def _on_uplinks(ours: Set[str], uplinks: Set[str]) -> Iterator[Step]:
    """FRR's start script adds the VTEP's address to uplinks, and forgets a NIC that was one."""
    names = {link.index: link.name for link in netlink.links().values()}
    for index, address, peer in netlink.peers():
        if peer in UPLINK_PEERS and address in ours and names.get(index, "lo") not in uplinks:
            nic = names[index]
            argv = ("ip", "address", "delete", address, "peer", f"{peer}/32", "dev", nic)
            yield Step(argv, f"{nic} is no uplink any more", may_fail=True)


def _numbered(activation: Activation) -> Iterator[Step]:
    """ifupdown2 removes no address from an uplink: it is told to leave the operator's alone."""
    stale = activation.previous_numbered.difference(activation.target.numbered)
    links, present = (netlink.links(), netlink.addresses()) if stale else ({}, {})
    for nic, address in sorted(stale):
        if nic in links and address in present.get(links[nic].index, set()):
            argv = ("ip", "address", "delete", address, "dev", nic)
            reason = f"the session on {nic} has no address of ours any more"
            yield Step(argv, reason, may_fail=True)
