"""A file's content before and after, and its diff for a person."""

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from generator.errors import Refused
from generator.secrets import mask_frr
from generator.state import files


class Change(msgspec.Struct, frozen=True):
    """A file's content before and after; None where there is no file."""

    path: str
    old: str | None
    new: str | None


def read(root: Path, path: str) -> str | None:
    """Return a file's text, None if there is no file. Raises `Refused` if it can't be read."""
    try:
        return files.read(root, path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"/{path}: can't be read: {error.strerror}") from None


def diff(changes: Iterable[Change]) -> Iterator[str]:
    """Yield a unified diff, line by line, without line ends, for a terminal.

    Passwords are masked, and characters that are not printable are escaped.
    """
    for change in changes:
        old, new = _lines(change.old), _lines(change.new)
        yield from difflib.unified_diff(
            old,
            new,
            fromfile=f"a/{change.path}" if change.old is not None else "/dev/null",
            tofile=f"b/{change.path}" if change.new is not None else "/dev/null",
            lineterm="",
        )


def _lines(text: str | None) -> list[str]:
    return [_printable(line) for line in mask_frr(text or "").split("\n")[: -1 if text else 0]]


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line)
