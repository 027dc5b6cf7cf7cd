"""Compares a host before and after, by its payloads or by its rendered files: pure."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff

import msgspec

from generator.desired import plan, written
from generator.desired.change import ADDED, CHANGED, REMOVED, Change, arrow
from generator.desired.model import Bridge, Host, devices
from generator.desired.segments import segments
from generator.desired.summary import changes
from generator.desired.target import Target
from generator.desired.written import Written
from generator.errors import printable
from generator.secrets import mask_frr

_LONGEST_DIFF = 4000  # characters of a file's diff that are kept
HOST = "host"  # the subject of a change that is a whole host
Files = Mapping[str, str]


def host_changes(old: Host | None, new: Host | None) -> list[Change]:
    """Return what differs between two hosts of payloads. None: there is no such host."""
    if old == new:
        return []
    if old is None or new is None:
        return [_host(new or old, ADDED if new else REMOVED)]
    listed = changes(target_of(old), target_of(new))
    listed += _unrecorded(old, new)
    return listed or [Change(CHANGED, "other settings of the host")]


def target_of(host: Host) -> Target:
    """Return the target of a host, without its files."""
    return plan.target(plan.Plan(host, 0, "", {}, list(devices(host))))


def _unrecorded(old: Host, new: Host) -> Iterator[Change]:
    """Yield the changes of settings that are not part of a target, and so are not recorded."""
    if old.bgp.password != new.bgp.password:
        risk = ("sessions stay down until the leaves have the same",)
        yield Change(CHANGED, "BGP", "another password", risk)
    before, after = ({b.port.vni: b for b in host.bridges} for host in (old, new))
    for vni in sorted(before.keys() & after.keys()):
        if _advertises_otherwise(before[vni], after[vni]):
            name = after[vni].label
            yield Change(CHANGED, f"V-Net {name}", "what router advertisements say")


def _advertises_otherwise(was: Bridge, becomes: Bridge) -> bool:
    both = was.advertisements and becomes.advertisements
    return bool(both) and was.advertisements != becomes.advertisements


def _host(host: Host | None, sign: str) -> Change:
    if host is None:
        return Change(sign, HOST)
    target = target_of(host)
    counts = (len(target.sessions), "uplink"), (len(segments(target)), "V-Net")
    return Change(sign, HOST, ", ".join(f"{n} {what}{'s' * (n != 1)}" for n, what in counts))


def file_changes(old: Files | None, new: Files | None, backends: Sequence[str]) -> list[Change]:
    """Return what differs between two hosts' rendered files. None: there is no such host.

    If one of them is not what our templates write, the changes are the files that differ.
    """
    if old == new:
        return []
    before, after = (written.read(each, backends) if each else None for each in (old, new))
    if old is None or new is None:
        known = before or after
        return [_host(known.host if known else None, ADDED if old is None else REMOVED)]
    if before and after:
        return _of_written(before, after)
    return [
        _file(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def _of_written(old: Written, new: Written) -> list[Change]:
    if old.backend == new.backend:
        return host_changes(old.host, new.host)
    listed = host_changes(*(_without_nic(each.host) for each in (old, new)))
    return [*listed, Change(CHANGED, "backend", arrow(old.backend, new.backend))]


def _without_nic(host: Host) -> Host:
    """Return a host without its management NIC: not every backend's files name it."""
    if host.management is None:
        return host
    management = msgspec.structs.replace(host.management, ifname="")
    return msgspec.structs.replace(host, management=management)


def _file(path: str, was: str | None, becomes: str | None) -> Change:
    sign = ADDED if was is None else REMOVED if becomes is None else CHANGED
    before, after = (mask_frr(text or "").splitlines() for text in (was, becomes))
    lines = [
        # No line numbers: they differ between hosts that get the same change.
        "@@" if line.startswith("@@") else printable(line, 200)
        for number, line in enumerate(unified_diff(before, after, lineterm="", n=0))
        if number > 1
    ]
    text = "\n".join(lines)
    if len(text) > _LONGEST_DIFF:
        rest = hashlib.sha256(text.encode()).hexdigest()[:12]
        text = f"{text[:_LONGEST_DIFF]}\n… (all of it: SHA-256 {rest}…)"
    return Change(sign, f"file /{printable(path, 200)}", diff=text)
