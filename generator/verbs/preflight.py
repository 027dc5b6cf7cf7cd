"""`evpn-host preflight`: what would stop an apply on this machine, or surprise its operator."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from generator.activation import backends, firewall, frr, lldp, nat, nftables, services, staging
from generator.activation.commands import Log
from generator.desired import plan
from generator.desired.plan import Plan
from generator.desired.target import FormerAddress, Target
from generator.errors import Problem, Refused
from generator.observed import (
    boot,
    companions,
    diverted,
    following,
    machine,
    preflight,
    settings,
)
from generator.observed import filter as packet_filter
from generator.observed import management as observing
from generator.observed import running as frr_running
from generator.observed.preflight import Finding
from generator.state import changes as reading
from generator.state import record, tree
from generator.state.record import Record
from generator.verbs.options import Options

# The effect of a lost setting until the next apply, by the end of its key.
_EFFECTS = {
    "ip_forward": "guests are routed no more",
    "/forwarding": "guests are routed no more",
    "/all/disable_ipv6": "sessions do not come up",
    "/rp_filter": "packets that come by another uplink are dropped",
}


def look(planned: Plan, previous: Record | None, root: Path, log: Log) -> list[Finding]:
    """Return the findings on this machine; those that stop an apply come first."""
    first = previous is None and not _has_files_of_ours(root)
    findings = preflight.findings(
        planned.host,
        planned.devices,
        machine.read(lldp.switches(log)),
        first=first,
        ours=_possible_places(previous),
    )
    conflicts = _conflicts(root, planned)
    listed = [
        *_foreign_bgp(root),
        *conflicts,
        *masked_units(root, planned),
        *findings,
        *_stale_files(root, planned, previous),
        *_later_settings(root, planned),
        *(_foreign_files(planned) if not conflicts else ()),
        *_staying(planned),
        *_lease(root, planned),
        *_rules(planned, previous),
        *_shut(root, planned),
        *_firewall(root, planned, log),
    ]
    return sorted(listed, key=lambda finding: not finding.stops)


def _conflicts(root: Path, planned: Plan) -> list[Finding]:
    """Find NICs that can't be used as the operator's files configure them."""
    return [
        Finding(
            what=str(problem._replace(hint="")),
            why="our part would do nothing, or your addresses would go",
            remedy=problem.hint,
            stops=True,
        )
        for problem in backends.named(planned.backend).conflicts(root, planned.host)
    ]


def masked_units(root: Path, planned: Plan) -> list[Finding]:
    """Find units that nobody can start, without which our files have no effect."""
    backend = f"{backends.named(planned.backend).unit}.service"
    names = [*boot.needed(plan.target(planned), root), backend]
    return [
        Finding(
            what=f"{name} is masked",
            why="systemd does not start it",
            remedy=command,
            stops=True,
        )
        for name, command in services.masked(names, root).items()
    ]


def _foreign_files(planned: Plan) -> list[Finding]:
    """Find NICs for which networkd uses a file with another name than the NIC's."""
    nics_by_file: dict[str, list[str]] = {}
    for nic, file in planned.host.foreign_files.items():
        nics_by_file.setdefault(file, []).append(nic)
    return [
        Finding(
            what=f"networkd takes {file} for {', '.join(nics)}",
            why="our part of the NIC is a drop-in of that file",
            remedy="nothing, while the file keeps its name; otherwise apply again",
        )
        for file, nics in nics_by_file.items()
    ]


def _staying(planned: Plan) -> list[Finding]:
    """Find routes and addresses that stay on the NIC, or that an uplink loses."""
    host = planned.host
    if host.management is None:
        return []
    names = {each.ifname for each in host.uplinks}
    observed = observing.observe({*names, host.management.ifname, host.management.bridge})
    observed = companions.observe(Path("/"), host.management, observed, ())
    remarks = [
        *following.staying(host.management, observed),
        *following.advertised_defaults(names, observed),
    ]
    return [Finding(what=each.what, why=each.why, remedy=each.remedy) for each in remarks]


def _lease(root: Path, planned: Plan) -> Iterator[Finding]:
    """Find a management NIC that asks for its addresses by DHCP."""
    remedy = backends.named(planned.backend).lease(root, planned.host)
    management = planned.host.management
    if remedy is None or management is None:
        return
    ip = management.ipv4.partition("/")[0]
    waits = ", and each boot waits more than a minute for one" if remedy else ""
    yield Finding(
        what=f"{management.ifname} asks for its addresses by DHCP",
        why=f"in the fabric no server answers it{waits}. The payload's address stays",
        remedy="; ".join(filter(None, [f"have the server give {ip} to this NIC alone", remedy])),
    )


def _rules(planned: Plan, previous: Record | None) -> Iterator[Finding]:
    """Find routing rules that would divert packets for the host, once there are VRFs."""
    target = plan.target(planned)
    active = previous.target if previous and previous.activated else None
    before = active or msgspec.structs.replace(target, devices=[])
    return diverted.findings(target, before)


def _shut(root: Path, planned: Plan) -> Iterator[Finding]:
    """Find uplinks and sessions that somebody has shut down in FRR."""
    file, running = frr_running.shut(root, planned.files.get(frr.CONF, ""))
    for uplink in planned.host.uplinks:
        if uplink.ifname in file or uplink.neighbor in file:
            where, remedy = "in /etc/frr/frr.conf.local", "take that line out"
        elif uplink.ifname in running or uplink.neighbor in running:
            where, remedy = "by somebody's vtysh", "nothing: apply ends it"
        else:
            continue
        yield Finding(
            what=f"the session of {uplink.ifname} is shut down in FRR, {where}",
            why="it can't come up",
            remedy=remedy,
        )


def _possible_places(previous: Record | None) -> set[str]:
    """Return the devices on which we may have put the management address."""
    if previous is None:
        return set()
    management = previous.target.management
    nic = {management.ifname} if management else set()
    return nic | {device.name for device in previous.possible_devices}


def matters(target: Target, previous: Record | None) -> bool:
    """Whether an apply needs preflight: it is the first, or changes links or the management."""
    if previous is None or not previous.activated:
        return True
    old = previous.target
    return (old.uplinks, old.sessions, old.leaves, old.management) != (
        target.uplinks,
        target.sessions,
        target.leaves,
        target.management,
    )


def refuse_foreign_bgp(root: Path) -> None:
    """Raise `Refused` if frr.conf has a BGP instance of the operator."""
    if stopping := _foreign_bgp(root):
        raise refusal(stopping)


def refuse_conflicts(root: Path, planned: Plan) -> None:
    """Raise `Refused` if NICs can't be used as the operator's files configure them.

    No option overrides it: the NIC would lose the operator's addresses, or never be an uplink.
    """
    if problems := backends.named(planned.backend).conflicts(root, planned.host):
        raise Refused(*problems)


def refusal(findings: list[Finding]) -> Refused:
    """Return the refusal of an apply that findings stop."""
    return Refused(*(Problem(f.what, "", f.why, f.remedy) for f in findings))


def warn_or_refuse(  # noqa: PLR0913, PLR0917
    planned: Plan, target: Target, previous: Record | None, options: Options, log: Log, say: Log
) -> None:
    """Print preflight's findings. Raises `Refused` if one would cut the host off.

    With `--no-guard` it only warns: a person knows better, for example of a NIC to be added later.
    """
    if matters(target, previous):
        findings = look(planned, previous, options.root, log)
    else:
        now = machine.read({})
        ours = _possible_places(previous)
        new = preflight.collisions(planned.devices, now, first=False, ours=ours)
        lacking = preflight.kernel(planned.host, now)
        rules = [each for each in _rules(planned, previous) if each.stops]
        masked = masked_units(options.root, planned)
        findings = [*new, *lacking, *masked, *rules, *_firewall(options.root, planned, log)]
    stopping = [each for each in findings if each.stops]
    if stopping and options.guard is not None:
        raise refusal(stopping)
    for finding in findings:
        say(f"warning: {finding}")


def _foreign_bgp(root: Path) -> list[Finding]:
    """Find BGP instances of the operator in the frr.conf that an apply would replace."""
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


def former_addresses(root: Path, planned: Plan, previous: Record | None) -> list[FormerAddress]:
    """Return former management addresses that may be on the host, or may come back to it.

    One that an earlier apply has replaced counts only while a file of the operator has it.
    """
    former = record.former_addresses(previous, plan.target(planned))
    earlier = previous.former_addresses if previous else []
    return [
        each
        for each in former
        if each not in earlier or _files_with(root, planned.backend, each.address)
    ]


def _stale_files(root: Path, planned: Plan, previous: Record | None) -> list[Finding]:
    """Find files of the operator that still have a former management address."""
    management = planned.host.management
    if management is None:
        return []
    current = {address for address, _ in management.pairs}
    kept = {address.partition("/")[0] for address in current}
    return [
        Finding(
            what=f"/{path} still has {former.address}",
            why=f"the management address is another one now: {', '.join(sorted(current))}",
            remedy="change it there too; until then the hook takes the old one away",
        )
        for former in record.former_addresses(previous, plan.target(planned))
        if former.address not in current
        for path in _files_with(root, planned.backend, former.address)
        if former.address.partition("/")[0] not in kept  # then only its prefix length differs
    ]


def _files_with(root: Path, backend: str, address: str) -> list[str]:
    """Return the operator's files that contain an address, with any prefix length."""
    ip = re.compile(rf"(?<![\w.:]){re.escape(address.partition('/')[0])}(?![\w.:])")
    paths = [p for pattern in backends.named(backend).nic_files for p in tree.find(root, pattern)]
    texts = {path: reading.read(root, path) or "" for path in paths}
    return [
        path for path, content in texts.items() if not plan.ours(content) and ip.search(content)
    ]


def _effect(key: str) -> str:
    return next((text for end, text in _EFFECTS.items() if key.endswith(end)), "ours is lost")


def _later_settings(root: Path, planned: Plan) -> list[Finding]:
    """Find files that come after ours and override one of our kernel settings."""
    return [
        Finding(
            what=f"/{each.path} sets {each.key} to {each.value}",
            why=f"it is read after our file, which says {each.expected}: {each.when}"
            f" {_effect(each.key)}",
            remedy="remove that line; until then each apply sets it again",
        )
        for each in settings.later(root, planned.files.get(settings.FILE))
    ]


def _firewall(root: Path, planned: Plan, log: Log) -> list[Finding]:
    host = planned.host
    dropped = list(firewall.findings(host, log))
    filtered = shutil.which("nft") is not None and not packet_filter.limits(root)
    if filtered and nat.KEPT in planned.files.get(nftables.FILE, ""):
        return dropped
    gateways = [address for bridge in host.bridges for address in bridge.addresses]
    return [*dropped, *nat.findings(gateways, log, filtered=filtered)]


def _has_files_of_ours(root: Path) -> bool:
    return any(plan.ours(reading.read(root, path) or "") for path in staging.present(root))


def text(findings: list[Finding]) -> str:
    """Return findings as text for a person."""
    if not findings:
        return "nothing would stop an apply"
    return "\n".join(
        f"{'stops' if each.stops else 'warns'}: {each.what}\n"
        f"       why: {each.why}\n"
        f"       do: {each.remedy}"
        for each in findings
    )
