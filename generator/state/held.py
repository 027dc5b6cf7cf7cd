"""A payload that this host leaves alone: the host went back from it, or it failed.

/var/lib/evpn-host/held.json     removed when another payload is applied, or this one by a person

A payload that failed is tried again after a while: the cause may have been the fabric.
"""

import datetime
from pathlib import Path

import msgspec

from generator.state import files, stored
from generator.state.record import STATE, now

FILE = STATE / "held.json"
UNCONFIRMED = "it was not confirmed in time"
PAUSES = (5, 15, 60)  # minutes until the next try, after the first, second, and each later failure


class Held(msgspec.Struct, frozen=True):
    """Which payload is left alone, since when and why."""

    inputs: str  # digest of everything from which the files would be rendered
    reason: str
    since: str  # ISO 8601, UTC
    failures: int = 0  # how often it failed; 0: the host went back from it

    @property
    def until(self) -> datetime.datetime | None:
        """When it is tried again; None: never."""
        if not self.failures:
            return None
        pause = PAUSES[min(self.failures, len(PAUSES)) - 1]
        return datetime.datetime.fromisoformat(self.since) + datetime.timedelta(minutes=pause)

    def __str__(self) -> str:
        until = self.until
        end = (
            f"it is tried again at {until.isoformat()}" if until else "only another one is applied"
        )
        return f"the payload has been left alone since {self.since}: {self.reason}; {end}"


def read(root: Path) -> Held | None:
    """Return the payload that is left alone, None if there is none."""
    try:
        return stored.read(root, FILE, Held)
    except (OSError, msgspec.DecodeError):
        return None


def find(root: Path, inputs: str) -> Held | None:
    """Return why these inputs must not be applied now, None if they may be."""
    held = read(root)
    if held is None or held.inputs != inputs:
        return None
    until = held.until
    return held if until is None or datetime.datetime.now(datetime.UTC) < until else None


def hold_failed(root: Path, inputs: str, reason: str) -> None:
    """Leave inputs that failed alone, for longer each time."""
    before = read(root)
    same = before is not None and before.inputs == inputs
    count = before.failures + 1 if before and same else 1
    _write(root, Held(inputs, reason, now(), count))


def hold_undone(root: Path, inputs: str, reason: str = "a person went back from it") -> None:
    """Leave inputs alone because the host went back from them."""
    _write(root, Held(inputs, reason, now()))


def release(root: Path) -> None:
    """Leave no payload alone any more."""
    files.remove(root, FILE)


def _write(root: Path, held: Held) -> None:
    files.write(root, FILE, msgspec.json.encode(held), 0o600)
