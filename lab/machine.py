"""A machine that boots in seconds, from a copy-on-write disk over the disk of a suite.

It runs under User-Mode Linux, or under QEMU where User-Mode Linux does not start. The variable
`EVPN_HOST_LAB_MACHINE` (uml or qemu) allows only one of them.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from lab import build, image
from lab.channel import Channel, Listener, Process, Session, Window, latin
from lab.kernel import Kernel
from lab.processors import balance
from lab.qemu import QEMU
from lab.result import LabError, LabUnavailable, Result
from lab.uml import UML

BOOT_TIMEOUT = 180.0  # a boot waits a minute for the controller if that is dead
KERNELS = [UML, QEMU]
"""The kernels that may be tried, the best first; after one has started, only that one."""
notes: list[str] = []
"""Sentences for people: which kernel replaced a better one, and why."""


def kernels() -> list[Kernel]:
    """Return the kernels that a machine may run under, the best first."""
    choice = os.environ.get("EVPN_HOST_LAB_MACHINE", "")
    names = [kernel.name for kernel in (UML, QEMU)]
    if choice not in ("", *names):
        raise ValueError(f"EVPN_HOST_LAB_MACHINE={choice}: is not one of {', '.join(names)}")
    return [kernel for kernel in KERNELS if choice in ("", kernel.name)]


def patience() -> float:
    """Return how many times longer than under User-Mode Linux a wait may take."""
    return kernels()[0].patience


class Machine:
    """A fresh machine: a `with` block boots it, and deletes all of it at the end."""

    def __init__(
        self,
        suite: str = "trixie",
        *,
        memory: str = "2G",
        parameters: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Take the suite, and settings; `parameters` go to the guest's kernel command line.

        The machine finds `files` in /opt/outer/machine from its first boot on.
        """
        self.suite = suite
        self.boot_seconds = 0.0
        self._memory = memory
        self._parameters = list(parameters)
        self._files = dict(files or {})
        self._open = ExitStack()
        self._console = bytearray()
        self._power: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Boot the machine under the best kernel that starts; raise LabUnavailable if none does."""
        if os.geteuid() != 0:
            raise LabUnavailable("the lab's machine needs root")
        self._image = image.image(self.suite)
        failures: list[str] = []
        for kernel in kernels():
            try:
                self._enter(kernel)
            except LabUnavailable as reason:
                failures.append(f"{kernel.name}: {reason}")
                continue
            KERNELS[:] = [kernel]
            if failures:
                notes.append(f"{kernel.name} takes the place of {'; '.join(failures)}")
                print(f"lab: {notes[-1]}", file=sys.stderr, flush=True)
            return self
        raise LabUnavailable("; ".join(failures))

    def __exit__(self, *error: object) -> None:
        """Stop the machine and delete its disk."""
        self.stop()

    @property
    def on(self) -> bool:
        """Whether the machine is on; a machine can also turn itself off."""
        return self._power is not None and self._power.poll() is None

    @property
    def console(self) -> str:
        """Everything that the console has shown so far."""
        return self._console.decode(errors="replace")

    def run(  # noqa: PLR0913 - as subprocess.run
        self,
        argv: Sequence[str | Path],
        check: bool = True,
        *,
        timeout: float = 60,
        input: str | None = None,  # noqa: A002 - as subprocess names it
        cwd: str = "/root",
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command to its end; raise CommandError if it fails and `check` is set."""
        result = self.start(argv, input=input, cwd=cwd, env=env).wait(timeout)
        return result.checked([str(word) for word in argv]) if check else result

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        input: str | None = None,  # noqa: A002 - as subprocess names it
        cwd: str = "/root",
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a command and leave it running."""
        words = [str(word) for word in argv]
        return self._running().start(words, input or "", cwd, env or {})

    def session(
        self,
        argv: Sequence[str],
        listener: Listener,
        *,
        window: Window | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Session:
        """Start an interactive command: in a terminal of the size `window`, or else with pipes."""
        return self._running().open(argv, env or {}, window, listener)

    def call(self, *argv: str, check: bool = True) -> Result:
        """Call a function of the agent (CALLS in guest/agent.py): quicker than a command."""
        result = self._running().call(argv).wait()
        return result.checked(argv) if check else result

    def _running(self) -> Channel:
        if not self._power:
            raise LabError("the machine is not running")
        return self._channel

    def read(self, path: str) -> str:
        """Read a file of the machine."""
        return self.call("read", path).out

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the machine, and make the folders above it."""
        self.call("write", path, latin(text), f"{mode:o}")

    def reboot(self, hard: bool = False) -> float:
        """Shut down and boot from the same disk; return the seconds of the boot.

        `hard` cuts the power instead of a shutdown.
        """
        if not hard:
            self.start(["systemctl", "poweroff"])
            assert self._power
            try:
                self._power.wait(120 * self._kernel.patience)
            except subprocess.TimeoutExpired:
                raise LabError(f"the machine does not shut down\n{self.console[-2000:]}") from None
        self._kill()
        self._boot()
        return self.boot_seconds

    def stop(self) -> None:
        """Cut the power and delete the disk."""
        atexit.unregister(self.stop)
        self._open.close()

    def _enter(self, kernel: Kernel) -> None:
        with ExitStack() as opening:
            for folder in (self._image, kernel.tree()):
                opening.enter_context(build.in_use(folder))
            self._own = opening.enter_context(build.scratch("machine"))
            for name, text in self._files.items():
                (self._own / name).write_text(text)
            self._kernel = kernel
            self._console.clear()
            opening.callback(self._kill)
            self._boot()
            self._open = opening.pop_all()
        atexit.register(self.stop)

    def _boot(self) -> None:
        started = time.monotonic()
        self._channel = channel = Channel(self._own, self._kernel.patience)
        with channel.theirs as line:
            self._power = power = self._kernel.start(
                self._image, self._own, line.fileno(), self._memory, self._parameters
            )
        self._drain = threading.Thread(target=self._listen, args=(power,), daemon=True)
        self._drain.start()
        threading.Thread(target=balance, args=(power.pid,), daemon=True).start()
        deadline = started + BOOT_TIMEOUT * self._kernel.patience
        while not channel.hello.output:
            if power.poll() is not None or time.monotonic() > deadline:
                self._kill()
                output = self.console[-3000:].strip() or "nothing"
                raise LabUnavailable(f"the machine does not start; its console said: {output}")
            time.sleep(0.02)
        self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=BOOT_TIMEOUT)
        self.boot_seconds = time.monotonic() - started

    def _kill(self) -> None:
        if self._power is None:
            return
        # This kills `unshare`, and with it the whole process namespace. Every process of the
        # namespace is gone once the console has reached its end.
        self._power.kill()
        self._power.wait()
        self._drain.join(10)
        self._power = None
        self._channel.close()

    def _listen(self, power: subprocess.Popen[bytes]) -> None:
        assert power.stdout
        while chunk := os.read(power.stdout.fileno(), 65536):
            self._console += chunk
        power.stdout.close()
