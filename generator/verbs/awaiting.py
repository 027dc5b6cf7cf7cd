"""Implements `--confirm`: the host goes back unless somebody confirms in time.

systemd goes back, not this process: by a transient timer when the time is over, and by the boot
service after a reboot.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from generator.activation import services
from generator.activation.commands import Log
from generator.errors import ActivationFailed, Interrupted, Problem, Refused, problems_of
from generator.state import generations, unconfirmed
from generator.state.record import Record
from generator.state.unconfirmed import Unconfirmed
from generator.verbs.options import Options

TIMER = "evpn-host-unconfirmed"
BOOT = "evpn-host.service"


def refuse_second(root: Path) -> None:
    """Raise `Refused` while something waits to be confirmed."""
    if waiting := unconfirmed.read(root):
        raise Refused(
            Problem(
                f"{waiting.verb} by {waiting.started_by}",
                "",
                str(waiting),
                "evpn-host confirm keeps it, evpn-host rollback goes back at once",
            )
        )


@contextlib.contextmanager
def awaiting(  # noqa: PLR0913, PLR0917
    options: Options, verb: str, number: int, previous: Record | None, log: Log, say: Log
) -> Iterator[None]:
    """Have the host undo the changes inside the block, unless somebody confirms them in time.

    The time starts again at the end of the block. `number` is the entry of the history that the
    changes make. Raises `Refused` if going back would not be possible.
    """
    seconds = options.confirm
    if seconds is None:
        yield
        return
    root = options.root
    if not services.is_installed(BOOT, root):
        rule = "is not installed: nothing would go back after a reboot"
        raise Refused(Problem(BOOT, "", rule, "evpn-host install-units writes it"))
    until, deadline = unconfirmed.deadline(seconds)
    waiting = Unconfirmed(
        verb=verb,
        number=number,
        back_to=_way_back(root, previous),
        started_by=options.started_by,
        until=until,
        deadline=deadline,
        boot=unconfirmed.boot_id(),
        boot_unit=not services.is_enabled(BOOT, log),
    )
    try:
        _arm(root, waiting, seconds, log)
        yield
    except (Refused, ActivationFailed, Interrupted):  # the host has its previous state
        disarm(root, waiting, log)
        raise
    until, deadline = unconfirmed.deadline(seconds)
    unconfirmed.write(root, msgspec.structs.replace(waiting, until=until, deadline=deadline))
    say(f"this host goes back at {until}, unless `evpn-host confirm` comes before")


def _arm(root: Path, waiting: Unconfirmed, seconds: float, log: Log) -> None:
    """Have systemd go back in time. Raises `Refused`."""
    try:
        services.cancel(TIMER, log)  # an earlier timer that could not be stopped
        # The timer comes first. If this process is killed after it has written the note, the timer
        # reads the note.
        services.run_later(TIMER, seconds, ("rollback", "--unconfirmed"), log)
        unconfirmed.write(root, waiting)
        if waiting.boot_unit:
            services.enable_at_boot(BOOT, "it goes back after a reboot", log)
    except (ActivationFailed, OSError) as failure:
        raise Refused(*problems_of(failure)) from None


def disarm(root: Path, waiting: Unconfirmed, log: Log) -> None:
    """Cancel going back. If the timer can't be stopped, it will find nothing to do."""
    unconfirmed.remove(root)
    stop_timer(log)
    with contextlib.suppress(ActivationFailed):
        if waiting.boot_unit:
            services.disable_at_boot(BOOT, "it was enabled for this alone", log)


def stop_timer(log: Log) -> None:
    """Stop the timer that goes back."""
    with contextlib.suppress(ActivationFailed):
        services.cancel(TIMER, log)


def _way_back(root: Path, previous: Record | None) -> int:
    """Return the entry to go back to, 0 for a host without evpn-host. Raises `Refused`."""
    if previous is None:
        return 0
    good = [entry.number for entry in generations.entries(root) if entry.ok]
    if previous.ok and previous.number in good:
        return previous.number
    earlier = [number for number in good if number < previous.number]
    if previous.ok or (previous.activated and not earlier):
        rule = "there is no entry of the history that has what the host has now"
        raise Refused(Problem("--confirm", "", rule, "an apply without --confirm makes one"))
    return max(earlier, default=0)
