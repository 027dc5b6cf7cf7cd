"""Runs commands of the native tools. A step is data: a command, its reason and its time limit."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from generator.errors import ActivationFailed, Interrupted, NotInstalled, printable
from generator.secrets import mask, mask_frr


class Step(msgspec.Struct, frozen=True):
    """A command, why it is run, and how long it may take (seconds)."""

    argv: tuple[str, ...]
    reason: str
    timeout: float = 60
    input: str = ""
    may_fail: bool = False

    @property
    def command(self) -> str:
        """The command as a person reads it, without passwords."""
        return mask_frr(" ".join(self.argv))

    def __str__(self) -> str:
        return f"{self.command}  # {self.reason}"


Log = Callable[[str], None]
_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # with which somebody ends us
T = TypeVar("T")


def run(step: Step, log: Log) -> str:
    """Run a step; return its standard output. Raises `ActivationFailed` with the tool's message."""
    return _text(read(step, log))


def read(step: Step, log: Log) -> bytes:
    """Run a step; return its standard output as it is. Raises `ActivationFailed`."""
    log(str(step))
    try:
        done = _run(
            step,
            # networkd does not answer while it handles hundreds of devices. Without this, tools
            # that ask it give up after 25 s (SYSTEMD_BUS_TIMEOUT, systemd's docs/ENVIRONMENT.md).
            {**os.environ, "SYSTEMD_BUS_TIMEOUT": f"{step.timeout:.0f}"},
        )
    except FileNotFoundError:
        raise NotInstalled(f"{step.argv[0]} is not installed ({step.reason})") from None
    except OSError as error:
        reason = f"{error.strerror} ({step.reason})"
        raise ActivationFailed(f"{step.argv[0]} can't be run: {reason}") from None
    except subprocess.TimeoutExpired:
        raise ActivationFailed(
            f"{step.command} did not end within {step.timeout:.0f} s ({step.reason})"
        ) from None
    if done.returncode and not step.may_fail:
        # A tool repeats lines of its files: FRR's with a password in them.
        text = _text(done.stderr).strip() or _text(done.stdout).strip()
        lines = mask_frr(text).splitlines()[-5:]
        raise ActivationFailed(
            f"{step.command} failed with {done.returncode} ({step.reason})",
            *(f"  {printable(line, 200)}" for line in lines),
        )
    return done.stdout


def _run(step: Step, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a tool to its end. If the wait for it ends early, kill it and all that it started.

    It has its own process group. So a terminal that closes, as one over SSH may when the network
    changes, does not kill a tool halfway.
    """
    with (
        _start.deferring_signals(),
        subprocess.Popen(
            step.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            process_group=0,
        ) as process,
    ):
        try:
            _start.end()
            data = step.input.encode(errors="replace")
            out, err = process.communicate(data, timeout=step.timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(step.argv, process.returncode, out, err)


class _Start:
    """Defers a signal that comes while a tool starts: nobody could kill the tool yet."""

    def __init__(self) -> None:
        self._deferring = False
        self._signal = 0

    @contextlib.contextmanager
    def deferring_signals(self) -> Iterator[None]:
        """Defer signals until `end`."""
        self._deferring = threading.current_thread() is threading.main_thread()
        try:
            yield
        finally:
            self.end()

    def end(self) -> None:
        """Go on with signals. Raises `Interrupted` if one has come."""
        self._deferring, number, self._signal = False, self._signal, 0
        if number:
            raise _interrupted(number)

    def interrupt(self, number: int, _: object) -> None:
        """Handle a signal."""
        if not self._deferring:
            raise _interrupted(number)
        self._signal = number


_start = _Start()


def _interrupted(number: int) -> Interrupted:
    return Interrupted(f"stopped by {signal.Signals(number).name}")


def _text(data: bytes) -> str:
    return data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM and SIGINT raise `Interrupted`: a running tool is killed, and we go back.

    SIGHUP does nothing: a terminal that closes is no reason to leave a host half done.
    """
    with _handling(_start.interrupt):
        yield


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Have SIGTERM and SIGINT do nothing: what has begun is finished.

    They get a handler, because a native tool would inherit "ignored", and so would a DHCP client
    that it starts.
    """
    with _handling(_nothing):
        yield


def finish() -> None:
    """Have SIGTERM and SIGINT do nothing until the end of `interruptible`.

    The work is done, or is being undone, and the exit code must say so.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, _nothing)


def _nothing(*_: object) -> None:
    """Do nothing."""


@contextlib.contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one handles signals
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, _nothing)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def note(text: str, log: Log) -> None:
    """Log what we wait for, if no command shows it."""
    log(f"# {text}")


def run_all(steps: Iterable[Step], log: Log) -> None:
    """Run steps until one fails."""
    for step in steps:
        run(step, log)


def to_stderr(line: str) -> None:
    """Print a line of the log: the log of `-v`."""
    print(f"+ {mask(line)}", file=sys.stderr)


def silent(_: str) -> None:
    """Print nothing: the log without `-v`."""


def until(check: Callable[[], list[T]], patience: float) -> list[T]:
    """Check again and again until nothing is wrong; return what is still wrong in the end.

    It gives up when the list has not become shorter for `patience` seconds. The whole time is not
    limited.
    """
    fewest, end, interval = sys.maxsize, 0.0, 0.1
    while wrong := check():
        now = time.monotonic()
        if len(wrong) < fewest:
            fewest, end = len(wrong), now + patience
        if now > end:
            break
        time.sleep(interval)
        interval = min(interval * 1.5, 1.0)
    return wrong
