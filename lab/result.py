"""The result of a command in the lab, and the errors of the lab."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class LabError(Exception):
    """The lab itself failed to do something."""


class LabUnavailable(LabError):
    """This computer cannot run the lab; the message says why."""


class CommandError(LabError):
    """A command ended with an exit code other than 0."""

    def __init__(self, argv: Sequence[str], result: Result) -> None:
        """Make the message: the command as a person would type it, its exit code, its output."""
        self.result = result
        output = "\n".join(part for part in (result.out.rstrip(), result.err.rstrip()) if part)
        super().__init__(f"{shlex.join(argv)}: exit code {result.code}\n{output}".rstrip())


@dataclass(frozen=True)
class Result:
    """The exit code of a command, its standard output and its standard error.

    If a signal ended the command, the code is minus the number of the signal.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The standard output, parsed as JSON."""
        return json.loads(self.out)

    def checked(self, argv: Sequence[str]) -> Result:
        """Return this result, or raise CommandError if its code is not 0."""
        if self.code:
            raise CommandError(argv, self)
        return self
