"""Why a host can't have our packet filter: its kernel refuses it, or a tool is missing.

/var/lib/evpn-host/unfiltered.json     removed once the filter is loaded
"""

from pathlib import Path

import msgspec

from generator.state import files, stored
from generator.state.record import STATE

FILE = STATE / "unfiltered.json"


class Unfiltered(msgspec.Struct, frozen=True):
    """The kernel and the program with which loading failed, and why."""

    kernel: str
    nft: str  # name of the program, "" if it is missing
    reason: str


def read(root: Path) -> Unfiltered | None:
    """Return why loading failed, None if it did not, or was never tried."""
    try:
        return stored.read(root, FILE, Unfiltered)
    except (OSError, msgspec.DecodeError):
        return None


def write(root: Path, why: Unfiltered) -> None:
    """Store why loading failed."""
    files.write(root, FILE, msgspec.json.encode(why), 0o600)


def remove(root: Path) -> None:
    """Remove the reason: the filter is loaded."""
    files.remove(root, FILE)
