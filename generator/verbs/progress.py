"""Says what a verb is doing, once that has taken longer than two seconds.

On a terminal one line changes: the number of the step, what it is for, and its seconds. Elsewhere
each step is a line.
"""

import sys
import threading
import time
from typing import TextIO

from generator.secrets import mask

_QUIET = 2.0  # seconds in which nobody asks what is being done
_INTERVAL = 0.25  # seconds between two looks at the step that runs


class Progress:
    """A log of commands that shows their reasons. Ends with the process, or with `close`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Take the stream, by default standard error."""
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._number = 0
        self._step = ""
        self._step_begun = self._begun
        self._shown = ""  # the step of the last line; "" after `close`

    def __call__(self, line: str) -> None:
        """Take a line of the log: a command and, after `# `, what it is for."""
        with self._lock:
            if not self._number:
                threading.Thread(target=self._follow, daemon=True).start()
            step = mask(line.partition("# ")[2] or line)
            if step != self._step:
                self._number += 1
                self._step, self._step_begun = step, time.monotonic()
            self._show()

    def clear(self) -> None:
        """Make room for another message on a terminal."""
        with self._lock:
            if self._terminal and self._shown:
                self._write("\r\x1b[2K")
                self._shown = ""

    def close(self) -> None:
        """Show nothing any more."""
        self._closed.set()
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
