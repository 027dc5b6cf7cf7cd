"""`evpn-host rollback`: brings the host back to an earlier entry of the history."""

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
    """Go back to an earlier entry of the history, and report it; return that entry."""
    host = settings.host or hostname()
    with report.reported(settings, host, say, activates=options.activate) as run:
        run.outcome, entry = rollback(number, options, log, say)
        run.message = f"{run.outcome.host}: entry {entry.number}, of {entry.time}, is current again"
    return entry


def rollback(number: int | None, options: Options, log: Log, say: Log) -> tuple[Outcome, Record]:
    """Go back to an earlier entry, by default the one before, until the payload changes.

    Returns the outcome and the entry. Raises `Refused` if there is no such entry,
    `ActivationFailed` (everything is as before the rollback) or `Stranded`.
    """
    root = options.root
    with lock(root), commands.interruptible():
        waiting = _unconfirmed(root)
        if waiting and options.confirm is not None:
            awaiting.refuse_second(root)
        current = record.read(root)
        outcome, entry = go_to(number, options, log, say)
        try:
            held.hold_undone(root, current.inputs if current else "")
        except OSError as error:
            say(f"warning: the payload is not held: {text_of(error)}")
        if waiting:
            awaiting.disarm(root, waiting, log)
        return outcome, entry


def _unconfirmed(root: Path) -> Unconfirmed | None:
    """Return what waits to be confirmed. A damaged note is removed: it must not stop a rollback."""
    try:
        return unconfirmed.read(root)
    except Refused:
        unconfirmed.remove(root)
        return None


def go_to(number: int | None, options: Options, log: Log, say: Log) -> tuple[Outcome, Record]:
    """Like `rollback`, for a caller that has the lock."""
    root = options.root
    begun = time.monotonic()
    current = record.read(root)
    if current is None:
        raise Refused("nothing was applied yet")
    entry = _choose(current, number, generations.entries(root))
    texts = generations.texts(root, entry)
    pending = _pending(current, entry, generations.next_number(root, current), options)
    frr_local(root)  # reading it makes its passwords known: FRR's tools may repeat them
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
    return outcome, entry


def _choose(current: Record, number: int | None, entries: list[Record]) -> Record:
    """Return the entry with a number, by default the one before the current entry."""
    good = [entry for entry in entries if entry.ok]
    here = current.origin or current.number
    if current.detail in {_BEGUN, record.GOING_BACK}:
        here += 1  # an earlier rollback to this entry has not ended: this one ends it
    for entry in good:
        if entry.number == number or (number is None and entry.number < here):
            return entry
    if any(entry.number == number for entry in entries):
        rule = "is an apply that failed, and the host went back from it"
    else:
        rule = "is no entry of the history"
    known = ", ".join(str(entry.number) for entry in good if entry.number != here) or "none"
    raise Refused(Problem("rollback", str(number or "the one before"), rule, f"there are: {known}"))


def _carry_out(  # noqa: PLR0913
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
    """Bring the host to an entry's state; return the new record. Raises what `rollback` raises."""
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
            _keep(done, texts, options, say)  # before the record: after a kill a run repeats both
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
    """Add a successful rollback to the history."""
    if done.ok:
        try:
            generations.keep(options.root, done, texts, options.keep)
        except OSError as error:
            say(f"warning: this rollback is no entry of the history: {text_of(error)}")


def _activation(
    root: Path, stage: Path, pending: Record, changes: list[Change], current: Record
) -> Activation:
    """Return the activation that the native tools have to carry out."""
    return Activation(
        root=root,
        stage=stage,
        target=pending.target,
        removed=pending.remaining_devices,
        changed_files={change.path for change in changes},
        previous=current,
    )


def _pending(current: Record, entry: Record, number: int, options: Options) -> Record:
    """Return the record of a rollback that has begun."""
    return msgspec.structs.replace(
        entry,
        number=number,
        origin=entry.origin or entry.number,
        time=record.now(),
        started_by=options.started_by,
        summary=summary(current.target, entry.target),
        inputs=current.inputs,
        ok=False,
        detail=_BEGUN,
        remaining_devices=record.removed_devices(current, entry.target),
        former_addresses=record.former_addresses(current, entry.target),
        remaining_numbered=current.possible_numbered,
    )


def _done(pending: Record, seconds: float, *, activated: bool) -> Record:
    """Return the record of a successful rollback."""
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
