"""Commands that run in a machine: a serial line to its agent, and a folder for requests."""

from __future__ import annotations

import itertools
import json
import shlex
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.result import LabError, Result


def latin(text: str) -> str:
    """Give bytes the form in which they travel."""
    return text.encode(errors="surrogateescape").decode("latin-1")


class Process:
    """A command that runs in the machine."""

    def __init__(self, channel: Channel, number: int, argv: Sequence[str]) -> None:
        """Belong to a machine's channel under a number."""
        self.argv = list(argv)
        self._channel = channel
        self._number = number
        self._heard = {"out": bytearray(), "err": bytearray()}
        self._code: int | None = None
        self._ended = threading.Event()

    def __str__(self) -> str:
        """Show the command as a person would type it."""
        return shlex.join(self.argv)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.is_set()

    @property
    def output(self) -> str:
        """Standard output as far as it has come."""
        return self._heard["out"].decode(errors="surrogateescape")

    @property
    def errors(self) -> str:
        """Standard error as far as it has come."""
        return self._heard["err"].decode(errors="surrogateescape")

    def wait(self, timeout: float = 60) -> Result:
        """Wait for its end; past the time it is killed and LabError says so."""
        timeout *= self._channel.patience
        if not self._ended.wait(timeout):
            self.signal(signal.SIGKILL)
            self._ended.wait(5 * self._channel.patience)
            raise LabError(f"{self}: still running after {timeout:g} s\n{self.output[-2000:]}")
        if self._code is None:
            raise LabError(f"{self}: the machine stopped meanwhile")
        return Result(self._code, self.output, self.errors)

    def stop(self, number: int = signal.SIGINT, timeout: float = 60) -> Result:
        """End it by a signal and give what it said."""
        if self.running:
            self.signal(number)
        return self.wait(timeout)

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        self._channel.send({"id": self._number, "signal": int(number)})

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take what the agent says of it."""
        for stream in ("out", "err"):
            if stream in event:
                self._heard[stream] += event[stream].encode("latin-1")
        if "code" in event:
            self.end(event["code"])

    def end(self, code: int | None) -> None:
        """Be over, with an exit code, or without one when the machine is gone."""
        self._code = code
        self._ended.set()


class Channel:
    """What joins one boot of a machine to its agent (guest/agent.py)."""

    def __init__(self, folder: Path, patience: float) -> None:
        """Take the folder of requests, and by how much all time-outs are longer."""
        self.patience = patience
        self._folder = folder
        self._ours, self.theirs = socket.socketpair()
        self._open = True
        self._letters = itertools.count(1)
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self.hello = Process(self, 0, ["boot"])
        """Has output as soon as the agent is there."""
        self._processes = {0: self.hello}
        threading.Thread(target=self._listen, daemon=True).start()

    def start(
        self, argv: Sequence[str], given: str, cwd: str, environment: Mapping[str, str]
    ) -> Process:
        """Start a command, with something on its standard input."""
        request = {"argv": argv, "input": latin(given), "cwd": cwd, "env": environment}
        return self._ask(argv, request)

    def call(self, argv: Sequence[str]) -> Process:
        """Have the agent itself do something."""
        return self._ask(argv, {"call": argv})

    def _ask(self, argv: Sequence[str], request: Mapping[str, Any]) -> Process:
        number = next(self._numbers)
        process = self._processes[number] = Process(self, number, argv)
        self.send({"id": number, **request})
        return process

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request to the agent."""
        if not self._open:
            raise LabError("the machine is not running")
        # Requests go through a folder, and only their number over the serial line: the driver of
        # User-Mode Linux turns deaf for good when it is sent more than a few kilobytes at once.
        number = next(self._letters)
        (self._folder / f"request-{number}").write_text(json.dumps(request))
        with self._sending:
            self._ours.sendall(f"{number}\n".encode())

    def close(self) -> None:
        """Be done with it; what still ran is over."""
        self._open = False
        self._ours.close()
        for process in self._processes.values():
            if process.running:
                process.end(None)

    def _listen(self) -> None:
        try:
            with self._ours.makefile("rb") as events:
                for text in events:
                    try:
                        event = json.loads(text)
                    except ValueError:
                        continue
                    process = self._processes.get(event["id"])
                    if process:
                        process.hear(event)
        except OSError:  # closed
            return
