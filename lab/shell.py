"""The command `lab/shell`: boots the lab, and gives a person or a script a shell on its server."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

import click

from lab import command
from lab.build import REPO
from lab.channel import Window
from lab.fabric import Lab
from lab.image import SUITES
from lab.machine import Machine

WELCOME = REPO / "lab/guest/welcome"
ORDER, REST = "/run/lab/order", "/run/lab/rest"
"""Files of lab/guest/bin/reboot: its request, and the part of a script that is yet to run."""
ESCAPE = 0x1D
"""The key Ctrl-]: pressed three times within a second it leaves the shell, as in systemd-nspawn."""


class Escaped(Exception):
    """A person left a shell that does not answer."""


@contextmanager
def raw(terminal: int) -> Iterator[None]:
    """Pass each key on to the machine during a `with` block, then restore the terminal."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal, termios.TCSADRAIN)
        yield
    finally:
        with suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def window(terminal: int) -> Window:
    """Return the size of a terminal: 24 rows and 80 columns if the terminal does not know it."""
    rows, columns = termios.tcgetwinsize(terminal)
    return rows or 24, columns or 80


class Talk:
    """A shell in the machine, connected to our own standard input and output."""

    def __init__(self, machine: Machine, rest: bytes = b"") -> None:
        """Start the shell; it reads `rest` before our input."""
        self._wake_read, self._wake_write = os.pipe()
        self._keyboard = sys.stdin.fileno()
        self._terminal = os.isatty(self._keyboard)
        self._reading = True
        self._broken = False
        self._escapes: list[float] = []
        environment = {"LAB_SHELL": "new", "SHELL": "/bin/bash", "USER": "root", "LOGNAME": "root"}
        if self._terminal:
            environment["TERM"] = os.environ.get("TERM", "dumb")
        size = window(self._keyboard) if self._terminal else None
        argv = ["bash", "--login"]
        self._session = machine.session(argv, self._show, window=size, env=environment)
        self._session.send(rest)

    def run(self) -> int | None:
        """Pass input on until the shell ends; return its exit code.

        The code is None if the machine stopped before the shell ended, or if nobody reads our
        output.
        """
        with ExitStack() as stack:
            if self._terminal:
                previous = signal.signal(signal.SIGWINCH, self._wake)
                stack.callback(signal.signal, signal.SIGWINCH, previous)
                stack.enter_context(raw(self._keyboard))
                self._session.resize(window(self._keyboard))
            while self._session.running and not self._broken:
                ends = [self._wake_read, *([self._keyboard] if self._reading else [])]
                ready = select.select(ends, [], [])[0]
                if self._wake_read in ready:
                    os.read(self._wake_read, 512)
                    if self._terminal:
                        self._session.resize(window(self._keyboard))
                if self._keyboard in ready:
                    self._pass_on()
        return self._session.code

    def _pass_on(self) -> None:
        try:
            data = os.read(self._keyboard, 4096)
        except OSError:  # the terminal is gone
            data = b""
        if data:
            if self._terminal:
                self._watch_for_escape(data)
            self._session.send(data)
            return
        self._reading = False
        if self._terminal:
            self._session.signal(signal.SIGHUP)
        else:
            self._session.end_input()

    def _watch_for_escape(self, data: bytes) -> None:
        """Raise Escaped if the keys that leave a shell were pressed."""
        now = time.monotonic()
        for key in data:
            self._escapes = [*self._escapes, now][-3:] if key == ESCAPE else []
            if len(self._escapes) == 3 and now - self._escapes[0] < 1:
                raise Escaped

    def _show(self, stream: str, data: bytes) -> None:
        """Print output. This runs in the channel's thread: a slow reader slows the machine down."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(1 if stream == "out" else 2, view) :]
        except OSError:  # nobody reads our output
            self._broken = True
        if self._broken or not data:
            self._wake()

    def _wake(self, number: int = 0, frame: FrameType | None = None) -> None:
        del number, frame  # arguments of a signal handler
        os.write(self._wake_write, b".")


def say(text: str) -> None:
    """Print a message about the lab to standard error."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def talk(lab: Lab) -> int:
    """Run a shell, and another after each reboot; return the exit code of the last one."""
    rest = b""
    while True:
        code = Talk(lab.machine, rest).run()
        if not lab.machine.on:
            say("the machine is off")
            return 1
        if code is None:  # nobody reads our output, or `systemctl reboot` ended the shell
            say("the shell is lost; to reboot, use `reboot` instead of `systemctl reboot`")
            return 1
        order = lab.machine.call("read", ORDER, check=False)
        if order.code:
            return code if code >= 0 else 128 - code
        answer = lab.machine.call("read", REST, check=False)
        rest = b"" if answer.code else answer.out.encode(errors="surrogateescape")
        say("the machine reboots")
        say(f"it was back after {lab.reboot(hard='--hard' in order.out):.1f} s")


HELP = f"""Boot the lab, and open a shell on its server K8S01.

SUITE is the Debian release of K8S01: {" or ".join(SUITES)}. BACKEND is the tool with which its
operator configured the NICs: netplan or ifupdown.

If standard input is not a terminal, the shell runs the commands that it reads there, one after the
other. The exit code is that of the shell.
"""


@click.command(
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nIn the machine:\n" + WELCOME.read_text(),
)
@click.argument("suite", metavar="[SUITE]", type=click.Choice(list(SUITES)), default="trixie")
@click.argument(
    "backend", metavar="[BACKEND]", type=click.Choice(["netplan", "ifupdown"]), default="netplan"
)
def main(suite: str, backend: str) -> int:
    """Boot the lab, and open a shell on its server."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with command.booted(suite, backend) as lab:
        if os.isatty(sys.stdin.fileno()):
            print(WELCOME.read_text(), flush=True)
        try:
            return talk(lab)
        except Escaped:
            say("you left the shell")
            return 1


if __name__ == "__main__":
    command.run(main, "lab/shell")
