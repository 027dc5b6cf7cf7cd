"""One run acts at a time.

/run/evpn-host/lock     held by the run that acts
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from generator.errors import Refused
from generator.state import record

RUN = Path("run/evpn-host")
LOCK_TIMEOUT = 300.0  # seconds; the longest activation of another run


@contextlib.contextmanager
def lock(root: Path, *, uninstalls: bool = False) -> Iterator[None]:
    """Wait until no other run acts, and keep others from acting meanwhile.

    Raises `Refused` if the other run does not end. A run that waited for an uninstall is refused
    too: it would bring back what a person has just removed. An uninstall itself (`uninstalls`)
    goes on.
    """
    folder = root / RUN
    # The payload, kept files and earlier generations may hold passwords.
    (root / record.STATE).mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = _open(folder)
    try:
        end = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, folder / "lock"):
                    break
                # An uninstall has removed the file meanwhile: others lock another one.
                if not uninstalls:
                    raise Refused("evpn-host was uninstalled while this run waited for its turn")
                os.close(descriptor)
                descriptor = _open(folder)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Refused(
                        "another run of evpn-host has the lock and does not end"
                    ) from None
                time.sleep(0.1)
        for stage in folder.glob("stage-*"):  # of a run that was killed
            shutil.rmtree(stage, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one that others find in its place."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
