"""Code that the commands lab/shell and lab/demo share: booting a lab, and reporting errors."""

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
    """Run a command and exit; print an error as one line.

    The exit code is 2 for a wrong argument or option.
    """
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
    """Boot a lab for a `with` block; if that fails, raise an error that says why."""
    try:
        machine.kernels()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with ExitStack() as opening:
        try:
            lab = opening.enter_context(Lab(suite, backend))
        except (LabError, OSError, subprocess.SubprocessError, AssertionError) as error:
            raise click.ClickException(f"no lab here: {error}") from error
        yield lab
