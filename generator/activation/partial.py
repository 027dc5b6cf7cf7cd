"""What of a plan an apply has to touch: adding one V-Net to 500 must not cost as much as all 500.

After an apply that ended well, files and devices are as its record says. So only devices that are
to be other than that need the native tools: these are given a rendering of a host that has nothing
else, and the operator's own files. `apply --full` does without any of this.
"""

from collections.abc import Set as Names
from pathlib import Path

import msgspec

from generator import __version__
from generator.activation.staging import Change
from generator.desired import model, render
from generator.desired.model import Host
from generator.desired.plan import Plan, body
from generator.state.record import Record

INTERFACES = "etc/network/interfaces.d/evpn-host"
_NETPLAN = "etc/netplan/60-evpn-host.yaml"
_NETWORKD = Path("run/systemd/network")


class Partial(msgspec.Struct, frozen=True):
    """Names of the devices to be touched, and the files that the native tools read for it."""

    names: frozenset[str]
    files: dict[str, str]


def partial_of(
    root: Path, previous: Record | None, plan: Plan, changes: list[Change]
) -> Partial | None:
    """Return the part of a plan to be touched; None where all of it has to be."""
    if not previous or not previous.ok:
        return None
    if (previous.version, previous.target.backend) != (__version__, plan.backend):
        return None
    before = {device.name: device for device in previous.target.devices}
    names = {d.name for d in plan.devices if before.get(d.name) != d}
    if plan.backend == "netplan":
        names |= _drop_ins(changes) | _missing(root, plan)
    elif not _same_besides(changes, before.keys() | {device.name for device in plan.devices}):
        return None
    host = _only(plan.host, names)
    files = render.render(host, plan.backend)
    wanted = {path: files[path] for path in (_NETPLAN, INTERFACES) if path in files}
    touched = frozenset(device.name for device in model.devices(host))
    return Partial(touched, wanted | {"etc/frr/frr.conf": plan.files["etc/frr/frr.conf"]})


def _only(host: Host, names: Names[str]) -> Host:
    """The same host with no other bridges than these, and with their VRFs."""
    bridges = tuple(
        bridge
        for bridge in host.bridges
        if {bridge.name, bridge.port.name, bridge.vrf} & set(names)
    )
    kept = {bridge.name for bridge in bridges}
    vrfs = tuple(
        msgspec.structs.replace(vrf, bridges=tuple(b for b in vrf.bridges if b in kept))
        for vrf in host.vrfs
        if kept & set(vrf.bridges)
    )
    return msgspec.structs.replace(host, bridges=bridges, vrfs=vrfs)


def _drop_ins(changes: list[Change]) -> set[str]:
    """Devices of which a drop-in for networkd changes."""
    folders = [Path(change.path).parent.name for change in changes]
    prefix = "10-netplan-"
    return {f.removeprefix(prefix).rsplit(".", 2)[0] for f in folders if f.startswith(prefix)}


def _missing(root: Path, plan: Plan) -> set[str]:
    """Devices of which networkd has no file, whoever removed it."""
    present = {file.name for file in (root / _NETWORKD).glob("10-netplan-*.network")}
    return {d.name for d in plan.devices if f"10-netplan-{d.name}.network" not in present}


def _same_besides(changes: list[Change], names: Names[str]) -> bool:
    """Whether nothing of ifupdown2's file changes but these devices: the loopback, or a NIC."""
    for change in changes:
        if change.path == INTERFACES:
            old, new = (_besides(text or "", names) for text in (change.old, change.new))
            return old == new
    return True


def _besides(text: str, names: Names[str]) -> list[str]:
    """The stanzas of other devices."""
    stanzas = body(text).split("\n\n")
    return [s for s in stanzas if not names & {_named(line) for line in s.splitlines()}]


def _named(line: str) -> str:
    return line.removeprefix("iface ").split(" ")[0] if line.startswith("iface ") else ""
