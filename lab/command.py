"""What the commands lab/shell and lab/demo share: how they boot, and how they say what is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn

import click

from lab import machine
from lab.fabric import Lab
from lab.result import LabError


def run(command: click.Command, name: str) -> NoReturn:
    """Run a command and exit; what is wrong is one line, and code 2 when it is a word or option."""
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        print(f"{name}: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    sys.exit(code)


@contextmanager
def booted(suite: str = "trixie", backend: str = "netplan") -> Iterator[Lab]:
    """Give a lab that is up; where there can be none, an error that says why."""
    try:
        machine.kernels()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with ExitStack() as opening:
        try:
            lab = opening.enter_context(Lab(suite, backend))
        except (LabError, OSError, subprocess.SubprocessError, AssertionError) as reason:
            raise click.ClickException(f"no lab here: {reason}") from reason
        yield lab
