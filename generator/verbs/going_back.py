"""Undoes a failed apply or rollback: the host returns to the state in its previous record."""

import contextlib

import msgspec

from generator.activation import backends, before, converge, staging
from generator.activation.backend import Activation
from generator.activation.commands import Log, uninterrupted
from generator.activation.guard import Guard
from generator.errors import ActivationFailed, Stranded, problems_of
from generator.state import changes as reading
from generator.state import record
from generator.state.changes import Change
from generator.state.record import Record
from generator.verbs.options import Options

# Seconds that the guard waits at least after going back: a session that a leaf has refused takes
# long to come up again.
_LEAST_PATIENCE = 90.0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A failed apply or rollback. It may have made only some of its changes."""

    options: Options
    changes: list[Change]
    failed: Record  # of the attempt; its `detail` says why it failed
    previous: Record | None  # of the state to return to, None on a host that had none
    guard: Guard
    log: Log
    say: Log


def failure_of(error: Exception) -> ActivationFailed:
    """Return the failure that ends a verb after its host has gone back, for any error."""
    return ActivationFailed(*problems_of(error))


def go_back(attempt: Attempt) -> None:
    """Undo an attempt. No signal interrupts it. Raises `Stranded` if that fails too."""
    root = attempt.options.root
    with uninterrupted():
        attempt.say("going back to the previous generation")
        try:
            staging.commit(root, _changed(attempt))
            restored = _restored(attempt)
            if restored and _has_other_management(attempt, restored):
                # The hook reads the record: it has to bring the address back now.
                record.write(root, _going_back(attempt, restored))
            if attempt.options.activate:
                _activate(attempt)
            if restored:
                record.write(root, restored)
            else:
                record.remove(root)
        except Exception as second:  # noqa: BLE001  # whatever it is, a person has to know
            with contextlib.suppress(OSError):  # the record says `ok: false` already
                record.write(root, attempt.failed)
            unit = backends.named(attempt.failed.target.backend).unit
            raise Stranded(
                *attempt.failed.detail.splitlines(),
                "going back to the previous generation failed too:",
                *problems_of(second),
                f"look at: systemctl status {unit} frr; evpn-host status; evpn-host diff",
            ) from None


def _changed(attempt: Attempt) -> list[Change]:
    """Return the files that are not as they were. One that can't be written still is."""
    back = (Change(each.path, each.new, each.old) for each in attempt.changes)
    root = attempt.options.root
    return [change for change in back if reading.read(root, change.path) != change.new]


def _restored(attempt: Attempt) -> Record | None:
    """Return the previous record, with the management addresses that the attempt may have set."""
    if attempt.previous is None:
        return None
    former = record.former_addresses(attempt.failed, attempt.previous.target)
    return msgspec.structs.replace(attempt.previous, former_addresses=former)


def _has_other_management(attempt: Attempt, restored: Record) -> bool:
    """Whether the previous record tells the hook something else than the failed one."""
    failed = attempt.failed
    return (failed.target.management, failed.former_addresses) != (
        restored.target.management,
        restored.former_addresses,
    )


def _going_back(attempt: Attempt, restored: Record) -> Record:
    """Return the record while the host goes back: devices of the attempt may still exist."""
    return msgspec.structs.replace(
        restored,
        ok=False,
        detail=record.GOING_BACK,
        remaining_devices=record.removed_devices(attempt.failed, restored.target),
        remaining_numbered=attempt.failed.possible_numbered,
    )


def _activate(attempt: Attempt) -> None:
    """Have the native tools activate the previous files, which are in place again."""
    root, log = attempt.options.root, attempt.log
    failed, previous = attempt.failed, attempt.previous
    if previous is None:
        converge.withdraw(failed, log)
        before.restore(root, before.read(root), log)
        return
    target = previous.target
    texts = {path: reading.read(root, path) or "" for path in target.files}
    with staging.staged(root, texts, target.backend) as stage:
        staging.check(stage, target.backend, len(target.devices), log)
        back = Activation(
            root=root,
            stage=stage,
            target=target,
            removed=record.removed_devices(failed, target),
            changed_files={change.path for change in attempt.changes},
            previous=failed,
        )
        converge.converge(back, log, attempt.say)
    attempt.guard.hold(target, _LEAST_PATIENCE)
