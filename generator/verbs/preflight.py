"""`evpn-host preflight`: what would stop an apply on this machine, or surprise its operator."""

from pathlib import Path

from generator.activation import frr, staging
from generator.activation.commands import Log
from generator.desired import plan
from generator.desired.plan import Plan
from generator.desired.target import Target
from generator.errors import Problem, Refused
from generator.observed import machine, preflight
from generator.observed.preflight import Finding
from generator.state import changes as reading
from generator.state.record import Record
from generator.verbs.options import Options


def look(planned: Plan, previous: Record | None, root: Path) -> list[Finding]:
    """Return what this machine is not ready for, what stops an apply first."""
    first = previous is None and not _has_files_of_ours(root)
    findings = preflight.findings(
        planned.host,
        planned.devices,
        machine.read(),
        first=first,
        ours={device.name for device in previous.possible_devices} if previous else frozenset(),
    )
    return [*_foreign_bgp(root), *findings]


def matters(target: Target, previous: Record | None) -> bool:
    """Whether an apply changes what preflight looks at: links, the management, or all at first."""
    if previous is None or not previous.activated:
        return True
    old = previous.target
    return (old.uplinks, old.sessions, old.management) != (
        target.uplinks,
        target.sessions,
        target.management,
    )


def refuse_foreign_bgp(root: Path) -> None:
    """Raise `Refused` if frr.conf has a BGP instance that is not of evpn-host."""
    if stopping := _foreign_bgp(root):
        raise refusal(stopping)


def refusal(findings: list[Finding]) -> Refused:
    """Return the refusal of an apply that findings stop."""
    return Refused(*(Problem(f.what, "", f.why, f.remedy) for f in findings))


def heed(planned: Plan, previous: Record | None, options: Options, say: Log) -> None:
    """Say what preflight finds. Raises `Refused` for what would cut the host off.

    Without a guard a person has decided: a NIC may be one that is still to come.
    """
    findings = look(planned, previous, options.root)
    stopping = [each for each in findings if each.stops]
    if stopping and options.guard is not None:
        raise refusal(stopping)
    for finding in findings:
        say(f"warning: {finding}")


def _foreign_bgp(root: Path) -> list[Finding]:
    """Find BGP instances of the operator in frr.conf, which an apply would replace."""
    text = reading.read(root, frr.CONF) or ""
    if plan.ours(text):
        return []
    lines = [line.split() for line in text.splitlines()]
    instances = [" ".join(words) for words in lines if words[:2] == ["router", "bgp"]]
    if not instances:
        return []
    neighbors = {words[1] for words in lines if words[:1] == ["neighbor"] and len(words) > 1}
    return [
        Finding(
            what=f"/{frr.CONF} has {', '.join(instances)}",
            why=f"its sessions would end: {', '.join(sorted(neighbors)) or 'none'}",
            remedy="--replace-frr replaces it and keeps a copy; lines to keep go to frr.conf.local",
            stops=True,
        )
    ]


def _has_files_of_ours(root: Path) -> bool:
    return any(plan.ours(reading.read(root, path) or "") for path in staging.present(root))


def text(findings: list[Finding]) -> str:
    """Return findings as a person reads them."""
    if not findings:
        return "nothing stands in the way of an apply"
    return "\n".join(
        f"{'stops' if each.stops else 'warns'}: {each.what}\n"
        f"       why: {each.why}\n"
        f"       do: {each.remedy}"
        for each in findings
    )
