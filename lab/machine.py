"""A machine that boots in seconds: User-Mode Linux over a copy-on-write disk of a suite."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab import image
from lab.result import LabError, LabUnavailable, Result

BOOT_TIMEOUT = 90.0
# Everything that the kernel starts lives in a process namespace of its own, which dies with it,
# and the kernel dies with us.
CONFINED = "setpriv --pdeathsig=KILL unshare --mount --pid --fork --kill-child".split()
KERNEL_PARAMETERS = (
    "seccomp=on uml_dir=/outer/machine umid=lab hostfs=/outer panic=-1"
    " con=null con0=null,fd:1 ssl=null"
    " ubd0=/outer/machine/cow,/image/disk root=/dev/ubda rw init=/sbin/lab-init"
).split()
# The tree of the kernel package has the C library that it needs.
START = """
set -eu
tree=$1; image=$2; own=$3; repo=$4; shift 4
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount --bind "$image" "$tree/image"
mount --bind "$own" "$tree/outer/machine"
mount --bind "$repo" "$tree/outer/repo"
export TMPDIR=/dev/shm HOME=/outer/machine
exec chroot "$tree" /usr/bin/linux.uml "$@"
"""


class Process:
    """A command that runs in the machine."""

    def __init__(self, machine: Machine, number: int, argv: Sequence[str]) -> None:
        """Belong to a machine's channel under a number."""
        self.argv = list(argv)
        self._machine = machine
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
        if not self._ended.wait(timeout):
            self.signal(signal.SIGKILL)
            self._ended.wait(5)
            raise LabError(f"{self}: still running after {timeout:g} s\n{self.output[-2000:]}")
        if self._code is None:
            raise LabError(f"{self}: the machine stopped meanwhile")
        return Result(self._code, self.output, self.errors)

    def stop(self, number: int = signal.SIGINT, timeout: float = 10) -> Result:
        """End it by a signal and give what it said."""
        if self.running:
            self.signal(number)
        return self.wait(timeout)

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        self._machine._send({"id": self._number, "signal": int(number)})

    def _hear(self, event: Mapping[str, Any]) -> None:
        for stream in ("out", "err"):
            if stream in event:
                self._heard[stream] += event[stream].encode("latin-1")
        if "code" in event:
            self._end(event["code"])

    def _end(self, code: int | None) -> None:
        self._code = code
        self._ended.set()


class Machine:
    """A fresh machine: booted on entry, gone without a trace on exit."""

    def __init__(
        self,
        suite: str = "trixie",
        *,
        memory: str = "2G",
        parameters: Sequence[str] = (),
    ) -> None:
        """Describe it; `parameters` are for the guest's kernel command line."""
        self.suite = suite
        self.boot_seconds = 0.0
        self._memory = memory
        self._parameters = list(parameters)
        self._open = ExitStack()
        self._kernel: subprocess.Popen[bytes] | None = None
        self._console = bytearray()
        self._numbers = itertools.count(1)
        self._letters = itertools.count(1)
        self._processes: dict[int, Process] = {}
        self._sending = threading.Lock()

    def __enter__(self) -> Self:
        """Boot it."""
        if os.geteuid() != 0:
            raise LabUnavailable("the lab's machine needs root")
        built = image.image(self.suite)
        with ExitStack() as opening:
            for folder in (built, image.kernel()):
                opening.enter_context(image.in_use(folder))
            self._image = built
            self._own = opening.enter_context(image.scratch("machine"))
            opening.callback(self._kill)
            self._boot()
            self._open = opening.pop_all()
        atexit.register(self.stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Throw it away."""
        self.stop()

    @property
    def console(self) -> str:
        """Everything that its console showed so far."""
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
        """Run a command to its end; CommandError when it fails and `check` is set."""
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
        number = next(self._numbers)
        process = self._processes[number] = Process(self, number, words)
        given = (input or "").encode(errors="surrogateescape").decode("latin-1")
        given_env = dict(env or {})
        self._send({"id": number, "argv": words, "input": given, "cwd": cwd, "env": given_env})
        return process

    def read(self, path: str) -> str:
        """Read a file of the machine."""
        return self.run(["cat", path]).out

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the machine, with the folders above it."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "write", path, f"{mode:o}"], input=text)

    def reboot(self, hard: bool = False) -> float:
        """Shut down (`hard`: cut the power), boot from the same disk; seconds that it took."""
        if not hard:
            self.start(["systemctl", "poweroff"])
            assert self._kernel
            try:
                self._kernel.wait(30)
            except subprocess.TimeoutExpired:
                raise LabError(f"the machine does not shut down\n{self.console[-2000:]}") from None
        self._kill()
        self._boot()
        return self.boot_seconds

    def stop(self) -> None:
        """Cut the power and delete the disk."""
        atexit.unregister(self.stop)
        self._open.close()

    def _boot(self) -> None:
        started = time.monotonic()
        self._channel, theirs = socket.socketpair()
        kernel = image.kernel()
        line = theirs.fileno()
        places = [str(kernel), str(self._image), str(self._own), str(image.REPO)]
        parameters = [*KERNEL_PARAMETERS, f"mem={self._memory}", f"ssl0=fd:{line}"]
        parameters += self._parameters
        with theirs:
            self._kernel = subprocess.Popen(
                [*CONFINED, "sh", "-c", START, "start", *places, *parameters],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[line],
            )
        threading.Thread(target=self._drain, args=(self._kernel,), daemon=True).start()
        ready = self._processes[0] = Process(self, 0, ["boot"])
        threading.Thread(target=self._listen, args=(self._channel,), daemon=True).start()
        while not ready.output:
            if self._kernel.poll() is not None or time.monotonic() - started > BOOT_TIMEOUT:
                self._kill()
                said = self.console[-3000:] or "nothing"
                raise LabUnavailable(f"the machine does not start; its console said: {said}")
            time.sleep(0.02)
        self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=BOOT_TIMEOUT)
        self.boot_seconds = time.monotonic() - started

    def _kill(self) -> None:
        if self._kernel is None:
            return
        # Ends `unshare`, which takes the whole process namespace with it.
        self._kernel.kill()
        self._kernel.wait()
        self._channel.close()
        self._kernel = None
        for process in self._processes.values():
            if process.running:
                process._end(None)
        self._processes.clear()

    def _drain(self, kernel: subprocess.Popen[bytes]) -> None:
        assert kernel.stdout
        while chunk := os.read(kernel.stdout.fileno(), 65536):
            self._console += chunk
        kernel.stdout.close()

    def _listen(self, channel: socket.socket) -> None:
        try:
            with channel.makefile("rb") as events:
                for text in events:
                    try:
                        event = json.loads(text)
                    except ValueError:
                        continue
                    process = self._processes.get(event["id"])
                    if process:
                        process._hear(event)
        except OSError:  # closed by _kill
            return

    def _send(self, request: Mapping[str, Any]) -> None:
        if self._kernel is None:
            raise LabError("the machine is not running")
        # Requests go through a folder, and only their number over the serial line: the kernel's
        # driver turns deaf for good when it is sent more than a few kilobytes at once.
        number = next(self._letters)
        (self._own / f"request-{number}").write_text(json.dumps(request))
        with self._sending:
            self._channel.sendall(f"{number}\n".encode())
