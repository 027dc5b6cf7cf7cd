"""`evpn-host status`: the comparison of a host with its record, as text for a person."""

from collections.abc import Iterator

from generator.observed import health
from generator.observed.evpn import Duplicate
from generator.reporting.status import Status


def text(status: Status) -> str:
    """Return a status as text for a person."""
    if status.host is None:
        return status.detail
    applied = f"generation {status.generation}, {status.backend}, applied {status.applied}"
    kinds = ", ".join(f"{count} {kind}" for kind, count in status.devices.items())
    word = f"health: {status.health}"
    lines = [
        f"{word}: {status.health_reason}" if status.health_reason else word,
        f"{status.host}: {applied}",
        f"devices: {kinds}",
    ]
    lines += [f"session {s.neighbor}: IPv4 {s.ipv4}, EVPN {s.evpn}" for s in status.sessions]
    if status.management:
        management = status.management
        on = ", ".join(management.on) or "no device"
        why = f" since {management.since}: {management.reason}" if management.since else ""
        lines.append(f"management address {management.address}: on {on}{why}")
    lines += [f"warning: {text}" for text in status.warnings]
    lines += _duplicates(status.duplicates)
    if status.left_alone:
        lines.append(status.left_alone)
    lines += [f"differs: {text}" for text in status.differences] or ["nothing differs"]
    return "\n".join(lines)


_SHOWN = 10  # guests may make up MACs as they like


def _duplicates(guests: list[Duplicate]) -> Iterator[str]:
    """Yield a line for each guest that moves too often."""
    for each in guests[:_SHOWN]:
        addresses = f" ({', '.join(each.addresses)})" if each.addresses else ""
        mark = "frozen" if each.frozen else "warning"
        clear = f"vtysh -c 'clear evpn dup-addr vni {each.vni} mac {each.mac}'"
        yield (
            f"{mark}: {each.mac}{addresses} in VNI {each.vni} has moved {each.moves} times in a"
            f" short time: do two guests have it? Afterwards: {clear}"
        )
    if len(guests) > _SHOWN:
        yield f"warning: {len(guests) - _SHOWN} more move too often: status --json names them"


def is_well(status: Status) -> bool:
    """Whether this host needs no person."""
    return status.health in health.GOOD and not status.differences
