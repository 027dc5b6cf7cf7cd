"""Shows the step that a verb is at, once the verb has taken longer than two seconds.

On a terminal one line changes: the number of the step, what it is for, and its seconds. Elsewhere
each step is a line.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import click

from generator.secrets import mask

_QUIET = 2.0  # seconds before anything is shown
_INTERVAL = 0.25  # seconds between two updates of the line


class Progress:
    """A log of commands that shows their reasons. Ends with the process, or with `close`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Take the stream, by default standard error."""
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._number = 0
        self._step = ""
        self._step_begun = self._begun
        self._shown = ""  # the step of the last line; "" after `close`

    def __call__(self, line: str) -> None:
        """Take a line of the log: a command and, after `# `, what it is for."""
        with self._lock:
            if not self._number:
                self._thread.start()
            step = mask(line.partition("# ")[2] or line)
            if step != self._step:
                self._number += 1
                self._step, self._step_begun = step, time.monotonic()
            self._show()

    def clear(self) -> None:
        """Clear the line on a terminal before another message."""
        with self._lock:
            if self._terminal and self._shown:
                self._write("\r\x1b[2K")
                self._shown = ""

    def close(self) -> None:
        """Stop showing steps."""
        self._closed.set()
        if self._number:
            self._thread.join()  # the caller may fork, and a thread must not hold a lock then
        self.clear()

    def _follow(self) -> None:
        while not self._closed.wait(_INTERVAL):
            with self._lock:
                self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if self._closed.is_set() or now - self._begun < _QUIET:
            return
        if self._terminal:
            seconds = f", {now - self._step_begun:.0f} s" if now - self._step_begun >= 1 else ""
            self._write(f"\r\x1b[2K[{self._number}] {self._step}{seconds}")
        elif self._shown != self._step:
            self._write(f"{self._step} …\n")
        self._shown = self._step

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@contextlib.contextmanager
def counted(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of items done since its last call.

    After two seconds a terminal shows a bar with the remaining time; elsewhere `what` is one line.
    """
    begun = time.monotonic()
    done = 0
    with contextlib.ExitStack() as stack:
        update: Callable[[int], None] | None = None

        def advance(count: int) -> None:
            nonlocal done, update
            done += count
            if update:
                update(count)
            elif time.monotonic() - begun >= _QUIET:
                update = _bar(stack, total, done, what, time.monotonic() - begun)

        yield advance


def _bar(
    stack: contextlib.ExitStack, total: int, done: int, what: str, seconds: float
) -> Callable[[int], None]:
    """Show the items done after so many seconds; return a function that takes further counts."""
    if not sys.stderr.isatty():
        click.echo(f"{what} …", err=True)
        return lambda _: None
    bar = click.progressbar(length=total, label=what, show_pos=True, file=sys.stderr)
    bar.start -= seconds  # the bar estimates the remaining time from its start
    stack.enter_context(bar).update(done)
    return bar.update
