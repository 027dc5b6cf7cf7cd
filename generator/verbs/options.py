"""The options of a verb that acts on a host."""

from pathlib import Path

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a verb that acts on a host."""

    root: Path = Path("/")
    backend: str | None = None
    host: str | None = None
    activate: bool = True
    full: bool = False
    force: bool = False
    started_by: str = ""  # for the history
    keep: int = 20  # entries of the history
    person: bool = False  # whether a person named the payload: it is then always applied
    guest_bgp: bool = False  # whether guests may reach BGP and BFD
    guest_nat: bool = True  # whether NAT rules of others may translate guests' addresses
    replace_frr: bool = False  # whether a BGP instance of the operator may end
    confirm: float | None = None  # seconds within which somebody has to confirm; None: no need
    guard: float | None = None  # seconds within which all must be reachable again; None: no guard

    @property
    def patience(self) -> float | None:
        """Seconds that the guard waits; None: there is no guard, or nothing is activated."""
        return self.guard if self.activate else None
