"""The guard: an apply ends well only when what could be reached before can still be reached.

Before anything changes it stores which EVPN sessions are Established, whether the gateway of the
management address and the leaves answer, and whether the controller does. Afterwards it waits until
each of these is true again, if the payload still has it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation import frr as activation
from generator.activation.commands import Log, Step
from generator.desired.target import Target
from generator.errors import ActivationFailed, Problem, Refused
from generator.observed import frr

_QUIET = 2.0  # seconds until a message says what we wait for
_NEW = 15.0  # seconds that we wait for a new link's session, which may come later
_SETTLED = 4.0  # seconds after which a new session has its routes: the leaf sends them 1 s later
_INTERVAL = 0.5  # seconds between two checks of what is still missing


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What can be reached."""

    sessions: frozenset[str] = frozenset()  # neighbors with Established EVPN
    gateways: frozenset[str] = frozenset()  # of the management address, that answer
    leaves: frozenset[str] = frozenset()  # loopbacks that answer the host's own


class Guard:
    """Compares what can be reached with what could be reached before the host was changed."""

    def __init__(
        self,
        seconds: float | None,
        log: Log,
        say: Log,
        controller: Callable[[], bool] | None = None,
    ) -> None:
        """Take the seconds that everything may need to come back; None switches the guard off.

        `controller` returns whether a controller that has just answered still does.
        """
        self._seconds = seconds
        self._log = log
        self._say = say
        self._controller = controller
        self._before = Reach()
        self._new: frozenset[str] = frozenset()  # sessions that only the plan has

    def look(self, current: Target | None, planned: Target) -> None:
        """Store what can be reached now, by the target that is applied now.

        Raises `Refused` if the plan has none of the sessions that are Established.
        """
        if self._seconds is None:
            return
        target = current or planned
        sessions = _sessions()
        if sessions and not sessions & set(planned.sessions):
            names = ", ".join(sorted(sessions))
            rule = f"would be left without a session: {names} would end, and no other is up"
            raise Refused(Problem("this host", "", rule, "--no-guard applies it all the same"))
        self._new = frozenset(planned.sessions) - frozenset(target.sessions)
        self._before = Reach(
            sessions=sessions,
            gateways=frozenset(filter(self._answers, _gateways(target))),
            leaves=frozenset(
                leaf for leaf in _leaves(target) if self._answers(leaf, _loopback(target))
            ),
        )

    def hold(self, target: Target, least: float = 0.0) -> None:
        """Wait until everything that a target still has can be reached again, at least `least` s.

        Raises `ActivationFailed` with what can't be reached.
        """
        if self._seconds is None:
            return
        limit = max(self._seconds, least)
        start = time.monotonic()
        is_announced = False
        while missing := list(self._missing(target)):
            elapsed = time.monotonic() - start
            if elapsed > _QUIET and not is_announced:
                self._say(f"waiting, as {'; '.join(missing)}")
                is_announced = True
            if elapsed > limit:
                hint = f"waited for {limit:g} s"
                raise ActivationFailed(*(Problem("guard", "", text, hint) for text in missing))
            time.sleep(_INTERVAL)
        self._wait_for_new(target)

    def _wait_for_new(self, target: Target) -> None:
        """Wait for sessions of new links, but not for ever: a switch port may not be ready yet.

        The kernel can lose FRR's routes over such a link, and nobody else would notice it.
        """
        new = self._new & set(target.sessions) if self._before.sessions else frozenset()
        last = time.monotonic() if new else 0.0  # when something was missing
        end = last + min(_NEW, self._seconds or 0)
        while time.monotonic() < last + _SETTLED:
            time.sleep(_INTERVAL)
            if (missing := new - _sessions()) or self._lost():
                last = time.monotonic()
            if last > end:
                names = ", ".join(sorted(missing or new))
                self._say(f"warning: the session with {names} is not up yet")
                return

    def _missing(self, target: Target) -> Iterator[str]:
        """Yield what could be reached before and can't be reached now, the cheapest check first."""
        expected = self._before.sessions & set(target.sessions)
        for name in sorted(expected - _sessions()):
            yield f"session {name} is not Established, but was before"
        if expected:
            yield from self._lost()
        families = {":" in gateway for gateway in self._before.gateways}
        for gateway in _gateways(target):
            if (":" in gateway) in families and not self._answers(gateway):
                yield f"the management gateway {gateway} does not answer, but did before"
        if expected == self._before.sessions:
            for leaf in sorted(self._before.leaves):
                if not self._answers(leaf, _loopback(target)):
                    yield f"the leaf's loopback {leaf} does not answer, but did before"
        if self._controller and not self._controller():
            yield "the controller does not answer, but did before"

    def _lost(self) -> list[str]:
        """Restore what FRR has installed and the kernel has lost, and return it."""
        try:
            return activation.repair(Path("/"), self._log)
        except frr.Silent as silent:
            return [str(silent)]

    def _answers(self, address: str, source: str = "") -> bool:
        """Whether an address answers a ping. False if the command ping is missing."""
        argv = ["ping", "-n", "-c", "1", "-W", "1", *(["-I", source] if source else []), address]
        with contextlib.suppress(ActivationFailed):
            commands.run(Step(tuple(argv), "whether it can be reached", timeout=5), self._log)
            return True
        return False


def _sessions() -> frozenset[str]:
    """Return the neighbors with which EVPN is Established."""
    with contextlib.suppress(frr.Silent):
        known = frr.sessions(Path("/"))
        return frozenset(name for name, session in known.items() if session.established)
    return frozenset()


def _gateways(target: Target) -> list[str]:
    management = target.management
    return [gateway for _, gateway in management.pairs if gateway] if management else []


def _loopback(target: Target) -> str:
    return min(target.loopbacks, default="")


def _leaves(target: Target) -> list[str]:
    """Return the loopbacks of the leaves with a session, which are their BGP identifiers."""
    with contextlib.suppress(frr.Silent):
        return sorted(frr.router_ids(Path("/"))) if target.loopbacks else []
    return []
