"""An apply with `--confirm` that nobody has confirmed yet: at its deadline the host goes back.

/var/lib/evpn-host/unconfirmed.json     removed by `confirm`, or when the host has gone back
"""

import datetime
import time
from pathlib import Path

import msgspec

from generator.errors import Problem, Refused
from generator.state import files, stored
from generator.state.record import STATE

FILE = STATE / "unconfirmed.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # proc_sys_kernel(5)


class Unconfirmed(msgspec.Struct, frozen=True, kw_only=True):
    """An apply or a rollback, and the entry to which the host goes back from it."""

    verb: str  # apply or rollback
    number: int  # its own entry of the history
    back_to: int  # 0: to the host without evpn-host
    started_by: str
    until: str  # ISO 8601, UTC: only for people, because the clock may be changed
    deadline: float  # the same by the kernel's monotonic clock, seconds
    boot: str  # the boot to which that clock belongs
    boot_unit: bool = False  # whether the boot service was enabled only for this

    @property
    def due(self) -> bool:
        """Whether it is time to go back. A reboot counts too: perhaps nobody reached the host."""
        return self.boot != boot_id() or time.monotonic() >= self.deadline

    def __str__(self) -> str:
        return f"entry {self.number} is not confirmed: this host goes back at {self.until}"


def boot_id() -> str:
    """Return the kernel's identifier of this boot."""
    return _BOOT_ID.read_bytes().decode().strip()


def deadline(seconds: float) -> tuple[str, float]:
    """Return the time in so many seconds: for people, and by the monotonic clock."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return until.isoformat(timespec="seconds"), time.monotonic() + seconds


def read(root: Path) -> Unconfirmed | None:
    """Return the apply that waits to be confirmed, None if none does. Raises `Refused`."""
    try:
        return stored.read(root, FILE, Unconfirmed)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        hint = "rollback goes back to an entry of the history, and removes it"
        raise Refused(Problem(f"/{FILE}", "", stored.problem(error), hint)) from None


def write(root: Path, waiting: Unconfirmed) -> None:
    """Store the apply that waits to be confirmed."""
    files.write(root, FILE, msgspec.json.encode(waiting), 0o600)


def remove(root: Path) -> None:
    """Remove it: nothing waits to be confirmed any more."""
    files.remove(root, FILE)
