"""The part of a plan that an apply has to handle: a new V-Net must not cost as much as all 500.

After an apply that ended well, files and devices are as its record says. So the native tools need
to handle only devices that change. They read the files of a host that has no other devices, and the
operator's own files. `apply --full` always handles everything.
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
    """The names of the devices to handle, and the files that the native tools read for them."""

    names: frozenset[str]
    files: dict[str, str]


def partial_of(
    root: Path, previous: Record | None, plan: Plan, changes: list[Change]
) -> Partial | None:
    """Return the part of a plan that the native tools have to handle; None for all of it."""
    if not previous or not previous.ok:
        return None
    if (previous.version, previous.target.backend) != (__version__, plan.backend):
        return None
    before = {device.name: device for device in previous.target.devices}
    known = before.keys() | {device.name for device in plan.devices}
    backend = backends.named(plan.backend)
    handled = backend.unchanged_devices(root, plan, changes, known)
    if handled is None:
        return None
    handled |= {d.name for d in plan.devices if before.get(d.name) != d}
    host = _only(plan.host, handled)
    names = frozenset(device.name for device in model.devices(host))
    rendered = render.render(host, plan.backend)
    texts = {backend.file: rendered[backend.file], frr.CONF: plan.files[frr.CONF]}
    return Partial(names, texts)


def _only(host: Host, names: Names[str]) -> Host:
    """Return the host with only these bridges and their VRFs."""
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
