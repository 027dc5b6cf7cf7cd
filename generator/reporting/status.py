"""What should be, what is, and what differs: read from the record, the kernel and FRR."""

import contextlib
import datetime
from pathlib import Path

import msgspec

from generator.activation import staging
from generator.activation.converge import frr_differences
from generator.desired import model, plan
from generator.failover import hook
from generator.observed import frr, kernel, netlink
from generator.state import record


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
    """Compare this host with its record."""
    last = record.read(root)
    if last is None:
        return Status(None, None, None, None, False, "nothing was applied yet", {}, [], None, [])
    differences = [] if last.ok else [f"last apply: {last.detail}"]
    for path, known in last.target.files.items():
        text = staging.read(root, path)
        if text is None:
            differences.append(f"/{path}: is gone")
        elif plan.digest(plan.body(text)) != known:
            differences.append(f"/{path}: was changed by someone else")
    sessions: list[frr.Session] = []
    if root == Path("/"):
        differences += map(
            str, kernel.differences(last.target.devices, last.target.moving_addresses)
        )
        differences += frr_differences(last.target, root)
        with contextlib.suppress(frr.Silent):  # of which frr_differences tells
            sessions = list(frr.sessions(root).values())
    kinds = [device.kind for device in last.target.devices]
    return Status(
        host=last.target.host,
        generation=last.target.generation,
        backend=last.target.backend,
        applied=last.time,
        ok=last.ok,
        detail=last.detail,
        devices={kind: kinds.count(kind) for kind in ("bridge", "vxlan", "vrf")},
        sessions=sessions,
        management=_management(last.target.management) if root == Path("/") else None,
        differences=differences,
    )


def _management(place: model.Management | None) -> Management | None:
    if place is None:
        return None
    found = netlink.addresses()
    names = (place.ifname, place.bridge)
    on = [link.name for link in netlink.links().values() if place.ipv4 in found.get(link.index, ())]
    found_by_hook = hook.read(Path("/"))
    if found_by_hook is None or found_by_hook.place is None:
        return Management(place.ipv4, sorted(on), *names)
    since = datetime.datetime.fromtimestamp(found_by_hook.since, datetime.UTC)
    return Management(
        place.ipv4,
        sorted(on),
        *names,
        since=since.isoformat(timespec="milliseconds"),
        reason=found_by_hook.reason,
        moves=found_by_hook.moves,
        repairs=found_by_hook.repairs,
    )


def text(found: Status) -> str:
    """The same for a person."""
    if found.host is None:
        return found.detail
    lines = [
        f"{found.host}: generation {found.generation}, {found.backend}, applied {found.applied}",
        "devices: " + ", ".join(f"{count} {kind}" for kind, count in found.devices.items()),
    ]
    lines += [f"session {s.neighbor}: IPv4 {s.ipv4}, EVPN {s.evpn}" for s in found.sessions]
    if found.management:
        place = found.management
        on = ", ".join(place.on) or "no device"
        why = f" since {place.since}: {place.reason}" if place.since else ""
        lines.append(f"management address {place.address}: on {on}{why}")
    lines += [f"differs: {text}" for text in found.differences] or ["nothing differs"]
    return "\n".join(lines)
