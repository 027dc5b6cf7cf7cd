"""Compares a host with its record: what should be, what is, and what differs."""

import contextlib
import datetime
from pathlib import Path

import msgspec

from generator.desired import model, plan
from generator.observed import comparison, devices, frr, netlink
from generator.secrets import mask
from generator.state import changes, placement, record


class Management(msgspec.Struct, frozen=True):
    """Where the management address is."""

    address: str
    on: list[str]  # devices that have it: more than one, or none, is a fault
    nic: str
    bridge: str
    # What the hook says; null as long as it never ran.
    since: str | None = None  # ISO 8601, UTC
    reason: str | None = None
    moves: int | None = None
    repairs: int | None = None  # how often somebody else had put the address elsewhere


class Status(msgspec.Struct, frozen=True):
    """All that `status --json` says."""

    host: str | None
    generation: int | None
    backend: str | None
    applied: str | None  # ISO 8601, UTC
    ok: bool
    detail: str
    devices: dict[str, int]  # how many of each kind should be there
    sessions: list[frr.Session]
    management: Management | None
    differences: list[str]


def status(root: Path) -> Status:
    """Compare a host with its record. Only for `/` the running system is looked at."""
    applied = record.read(root)
    if applied is None:
        return Status(None, None, None, None, False, "nothing was applied yet", {}, [], None, [])
    differences = [] if applied.ok else [f"last apply: {applied.detail}"]
    for path, known in applied.target.files.items():
        text = changes.read(root, path)
        if text is None:
            differences.append(f"/{path}: is gone")
        elif plan.digest(plan.body(text)) != known:
            differences.append(f"/{path}: was changed by someone else")
    sessions: list[frr.Session] = []
    if root == Path("/"):
        target = applied.target
        kernel = devices.differences(target.devices, target.moving_addresses)
        differences += map(str, kernel)
        differences += comparison.frr_differences(target, root)
        with contextlib.suppress(frr.Silent):  # frr_differences says so
            sessions = list(frr.sessions(root).values())
    kinds = [device.kind for device in applied.target.devices]
    return Status(
        host=applied.target.host,
        generation=applied.target.generation,
        backend=applied.target.backend,
        applied=applied.time,
        ok=applied.ok,
        detail=mask(applied.detail),
        devices={kind: kinds.count(kind) for kind in ("bridge", "vxlan", "vrf")},
        sessions=sessions,
        management=_management(applied.target.management) if root == Path("/") else None,
        differences=list(map(mask, differences)),
    )


def _management(planned: model.Management | None) -> Management | None:
    if planned is None:
        return None
    addresses = netlink.addresses()
    names = (planned.ifname, planned.bridge)
    on = [
        link.name
        for link in netlink.links().values()
        if planned.ipv4 in addresses.get(link.index, ())
    ]
    placed = placement.read(Path("/"))
    if placed is None or placed.place is None:
        return Management(planned.ipv4, sorted(on), *names)
    since = datetime.datetime.fromtimestamp(placed.since, datetime.UTC)
    return Management(
        planned.ipv4,
        sorted(on),
        *names,
        since=since.isoformat(timespec="milliseconds"),
        reason=placed.reason,
        moves=placed.moves,
        repairs=placed.repairs,
    )
