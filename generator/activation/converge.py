"""From files to a running host: the native tools in the order that loses nothing, then a look.

Devices come up before FRR learns of them, a VRF is known to zebra before its VNI is (FRRouting/frr
#17430), and what is gone goes when nothing refers to it any more. FRR is started with its file the
first time and reloaded later: a restart drops every session.
"""

from collections.abc import Iterable
from collections.abc import Set as Names
from pathlib import Path

import msgspec

from generator.activation import before, commands, staging
from generator.activation.commands import Log, Step
from generator.desired.model import Device
from generator.desired.target import Target, Vni, loopbacks
from generator.errors import ActivationFailed
from generator.observed import frr, kernel, netlink
from generator.observed.kernel import Lost
from generator.state.record import Record

HOOK = "evpn-host-failover.service"
_FRR_CONF = "etc/frr/frr.conf"
_FRR_DAEMONS = "etc/frr/daemons"
_NETWORKD_CONF = "etc/systemd/networkd.conf.d/90-evpn-host.conf"
_SYSCTL = "etc/sysctl.d/90-evpn-host.conf"
LET_GO = 3.0  # seconds that the hook has to take the management address off a bridge that goes


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """The way from what may be on a host to its target."""

    root: Path
    tree: Path  # the staged files, with what netplan made of them
    target: Target
    removed: list[Device]  # that may be there and that the target does not have
    changed_files: set[str]
    whole: bool = False  # take the native tools' own whole way
    first: bool = False  # nothing of ours was ever active here
    previous: Record | None = None  # names what may still be there
    partial: frozenset[str] | None = None  # devices to be touched; None: all of them

    @property
    def size(self) -> int:
        """How many devices the tools have to deal with."""
        return len(self.target.devices) + len(self.removed)

    @property
    def previous_loopbacks(self) -> frozenset[str]:
        """The VTEP's addresses of before."""
        return loopbacks(self.previous.possible_devices if self.previous else [])

    @property
    def previous_sessions(self) -> frozenset[str]:
        """Neighbors on which sessions were attempted before."""
        return frozenset(self.previous.target.sessions if self.previous else ())

    @property
    def previous_numbered(self) -> frozenset[tuple[str, str]]:
        """NICs with addresses that were ours before."""
        return frozenset(self.previous.possible_numbered if self.previous else ())


def converge(activation: Activation, log: Log, say: Log) -> list[str]:
    """Activate and verify; what FRR had lost and was mended. Raises `ActivationFailed`."""
    if activation.whole or "etc/modules-load.d/evpn-host.conf" in activation.changed_files:
        commands.run(commands.modules(), log)
    _BACKENDS[activation.target.backend](activation, log)
    if activation.whole or _SYSCTL in activation.changed_files:
        commands.run(commands.sysctl(activation.root), log)
    _order_rules(activation, log)
    _remove_loopbacks(activation, log)
    _remove_stand_ins(activation, log)
    _remove_numbered(activation, log)
    _wait_for_devices(activation, log, say)
    try:
        _activate_frr(activation, log, say)
    except frr.Silent as silent:
        raise ActivationFailed(str(silent)) from None
    mended = _settle_frr(activation, log, say)
    _start_hook(activation, log, say)
    return mended


def _netplan(activation: Activation, log: Log) -> None:
    recreated = kernel.unchangeable(activation.target.devices)
    if _NETWORKD_CONF in activation.changed_files:
        reason = "networkd must leave FRR's routes alone, and reads that only at its start"
        commands.run(commands.restart_networkd(reason, activation.size), log)
    if activation.whole:
        _delete(recreated, log)
        _clear(activation.removed, log)
        commands.run(commands.netplan_apply(activation.size), log)
        return
    _delete(recreated, log)
    stale = {difference.device for difference in _differences(activation)}
    left_out: set[str] = set()
    if activation.partial is not None:
        left_out = {device.name for device in activation.target.devices} - activation.partial
    changed = staging.sync_networkd(activation.tree, activation.root, stale, left_out)
    drop_ins = any(path.startswith("etc/systemd/network/") for path in activation.changed_files)
    if changed or drop_ins:
        commands.run(commands.networkd_reload(activation.size), log)
    _delete_gone(activation, log)


def _ifupdown(activation: Activation, log: Log) -> None:
    # ifupdown2 fails to name a VRF's table without this folder.
    (activation.root / before.VRF_TABLES).mkdir(parents=True, exist_ok=True)
    recreated = kernel.unchangeable(activation.target.devices)
    _delete(recreated, log)
    if activation.whole or _SYSCTL in activation.changed_files:
        # Some must be there before the devices are.
        commands.run(commands.sysctl(activation.root), log)
    # Where the rule for VRFs is gone (after uninstall), ifupdown2 adds two of its own for each VRF,
    # and never takes them away.
    _order_rules(activation, log)
    if activation.whole or activation.partial is None:
        if going := _carriers(activation):
            # ifreload begins with what goes, the bridge with the management address on it too: its
            # successor comes first.
            leaves = f"the management address is to leave {', '.join(going)}"
            commands.run(commands.ifup(_successors(activation), leaves), log)
            _wait_for_hook(activation)
        commands.run(commands.ifreload(activation.size), log)
    else:
        names = activation.partial | {difference.device for difference in _differences(activation)}
        if some := _lower_first(activation.target.devices, names):
            commands.run(commands.ifup(some), log)
    _delete_gone(activation, log)


def _order_rules(activation: Activation, log: Log) -> None:
    if _vrfs(activation.target) and any(kernel.rule_order()):
        commands.run_all(commands.rule_order(), log)


def _lower_first(devices: list[Device], names: Names[str]) -> list[str]:
    """Names of devices with those of their bridges, each after what it needs."""
    order = {"vrf": 0, "vxlan": 1, "bridge": 2}
    names = names | {d.master or "" for d in devices if d.kind == "vxlan" and d.name in names}
    some = [(order[device.kind], device.name) for device in devices if device.name in names]
    return [name for _, name in sorted(some)]


_BACKENDS = {"netplan": _netplan, "ifupdown": _ifupdown}
_WHOLE = {"netplan": commands.netplan_apply, "ifupdown": commands.ifreload}


def _present(devices: Iterable[Device]) -> list[str]:
    """Of devices of ours those that are still there, ports before their bridges and VRFs."""
    links = netlink.links()
    order = {"vxlan": 0, "bridge": 1, "vrf": 2}
    there = [d for d in devices if d.name in links and links[d.name].kind == d.kind]
    return [device.name for device in sorted(there, key=lambda d: (order[d.kind], d.name))]


def _delete(names: list[str], log: Log) -> None:
    if names:
        commands.run(commands.delete_devices(names), log)


def _delete_gone(activation: Activation, log: Log) -> None:
    _wait_for_hook(activation)
    _clear(activation.removed, log)


def _clear(devices: list[Device], log: Log) -> None:
    """Delete devices; the routes of a VRF before it, of which zebra may crash otherwise (10.3)."""
    vrfs = [device for device in devices if device.kind == "vrf"]
    _delete(_present(device for device in devices if device.kind != "vrf"), log)
    _flush(vrfs, log)
    _delete(_present(vrfs), log)


def _wait_for_hook(activation: Activation) -> None:
    """A bridge that goes carries the management address until the hook has another one for it."""
    if _carriers(activation):
        commands.until(lambda: _carriers(activation), LET_GO)


def _carriers(activation: Activation) -> list[str]:
    """Devices that go and have a management address."""
    going, moving = (
        [device.name for device in activation.removed],
        set(activation.target.moving_addresses),
    )
    if not going or not moving:
        return []
    links, addresses = netlink.links(), netlink.addresses()
    return [n for n in going if n in links and moving & addresses.get(links[n].index, set())]


def _successors(activation: Activation) -> list[str]:
    """The bridge that the management address is to move to, after its ports."""
    bridge = activation.target.management.bridge if activation.target.management else ""
    found = [d for d in activation.target.devices if bridge in {d.name, d.master}]
    return [device.name for device in sorted(found, key=lambda d: d.name == bridge)]


def _flush(devices: list[Device], log: Log) -> None:
    if tables := sorted(device.table for device in devices if device.table is not None):
        commands.run_all(commands.flush_tables(tables), log)


def _remove_loopbacks(activation: Activation, log: Log) -> None:
    """Neither backend takes an address off `lo` that its files no longer have."""
    stale = activation.previous_loopbacks - loopbacks(activation.target.devices)
    there = netlink.addresses().get(1, set()) if stale else set()
    for address in sorted(stale):
        if f"{address}/32" in there:
            commands.run(commands.delete_loopback(address), log)


def _remove_stand_ins(activation: Activation, log: Log) -> None:
    """FRR's start script sees to the uplinks that there are; a NIC that was one is nobody's."""
    if activation.target.uplinks is not None:
        ours = activation.previous_loopbacks | loopbacks(activation.target.devices)
        commands.run_all(_stand_ins(ours, set(activation.target.uplinks)), log)


def _stand_ins(ours: frozenset[str], uplinks: set[str]) -> list[Step]:
    """Steps that take the VTEP's address off NICs that are not uplinks."""
    names = {link.index: link.name for link in netlink.links().values()}
    return [
        commands.delete_stand_in(address, names[index])
        for index, address, peer in netlink.peers()
        if peer == kernel.STAND_IN and address in ours and names.get(index, "lo") not in uplinks
    ]


def _remove_numbered(activation: Activation, log: Log) -> None:
    """ifupdown2 takes no address off an uplink: it is told to leave the operator's alone."""
    stale = activation.previous_numbered.difference(activation.target.numbered)
    links, there = (netlink.links(), netlink.addresses()) if stale else ({}, {})
    for nic, address in sorted(stale):
        if nic in links and address in there.get(links[nic].index, set()):
            commands.run(commands.delete_numbered(address, nic), log)


def _differences(activation: Activation) -> list[kernel.Difference]:
    return kernel.differences(activation.target.devices, activation.target.moving_addresses)


def _wait_for_devices(activation: Activation, log: Log, say: Log) -> None:
    """networkd works on after its tools have returned."""
    left = _taken_up(activation, log)
    if left and not activation.whole:
        whole = _WHOLE[activation.target.backend](activation.size)
        say(f"not all of it was taken up: trying {' '.join(whole.argv)}")
        commands.run(whole, log)
        left = _taken_up(activation, log)
    if left:
        raise ActivationFailed("the devices are not as planned:", *(f"  {text}" for text in left))


def _taken_up(activation: Activation, log: Log) -> list[kernel.Difference]:
    """Wait for as long as it goes on, and where it stops help networkd on; what is left."""
    if activation.target.backend != "netplan":
        return commands.until(lambda: _differences(activation), _patience(activation))
    left: list[kernel.Difference] = []
    for help_on in (_announce_masters, _restart_networkd):
        help_on(activation, log)
        left = commands.until(lambda: _differences(activation), _patience(activation) / 2)
        if not left:
            break
    return left


def _patience(activation: Activation) -> float:
    """Seconds in which nothing has to change before it counts as all that there will be."""
    return 20 + activation.size / 20


def _announce_masters(activation: Activation, log: Log) -> None:
    """Let networkd hear of the bridges and VRFs that a device has yet to go into."""
    late = {difference.device for difference in _differences(activation)}
    links = netlink.links()
    masters = {d.master for d in activation.target.devices if d.name in late and d.master in links}
    folder = Path("/sys/class/net")
    if groups := {
        name: (folder / name / "netdev_group").read_text().strip()
        for name in sorted(name for name in masters if name)
    }:
        commands.run(commands.announce_again(groups), log)


def _restart_networkd(activation: Activation, log: Log) -> None:
    """Have networkd look at all that there is.

    A device of which it does not hear within 25 s that it was made, on a busy host, counts as
    failed for as long as it runs, and what goes into that device waits for ever (252, 257).
    """
    reason = "networkd gave up devices that are there"
    commands.run(commands.restart_networkd(reason, activation.size), log)


def _activate_frr(activation: Activation, log: Log, say: Log) -> None:
    root = activation.root
    _wait_for_start(activation)  # of a host that has just booted
    if activation.first or not _answers(root) or _runs_as_another(activation.target, root):
        say("FRR is started with its new files")
        _start_frr(activation, log)
        return
    if not {_FRR_CONF, _FRR_DAEMONS} & activation.changed_files:
        return

    def unknown() -> list[str]:
        known = frr.ask("zebra", "show vrf", root)
        return [name for name in _vrfs(activation.target) if f"vrf {name} id" not in known]

    if left := commands.until(unknown, 15):
        raise ActivationFailed(f"FRR does not see the VRFs {', '.join(left)}")
    if ended := sorted(activation.previous_sessions - set(activation.target.sessions)):
        commands.run(commands.forget_neighbors(activation.target.asn, ended), log)
    _reload_frr(activation, log)
    if gone := [device.name for device in activation.removed if device.kind == "vrf"]:
        commands.run(commands.forget_vrfs(gone), log)


def _start_frr(activation: Activation, log: Log) -> None:
    commands.run_all(commands.frr_start(), log)
    _enable("frr.service", "FRR at every boot", log)
    _wait_for_start(activation)


def _wait_for_start(activation: Activation) -> None:
    """What FRR has not read yet is not missing, and reading its file may take it long."""

    def starting() -> list[str]:
        said = commands.run(commands.frr_processes(), commands.silent)
        return [line for line in said.splitlines() if "/watchfrr.sh " in line]

    commands.until(starting, 120 + activation.size / 2)


def _reload_frr(activation: Activation, log: Log) -> None:
    """Have FRR take up its file, and before that what its reload gets wrong. Raises `Silent`."""
    sessions, vnis = _lacking(activation.target, activation.root)
    if lines := _stanzas(activation.root, {f"interface {name}" for name in sessions}):
        commands.run(commands.advertise(lines), log)
    if lines := _stanzas(activation.root, {f"vrf {vni.vrf}" for vni in vnis if vni.type == "L3"}):
        commands.run(commands.map_vnis(lines), log)
    service = activation.whole or _FRR_DAEMONS in activation.changed_files
    commands.run(commands.frr_reload(activation.size, service=service), log)


def _stanzas(root: Path, heads: Names[str]) -> list[str]:
    """What FRR's file has of the stanzas that begin with one of these lines, line by line."""
    lines: list[str] = []
    ours = False
    for line in (root / _FRR_CONF).read_text().splitlines():
        ours |= line in heads
        if ours:
            lines.append(line)
        if line.startswith("exit"):
            ours = False
    return lines


def _runs_as_another(target: Target, root: Path) -> bool:
    """Whether bgpd has another AS number: a reload can't take away a BGP instance that has VNIs."""
    return frr.show("bgpd", "show bgp vrf default json", root).get("localAS") not in (
        None,
        target.asn,
    )


def _vrfs(target: Target) -> list[str]:
    return [device.name for device in target.devices if device.kind == "vrf"]


def _answers(root: Path) -> bool:
    try:
        for daemon in ("zebra", "bgpd", "bfdd"):
            frr.ask(daemon, "show version", root)
    except frr.Silent:
        return False
    return True


def frr_differences(target: Target, root: Path) -> list[str]:
    """What FRR should know and does not, and what the kernel has lost of it."""
    try:
        wrong, lost, unheard = _compare_frr(target, root)
    except frr.Silent as silent:
        return [str(silent)]
    return wrong + [f"FRR: {each.text}" for each in lost + unheard]


def _lacking(target: Target, root: Path) -> tuple[list[str], dict[Vni, str]]:
    """Sessions that FRR does not have; VNIs not as planned, and what they are. Raises `Silent`."""
    have = frr.sessions(root)
    known = frr.show("zebra", "show evpn vni json", root)
    vnis = {}
    for vni in target.vnis:
        shown = known.get(str(vni.vni))
        if shown is None:
            vnis[vni] = "not known"
        elif (shown.get("type"), shown.get("tenantVrf")) != (vni.type, vni.vrf):
            is_ = f"{shown.get('type')} in {shown.get('tenantVrf')}"
            vnis[vni] = f"{is_}, not {vni.type} in {vni.vrf}"
    return [name for name in target.sessions if name not in have], vnis


def _compare_frr(target: Target, root: Path) -> tuple[list[str], list[Lost], list[Lost]]:
    """What is not as planned; what the kernel lost and what FRR did not hear. Raises `Silent`."""
    sessions, vnis = _lacking(target, root)
    wrong = [f"FRR: no session {name}" for name in sessions]
    wrong += [f"FRR: VNI {vni.vni} is {how}" for vni, how in vnis.items()]
    return wrong, kernel.lost(root), kernel.unheard(target.devices, root)


def _settle_frr(activation: Activation, log: Log, say: Log) -> list[str]:
    """Wait until FRR is as planned; what was put back meanwhile. Raises `ActivationFailed`."""
    mended: list[str] = []
    missed: list[Lost] = []

    def left() -> list[str]:
        nonlocal missed
        try:
            wrong, lost, unheard = _compare_frr(activation.target, activation.root)
            # Unheard twice: it may be about to hear of an address that is new.
            lost += [each for each in unheard if each in missed]
            _put_back(lost, activation.root, log)
        except frr.Silent as silent:
            return [str(silent)]
        missed = unheard
        mended.extend(each.text for each in lost)
        return wrong + [f"FRR: {each.text}" for each in dict.fromkeys(lost + unheard)]

    wrong = commands.until(left, _patience(activation) / 2)
    if wrong:
        say("FRR is not as planned: it is given its file again")
        try:
            _reload_frr(activation, log)
        except frr.Silent:
            _start_frr(activation, log)
        wrong = commands.until(left, _patience(activation))
    if wrong:
        raise ActivationFailed("FRR is not as planned:", *(f"  {text}" for text in wrong))
    return list(dict.fromkeys(mended))


def _put_back(lost: list[Lost], root: Path, log: Log) -> None:
    """Next hops' neighbours, then routes; addresses are said again. Raises `Silent`."""
    if lines := [each.line for each in lost if each.line]:
        commands.run(commands.put_back(lines), log)
    if entries := [entry for each in lost for entry in each.entries]:
        commands.run(commands.put_back(entries, "bridge"), log)
    if not lines:
        return
    # What FRR withdrew in between it will not remove again.
    left = kernel.installed(root)
    if undo := [each.undo for each in lost if each.undo and each.prefix not in left]:
        commands.run(commands.put_back(undo), log)


def _start_hook(activation: Activation, log: Log, say: Log) -> None:
    if not activation.target.management:
        return
    folders = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
    if any((activation.root / folder / HOOK).exists() for folder in folders):
        _enable(HOOK, "the management address follows the fabric", log)
    else:
        say(f"warning: {HOOK} is not installed: the management address stays on the NIC")


def _enable(unit: str, reason: str, log: Log) -> None:
    """Have a unit run, now and after every boot, where it does not already."""
    state = commands.run(commands.unit_state(unit), log).split()
    if not {"UnitFileState=enabled", "ActiveState=active"} <= set(state):
        commands.run(commands.enable(unit, reason), log)


def withdraw(applied: Record, log: Log) -> None:
    """Take away what an apply brought about, once its files are gone or the operator's are back."""
    devices = applied.possible_devices
    _clear(devices, log)
    commands.run_all(map(commands.delete_loopback, sorted(loopbacks(devices))), log)
    commands.run_all(_stand_ins(loopbacks(devices), set()), log)
    commands.run(_WHOLE[applied.target.backend](len(devices)), log)
    reason = "FRR with the files of before"
    commands.run(Step(("systemctl", "restart", "frr.service"), reason, may_fail=True), log)
    # VRFs of someone else need table local where it is.
    if not any(link.kind == "vrf" for link in netlink.links().values()):
        commands.run_all(commands.restore_rules(), log)
