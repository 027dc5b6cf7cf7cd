"""The part of a plan that an apply has to touch: one V-Net more must not cost as much as all 500.

After an apply that ended well, files and devices are as its record says. So only devices that are
to be different need the native tools. These read a rendering of a host that has no other devices,
and the operator's own files. `apply --full` does without any of this.
"""

from collections.abc import Set as Names
from pathlib import Path

import msgspec

from generator import __version__
from generator.activation import backends, frr
from generator.desired import model, render
from generator.desired.model import Host
from generator.desired.plan import Plan
from generator.state.changes import Change
from generator.state.record import Record


class Partial(msgspec.Struct, frozen=True):
    """Names of the devices to be touched, and the files that the native tools read for it."""

    names: frozenset[str]
    files: dict[str, str]


def partial_of(
    root: Path, previous: Record | None, plan: Plan, changes: list[Change]
) -> Partial | None:
    """Return the part of a plan to be touched; None if all of it has to be."""
    if not previous or not previous.ok:
        return None
    if (previous.version, previous.target.backend) != (__version__, plan.backend):
        return None
    before = {device.name: device for device in previous.target.devices}
    known = before.keys() | {device.name for device in plan.devices}
    backend = backends.named(plan.backend)
    touched = backend.touched(root, plan, changes, known)
    if touched is None:
        return None
    touched |= {d.name for d in plan.devices if before.get(d.name) != d}
    host = _only(plan.host, touched)
    names = frozenset(device.name for device in model.devices(host))
    rendered = render.render(host, plan.backend)
    texts = {backend.file: rendered[backend.file], frr.CONF: plan.files[frr.CONF]}
    return Partial(names, texts)


def _only(host: Host, names: Names[str]) -> Host:
    """Return the same host with no bridges but these, and with their VRFs."""
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
