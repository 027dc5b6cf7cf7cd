"""Reads files of lines `KEY=VALUE`, in which systemd keeps what it knows."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

LINK_STATES = Path("run/systemd/netif/links")  # what networkd says of each link, by index


def pairs(path: Path, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield what stands in lines `KEY=VALUE` that begin with `prefix`; nothing without a file."""
    with contextlib.suppress(OSError):
        for line in (Path("/") / path).read_bytes().decode(errors="replace").splitlines():
            key, equals, value = line.removeprefix(prefix).partition("=")
            if equals and line.startswith(prefix):
                yield key, value
