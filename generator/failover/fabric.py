"""Asks bgpd for the state of the sessions, over one connection that stays open."""

import contextlib
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path

from generator.failover import announce
from generator.observed import frr

ANSWER = 2.0  # seconds that bgpd has to answer a question
PATIENCE = 10.0  # seconds without an answer after which the hook assumes that no session is up
# bgpd can't open a session to a leaf before it has heard an advertisement of the leaf, and a leaf
# sends one every 10 s. So the hook solicits one: how many times after bgpd starts, how often (s).
SOLICITATIONS, SOLICITATION_INTERVAL = 3, 1.0
# bgpd logs this when a session comes up or ends (`bgp log-neighbor-changes`). The kernel has no
# event for a session that comes up, and the first routes come a second later.
_CHANGE = b"%ADJCHANGE"


class Fabric:
    """The sessions of this host, and the reason for the place of the address."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.reason = ""  # the last answer of bgpd in words; empty before the first answer
        self.soliciting = False  # whether leaves still have to be solicited
        self._clock = clock
        self._bgpd = frr.Vty("bgpd", root, ANSWER)
        self._silent_since: float | None = None
        self._solicitations_left = SOLICITATIONS
        self._solicited_at = 0.0

    def established(self, own: list[str]) -> list[str] | None:
        """Return neighbors whose session carries EVPN; None: bgpd may only be busy.

        `own` are the neighbors that we configured, which may be solicited. There may be others, of
        the operator.
        """
        now = self._clock()
        try:
            sessions = frr.summary(self._bgpd).values()
        except frr.Silent as silent:
            if self._silent_since is None:
                self._silent_since = now
            self._solicitations_left = SOLICITATIONS
            self.reason = f"no answer for {PATIENCE:.0f} s, which counts as no session: {silent}"
            return [] if self._clock() - self._silent_since > PATIENCE else None
        self._silent_since = None
        self.reason = _because(sessions)
        idle = {session.neighbor for session in sessions if session.evpn == "Idle"}
        self._solicit([neighbor for neighbor in own if neighbor in idle])
        return [session.neighbor for session in sessions if session.established]

    def _solicit(self, neighbors: list[str]) -> None:
        """Ask the leaves on these uplinks for an advertisement, a few times only."""
        self.soliciting = bool(neighbors and self._solicitations_left)
        now = self._clock()
        if self.soliciting and now >= self._solicited_at + SOLICITATION_INTERVAL:
            self._solicitations_left -= 1
            self._solicited_at = now
            for neighbor in neighbors:
                announce.solicit(neighbor)

    def lacks_next_hop(self, ifname: str) -> bool:
        """Whether bgpd sends the leaf on an uplink a next hop that the leaf can't use."""
        with contextlib.suppress(frr.Silent):
            return frr.next_hop(self._bgpd, ifname).startswith("::ffff:")
        return False

    def log(self) -> socket.socket | None:
        """Return a socket that is readable when bgpd has logged something; None: there is none."""
        return self._bgpd.log()

    def changed(self) -> bool:
        """Read bgpd's log: whether a session came up or ended, or bgpd itself ended."""
        return _CHANGE in self._bgpd.read() or not self._bgpd.log()


def _because(sessions: Collection[frr.Session]) -> str:
    """Return the state of the sessions in words, as the reason for a place."""
    if established := [session.neighbor for session in sessions if session.established]:
        return f"EVPN is Established with {', '.join(established)}"
    states = ", ".join(f"{session.neighbor} is {session.evpn}" for session in sessions)
    return f"no EVPN session is Established: {states or 'there is none'}"
