"""Reads systemd's state files, whose lines are `KEY=VALUE`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

LINK_STATES = Path("run/systemd/netif/links")  # networkd's state files of links, by index


def pairs(path: Path, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and value of the lines that begin with `prefix`; nothing without a file."""
    with contextlib.suppress(OSError):
        for line in (Path("/") / path).read_bytes().decode(errors="replace").splitlines():
            key, equals, value = line.removeprefix(prefix).partition("=")
            if equals and line.startswith(prefix):
                yield key, value
