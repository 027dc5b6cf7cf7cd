"""Bring a host to its plan: write what differs, have the native tools take it up, verify, record.

The record says `ok: false` from before the first file changes until the kernel and FRR are seen to
be as planned. Whatever stops us in between, the next run finds that and finishes the work.
"""

import contextlib
import datetime
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from generator import (
    __version__,
    before,
    config,
    converge,
    detect,
    kernel,
    part,
    plan,
    record,
    stage,
)
from generator.activate import Log
from generator.errors import EvpnHostError, Problem, Refused, Stranded
from generator.model import Device
from generator.part import Part
from generator.payload import Payload, load
from generator.plan import Plan
from generator.record import Record
from generator.stage import Change

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
    """One run at a time. Raises `Refused` when the other one does not end.

    Or when that was an uninstall, which nobody wants undone by who only waited: one that cron
    started, say. With `uninstalled` that is no reason.
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
    return stage.read(root, plan.FRR_LOCAL) or ""


def target(data: bytes, options: Options) -> tuple[Plan, Payload, str]:
    """The plan for this host, the payload, and the digest of all that the plan is made from."""
    payload = load(data)
    # A payload for one host needs no name; in a Fleet the machine's own finds its entry.
    name = options.host or (config.hostname() if payload.kind == "Fleet" else None)
    backend = options.backend or detect.backend(options.root)
    local = frr_local(options.root)
    made = plan.make(payload.host(name), backend, local)
    return made, payload, _inputs(data, local, options)


def _inputs(data: bytes, local: str, options: Options) -> str:
    return plan.digest(__version__, data, local, options.backend or "", options.host or "")


def apply(data: bytes, options: Options, log: Log, say: Log) -> Outcome:
    """Make a payload so on this host. Nothing to do means nothing written and nothing run.

    `log` gets each command, `say` each sentence for the user. Raises `Refused` (nothing was
    changed), `ActivationFailed` (the generation before is active again) or `Stranded`.
    """
    os.umask(0o022)  # networkd and FRR read our files as users of their own
    root = options.root
    with lock(root):
        last = _last(options)
        if last and not options.full and _nothing_to_do(data, last, options):
            return Outcome(last.host, last.generation, devices=len(last.devices))
        made, payload, inputs = target(data, options)
        for warning in (*payload.warnings, *(detect.firewalls(log) if options.activate else ())):
            say(f"warning: {warning}")
        if last and made.host.generation < last.generation and not options.force:
            raise Refused(
                Problem(
                    "generation",
                    str(made.host.generation),
                    f"is lower than the one applied, {last.generation}",
                    "--force applies it all the same",
                )
            )
        uplinks = [uplink.ifname for uplink in made.host.uplinks]
        detect.refuse_lost_addresses(root, made.backend, uplinks)
        found = stage.changes(root, made.files)
        some = None if options.full else part.of(root, last, made, found)
        with stage.staged(root, some.files if some else made.files) as tree:
            run = _Run(options, made, inputs, last, found, some, log, say)
            if last and not found and not options.full and _as_planned(last, options):
                # The same files from another payload: nothing to do but to remember it.
                record.write(root, run.record(ok=last.ok), data)
                return run.outcome()
            _judge(tree, run)
            return _carry_out(run, data, tree)


def _last(options: Options) -> Record | None:
    """The last apply. With `full`, one whose record can't be read counts as none."""
    try:
        return record.read(options.root)
    except Refused:
        if options.full:
            return None
        raise


def _nothing_to_do(data: bytes, last: Record, options: Options) -> bool:
    """Whether the last apply was of the same inputs, and all that it made is still there."""
    root = options.root
    if last.inputs != _inputs(data, frr_local(root), options) or last.version != __version__:
        return False
    if stage.present(root) - last.files.keys():
        return False
    for path, known in last.files.items():
        content = stage.read(root, path)
        if content is None or plan.digest(plan.body(content)) != known:
            return False
    return _as_planned(last, options)


def _as_planned(last: Record, options: Options) -> bool:
    """Whether the last apply ended well, and what it made is still there."""
    if not options.activate:
        return last.detail != _BEGUN
    return (
        last.ok
        and not kernel.differences(last.devices, last.moving)
        and not converge.frr_differences(last, options.root)
    )


def preview(data: bytes, options: Options) -> Iterator[str]:
    """What an apply would change: a unified diff of the files, then the devices that would go."""
    made, _, _ = target(data, options)
    yield from stage.diff(stage.changes(options.root, made.files))
    last = record.read(options.root)
    for device in _gone(last, made):
        yield f"- device {device.name} ({device.kind})"


def _gone(last: Record | None, made: Plan) -> list[Device]:
    """Devices of the last apply that a plan no longer has."""
    wanted = {device.name for device in made.devices}
    return [d for d in (last.devices if last else ()) if d.name not in wanted]


def _judge(tree: Path, run: "_Run") -> None:
    try:
        stage.judge(tree, run.made.backend, run.size, run.log)
    except Refused as refused:
        # Rendering for another root needs none of the host's tools.
        if run.options.activate or "is not installed" not in str(refused):
            raise
        run.say(f"not checked: {refused}")


class _Run(msgspec.Struct, frozen=True):
    """One apply from its decision to its end."""

    options: Options
    made: Plan
    inputs: str
    last: Record | None
    found: list[Change]
    part: Part | None  # None: the whole plan is to be touched
    log: Log
    say: Log

    @property
    def size(self) -> int:
        """How many devices the native tools have to deal with."""
        return len(self.part.names if self.part else self.made.devices)

    def outcome(self, **done: Any) -> Outcome:
        """What came of it."""
        host = self.made.host
        return Outcome(host.name, host.generation, **done, devices=len(self.made.devices))

    def record(self, *, ok: bool, detail: str = "") -> Record:
        host = self.made.host
        serial = self.last.serial if self.last else 0
        numbered = [(each.ifname, each.address) for each in host.uplinks if each.address]
        return Record(
            version=__version__,
            ok=ok,
            activated=ok or bool(self.last and self.last.activated),
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            host=host.name,
            generation=host.generation,
            serial=serial + bool(self.found),
            backend=self.made.backend,
            asn=host.asn,
            inputs=self.inputs,
            files={path: plan.digest(plan.body(t)) for path, t in self.made.files.items()},
            # Until all is well, what was before is remembered too: someone must remove it.
            devices=self.made.devices if ok else [*self.made.devices, *_gone(self.last, self.made)],
            management=host.management,
            sessions=[uplink.neighbor for uplink in host.uplinks],
            uplinks=[uplink.ifname for uplink in host.uplinks],
            numbered=numbered if ok or not self.last else [*numbered, *self.last.numbered],
            vnis=[record.vni_of(bridge) for bridge in host.bridges],
            detail=detail,
        )


def _carry_out(run: _Run, data: bytes, tree: Path) -> Outcome:
    root = run.options.root
    changed = {change.path for change in run.found}
    written = sorted(changed)
    kept: list[str] = []
    nics = [uplink.ifname for uplink in run.made.host.uplinks]
    names = [device.name for device in run.made.devices]
    running = run.options.activate
    before.remember(root, run.made.files, nics, names, run.log, running=running)
    record.write(root, run.record(ok=False, detail=_BEGUN))
    try:
        kept = stage.commit(root, run.found)
        if not run.options.activate:
            record.write(root, run.record(ok=False, detail="written, not activated"), data)
            return run.outcome(changed=written, kept=kept)
        first = not (run.last and run.last.activated)
        if run.last and not run.last.ok:
            changed |= run.made.files.keys()  # nobody knows how far the run before came
        full = first or run.options.full
        wanted = converge.Wanted(
            root,
            run.record(ok=True),
            _gone(run.last, run.made),
            changed,
            full,
            first,
            run.last,
            run.part.names if run.part else None,
        )
        mended = converge.converge(wanted, tree, run.log, run.say)
    except EvpnHostError as failure:
        _go_back(run, failure)
        raise
    record.write(root, run.record(ok=True), data)
    record.keep_generation(root, run.record(ok=True), run.made.files)
    return run.outcome(changed=written, kept=kept, mended=mended, activated=True)


def _go_back(run: _Run, failure: EvpnHostError) -> None:
    """Make the generation before current again. Raises `Stranded` when that fails too."""
    root, last = run.options.root, run.last
    run.say("going back to the generation before")
    tried = run.record(ok=False, detail=str(failure))
    try:
        stage.commit(root, [Change(c.path, c.new, c.old) for c in run.found])
        if run.options.activate and last:
            texts = {path: stage.read(root, path) or "" for path in last.files}
            with stage.staged(root, texts) as tree:
                stage.judge(tree, last.backend, len(last.devices), run.log)
                names = {device.name for device in last.devices}
                gone = [device for device in tried.devices if device.name not in names]
                changed = {change.path for change in run.found}
                wanted = converge.Wanted(root, last, gone, changed, had=tried)
                converge.converge(wanted, tree, run.log, run.say)
        elif run.options.activate:
            converge.withdraw(tried, run.log)
            before.give_back(root, before.read(root), run.log)
    except EvpnHostError as second:
        record.write(root, tried)
        raise Stranded(
            *failure.problems,
            "going back to the generation before failed too:",
            *second.problems,
            "look at: systemctl status systemd-networkd frr; evpn-host status; evpn-host diff",
        ) from None
    if last:
        # Without inputs no payload counts as the one applied: the next run tries again.
        record.write(root, msgspec.structs.replace(last, inputs="", detail=str(failure)))
    else:
        record.remove(root)
