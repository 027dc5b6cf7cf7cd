"""Where the hook has put the management address: its memory, and what `status` shows of it.

/run/evpn-host/failover.json     gone after a reboot, like the addresses that it is about
"""

from pathlib import Path
from typing import Literal

import msgspec

from generator.state import stored

Place = Literal["nic", "bridge"]
FILE = Path("run/evpn-host/failover.json")


class Original(msgspec.Struct):
    """What the operator has on the NIC, to be put back there one day.

    An address or a gateway that is not a key was never there. A gateway without routes has none.
    """

    addresses: dict[str, str] = {}  # each with what ip-address(8) adds to it
    routes: dict[str, list[str]] = {}  # gateway to its default routes


class Placement(msgspec.Struct):
    """Where the address is and why. A restart of the hook goes on from here."""

    place: Place | None = None  # None: not known yet
    device: str = ""
    since: float = 0.0  # seconds since the epoch
    reason: str = "not looked yet"
    moves: int = 0
    repairs: int = 0  # how often somebody else had put it elsewhere
    index: int = 0  # of the NIC, which may be renamed
    original: Original = msgspec.field(default_factory=Original, name="own")


def read(root: Path) -> Placement | None:
    """Return what the hook last wrote, None if it wrote nothing."""
    try:
        return stored.read(root, FILE, Placement)
    except (OSError, msgspec.DecodeError):
        return None
