"""Runs commands of the native tools. A step is data: a command, its reason and its time limit."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from generator.errors import ActivationFailed, NotInstalled, printable
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
T = TypeVar("T")


def run(step: Step, log: Log) -> str:
    """Run a step; return its standard output. Raises `ActivationFailed` with the tool's message."""
    log(str(step))
    try:
        done = subprocess.run(
            step.argv,
            input=step.input,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=step.timeout,
            check=False,
            # networkd answers nobody while it looks at hundreds of devices. Tools that ask it give
            # up after 25 s without this (SYSTEMD_BUS_TIMEOUT in systemd's docs/ENVIRONMENT.md).
            env={**os.environ, "SYSTEMD_BUS_TIMEOUT": f"{step.timeout:.0f}"},
        )
    except FileNotFoundError:
        raise NotInstalled(f"{step.argv[0]} is not installed ({step.reason})") from None
    except subprocess.TimeoutExpired:
        raise ActivationFailed(
            f"{step.command} did not end within {step.timeout:.0f} s ({step.reason})"
        ) from None
    if done.returncode and not step.may_fail:
        # A tool repeats lines of its files: FRR's with a password in them.
        lines = mask_frr(done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise ActivationFailed(
            f"{step.command} failed with {done.returncode} ({step.reason})",
            *(f"  {printable(line, 200)}" for line in lines),
        )
    return done.stdout


def run_all(steps: Iterable[Step], log: Log) -> None:
    """Run steps until one fails."""
    for step in steps:
        run(step, log)


def to_stderr(line: str) -> None:
    """Print a line of the log: the log of `-v`."""
    print(f"+ {mask(line)}", file=sys.stderr)


def silent(_: str) -> None:
    """Print nothing: the log without `-v`."""


def until(check: Callable[[], list[T]], patience: float, interval: float = 0.1) -> list[T]:
    """Check again and again until nothing is wrong; return what is still wrong at the end.

    It goes on as long as the list gets shorter, however long that takes in all. It gives up when
    the list has not become shorter for `patience` seconds.
    """
    fewest, end = sys.maxsize, 0.0
    while wrong := check():
        now = time.monotonic()
        if len(wrong) < fewest:
            fewest, end = len(wrong), now + patience
        if now > end:
            break
        time.sleep(interval)
        interval = min(interval * 1.5, 1.0)
    return wrong
