"""Keeps frr-reload.py's answer about lines in which FRR and its file differ: it is slow to ask.

/var/lib/evpn-host/frr.json
"""

from pathlib import Path

import msgspec

from generator.state import files, stored
from generator.state.record import STATE

FILE = STATE / "frr.json"


class Reloaded(msgspec.Struct, frozen=True):
    """Digests of drifts."""

    same: str = ""  # the lines differ only in their spelling
    lasting: str = ""  # a reload does not remove the difference


def read(root: Path) -> Reloaded:
    """Return the known answers; none if the file can't be read."""
    try:
        return stored.read(root, FILE, Reloaded)
    except (OSError, msgspec.DecodeError):
        return Reloaded()


def write(root: Path, known: Reloaded) -> None:
    """Store the known answers."""
    if read(root) != known:
        files.write(root, FILE, msgspec.json.encode(known), 0o600)
