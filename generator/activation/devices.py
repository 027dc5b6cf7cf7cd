"""Changes devices, rules and addresses that a backend does not change, or in the wrong order."""

import socket
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.backend import Activation
from generator.activation.commands import Log, Step
from generator.desired.model import UNREACHABLE_METRIC, UPLINK_PEERS, Device
from generator.desired.target import Target, loopbacks
from generator.errors import check_removed
from generator.observed import devices, netlink, nics, running, settings
from generator.observed.devices import Difference
from generator.observed.machine import MODULES as MODULE_NAMES

SYSCTL = settings.FILE
_FAMILIES = {socket.AF_INET: "-4", socket.AF_INET6: "-6"}
_LOCAL = "table local"
_BY = "protocol kernel"  # networkd never removes such a rule
_ROUNDS = 3  # one correction of a device may undo another
MODULES = "etc/modules-load.d/evpn-host.conf"


def modules() -> Step:
    """Load the kernel modules that the devices need. At boot modules-load.d does it."""
    return Step(("modprobe", "-a", *MODULE_NAMES), "kernel modules of the devices")


def sysctl(root: Path) -> Step:
    """Set the kernel's settings. At boot, and for each new device, systemd does it."""
    return Step(("/usr/lib/systemd/systemd-sysctl", str(root / SYSCTL)), "kernel settings")


# --- Routing rules ---


def order_rules(target: Target, log: Log) -> None:
    """Have the kernel look up the VRFs' tables before all others, if the target has VRFs."""
    if vrfs(target) and any(devices.misordered_rules()):
        commands.run_all(_ordered_rules(), log)


def _ordered_rules() -> list[Step]:
    """Move the kernel's rule for table local after the VRFs' rule, in both families.

    A rule of somebody else for every packet stays where it is: Cilium has one for table local at
    100, after rules of its own, and NetBird has one for table main. Another rule for the VRFs is
    added before it, and one for table local, if that would come later.

    The kernel creates the VRFs' rule with its first VRF, and never again. If it was deleted (by
    uninstall), it is created here.
    """
    reason = "a tenant's table is looked up before the host's addresses"
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
    """Restore the kernel's own rules, unless somebody else has VRFs, which need ours.

    If somebody else, such as Cilium, has moved table local, it stays there.
    """
    if any(link.kind == "vrf" for link in netlink.links().values()):
        return
    reason = "the kernel's own rules"
    steps = [
        _rule(option, line, reason)
        for family, option in _FAMILIES.items()
        for line in (
            *([] if devices.is_local_moved(family) else [f"add pref 0 {_LOCAL} {_BY}"]),
            *(
                f"del pref {place} {_LOCAL}"
                for place in {devices.LOCAL_RULE, devices.rule_places(family).local}
            ),
            # The kernel never deletes its own rules.
            *(f"del pref {place} l3mdev" for place in devices.vrf_rules(family)),
        )
    ]
    commands.run_all(steps, log)
    check_removed(
        f"ip {option} rule pref {place} l3mdev"
        for family, option in _FAMILIES.items()
        for place in devices.vrf_rules(family)
    )


def _rule(option: str, line: str, reason: str) -> Step:
    return Step(("ip", option, "rule", *line.split()), reason, may_fail=True)


# --- Devices ---


def repair(activation: Activation, log: Log, *, all_nics: bool = False) -> None:
    """Correct what others have changed on devices that stay the same.

    With `all_nics` it also sets what no tool has set on changed NICs: FRR's start script adds the
    loopback's address to uplinks, but a new loopback does not start FRR.

    The backends need not know what `ip` corrects: networkd, for example, does not change a bridge's
    STP. An interface that is shut down in FRR is left to FRR: if `ip` set it up, it would stay down
    for FRR.
    """
    for _ in range(_ROUNDS):
        changed = [each for each in _changed_by_others(activation, all_nics=all_nics) if each.line]
        shut = running.shut_down(activation.root) if changed else set()
        lines = [each.line for each in changed if each.device not in shut]
        if not lines:
            return
        step = Step(
            ("ip", "-force", "-batch", "-"),
            f"somebody has changed these devices: {'; '.join(lines)}",
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
    """Delete devices of ours; a VRF's routes first, because zebra may crash otherwise (10.3).

    Raises `ActivationFailed` if one stays.
    """
    removed = list(removed)
    vrfs = [device for device in removed if device.kind == "vrf"]
    _delete(_existing(device for device in removed if device.kind != "vrf"), log)
    if vrfs:
        commands.run_all(_empty_tables(vrfs), log)
    _delete(_existing(vrfs), log)
    check_removed(f"device {name}" for name in _existing(removed))


def _existing(ours: Iterable[Device]) -> list[str]:
    """Return the names of those devices that exist, ports before their bridges and VRFs."""
    links = netlink.links()
    order = {"vxlan": 0, "bridge": 1, "vrf": 2}
    existing = [d for d in ours if d.name in links and links[d.name].kind == d.kind]
    return [device.name for device in sorted(existing, key=lambda d: (order[d.kind], d.name))]


def _delete(names: list[str], log: Log) -> None:
    """Delete devices with one command. A missing one is no error."""
    if not names:
        return
    step = Step(
        ("ip", "-force", "-batch", "-"),
        f"devices that are not planned or can't be changed: {', '.join(names)}",
        timeout=60 + len(names) / 5,
        input="".join(f"link delete dev {name}\n" for name in names),
        may_fail=True,
    )
    commands.run(step, log)


def _empty_tables(vrfs: Iterable[Device]) -> list[Step]:
    """Empty the tables of VRFs that are to be deleted: an unreachable route belongs to no device.

    If somebody else's VRF has the same table, only the unreachable default route in it is ours.
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
            f"routes of VRFs that are deleted: {', '.join(sorted(tables.values()))}",
            timeout=60 + len(tables) / 5,
            input=lines,
            may_fail=True,
        )
        for family in ("-4", "-6")
    ]


# --- Routes and addresses that no backend removes ---


def remove_advertised_routes(target: Target, log: Log) -> None:
    """Remove the routes that router advertisements gave an uplink before it was one.

    networkd keeps them until they expire, which may take half an hour. The default route among them
    leads into the underlay.
    """
    names = {link.index: link.name for link in netlink.links().values()}
    steps = [
        _without(route, gateway, names[index])
        for route in netlink.advertised_routes()
        for gateway, index in route.hops
        if names.get(index) in (target.uplinks or ())
    ]
    commands.run_all(steps, log)


def _without(route: netlink.Route, gateway: str, nic: str) -> Step:
    """Return the step that deletes one next hop of a route.

    networkd gives each its own next-hop object from version 256 on. Before, the routes of several
    NICs are one, and without a gateway the kernel would delete all of it (ip6_route_del).
    """
    hop = ["via", gateway] if gateway else []
    hop = ["nhid", str(route.next_hop_object)] if route.next_hop_object else [*hop, "dev", nic]
    words = (route.prefix, *hop, "metric", str(route.metric), "table", str(route.table))
    argv = ("ip", "-6", "route", "delete", *words)
    return Step(argv, f"{nic} is an uplink, and takes no router advertisements", may_fail=True)


def remove_stale_addresses(activation: Activation, log: Log) -> None:
    """Remove addresses that were ours and that the backend does not remove.

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
    """Run the steps that `present` returns, and check that it returns none afterwards."""
    if steps := present():
        commands.run_all(steps, log)
        check_removed(f"address {' '.join(step.argv[3:])}" for step in present())


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
    """Yield steps for `lo`: no backend removes an address there that its files no longer have."""
    present = netlink.addresses().get(1, set()) if stale else set()
    for address in sorted(stale):
        if f"{address}/32" in present:
            argv = ("ip", "address", "delete", f"{address}/32", "dev", "lo")
            yield Step(argv, "the VTEP no longer has this address", may_fail=True)


def _on_uplinks(ours: Set[str], uplinks: Set[str]) -> Iterator[Step]:
    """Yield steps for former uplinks, to which FRR's start script has added the VTEP's address."""
    names = {link.index: link.name for link in netlink.links().values()}
    for index, address, peer in netlink.peers():
        if peer in UPLINK_PEERS and address in ours and names.get(index, "lo") not in uplinks:
            nic = names[index]
            argv = ("ip", "address", "delete", address, "peer", f"{peer}/32", "dev", nic)
            yield Step(argv, f"{nic} is no longer an uplink", may_fail=True)


def _numbered(activation: Activation) -> Iterator[Step]:
    """Yield steps for uplinks: ifupdown2 removes no address there, to keep the operator's."""
    stale = activation.previous_numbered.difference(activation.target.numbered)
    links, present = (netlink.links(), netlink.addresses()) if stale else ({}, {})
    for nic, address in sorted(stale):
        if nic in links and address in present.get(links[nic].index, set()):
            argv = ("ip", "address", "delete", address, "dev", nic)
            reason = f"the session on {nic} no longer has this address"
            yield Step(argv, reason, may_fail=True)
