"""Runs commands in a machine, through a serial line to its agent and a folder for requests."""

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
"""Takes output as it arrives: the name of its stream ("out" or "err"), and the bytes."""


def latin(text: str) -> str:
    """Return a text in the form in which requests carry bytes: a character for each byte."""
    return text.encode(errors="surrogateescape").decode("latin-1")


AnyProcess = TypeVar("AnyProcess", bound="Process")


class Process:
    """A command that runs in the machine."""

    def __init__(self, channel: Channel, number: int, argv: Sequence[str]) -> None:
        """Take the machine's channel, the command's number on it, and the command."""
        self.argv = list(argv)
        self._channel = channel
        self.number = number
        self._received = {"out": bytearray(), "err": bytearray()}
        self._code: int | None = None
        self._ended = threading.Event()

    def __str__(self) -> str:
        """Return the command as a person would type it."""
        return shlex.join(self.argv)

    @property
    def running(self) -> bool:
        """Whether the command has not ended yet."""
        return not self._ended.is_set()

    @property
    def code(self) -> int | None:
        """The exit code; None while the command runs, and also if the machine stopped before it."""
        return self._code

    @property
    def output(self) -> str:
        """The standard output that has arrived so far."""
        return self._received["out"].decode(errors="surrogateescape")

    @property
    def errors(self) -> str:
        """The standard error that has arrived so far."""
        return self._received["err"].decode(errors="surrogateescape")

    def wait(self, timeout: float = 60) -> Result:
        """Wait until the command ends; after the time-out kill it and raise LabError."""
        timeout *= self._channel.patience
        if not self._ended.wait(timeout):
            self.signal(signal.SIGKILL)
            self._ended.wait(5 * self._channel.patience)
            raise LabError(f"{self}: still running after {timeout:g} s\n{self.output[-2000:]}")
        if self._code is None:
            raise LabError(f"{self}: the machine stopped before the command ended")
        return Result(self._code, self.output, self.errors)

    def stop(self, number: int = signal.SIGINT, timeout: float = 60) -> Result:
        """End the command by a signal, and return its result."""
        if self.running:
            self.signal(number)
        return self.wait(timeout)

    def signal(self, number: int) -> None:
        """Send a signal to the command and its children."""
        self._channel.send({"id": self.number, "signal": int(number)})

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take an event from the agent: output, or the exit code."""
        for stream in ("out", "err"):
            if stream in event:
                self._received[stream] += event[stream].encode("latin-1")
        if "code" in event:
            self.end(event["code"])

    def end(self, code: int | None) -> None:
        """Record the end of the command: its exit code, or None if the machine stopped."""
        self._code = code
        self._ended.set()


class Session(Process):
    """A command that takes input from a person or a script while it runs."""

    def __init__(
        self, channel: Channel, number: int, argv: Sequence[str], listener: Listener
    ) -> None:
        """Take a listener, which gets all output from another thread; the session keeps none."""
        super().__init__(channel, number, argv)
        self._listener = listener

    def send(self, data: bytes) -> None:
        """Send input to the command."""
        if data:
            self._channel.send({"id": self.number, "input": data.decode("latin-1")})

    def end_input(self) -> None:
        """Close the command's standard input."""
        self._channel.send({"id": self.number, "input": ""})

    def resize(self, window: Window) -> None:
        """Change the size of the command's terminal."""
        self._channel.send({"id": self.number, "window": window})

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take an event from the agent: pass output on, or record the exit code."""
        for stream in ("out", "err"):
            if stream in event:
                self._listener(stream, event[stream].encode("latin-1"))
        if "code" in event:
            self.end(event["code"])

    def end(self, code: int | None) -> None:
        """Record the end of the command, and tell the listener by a call with no bytes."""
        super().end(code)
        self._listener("out", b"")


class Channel:
    """The connection to the agent (guest/agent.py) during one boot of a machine."""

    def __init__(self, folder: Path, patience: float) -> None:
        """Take the folder for requests, and the factor that makes all time-outs longer."""
        self.patience = patience
        self._folder = folder
        self._ours, self.theirs = socket.socketpair()
        self._open = True
        self._requests = itertools.count(1)
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self.hello = Process(self, 0, ["boot"])
        """Has output as soon as the agent runs."""
        self._processes = {0: self.hello}
        threading.Thread(target=self._listen, daemon=True).start()

    def start(
        self, argv: Sequence[str], text: str, cwd: str, environment: Mapping[str, str]
    ) -> Process:
        """Start a command with a text as its whole standard input."""
        request = {"argv": argv, "input": latin(text), "cwd": cwd, "env": environment}
        return self._ask(Process(self, next(self._numbers), argv), request)

    def open(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        window: Window | None,
        listener: Listener,
    ) -> Session:
        """Start a command that gets its input later: in a terminal if `window` is its size."""
        request = {"argv": argv, "input": None, "cwd": "/root", "env": environment}
        session = Session(self, next(self._numbers), argv, listener)
        return self._ask(session, {**request, "window": window})

    def call(self, argv: Sequence[str]) -> Process:
        """Have the agent call one of its own functions (CALLS in guest/agent.py)."""
        return self._ask(Process(self, next(self._numbers), argv), {"call": argv})

    def _ask(self, process: AnyProcess, request: Mapping[str, Any]) -> AnyProcess:
        self._processes[process.number] = process
        self.send({"id": process.number, **request})
        return process

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request to the agent."""
        if not self._open:
            raise LabError("the machine is not running")
        # A request goes through a folder; only its number goes over the serial line. If the driver
        # of User-Mode Linux gets more than a few kilobytes at once, it stops receiving for good.
        number = next(self._requests)
        (self._folder / f"request-{number}").write_text(json.dumps(request))
        with self._sending:
            self._ours.sendall(f"{number}\n".encode())

    def close(self) -> None:
        """Close the connection; all commands that still ran count as ended."""
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
                for line in events:
                    try:
                        event = json.loads(line)
                    except ValueError:
                        continue
                    if event["id"] == 0 and self.hello.output:  # the machine rebooted itself
                        self._end_all()
                    process = self._processes.get(event["id"])
                    if process:
                        process.hear(event)
        except OSError:  # close() was called
            return
        self._end_all()  # the machine is off
