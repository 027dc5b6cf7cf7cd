"""Run commands for the outer computer: requests come as files, events leave on a serial line.

The line brings the number of the next request's file, and takes events as lines of JSON.
In:  {"id": n, "argv": […], "input": str, "cwd": str, "env": {…}} or {"id": n, "signal": number},
     or {"id": n, "call": [name, argument, …]}: what it does itself, as another Python takes 0.3 s.
     A command with "window": [rows, columns] has a terminal of that size, for {"id": n, "window":
     [rows, columns]} to change. Where "input" is null, it comes bit by bit as {"id": n, "input":
     str}; "" is its end.
Out: {"id": n, "out": str}, {"id": n, "err": str} as it comes, then {"id": n, "code": number}.
Bytes travel as the characters of the same number (Latin-1). Standard library only.
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
    """Give a file's bytes."""
    return Path(path).read_bytes().decode("latin-1")


def write(path: str, text: str, mode: str) -> None:
    """Write a file that outlives a power cut, with the folders above it; its mode is octal."""
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
    """A command that runs, and the pipes or the terminal that it reads from and writes to."""

    process: subprocess.Popen[bytes]
    entrance: IO[bytes]
    exits: dict[str, IO[bytes]]
    """Its output, by the names that it has in events."""
    terminal: bool = False
    input: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)
    """What it has yet to be given; b"" is the end."""

    def feed(self) -> None:
        """Give it its input as it comes. It may be slow to read, so this has a thread."""
        with suppress(OSError):  # it has ended, or closed its input
            while data := self.input.get():
                self.entrance.write(data)
                self.entrance.flush()
        with suppress(OSError):
            self.entrance.close()

    def resize(self, window: tuple[int, int]) -> None:
        """Tell its terminal the number of rows and columns."""
        with suppress(OSError, ValueError):  # it has ended
            termios.tcsetwinsize(self.entrance.fileno(), window)


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
    exits: dict[str, IO[bytes]] = {"out": os.fdopen(outer, "rb", buffering=0)}
    entrance = os.fdopen(os.dup(outer), "wb")
    try:
        termios.tcsetwinsize(outer, window)
        # setsid makes this terminal the one that Ctrl-C and job control go by.
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
    return Command(process, entrance, exits, terminal=True)


class Agent:
    """One serial line, and the commands that run on its behalf."""

    def __init__(self, line: int, letters: Path) -> None:
        """Take the open serial line and the folder that requests are put into."""
        self._line = line
        self._letters = letters
        self._writing = threading.Lock()
        self._running: dict[int, Command] = {}

    def serve(self) -> None:
        """Answer until the line is gone."""
        self._send({"id": 0, "out": "hello"})
        with os.fdopen(os.dup(self._line), "rb") as requests:
            for text in requests:
                letter = self._letters / f"request-{text.decode().strip()}"
                request = json.loads(letter.read_text())
                letter.unlink()
                if "signal" in request:
                    self._signal(request["id"], request["signal"])
                elif "call" in request:
                    given = request["id"], *request["call"]
                    threading.Thread(target=self._call, args=given, daemon=True).start()
                elif "argv" in request:
                    self._start(request)
                elif command := self._running.get(request["id"]):  # it has not ended
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
            said, code = {"out": CALLS[name](*arguments) or ""}, 0
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is told
            said, code = {"err": f"{error!r}\n"}, 1
        self._send({"id": number, **said})
        self._send({"id": number, "code": code})

    def _start(self, request: dict[str, Any]) -> None:
        number, given = request["id"], request["input"]
        environment = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **request["env"]}
        how = request["argv"], request["cwd"], environment
        try:
            window = request.get("window")
            command = with_terminal(*how, window) if window else with_pipes(*how)
        except OSError as error:
            self._send({"id": number, "err": f"{error}\n"})
            self._send({"id": number, "code": 127})
            return
        self._running[number] = command
        if given is not None:
            command.input.put(given.encode("latin-1"))
            command.input.put(b"")
        threading.Thread(target=self._attend, args=(number, command), daemon=True).start()

    def _attend(self, number: int, command: Command) -> None:
        pumps = {
            way: threading.Thread(
                target=self._pump, args=(number, name, way, command.terminal), daemon=True
            )
            for name, way in command.exits.items()
        }
        for pump in (threading.Thread(target=command.feed, daemon=True), *pumps.values()):
            pump.start()
        code = command.process.wait()
        for pipe, pump in pumps.items():
            # A daemon that inherited the pipe must not keep the caller waiting.
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
            except OSError:  # a terminal that nobody has open any more
                return
            if not chunk:
                return
            self._send({"id": number, name: chunk.decode("latin-1")})
            # To send each line of a long ping at once costs three times what the packets do. A
            # person at a terminal sees it as it comes.
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
