"""Compares a host with its record: what should be, what is, and what differs."""

import contextlib
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from generator.activation import backends
from generator.desired import model, plan
from generator.desired.target import Target
from generator.errors import Refused
from generator.observed import (
    boot,
    companions,
    comparison,
    evpn,
    following,
    frr,
    health,
    management,
    netlink,
    others,
    preflight,
    settings,
)
from generator.observed import filter as packet_filter
from generator.observed.health import Health
from generator.secrets import mask
from generator.state import changes, held, placement, record, unconfirmed
from generator.state.held import Held
from generator.state.record import Record


class Management(msgspec.Struct, frozen=True):
    """Where the management address is."""

    address: str
    on: list[str]  # devices that have it: more than one, or none, is a fault
    nic: str
    bridge: str
    # From the hook; null if it has never run.
    since: str | None = None  # ISO 8601, UTC
    reason: str | None = None
    moves: int | None = None
    repairs: int | None = None  # how often somebody else had put the address elsewhere


class Status(msgspec.Struct, frozen=True):
    """All that `status --json` says."""

    health: str  # ok, waiting, degraded, down, unconfirmed, failed
    health_reason: str
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
    warnings: list[str] = []  # facts for the operator that are not differences
    left_alone: str = ""  # which payload is not applied, and why
    # Guests that move so often that FRR takes each for two with the same MAC or address.
    duplicates: list[evpn.Duplicate] = []


NOTHING_APPLIED = Status(
    health="ok",
    health_reason="",
    host=None,
    generation=None,
    backend=None,
    applied=None,
    ok=False,
    detail="nothing was applied yet",
    devices={},
    sessions=[],
    management=None,
    differences=[],
)


def status(root: Path, switches: Mapping[str, str] | None = None) -> Status:
    """Compare a host with its record. Only for `/` the running system is compared too.

    `switches` are the names that LLDP has heard, by NIC. The name in a session wins.
    """
    applied = record.read(root)
    if applied is None:
        return NOTHING_APPLIED
    differences = [] if applied.ok else [f"last apply: {applied.detail}"]
    differences += _changed_files(root, applied.target)
    sessions: list[frr.Session] = []
    duplicates: list[evpn.Duplicate] = []
    names = dict(switches or {})
    if root == Path("/"):
        target = applied.target
        differences += comparison.differences(target, root)
        with contextlib.suppress(frr.Silent):  # that is one of the differences
            sessions = list(frr.sessions(root).values())
            names |= frr.hostnames(root)
            duplicates = evpn.duplicates(root)
    waiting = held.read(root)
    word, reason = _health(root, applied, sessions, waiting, duplicates)
    kinds = [device.kind for device in applied.target.devices]
    return Status(
        health=word,
        health_reason=reason,
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
        warnings=list(_warnings(root, applied.target, names)),
        left_alone=mask(str(waiting)) if waiting else "",
        duplicates=duplicates,
    )


def _changed_files(root: Path, target: Target) -> Iterator[str]:
    for path, known in target.files.items():
        text = changes.read(root, path)
        if text is None:
            yield f"/{path}: is gone"
        elif plan.digest(plan.body(text)) != known:
            yield f"/{path}: was changed by someone else"


def _warnings(root: Path, target: Target, leaves: Mapping[str, str]) -> Iterator[str]:
    for neighbor, name in preflight.wrong_leaves(target.leaves, leaves):
        yield f"{neighbor} is connected to {name}, the payload says {target.leaves[neighbor]}"
    if warning := packet_filter.warning(root):
        yield warning
    if root == Path("/"):
        yield from boot.stopped(target, root)
        yield from _staying(target)
        yield from map(str, settings.later(root))
        # Files of the operator that may have caused the differences.
        patterns = backends.named(target.backend).nic_files
        yield from others.setters(root, patterns, comparison.device_differences(target))


def _staying(target: Target) -> Iterator[str]:
    """Yield routes and addresses that do not, or could not, move with the management address."""
    if (planned := target.management) is None:
        return
    observed = management.observe({planned.ifname, planned.bridge})
    placed = placement.read(Path("/")) or placement.Placement()
    known = placed.original.companions
    observed = companions.observe(Path("/"), planned, observed, known)
    yield from map(str, following.staying(planned, observed))
    for route in placed.stuck:
        yield f"the kernel did not take this route with the management address: {route}"
    if placed.names_problem:
        yield f"the DNS servers are not where the management address is: {placed.names_problem}"


def _health(
    root: Path,
    applied: Record,
    sessions: list[frr.Session],
    waiting: Held | None,
    duplicates: list[evpn.Duplicate],
) -> Health:
    if waiting and waiting.failures:
        failure = waiting.reason
    else:
        failure = "" if applied.ok else applied.detail
    known = {session.neighbor: session for session in sessions}
    try:
        unconfirmed_text = str(unconfirmed.read(root) or "")
    except Refused as damaged:
        unconfirmed_text = str(damaged)
    return health.health(
        applied.target.sessions,
        known,
        applied.time,
        failed=failure,
        unconfirmed=unconfirmed_text,
        frozen=_frozen([each for each in duplicates if each.frozen]),
    )


def _frozen(guests: list[evpn.Duplicate]) -> str:
    if not guests:
        return ""
    more = f" and {len(guests) - 1} more" if guests[1:] else ""
    return f"FRR has frozen the guest {guests[0].mac} in VNI {guests[0].vni}{more}"


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
