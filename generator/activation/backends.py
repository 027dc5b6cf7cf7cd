"""The registry of backends: the only place that names each of them.

A backend is imported when it is used: the command line needs only the names.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from generator.errors import Problem, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from generator.activation.backend import Backend


def _netplan() -> Backend:
    from generator.activation.netplan import Netplan  # noqa: PLC0415

    return Netplan()


def _ifupdown() -> Backend:
    from generator.activation.ifupdown import Ifupdown  # noqa: PLC0415

    return Ifupdown()


# In the order in which `detect` tries them.
_REGISTERED: dict[str, Callable[[], Backend]] = {"netplan": _netplan, "ifupdown": _ifupdown}
NAMES = tuple(_REGISTERED)


@cache
def named(name: str) -> Backend:
    """Return the backend with a name."""
    return _REGISTERED[name]()


def registered() -> Iterator[Backend]:
    """Yield all backends."""
    return map(named, NAMES)


def detect(root: Path) -> str:
    """Return the name of the backend that a host uses.

    Raises `Refused` if it uses none, or one that can't be used as it is.
    """
    for backend in registered():
        if backend.is_used(root):
            return backend.name
    hint = "-b netplan or -b ifupdown says which, -b netplan needs the package netplan.io"
    raise Refused(Problem("", "", "neither netplan nor ifupdown2 is in use on this host", hint))
