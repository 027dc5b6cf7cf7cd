"""Why a host has no packet filter: its kernel, or the lack of a tool.

/var/lib/evpn-host/unfiltered.json     gone once the filter is there
"""

from pathlib import Path

import msgspec

from generator.state import files, stored
from generator.state.record import STATE

FILE = STATE / "unfiltered.json"


class Unfiltered(msgspec.Struct, frozen=True):
    """With which kernel and which program it was tried, and what was said."""

    kernel: str
    nft: str  # name of the program, "" without
    reason: str


def read(root: Path) -> Unfiltered | None:
    """Return why, None if the host has its filter or nobody has tried."""
    try:
        return stored.read(root, FILE, Unfiltered)
    except (OSError, msgspec.DecodeError):
        return None


def write(root: Path, why: Unfiltered) -> None:
    """Remember why."""
    files.write(root, FILE, msgspec.json.encode(why), 0o600)


def remove(root: Path) -> None:
    """Forget it: the filter is there."""
    files.remove(root, FILE)
