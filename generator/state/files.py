"""Writes a file so that at any instant, power cut included, the old or the new one is there."""

import contextlib
import os
import shutil
from pathlib import Path


def write(target: Path, content: bytes, mode: int) -> None:
    """Write a file so that at no instant half of it is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name, so that the next run removes what a killed run leaves behind.
    partial = target.with_name(f".{target.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            _give_to_frr(file.fileno(), target)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give_to_frr(descriptor: int, target: Path) -> None:
    """Give a file of FRR to FRR's user, if there is that user: a mere tree may not have it."""
    if target.parent.name == "frr" and os.geteuid() == 0:
        with contextlib.suppress(LookupError):
            shutil.chown(descriptor, "frr", "frr")


def write_plain(target: str, content: bytes, mode: int) -> None:
    """Write a file that nothing depends on yet. There can be thousands of them."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        descriptor = os.open(target, flags, mode)
    except FileNotFoundError:
        folder = os.path.dirname(target)  # noqa: PTH120
        try:
            os.mkdir(folder)  # noqa: PTH102
        except FileNotFoundError:
            os.makedirs(folder)  # noqa: PTH103
        descriptor = os.open(target, flags, mode)
    try:
        os.fchmod(descriptor, mode)  # whatever the umask
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)
