"""`evpn-host rollback`: an earlier entry of the history becomes the current one."""

import time
from pathlib import Path

import msgspec

from generator.activation import before, commands, converge, staging
from generator.activation.backend import Activation
from generator.activation.commands import Log
from generator.activation.guard import Guard
from generator.controller.config import Config, hostname
from generator.desired.summary import summary
from generator.errors import Problem, Refused, text_of
from generator.reporting import report
from generator.reporting.report import Outcome
from generator.state import generations, held, record, unconfirmed
from generator.state.changes import Change
from generator.state.lock import lock
from generator.state.record import Record
from generator.state.unconfirmed import Unconfirmed
from generator.verbs import awaiting
from generator.verbs.going_back import Attempt, failure_of, go_back
from generator.verbs.options import Options
from generator.verbs.planning import frr_local

_BEGUN = "rollback begun, not ended"


def rollback_reported(
    number: int | None, options: Options, settings: Config, log: Log, say: Log
) -> Record:
    """Make an earlier entry of the history current, and report it; return that entry."""
    host = settings.host or hostname()
    with report.reported(settings, host, say, activates=options.activate) as run:
        run.outcome, kept = rollback(number, options, log, say)
        run.message = f"{run.outcome.host}: entry {kept.number}, of {kept.time}, is current again"
    return kept


def rollback(number: int | None, options: Options, log: Log, say: Log) -> tuple[Outcome, Record]:
    """Make an earlier entry current until the payload changes, by default the one before.

    Returns what was done, and the entry. Raises `Refused` if there is no such entry,
    `ActivationFailed` (all is as before the rollback) or `Stranded`.
    """
    root = options.root
    with lock(root), commands.interruptible():
        waiting = _unconfirmed(root)
        if waiting and options.confirm is not None:
            awaiting.refuse_second(root)
        current = record.read(root)
        outcome, kept = go_to(number, options, log, say)
        try:
            held.went_back(root, current.inputs if current else "")
        except OSError as error:
            say(f"warning: the payload is not held: {text_of(error)}")
        if waiting:
            awaiting.disarm(root, waiting, log)
        return outcome, kept


def _unconfirmed(root: Path) -> Unconfirmed | None:
    """Return what waits to be confirmed; a damaged note of it keeps nobody from going back."""
    try:
        return unconfirmed.read(root)
    except Refused:
        unconfirmed.remove(root)
        return None


def go_to(number: int | None, options: Options, log: Log, say: Log) -> tuple[Outcome, Record]:
    """Do what `rollback` does, for a caller that has the lock."""
    root = options.root
    begun = time.monotonic()
    current = record.read(root)
    if current is None:
        raise Refused("nothing was applied yet")
    kept = _choose(current, number, generations.entries(root))
    texts = generations.texts(root, kept)
    pending = _pending(current, kept, generations.next_number(root, current), options)
    frr_local(root)  # its passwords are known then: FRR's tools may repeat them
    changes = staging.changes(root, texts)
    staging.refuse_unwritable(root, changes)
    with awaiting.awaiting(options, "rollback", pending.number, current, log, say):
        done = _carry_out(
            options,
            begun,
            current=current,
            pending=pending,
            texts=texts,
            changes=changes,
            log=log,
            say=say,
        )
    outcome = Outcome(
        done.target.host,
        done.target.generation,
        changed=sorted(change.path for change in changes),
        devices=len(done.target.devices),
        summary=done.summary,
    )
    return outcome, kept


def _choose(current: Record, number: int | None, entries: list[Record]) -> Record:
    """Return the entry of a number, by default the one before what the host has."""
    good = [entry for entry in entries if entry.ok]
    here = current.origin or current.number
    if current.detail in {_BEGUN, record.GOING_BACK}:
        here += 1  # the way to this entry has not ended: this rollback ends it
    for entry in good:
        if entry.number == number or (number is None and entry.number < here):
            return entry
    if any(entry.number == number for entry in entries):
        rule = "is an apply that failed: the host went back from it then"
    else:
        rule = "is no entry of the history"
    known = ", ".join(str(entry.number) for entry in good if entry.number != here) or "none"
    raise Refused(Problem("rollback", str(number or "the one before"), rule, f"there are: {known}"))


def _carry_out(  # noqa: PLR0913  # what is, what is to be, and who hears of it
    options: Options,
    begun: float,
    *,
    current: Record,
    pending: Record,
    texts: dict[str, str],
    changes: list[Change],
    log: Log,
    say: Log,
) -> Record:
    """Bring the host to an entry's state; return its record. Raises what `rollback` raises."""
    root, target = options.root, pending.target
    with staging.staged(root, texts, target.backend) as stage:
        if options.activate:
            staging.check(stage, target.backend, len(target.devices), log)
        guard = Guard(options.patience, log, say)
        guard.look(current.target, target)
        record.begin(root, pending, current)
        try:
            staging.commit(root, changes)
            if not current.ok:
                before.sweep(root, texts)
            if options.activate:
                converge.converge(_activation(root, stage, pending, changes, current), log, say)
            guard.hold(target)
            done = _done(pending, time.monotonic() - begun, activated=options.activate)
            _keep(done, texts, options, say)  # before the record: a killed run is run again
            record.write(root, done)
            commands.finish()
        except Exception as error:  # noqa: BLE001  # whatever it is, the host goes back
            commands.finish()
            failed = failure_of(error)
            attempt = Attempt(
                options=options,
                changes=changes,
                failed=msgspec.structs.replace(pending, detail=str(failed)),
                previous=current,
                guard=guard,
                log=log,
                say=say,
            )
            go_back(attempt)
            raise failed from None
    return done


def _keep(done: Record, texts: dict[str, str], options: Options, say: Log) -> None:
    """Make a rollback that has ended well an entry of the history."""
    if done.ok:
        try:
            generations.keep(options.root, done, texts, options.keep)
        except OSError as error:
            say(f"warning: this rollback is no entry of the history: {text_of(error)}")


def _activation(
    root: Path, stage: Path, pending: Record, changes: list[Change], current: Record
) -> Activation:
    """Return what the native tools have to bring about."""
    return Activation(
        root=root,
        stage=stage,
        target=pending.target,
        removed=pending.remaining_devices,
        changed_files={change.path for change in changes},
        previous=current,
    )


def _pending(current: Record, kept: Record, number: int, options: Options) -> Record:
    """Return the record of a rollback that has begun."""
    return msgspec.structs.replace(
        kept,
        number=number,
        origin=kept.origin or kept.number,
        time=record.now(),
        started_by=options.started_by,
        summary=summary(current.target, kept.target),
        inputs=current.inputs,
        ok=False,
        detail=_BEGUN,
        remaining_devices=record.removed_devices(current, kept.target),
        former_addresses=record.former_addresses(current, kept.target),
        remaining_numbered=current.possible_numbered,
    )


def _done(pending: Record, seconds: float, *, activated: bool) -> Record:
    """Return the record of a rollback that has ended well."""
    if not activated:
        return msgspec.structs.replace(pending, detail="written, not activated")
    return msgspec.structs.replace(
        pending,
        ok=True,
        detail="",
        seconds=round(seconds, 1),
        remaining_devices=[],
        remaining_numbered=[],
    )
