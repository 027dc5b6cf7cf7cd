"""Spreads work over all processors, by one forked process for each.

A forked process shares everything that this one has read, so nothing large is sent to it.
"""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

from generator.errors import Refused

_PART = 16  # items that a process handles at a time
Item = TypeVar("Item")
Result = TypeVar("Result")
_inherited: list[Callable[..., object]] = []  # in a forked process: its function for an item


def spread(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[list[Result]]:
    """Yield the results of a function for the items, part by part, in the order of the items.

    Raises what the function raises, and `Refused` if a process was killed.
    """
    parts = [items[first : first + _PART] for first in range(0, len(items), _PART)]
    processes = min(len(os.sched_getaffinity(0)), len(parts))
    if processes > 1:
        yield from _forked(function, parts, processes)
        return
    for part in parts:
        yield [function(item) for item in part]


def _forked(
    function: Callable[[Item], Result], parts: list[Sequence[Item]], processes: int
) -> Iterator[list[Result]]:
    # Only a fleet needs them, and they take 30 ms to import.
    from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor  # noqa: PLC0415
    from multiprocessing import get_context  # noqa: PLC0415

    # Otherwise the first garbage collection in each process would copy all shared memory.
    gc.freeze()
    executor = ProcessPoolExecutor(processes, get_context("fork"), _begin, (function,))
    try:
        for done in executor.map(_run, parts):
            yield cast("list[Result]", done)
    except BrokenProcessPool:
        reason = "a process was killed before it had finished"
        raise Refused(f"{reason}: is there enough memory?") from None
    finally:
        executor.shutdown(cancel_futures=True)
        gc.unfreeze()


def _begin(function: Callable[..., object]) -> None:
    """Prepare a forked process: keep its function, and end it when its parent ends."""
    from multiprocessing import parent_process  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends the others
    _inherited[:] = [function]
    if parent := parent_process():

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _run(part: Sequence[object]) -> list[object]:
    return [_inherited[0](item) for item in part]
