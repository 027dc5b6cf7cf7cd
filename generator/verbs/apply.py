"""`evpn-host apply` and `diff`: a host becomes its plan.

Writes what differs, has the native tools take it up, verifies and records. The record says
`ok: false` from before the first file changes until the kernel and FRR are seen to be as planned.
If something stops us in between, the next run reads that and finishes the work.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from generator import __version__, secrets
from generator.activation import backends, before, commands, converge, firewall, staging
from generator.activation.backend import Activation
from generator.activation.commands import Log
from generator.activation.partial import Partial, partial_of
from generator.controller import config
from generator.controller import source as sources
from generator.controller.source import Source
from generator.desired import plan
from generator.desired.payload import Payload, load
from generator.desired.plan import Plan
from generator.desired.target import Target
from generator.errors import (
    Problem,
    Refused,
    Unchecked,
    Unreachable,
    text_of,
)
from generator.observed import comparison, devices
from generator.reporting import report
from generator.reporting.report import Outcome
from generator.state import changes as reading
from generator.state import record
from generator.state.changes import Change
from generator.state.lock import lock
from generator.state.record import Record
from generator.verbs.going_back import Attempt, failure_of, go_back
from generator.verbs.options import Options

FRR_LOCAL = "etc/frr/frr.conf.local"
_BEGUN = "begun, not ended"


def apply_from(source: Source, options: Options, log: Log, say: Log, *, last_good: bool) -> Outcome:
    """Apply the payload of a source, and report the run.

    With `last_good` the last good payload is applied if the source gives none. Raises what `apply`
    and `Source.refresh` raise.
    """
    with report.reported(source.settings, source.name, say, activates=options.activate) as run:
        try:
            data = source.refresh()
        except Unreachable as missed:
            kept = sources.last_good(source.root) if last_good else None
            if kept is None:
                raise
            run.go_on_without(missed, say)
            data = kept
        run.outcome = apply(data, options, log, say)
        source.remember(data)
    return run.outcome


def frr_local(root: Path) -> str:
    """Return the operator's own FRR lines."""
    return reading.read(root, FRR_LOCAL) or ""


def make_plan(data: bytes, options: Options) -> tuple[Plan, Payload, str]:
    """Return the plan for this host, its payload, and the digest of all that the plan is made from.

    Raises `Refused`.
    """
    payload = load(data)
    secrets.know(*(host.bgp.password for host in payload.hosts))
    # A payload for one host needs no name; in a Fleet the machine's own finds its entry.
    name = options.host or (config.hostname() if payload.kind == "Fleet" else None)
    backend = options.backend or backends.detect(options.root)
    local = frr_local(options.root)
    planned = plan.make(payload.host(name), backend, local)
    backends.named(backend).refuse_devices(options.root, planned.host)
    return planned, payload, _inputs(data, local, options)


def _inputs(data: bytes, local: str, options: Options) -> str:
    return plan.digest(__version__, data, local, options.backend or "", options.host or "")


def apply(data: bytes, options: Options, log: Log, say: Log) -> Outcome:
    """Make this host what a payload says. Nothing to do means nothing written and nothing run.

    `log` gets each command, `say` each sentence for the user. Raises `Refused` (nothing was
    changed), `ActivationFailed` (the generation before is active again) or `Stranded`.
    """
    root = options.root
    inputs = _inputs(data, frr_local(root), options)
    # Nobody waits for the lock while we work on a large document, unless it was applied before.
    prepared = None if _is_of(_previous(options), inputs) else make_plan(data, options)
    with lock(root), commands.interruptible():
        previous = _previous(options)
        if previous and not options.full and _nothing_to_do(inputs, previous, options):
            return _outcome(previous.target)
        planned, payload, inputs = prepared or make_plan(data, options)
        for warning in payload.warnings:
            say(f"warning: {warning}")
        for firewall_warning in firewall.warnings(log) if options.activate else ():
            say(f"warning: {firewall_warning}")
        if not options.force:
            _refuse_older(planned, previous)
        uplinks = [uplink.ifname for uplink in planned.host.uplinks]
        backends.named(planned.backend).refuse_conflicts(root, uplinks)
        changes = staging.changes(root, planned.files)
        partial = None if options.full else partial_of(root, previous, planned, changes)
        run = _Run(
            options=options,
            plan=planned,
            target=plan.target(planned),
            inputs=inputs,
            previous=previous,
            changes=changes,
            partial=partial,
            log=log,
            say=say,
        )
        with staging.staged(
            root, partial.files if partial else planned.files, planned.backend
        ) as stage:
            if previous and not changes and not options.full and _as_planned(previous, options):
                # Another payload gives the same files: there is nothing to do but to record it.
                record.write(root, run.record(ok=previous.ok), data)
                return _outcome(run.target)
            _check(stage, run)
            return _carry_out(run, data, stage)


def _refuse_older(planned: Plan, previous: Record | None) -> None:
    generation = planned.host.generation
    if previous and generation < previous.target.generation:
        raise Refused(
            Problem(
                "generation",
                str(generation),
                f"is lower than the one applied, {previous.target.generation}",
                "--force applies it all the same",
            )
        )


def _previous(options: Options) -> Record | None:
    """Read the record of the last apply. With `full`, an unreadable one counts as none."""
    try:
        return record.read(options.root)
    except Refused:
        if options.full:
            return None
        raise


def _is_of(previous: Record | None, inputs: str) -> bool:
    """Whether the last apply made its files from these inputs."""
    return previous is not None and (previous.inputs, previous.version) == (inputs, __version__)


def _nothing_to_do(inputs: str, previous: Record, options: Options) -> bool:
    """Whether the last apply had the same inputs, and all that it brought about is still there."""
    root = options.root
    if not _is_of(previous, inputs):
        return False
    if staging.present(root) - previous.target.files.keys():
        return False
    for path, digest in previous.target.files.items():
        content = reading.read(root, path)
        if content is None or plan.digest(plan.body(content)) != digest:
            return False
        if staging.has_other_mode(root, path):
            return False
    return _as_planned(previous, options)


def _as_planned(previous: Record, options: Options) -> bool:
    """Whether the last apply ended well, and the kernel and FRR are still as it left them."""
    if not options.activate:
        return previous.detail != _BEGUN
    target = previous.target
    return (
        previous.ok
        and not devices.differences(target.devices, target.moving_addresses)
        and not comparison.frr_differences(target, options.root)
    )


def preview(data: bytes, options: Options) -> Iterator[str]:
    """Show what an apply would change: a unified diff of the files, then the devices that go."""
    planned, _, _ = make_plan(data, options)
    yield from reading.diff(staging.changes(options.root, planned.files))
    for device in record.removed_devices(record.read(options.root), plan.target(planned)):
        yield f"- device {device.name} ({device.kind})"


def _check(stage: Path, run: "_Run") -> None:
    try:
        staging.check(stage, run.plan.backend, run.size, run.log)
    except Unchecked as missing:
        # Rendering for another root needs none of the host's tools.
        if run.options.activate:
            raise
        run.say(f"not checked: {missing}")


def _outcome(target: Target, *, activated: bool = False, **paths: list[str]) -> Outcome:
    """Say what an apply of a target did; `paths` are the outcome's lists."""
    return Outcome(
        target.host,
        target.generation,
        **paths,
        activated=activated,
        devices=len(target.devices),
    )


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """An apply in progress: what it was decided from, and what was decided."""

    options: Options
    plan: Plan
    target: Target
    inputs: str
    previous: Record | None
    changes: list[Change]
    partial: Partial | None  # None: the native tools take up the whole plan
    log: Log
    say: Log

    @property
    def size(self) -> int:
        """How many devices the native tools have to deal with."""
        return len(self.partial.names if self.partial else self.plan.devices)

    def record(self, *, ok: bool, detail: str = "") -> Record:
        """Return the record of this apply as it stands."""
        previous = self.previous
        return Record(
            version=__version__,
            number=(previous.number if previous else 0) + bool(self.changes),
            time=record.now(),
            ok=ok,
            detail=detail,
            activated=ok or bool(previous and previous.activated),
            inputs=self.inputs,
            target=self.target,
            remaining_devices=[] if ok else record.removed_devices(previous, self.target),
            remaining_numbered=[] if ok or not previous else previous.possible_numbered,
        )


def _carry_out(run: _Run, data: bytes, stage: Path) -> Outcome:
    root = run.options.root
    changed = sorted(change.path for change in run.changes)
    kept: list[str] = []
    before.remember(root, run.plan, run.log, running=run.options.activate)
    record.begin(root, run.record(ok=False, detail=_BEGUN), run.previous)
    try:
        kept = staging.commit(root, run.changes)
        if run.previous and not run.previous.ok:
            before.sweep(root)
        if not run.options.activate:
            record.write(root, run.record(ok=False, detail="written, not activated"), data)
            return _outcome(run.target, changed=changed, kept=kept)
        repaired = converge.converge(_activation(run, stage), run.log, run.say)
        done = run.record(ok=True)
        record.write(root, done, data)
        commands.finish()
    except Exception as failure:  # noqa: BLE001  # whatever it is, the host goes back
        commands.finish()
        failed = failure_of(failure)
        # Without inputs no payload counts as the one applied: the next run tries again.
        restored = run.previous and msgspec.structs.replace(
            run.previous, inputs="", detail=str(failed)
        )
        attempt = Attempt(
            options=run.options,
            changes=run.changes,
            failed=run.record(ok=False, detail=str(failed)),
            previous=restored,
            log=run.log,
            say=run.say,
        )
        go_back(attempt)
        raise failed from None
    try:
        record.keep_generation(root, done, run.plan.files)
    except OSError as error:
        run.say(f"warning: this generation is not kept for a rollback: {text_of(error)}")
    return _outcome(run.target, activated=True, changed=changed, kept=kept, mended=repaired)


def _activation(run: _Run, stage: Path) -> Activation:
    """Return what the native tools have to bring about."""
    previous = run.previous
    changed = {change.path for change in run.changes}
    if previous and not previous.ok:
        changed |= run.plan.files.keys()  # nobody knows how far the run before came
    first = not (previous and previous.activated)
    return Activation(
        root=run.options.root,
        stage=stage,
        target=run.target,
        removed=record.removed_devices(previous, run.target),
        changed_files=changed,
        whole=first or run.options.full,
        first=first,
        previous=previous,
        partial=run.partial.names if run.partial else None,
    )
