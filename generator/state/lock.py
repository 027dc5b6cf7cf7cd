"""Lets only one run change the host at a time.

/run/evpn-host/lock     locked by the run that changes the host
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from generator.errors import Refused
from generator.state import files, record, tree

RUN = Path("run/evpn-host")
STAGE = "evpn-host-stage-"  # prefix of folders with files that are about to be applied
LOCK_TIMEOUT = 300.0  # seconds; the longest activation of another run


@contextlib.contextmanager
def lock(root: Path, *, uninstalls: bool = False) -> Iterator[None]:
    """Wait for the lock, and hold it during the `with` block.

    Raises `Refused` if the other run does not end. A run that waited for an uninstall is refused
    too: it would bring back what a person has just removed. An uninstall itself (`uninstalls`)
    continues.
    """
    # The payload, kept files and earlier generations may hold passwords.
    files.make_folder(root, record.STATE, 0o700)
    descriptor = _open(root)
    try:
        end = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_in_place(root, descriptor):
                    break
                # An uninstall has removed the file meanwhile: other runs lock a new one.
                if not uninstalls:
                    raise Refused("evpn-host was uninstalled while this run waited for its turn")
                os.close(descriptor)
                descriptor = _open(root)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Refused(
                        "another run of evpn-host has the lock and does not end"
                    ) from None
                time.sleep(0.1)
        _sweep(root)
        yield
    finally:
        os.close(descriptor)


def _sweep(root: Path) -> None:
    """Remove what a run that was killed has left behind."""
    for name in tree.names(root, RUN):
        if name.startswith(STAGE):
            files.remove_tree(root, RUN / name)
    for name in tree.names(root, record.STATE):
        if name.endswith(files.PARTIAL) and name != files.partial_of(record.ORIGIN.name):
            files.remove(root, record.STATE / name)


def _open(root: Path) -> int:
    files.make_folder(root, RUN)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | tree.no_follow(root)
    with tree.folder(root, RUN) as folder:
        return os.open("lock", flags, 0o600, dir_fd=folder)


def _is_in_place(root: Path, descriptor: int) -> bool:
    """Whether an open lock file is still the one at its path."""
    status = tree.status(root, RUN / "lock")
    return status is not None and os.path.samestat(os.fstat(descriptor), status)
