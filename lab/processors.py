"""Which of this computer's processors a machine runs on.

The kernel and the programs of a machine are processes, of which one waits for the other at every
system call: slower by up to a quarter when each is on a processor of its own. So they are kept on
one, and moved together when that is taken while another idles.
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
"""Seconds between two looks."""
WAITED, IDLE = 0.1, 0.5
"""The shares of that for which one has to wait for its processor, and another has nothing to do."""


@functools.cache
def claim() -> str:
    """Claim half a processor for the machines of this process, if one is free."""
    numbers = [str(number) for number in sorted(os.sched_getaffinity(0))]
    for half in range(2):
        for number in numbers:
            # Never closed: the claim is good as long as this process lives.
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
    """Move what a program started from a processor that is taken to one that idles, while it lives.

    What may use several processors is left alone.
    """
    ours = os.sched_getaffinity(0)
    with suppress(OSError), (cache() / ".move.lock").open("w") as lock:  # it ended
        while not (process := next(below(program), 0)):
            time.sleep(PAUSE)
            os.getpgid(program)  # raises ProcessLookupError once it has ended
        before = _look(process)
        while len(os.sched_getaffinity(process)) == 1:
            time.sleep(PAUSE)
            now = _look(process)
            long = now.at - before.at
            idle, best = max((now.idle[each] - before.idle[each], each) for each in ours)
            if now.waited - before.waited > WAITED * long and idle > IDLE * long:
                # One at a time, and the next one only once it sees what came of it.
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _move(process, best)
                    time.sleep(PAUSE)
                    fcntl.flock(lock, fcntl.LOCK_UN)
                    now = _look(process)
            before = now


def below(process: int) -> Iterator[int]:
    """Number all that a process started, and all that those did."""
    with suppress(FileNotFoundError):  # it ended meanwhile
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield int(child)
            yield from below(int(child))


class _Look(NamedTuple):
    """Seconds, each since some time in the past."""

    at: float
    waited: float
    """That the process was ready to run, and did not."""
    idle: dict[int, float]
    """That each processor had nothing to do."""


def _look(process: int) -> _Look:
    waited = int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    tick = os.sysconf("SC_CLK_TCK")
    idle = {
        int(name[3:]): (int(numbers[3]) + int(numbers[4])) / tick
        for name, *numbers in lines
        if name.startswith("cpu") and name != "cpu"
    }
    return _Look(time.monotonic(), waited, idle)


def _move(process: int, processor: int) -> None:
    for each in (process, *below(process)):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            for thread in Path(f"/proc/{each}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {processor})
