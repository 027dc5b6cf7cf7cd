"""What frr-reload.py has said of lines in which FRR and its file differ, so that it is asked once.

/var/lib/evpn-host/frr.json
"""

from pathlib import Path

import msgspec

from generator.state import files, stored
from generator.state.record import STATE

FILE = STATE / "frr.json"


class Reloaded(msgspec.Struct, frozen=True):
    """Digests of drifts."""

    same: str = ""  # only spelt otherwise
    lasting: str = ""  # a reload does not put it right


def read(root: Path) -> Reloaded:
    """Return what is known; nothing, if the file can't be read."""
    try:
        return stored.read(root, FILE, Reloaded)
    except (OSError, msgspec.DecodeError):
        return Reloaded()


def write(root: Path, known: Reloaded) -> None:
    """Store what is known."""
    if read(root) != known:
        files.write(root, FILE, msgspec.json.encode(known), 0o600)
