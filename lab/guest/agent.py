"""Runs commands for the outer computer: requests come as files, events leave on a serial line.

The serial line carries two things: inwards the number of the next request's file, and outwards
events, each a line of JSON.

Requests:
    {"id": n, "argv": […], "input": str, "cwd": str, "env": {…}} starts a command.
    With "window": [rows, columns] in addition, the command has a terminal of that size.
    {"id": n, "window": [rows, columns]} changes the size.
    If "input" is null, the input follows in requests {"id": n, "input": str}; "" ends it.
    {"id": n, "signal": number} sends a signal to a command.
    {"id": n, "call": [name, argument, …]} calls a function of the agent (CALLS). That is quicker
    than a command, as another Python takes 0.3 s to start.
Events:
    {"id": n, "out": str} and {"id": n, "err": str} carry output as it comes.
    {"id": n, "code": number} is the last event of a command or call.

Each byte of input and output is sent as the character with the same number (Latin-1). The agent
needs only the standard library.
"""

from __future__ import annotations

import itertools
import json
import os
import pty
import queue
import select
import subprocess
import sys
import termios
import threading
import time
import tty
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lab.guest import fabric

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def read(path: str) -> str:
    """Return a file's bytes, as characters."""
    return Path(path).read_bytes().decode("latin-1")


def write(path: str, text: str, mode: str) -> None:
    """Write a file that outlives a power cut, and make the folders above it; the mode is octal."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("wb") as file:
        file.write(text.encode("latin-1"))
        file.flush()
        os.fsync(file.fileno())
    Path(path).chmod(int(mode, 8))


CALLS = {
    call.__name__: call
    for call in (read, write, fabric.converge, fabric.stop, fabric.start, fabric.bfd, fabric.ask)
}


@dataclass
class Command:
    """A command that runs, and our ends of its pipes or of its terminal."""

    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    outputs: dict[str, IO[bytes]]
    """The streams of its output, by their names in events ("out", "err")."""
    terminal: bool = False
    input: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)
    """The input that the command has not been given yet; b"" ends it."""

    def feed(self) -> None:
        """Write input to the command as it comes; this blocks, so it needs a thread of its own."""
        with suppress(OSError):  # the command has ended, or closed its input
            while data := self.input.get():
                self.stdin.write(data)
                self.stdin.flush()
        with suppress(OSError):
            self.stdin.close()

    def resize(self, window: tuple[int, int]) -> None:
        """Set the number of rows and columns of the command's terminal."""
        with suppress(OSError, ValueError):  # the command has ended
            termios.tcsetwinsize(self.stdin.fileno(), window)


def with_pipes(argv: list[str], cwd: str, environment: dict[str, str]) -> Command:
    """Start a command with a pipe for each of input, output and errors."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    return Command(process, process.stdin, {"out": process.stdout, "err": process.stderr})


def with_terminal(
    argv: list[str], cwd: str, environment: dict[str, str], window: tuple[int, int]
) -> Command:
    """Start a command in a terminal of its own."""
    outer, inner = pty.openpty()
    outputs: dict[str, IO[bytes]] = {"out": os.fdopen(outer, "rb", buffering=0)}
    stdin = os.fdopen(os.dup(outer), "wb")
    try:
        termios.tcsetwinsize(outer, window)
        # setsid makes this the controlling terminal: without that, Ctrl-C and job control fail.
        process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=cwd,
            env=environment,
        )
    finally:
        os.close(inner)
    return Command(process, stdin, outputs, terminal=True)


class Agent:
    """Serves the requests of one serial line, and keeps the commands that it started."""

    def __init__(self, line: int, folder: Path) -> None:
        """Take the open serial line, and the folder with the files of requests."""
        self._line = line
        self._folder = folder
        self._writing = threading.Lock()
        self._running: dict[int, Command] = {}

    def serve(self) -> None:
        """Serve requests until the line is closed."""
        self._send({"id": 0, "out": "hello"})
        with os.fdopen(os.dup(self._line), "rb") as numbers:
            for number in numbers:
                file = self._folder / f"request-{number.decode().strip()}"
                request = json.loads(file.read_text())
                file.unlink()
                if "signal" in request:
                    self._signal(request["id"], request["signal"])
                elif "call" in request:
                    arguments = request["id"], *request["call"]
                    threading.Thread(target=self._call, args=arguments, daemon=True).start()
                elif "argv" in request:
                    self._start(request)
                elif command := self._running.get(request["id"]):  # None if the command has ended
                    if "window" in request:
                        command.resize(request["window"])
                    else:
                        command.input.put(request["input"].encode("latin-1"))

    def _send(self, event: dict[str, Any]) -> None:
        data = memoryview(json.dumps(event).encode() + b"\n")
        with self._writing:
            while data:
                data = data[os.write(self._line, data) :]

    def _call(self, number: int, name: str, *arguments: str) -> None:
        try:
            result, code = {"out": CALLS[name](*arguments) or ""}, 0
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the caller gets every error
            result, code = {"err": f"{error!r}\n"}, 1
        self._send({"id": number, **result})
        self._send({"id": number, "code": code})

    def _start(self, request: dict[str, Any]) -> None:
        number, text = request["id"], request["input"]
        environment = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **request["env"]}
        settings = request["argv"], request["cwd"], environment
        try:
            window = request.get("window")
            command = with_terminal(*settings, window) if window else with_pipes(*settings)
        except OSError as error:
            self._send({"id": number, "err": f"{error}\n"})
            self._send({"id": number, "code": 127})
            return
        self._running[number] = command
        if text is not None:
            command.input.put(text.encode("latin-1"))
            command.input.put(b"")
        threading.Thread(target=self._attend, args=(number, command), daemon=True).start()

    def _attend(self, number: int, command: Command) -> None:
        pumps = {
            pipe: threading.Thread(
                target=self._pump, args=(number, name, pipe, command.terminal), daemon=True
            )
            for name, pipe in command.outputs.items()
        }
        for pump in (threading.Thread(target=command.feed, daemon=True), *pumps.values()):
            pump.start()
        code = command.process.wait()
        for pipe, pump in pumps.items():
            # If a daemon inherited the pipe, it stays open; the caller must not wait for that.
            pump.join(timeout=1)
            while pump.is_alive() and select.select([pipe], [], [], 0)[0]:
                pump.join(timeout=1)
        del self._running[number]
        command.input.put(b"")
        self._send({"id": number, "code": code})

    def _pump(self, number: int, name: str, pipe: IO[bytes], at_once: bool) -> None:
        for count in itertools.count():
            try:
                chunk = os.read(pipe.fileno(), 65536)
            except OSError:  # the terminal is closed
                return
            if not chunk:
                return
            self._send({"id": number, name: chunk.decode("latin-1")})
            # Sending each line of a long ping at once costs three times as much as its packets. At
            # a terminal a person reads along, so there each line is sent at once.
            if count > 10 and not at_once:
                time.sleep(0.1)

    def _signal(self, number: int, signal: int) -> None:
        command = self._running.get(number)
        if command:
            with suppress(ProcessLookupError):
                os.killpg(command.process.pid, signal)


if __name__ == "__main__":
    folder, *lines = sys.argv[1:]
    serial = os.open(next(filter(os.path.exists, lines)), os.O_RDWR | os.O_NOCTTY)
    if os.isatty(serial):
        tty.setraw(serial)
    Agent(serial, Path(folder)).serve()
