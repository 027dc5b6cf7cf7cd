"""Bring a host to its plan: write what differs, have the native tools take it up, verify, record.

The record says `ok: false` from before the first file changes until the kernel and FRR are seen to
be as planned. If something stops us in between, the next run reads that and finishes the work.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from generator import __version__
from generator.activation import before, converge, detect, staging
from generator.activation.commands import Log
from generator.activation.partial import Partial, partial_of
from generator.activation.staging import Change
from generator.controller import config
from generator.desired import plan
from generator.desired.payload import Payload, load
from generator.desired.plan import Plan
from generator.desired.target import Target
from generator.errors import EvpnHostError, Problem, Refused, Stranded, Unchecked
from generator.observed import kernel
from generator.state import record
from generator.state.record import Record

RUN = Path("run/evpn-host")
_BEGUN = "begun, not ended"
LOCK_TIMEOUT = 300.0  # seconds; the longest activation of another run


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a host is to be acted on."""

    root: Path = Path("/")
    backend: str | None = None
    host: str | None = None
    activate: bool = True
    full: bool = False
    force: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What an apply did."""

    host: str
    generation: int
    changed: list[str] = []
    kept: list[str] = []
    mended: list[str] = []
    activated: bool = False
    devices: int = 0  # that the host has by it


@contextlib.contextmanager
def lock(root: Path, *, uninstalled: bool = False) -> Iterator[None]:
    """Let one run act at a time. Raises `Refused` when the other one does not end.

    A run that waited for an uninstall is refused too: it would bring back what a person has just
    removed. An uninstall itself (`uninstalled`) goes on.
    """
    folder = root / RUN
    # The payload, and files kept and of earlier generations, may hold passwords.
    (root / record.STATE).mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = _open(folder)
    try:
        end = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, folder / "lock"):
                    break
                # An uninstall has removed it meanwhile: the lock of others is another file.
                if not uninstalled:
                    raise Refused("evpn-host was uninstalled while this run waited for its turn")
                os.close(descriptor)
                descriptor = _open(folder)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Refused(
                        "another run of evpn-host has the lock and does not end"
                    ) from None
                time.sleep(0.1)
        for left in folder.glob("stage-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one that others find there."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def frr_local(root: Path) -> str:
    """The operator's own FRR lines."""
    return staging.read(root, plan.FRR_LOCAL) or ""


def make_plan(data: bytes, options: Options) -> tuple[Plan, Payload, str]:
    """Return the plan for this host, its payload, and the digest of all that the plan is made from.

    Raises `Refused`.
    """
    payload = load(data)
    # A payload for one host needs no name; in a Fleet the machine's own finds its entry.
    name = options.host or (config.hostname() if payload.kind == "Fleet" else None)
    backend = options.backend or detect.backend(options.root)
    local = frr_local(options.root)
    planned = plan.make(payload.host(name), backend, local)
    return planned, payload, _inputs(data, local, options)


def _inputs(data: bytes, local: str, options: Options) -> str:
    return plan.digest(__version__, data, local, options.backend or "", options.host or "")


def apply(data: bytes, options: Options, log: Log, say: Log) -> Outcome:
    """Make this host what a payload says. Nothing to do means nothing written and nothing run.

    `log` gets each command, `say` each sentence for the user. Raises `Refused` (nothing was
    changed), `ActivationFailed` (the generation before is active again) or `Stranded`.
    """
    os.umask(0o022)  # networkd and FRR read our files as users of their own
    root = options.root
    with lock(root):
        previous = _previous(options)
        if previous and not options.full and _nothing_to_do(data, previous, options):
            return _outcome(previous.target)
        planned, payload, inputs = make_plan(data, options)
        for warning in (*payload.warnings, *(detect.firewalls(log) if options.activate else ())):
            say(f"warning: {warning}")
        if not options.force:
            _refuse_older(planned, previous)
        uplinks = [uplink.ifname for uplink in planned.host.uplinks]
        detect.refuse_lost_addresses(root, planned.backend, uplinks)
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
        with staging.staged(root, partial.files if partial else planned.files) as tree:
            if previous and not changes and not options.full and _as_planned(previous, options):
                # Another payload gives the same files: there is nothing to do but to record it.
                record.write(root, run.record(ok=previous.ok), data)
                return _outcome(run.target)
            _judge(tree, run)
            return _carry_out(run, data, tree)


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


def _nothing_to_do(data: bytes, previous: Record, options: Options) -> bool:
    """Whether the last apply had the same inputs, and all that it brought about is still there."""
    root = options.root
    if (previous.inputs, previous.version) != (
        _inputs(data, frr_local(root), options),
        __version__,
    ):
        return False
    if staging.present(root) - previous.target.files.keys():
        return False
    for path, digest in previous.target.files.items():
        content = staging.read(root, path)
        if content is None or plan.digest(plan.body(content)) != digest:
            return False
    return _as_planned(previous, options)


def _as_planned(previous: Record, options: Options) -> bool:
    """Whether the last apply ended well, and the kernel and FRR are still as it left them."""
    if not options.activate:
        return previous.detail != _BEGUN
    target = previous.target
    return (
        previous.ok
        and not kernel.differences(target.devices, target.moving_addresses)
        and not converge.frr_differences(target, options.root)
    )


def preview(data: bytes, options: Options) -> Iterator[str]:
    """Show what an apply would change: a unified diff of the files, then the devices that go."""
    planned, _, _ = make_plan(data, options)
    yield from staging.diff(staging.changes(options.root, planned.files))
    for device in record.removed_devices(record.read(options.root), plan.target(planned)):
        yield f"- device {device.name} ({device.kind})"


def _judge(tree: Path, run: "_Run") -> None:
    try:
        staging.judge(tree, run.plan.backend, run.size, run.log)
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


def _carry_out(run: _Run, data: bytes, tree: Path) -> Outcome:
    root = run.options.root
    changed = sorted(change.path for change in run.changes)
    kept: list[str] = []
    nics = [uplink.ifname for uplink in run.plan.host.uplinks]
    names = [device.name for device in run.plan.devices]
    running = run.options.activate
    before.remember(root, run.plan.files, nics, names, run.log, running=running)
    record.write(root, run.record(ok=False, detail=_BEGUN))
    try:
        kept = staging.commit(root, run.changes)
        if not run.options.activate:
            record.write(root, run.record(ok=False, detail="written, not activated"), data)
            return _outcome(run.target, changed=changed, kept=kept)
        mended = converge.converge(_activation(run, tree), run.log, run.say)
    except EvpnHostError as failure:
        _go_back(run, failure)
        raise
    done = run.record(ok=True)
    record.write(root, done, data)
    record.keep_generation(root, done, run.plan.files)
    return _outcome(run.target, activated=True, changed=changed, kept=kept, mended=mended)


def _activation(run: _Run, tree: Path) -> converge.Activation:
    """Return what the native tools have to bring about."""
    previous = run.previous
    changed = {change.path for change in run.changes}
    if previous and not previous.ok:
        changed |= run.plan.files.keys()  # nobody knows how far the run before came
    first = not (previous and previous.activated)
    return converge.Activation(
        root=run.options.root,
        tree=tree,
        target=run.target,
        removed=record.removed_devices(previous, run.target),
        changed_files=changed,
        whole=first or run.options.full,
        first=first,
        previous=previous,
        partial=run.partial.names if run.partial else None,
    )


def _go_back(run: _Run, failure: EvpnHostError) -> None:
    """Make the generation before current again. Raises `Stranded` when that fails too."""
    root, previous = run.options.root, run.previous
    run.say("going back to the generation before")
    failed = run.record(ok=False, detail=str(failure))
    try:
        staging.commit(root, [Change(c.path, c.new, c.old) for c in run.changes])
        if run.options.activate and previous:
            texts = {path: staging.read(root, path) or "" for path in previous.target.files}
            with staging.staged(root, texts) as tree:
                staging.judge(tree, previous.target.backend, len(previous.target.devices), run.log)
                back = converge.Activation(
                    root=root,
                    tree=tree,
                    target=previous.target,
                    removed=record.removed_devices(failed, previous.target),
                    changed_files={change.path for change in run.changes},
                    previous=failed,
                )
                converge.converge(back, run.log, run.say)
        elif run.options.activate:
            converge.withdraw(failed, run.log)
            before.give_back(root, before.read(root), run.log)
    except EvpnHostError as second:
        record.write(root, failed)
        raise Stranded(
            *failure.problems,
            "going back to the generation before failed too:",
            *second.problems,
            "look at: systemctl status systemd-networkd frr; evpn-host status; evpn-host diff",
        ) from None
    if previous:
        # Without inputs no payload counts as the one applied: the next run tries again.
        record.write(root, msgspec.structs.replace(previous, inputs="", detail=str(failure)))
    else:
        record.remove(root)
