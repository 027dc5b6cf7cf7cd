"""`evpn-host confirm`, and what happens when it does not come: the host goes back."""

import contextlib
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.commands import Log
from generator.controller.config import Config, hostname
from generator.errors import Problem, Refused
from generator.reporting import report
from generator.reporting.report import Outcome
from generator.state import held, record, unconfirmed
from generator.state.lock import lock
from generator.state.unconfirmed import Unconfirmed
from generator.verbs import awaiting, rollback, uninstall
from generator.verbs.options import Options

_PAUSE = 60.0  # seconds until another try, when going back has failed


def confirm(options: Options, log: Log) -> Unconfirmed:
    """Keep what `--confirm` has made; return what it was. Raises `Refused`."""
    root = options.root
    with lock(root):
        waiting = unconfirmed.read(root)
        if waiting is None:
            payload = held.read(root)
            hint = payload.reason if payload and payload.reason == held.UNCONFIRMED else ""
            raise Refused(Problem("", "", "nothing waits to be confirmed", hint))
        current = record.read(root)
        if current is None or not current.ok or current.number != waiting.number:
            rule = "has not ended well, so it can't be kept"
            hint = f"this host goes back at {waiting.until}; evpn-host rollback does so at once"
            raise Refused(Problem(f"entry {waiting.number}", "", rule, hint))
        awaiting.disarm(root, waiting, log)
    return waiting


def expire(options: Options, settings: Config, log: Log, say: Log) -> bool:
    """Go back from what nobody has confirmed in time; return whether this host has gone back.

    Needs no network. Raises what `rollback` raises; then there is another try a minute later.
    """
    root = options.root
    waiting = unconfirmed.read(root)
    if waiting is None:
        awaiting.stop_timer(log)  # of a process that was killed before it had begun
        return False
    if not waiting.due:
        return False
    # No guard: the host goes back whatever can be reached then. That was promised.
    options = msgspec.structs.replace(options, guard=None, confirm=None)
    with report.reported(settings, settings.host or hostname(), say, activates=True) as run:
        with lock(root), commands.interruptible():
            waiting = unconfirmed.read(root)  # somebody may have confirmed it meanwhile
            if waiting is None or not waiting.due:
                return False
            try:
                run.outcome = _go_back(waiting, options, log, say)
            except Exception:  # whatever it is, the host has to go back in the end
                with contextlib.suppress(OSError):  # then the next try comes in seconds
                    _wait(root, waiting)
                raise
            awaiting.disarm(root, waiting, log)
        run.message = f"entry {waiting.number} was not confirmed in time: this host has gone back"
    say(run.message)
    return True


def _wait(root: Path, waiting: Unconfirmed) -> None:
    """Have the next try come in a minute: each one activates the whole host."""
    until, deadline = unconfirmed.deadline(_PAUSE)
    boot = unconfirmed.boot_id()
    again = msgspec.structs.replace(waiting, until=until, deadline=deadline, boot=boot)
    unconfirmed.write(root, again)


def _go_back(waiting: Unconfirmed, options: Options, log: Log, say: Log) -> Outcome | None:
    """Bring back what was there before, and have the payload wait for another one."""
    root = options.root
    current = record.read(root)
    if current is None or (current.ok and current.number == waiting.back_to):
        return None  # it was stopped before it had changed anything
    if waiting.back_to:
        outcome, _ = rollback.go_to(waiting.back_to, options, log, say)
    else:
        uninstall.take_back(current, options, log, say)
        outcome = Outcome(current.target.host, current.target.generation)
    if waiting.verb == "apply":
        held.hold_undone(root, current.inputs, held.UNCONFIRMED)
    else:
        held.release(root)  # the payload that a person went back from counts again
    return outcome
