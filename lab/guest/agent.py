"""Run commands for the outer computer: requests come as files, events leave on a serial line.

The line brings the number of the next request's file, and takes events as lines of JSON.
In:  {"id": n, "argv": […], "input": str, "cwd": str, "env": {…}} or {"id": n, "signal": number},
     or {"id": n, "call": [name, argument, …]}: what it does itself, as another Python takes 0.3 s.
Out: {"id": n, "out": str}, {"id": n, "err": str} as it comes, then {"id": n, "code": number}.
Bytes travel as the characters of the same number (Latin-1). Standard library only.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import threading
import time
import tty
from contextlib import suppress
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


class Agent:
    """One serial line, and the commands that run on its behalf."""

    def __init__(self, line: int, letters: Path) -> None:
        """Take the open serial line and the folder that requests are put into."""
        self._line = line
        self._letters = letters
        self._writing = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

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
                else:
                    self._start(request)

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
        number = request["id"]
        environment = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **request["env"]}
        try:
            process = subprocess.Popen(
                request["argv"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=request["cwd"],
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self._send({"id": number, "err": f"{error}\n"})
            self._send({"id": number, "code": 127})
            return
        self._running[number] = process
        given = request["input"].encode("latin-1")
        threading.Thread(target=self._attend, args=(number, process, given), daemon=True).start()

    def _attend(self, number: int, process: subprocess.Popen[bytes], given: bytes) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        pumps = {
            pipe: threading.Thread(target=self._pump, args=(number, name, pipe), daemon=True)
            for name, pipe in (("out", process.stdout), ("err", process.stderr))
        }
        for pump in pumps.values():
            pump.start()
        with suppress(BrokenPipeError):
            process.stdin.write(given)
            process.stdin.close()
        code = process.wait()
        for pipe, pump in pumps.items():
            # A daemon that inherited the pipe must not keep the caller waiting.
            pump.join(timeout=1)
            while pump.is_alive() and select.select([pipe], [], [], 0)[0]:
                pump.join(timeout=1)
        del self._running[number]
        self._send({"id": number, "code": code})

    def _pump(self, number: int, name: str, pipe: IO[bytes]) -> None:
        for count in itertools.count():
            chunk = os.read(pipe.fileno(), 65536)
            if not chunk:
                return
            self._send({"id": number, name: chunk.decode("latin-1")})
            # To send each line of a long ping at once costs three times what the packets do.
            if count > 10:
                time.sleep(0.1)

    def _signal(self, number: int, signal: int) -> None:
        process = self._running.get(number)
        if process:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal)


if __name__ == "__main__":
    folder, *lines = sys.argv[1:]
    serial = os.open(next(filter(os.path.exists, lines)), os.O_RDWR | os.O_NOCTTY)
    if os.isatty(serial):
        tty.setraw(serial)
    Agent(serial, Path(folder)).serve()
