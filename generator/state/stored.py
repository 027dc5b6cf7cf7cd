"""Reads the JSON that an earlier run stored.

Somebody else may have changed such a file, or have put something else in its place.
"""

from pathlib import Path, PurePath
from typing import TypeVar

import msgspec

from generator.state import tree

T = TypeVar("T")

LIMIT = 64 << 20  # bytes; a record of 4,000 V-Nets has 3 MB


def read(root: Path, path: PurePath | str, type_: type[T]) -> T:
    """Return the object that a file holds.

    Raises `OSError` if there is no regular file of a reasonable size, and `msgspec.DecodeError` if
    it holds anything else.
    """
    return decode(tree.read(root, path, LIMIT), type_)


def decode(data: bytes, type_: type[T]) -> T:
    """Return the object that is stored as JSON. Raises `msgspec.DecodeError`, and nothing else."""
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.DecodeError:
        raise
    except RecursionError:
        raise msgspec.DecodeError("it is nested too deep") from None
    except ValueError as error:  # text that is not UTF-8
        raise msgspec.DecodeError(str(error)) from None


def problem(error: OSError | msgspec.DecodeError) -> str:
    """Return why a file could not be read, without its place."""
    return f"can't be read: {error.strerror if isinstance(error, OSError) else error}"
