"""Limits how often the address moves, and schedules its announcements."""

import time
from collections.abc import Callable

BURST, REFILL = 2, 10.0  # moves at once; seconds until the next one is allowed
# Seconds after a move at which the address is announced. The fabric forwards nothing before the
# leaf has sent its first routes, about a second after the session (FRR's coalesce-time).
EARLY = (0.0, 0.1, 0.3, 0.6, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0)
# Later times, for a hook that keeps running: busy leaves forward for a new V-Net later, and a
# neighbour that missed all announcements keeps the old MAC for up to a minute.
LATER = (8.0, 12.0, 18.0, 25.0, 35.0, 45.0)


class Damping:
    """Limits moves, so that the address does not follow each flap of a session."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._allowed = float(BURST)
        self._counted_at = clock()

    def wait(self) -> float:
        """Return the seconds until another move is allowed, 0 if one is allowed now."""
        now = self._clock()
        self._allowed = min(BURST, self._allowed + (now - self._counted_at) / REFILL)
        self._counted_at = now
        return 0.0 if self._allowed >= 1 else (1 - self._allowed) * REFILL

    def count(self) -> None:
        """Count a move."""
        self._allowed = max(0.0, self._allowed - 1)


class Backoff:
    """Schedules tries to set routes that the kernel has refused, with growing pauses."""

    FIRST, LONGEST = 5.0, 3600.0  # seconds

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Start again: the next try may come at once."""
        self._pause, self._again = self.FIRST, 0.0

    def due(self) -> bool:
        """Return whether a try is due. If so, the pause until the next one grows."""
        now = self._clock()
        if now < self._again:
            return False
        self._again, self._pause = now + self._pause, min(2 * self._pause, self.LONGEST)
        return True


class Schedule:
    """Schedules the announcements of the address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: list[float] = []
        self.restart()  # an earlier hook may have ended before all its announcements

    def restart(self) -> None:
        """Start again: the address has moved."""
        self._times = [self._clock() + after for after in EARLY + LATER]

    def shorten(self) -> None:
        """Leave out the later times, for a hook that does not keep running."""
        self._times = self._times[: -len(LATER)]

    def due(self) -> bool:
        """Return whether an announcement is due, and drop all times that have passed."""
        now = self._clock()
        before = len(self._times)
        self._times = [at for at in self._times if at > now]
        return len(self._times) < before

    def wait(self) -> float | None:
        """Return the seconds until the next announcement; None: there is none."""
        return max(0.0, self._times[0] - self._clock()) if self._times else None
