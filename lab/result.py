"""What a command in the lab gave back, and the errors that it can end in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class LabError(Exception):
    """The lab itself could not do what was asked of it."""


class LabUnavailable(LabError):
    """This computer cannot run the lab; the message says why."""


class CommandError(LabError):
    """A command ended with another code than 0."""

    def __init__(self, argv: Sequence[str], result: Result) -> None:
        """Show the command as a person would type it, its code and what it said."""
        self.result = result
        said = "\n".join(part for part in (result.out.rstrip(), result.err.rstrip()) if part)
        super().__init__(f"{shlex.join(argv)}: exit code {result.code}\n{said}".rstrip())


@dataclass(frozen=True)
class Result:
    """Exit code (negative: the signal that ended it), standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as parsed JSON."""
        return json.loads(self.out)

    def checked(self, argv: Sequence[str]) -> Result:
        """Return itself, or raise CommandError for a code other than 0."""
        if self.code:
            raise CommandError(argv, self)
        return self
