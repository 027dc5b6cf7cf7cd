"""Chooses the processor of this computer on which a machine runs.

The kernel and the programs of a machine are processes. At every system call one of them waits for
another, which is slower by up to a quarter if they run on different processors. So all of them run
on one processor. If that one is busy while another is idle, they move there together.
"""

from __future__ import annotations

import fcntl
import functools
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lab.build import cache

PAUSE = 0.25
"""Seconds between two samples."""
WAITED, IDLE = 0.1, 0.5
"""A machine moves if it waited for its processor longer than the first of these shares of the time
between two samples, and if another processor was idle longer than the second."""


@functools.cache
def claim() -> str:
    """Claim half a processor for the machines of this process; return its number.

    If no half is free, return the numbers of all processors, separated by commas.
    """
    numbers = [str(number) for number in sorted(os.sched_getaffinity(0))]
    for half in range(2):
        for number in numbers:
            # The lock stays open, because it holds the claim until this process ends.
            path = cache() / f".processor-{number}-{half}.lock"
            lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                return number
    return ",".join(numbers)


def balance(program: int) -> None:
    """Move what a program started from a busy processor to an idle one, until the program ends.

    Processes that may use several processors stay where they are.
    """
    allowed = os.sched_getaffinity(0)
    with suppress(OSError), (cache() / ".move.lock").open("w") as lock:  # the program ended
        while not (process := next(below(program), 0)):
            time.sleep(PAUSE)
            os.getpgid(program)  # raises ProcessLookupError once it has ended
        previous = _take_sample(process)
        while len(os.sched_getaffinity(process)) == 1:
            time.sleep(PAUSE)
            sample = _take_sample(process)
            seconds = sample.at - previous.at
            idle, best = max((sample.idle[each] - previous.idle[each], each) for each in allowed)
            waited = sample.waited - previous.waited
            if waited > WAITED * seconds and idle > IDLE * seconds:
                # Machines move one at a time. The pause lets the next one see the effect of a move
                # before it decides.
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _move(process, best)
                    time.sleep(PAUSE)
                    fcntl.flock(lock, fcntl.LOCK_UN)
                    sample = _take_sample(process)
            previous = sample


def below(process: int) -> Iterator[int]:
    """Yield the process ids of all descendants of a process."""
    with suppress(FileNotFoundError):  # the process ended in the meantime
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield int(child)
            yield from below(int(child))


class _Sample(NamedTuple):
    """Counters of seconds, each since some time in the past."""

    at: float
    waited: float
    """How long the process was ready to run but did not run."""
    idle: dict[int, float]
    """How long each processor had nothing to do."""


def _take_sample(process: int) -> _Sample:
    waited = int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    tick = os.sysconf("SC_CLK_TCK")
    idle = {
        int(name[3:]): (int(numbers[3]) + int(numbers[4])) / tick
        for name, *numbers in lines
        if name.startswith("cpu") and name != "cpu"
    }
    return _Sample(time.monotonic(), waited, idle)


def _move(process: int, processor: int) -> None:
    for each in (process, *below(process)):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended in the meantime
            for thread in Path(f"/proc/{each}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {processor})
