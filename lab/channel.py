"""Commands that run in a machine: a serial line to its agent, and a folder for requests."""

from __future__ import annotations

import itertools
import json
import shlex
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lab.result import LabError, Result

Window = tuple[int, int]
"""Rows and columns of a terminal."""
Listener = Callable[[str, bytes], None]
"""Takes output as it comes: whether it is "out" or "err", and the bytes."""


def latin(text: str) -> str:
    """Give bytes the form in which they travel."""
    return text.encode(errors="surrogateescape").decode("latin-1")


Asked = TypeVar("Asked", bound="Process")


class Process:
    """A command that runs in the machine."""

    def __init__(self, channel: Channel, number: int, argv: Sequence[str]) -> None:
        """Belong to a machine's channel under a number."""
        self.argv = list(argv)
        self._channel = channel
        self.number = number
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
    def code(self) -> int | None:
        """Its exit code; None while it runs, and for ever when the machine stopped before it."""
        return self._code

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
        self._channel.send({"id": self.number, "signal": int(number)})

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


class Session(Process):
    """A command that a person or a script talks to while it runs."""

    def __init__(
        self, channel: Channel, number: int, argv: Sequence[str], listener: Listener
    ) -> None:
        """Pass what it says on to a listener, from another thread, and keep none of it."""
        super().__init__(channel, number, argv)
        self._listener = listener

    def send(self, data: bytes) -> None:
        """Give it input."""
        if data:
            self._channel.send({"id": self.number, "input": data.decode("latin-1")})

    def end_input(self) -> None:
        """Tell it that no more input comes."""
        self._channel.send({"id": self.number, "input": ""})

    def resize(self, window: Window) -> None:
        """Give its terminal another size."""
        self._channel.send({"id": self.number, "window": window})

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take what the agent says of it."""
        for stream in ("out", "err"):
            if stream in event:
                self._listener(stream, event[stream].encode("latin-1"))
        if "code" in event:
            self.end(event["code"])

    def end(self, code: int | None) -> None:
        """Be over, and say so to the listener by a word of no bytes."""
        super().end(code)
        self._listener("out", b"")


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
        return self._ask(Process(self, next(self._numbers), argv), request)

    def open(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        window: Window | None,
        listener: Listener,
    ) -> Session:
        """Start a command whose input comes later, in a terminal if there is a window for it."""
        request = {"argv": argv, "input": None, "cwd": "/root", "env": environment}
        session = Session(self, next(self._numbers), argv, listener)
        return self._ask(session, {**request, "window": window})

    def call(self, argv: Sequence[str]) -> Process:
        """Have the agent itself do something."""
        return self._ask(Process(self, next(self._numbers), argv), {"call": argv})

    def _ask(self, process: Asked, request: Mapping[str, Any]) -> Asked:
        self._processes[process.number] = process
        self.send({"id": process.number, **request})
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
        self._end_all()

    def _end_all(self) -> None:
        for process in [*self._processes.values()]:
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
                    if event["id"] == 0 and self.hello.output:  # the machine booted by itself
                        self._end_all()
                    process = self._processes.get(event["id"])
                    if process:
                        process.hear(event)
        except OSError:  # closed
            return
        self._end_all()  # the machine is off
