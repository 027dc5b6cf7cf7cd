"""Runs a program in a terminal of its own, as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

LIMIT = 60.0
"""Seconds after which waiting fails. It ends a wait for something that never happens."""


def _own_terminal() -> None:
    """Make standard input the terminal whose keys send signals; for a new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A terminal of 30 rows and 100 columns, and the program in it."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the program."""
        self.keys, self.program_end = pty.openpty()
        self.shown = ""
        """All that the program showed."""
        termios.tcsetwinsize(self.keys, (30, 100))
        self.before = termios.tcgetattr(self.program_end)
        self.program = subprocess.Popen(
            argv,
            stdin=self.program_end,
            stdout=self.program_end,
            stderr=self.program_end,
            env={**os.environ, "TERM": "xterm", **environment},
            start_new_session=True,
            preexec_fn=_own_terminal,  # noqa: PLW1509 - this process has few threads, and none with locks
        )

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.keys, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window; the kernel sends SIGWINCH."""
        termios.tcsetwinsize(self.keys, (rows, columns))

    def wait(self, pattern: str, after: int = 0, limit: float = LIMIT) -> re.Match[str]:
        """Wait until a pattern appears after so many characters; return the match."""
        end = time.monotonic() + limit
        while not (match := re.compile(pattern).search(self.shown, after)):
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"{pattern!r} is not in: {self.shown[after:]!r}")
        return match

    def wait_for_keys(self) -> None:
        """Wait until the program takes each key as it is pressed."""
        end = time.monotonic() + LIMIT
        while termios.tcgetattr(self.program_end) == self.before:
            assert time.monotonic() < end, self.shown
            time.sleep(0.05)

    def _read(self, seconds: float) -> bool:
        """Read what comes within some seconds; return whether anything came."""
        if seconds <= 0 or not select.select([self.keys], [], [], seconds)[0]:
            return False
        self.shown += os.read(self.keys, 65536).decode(errors="replace")
        return True

    def end(self) -> int:
        """Wait until the program ends; return its exit code."""
        end = time.monotonic() + LIMIT
        while self.program.poll() is None and time.monotonic() < end:
            self._read(0.1)
        while self._read(0.1):
            continue
        code = self.program.poll()
        assert code is not None, f"it goes on: {self.shown[-2000:]!r}"
        return code

    def close(self) -> None:
        """End the program, if it runs, and close the terminal."""
        self.program.terminate()
        try:
            self.end()
        finally:
            self.program.kill()
            self.program.wait()
            os.close(self.keys)
            os.close(self.program_end)
