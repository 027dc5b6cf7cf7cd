"""`evpn-host rollback`: an earlier generation becomes current again."""

import contextlib
from pathlib import PurePath

import msgspec

from generator.activation import before, commands, converge, staging
from generator.activation.backend import Activation
from generator.activation.commands import Log
from generator.controller.config import Config, hostname
from generator.errors import Problem, Refused
from generator.reporting import report
from generator.reporting.report import Outcome
from generator.state import files, record, stored, tree
from generator.state.changes import Change
from generator.state.lock import lock
from generator.state.record import Record
from generator.verbs.apply import frr_local
from generator.verbs.going_back import Attempt, failure_of, go_back
from generator.verbs.options import Options

_BEGUN = "rollback begun, not ended"


def rollback_reported(
    generation: int | None, options: Options, settings: Config, log: Log, say: Log
) -> str:
    """Make an earlier generation current, and report it; return when it was applied (ISO 8601)."""
    host = settings.host or hostname()
    with report.reported(settings, host, say, activates=options.activate) as run:
        run.outcome, time = rollback(generation, options, log, say)
        run.message = f"{run.outcome.host}: what was applied on {time} is current again"
    return time


def rollback(generation: int | None, options: Options, log: Log, say: Log) -> tuple[Outcome, str]:
    """Make an earlier generation current until the payload changes, by default the one before.

    Returns what was done, and when that generation was applied (ISO 8601). Raises `Refused` if the
    generation is not kept, `ActivationFailed` (all is as before the rollback) or `Stranded`.
    """
    root = options.root
    with lock(root), commands.interruptible():
        current = record.read(root)
        if current is None:
            raise Refused("nothing was applied yet")
        kept, texts = _kept(current, generation, options)
        pending = _pending(current, kept)
        target = pending.target
        frr_local(root)  # its passwords are known then: FRR's tools may repeat them
        changes = staging.changes(root, texts)
        _carry_out(
            options,
            current=current,
            pending=pending,
            texts=texts,
            changes=changes,
            log=log,
            say=say,
        )
        paths = sorted(change.path for change in changes)
        outcome = Outcome(
            target.host, target.generation, changed=paths, devices=len(target.devices)
        )
        return outcome, kept.time


def _carry_out(  # noqa: PLR0913  # what is, what is to be, and who hears of it
    options: Options,
    *,
    current: Record,
    pending: Record,
    texts: dict[str, str],
    changes: list[Change],
    log: Log,
    say: Log,
) -> None:
    """Bring the host to a kept generation. Raises what `rollback` raises."""
    root, target = options.root, pending.target
    with staging.staged(root, texts, target.backend) as stage:
        if options.activate:
            staging.check(stage, target.backend, len(target.devices), log)
        record.begin(root, pending, current)
        activation = Activation(
            root=root,
            stage=stage,
            target=target,
            removed=pending.remaining_devices,
            changed_files={change.path for change in changes},
            previous=current,
        )
        try:
            staging.commit(root, changes)
            if not current.ok:
                before.sweep(root)
            if options.activate:
                converge.converge(activation, log, say)
            record.write(root, _done(pending, activated=options.activate))
            commands.finish()
        except Exception as error:  # noqa: BLE001  # whatever it is, the host goes back
            commands.finish()
            failed = failure_of(error)
            attempt = Attempt(
                options=options,
                changes=changes,
                failed=msgspec.structs.replace(pending, detail=str(failed)),
                previous=current,
                log=log,
                say=say,
            )
            go_back(attempt)
            raise failed from None


def _pending(current: Record, kept: Record) -> Record:
    """Return the record of a rollback that has begun."""
    # The payload gone back from counts as dealt with: the timer does not bring it back.
    target = msgspec.structs.replace(kept.target, generation=current.target.generation)
    return msgspec.structs.replace(
        kept,
        inputs=current.inputs,
        target=target,
        ok=False,
        detail=_BEGUN,
        remaining_devices=record.removed_devices(current, target),
        remaining_numbered=current.possible_numbered,
    )


def _done(pending: Record, *, activated: bool) -> Record:
    """Return the record of a rollback that has ended well."""
    if not activated:
        return msgspec.structs.replace(pending, detail="written, not activated")
    return msgspec.structs.replace(
        pending, ok=True, detail="", remaining_devices=[], remaining_numbered=[]
    )


def _kept(
    current: Record, generation: int | None, options: Options
) -> tuple[Record, dict[str, str]]:
    """Return the newest kept apply of that generation, or the one before the current one."""
    entries = []
    root = options.root
    for path in tree.find(root, f"{record.GENERATIONS}/*/record.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            kept = record.decode(tree.read(root, path, stored.LIMIT))
            entries.append((kept, PurePath(path).parent))
    entries.sort(key=lambda entry: entry[0].number, reverse=True)
    for kept, folder in entries:
        if generation is None:
            # The number of a rollback that has not ended is already that of where it leads.
            chosen = kept.number < current.number + (current.detail == _BEGUN)
        else:
            chosen = kept.target.generation == generation
        if chosen:
            texts = {
                str(PurePath(path).relative_to(folder)): files.read(root, path)
                for path in tree.walk(root, folder / "etc")
            }
            return kept, texts
    known = ", ".join(sorted({str(kept.target.generation) for kept, _ in entries})) or "none"
    hint = f"kept: {known}"
    raise Refused(Problem("generation", str(generation or "before"), "is not kept", hint))
