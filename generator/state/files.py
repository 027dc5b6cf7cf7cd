"""Writes, copies and removes files so that a power cut at any instant loses none of them.

At any instant the old or the new file is there, whole. A function returns when its change would
survive a power cut, the folder's entry included. Nothing else of evpn-host writes what matters.
"""

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

FOLDER_MODE = 0o755  # of folders that are made on the way, whatever the umask


def read(path: Path) -> str:
    """Return a file's text: UTF-8 whatever the locale, with other bytes and line ends as they are.

    `encoded` gives the same bytes again.
    """
    return path.read_bytes().decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """Return the bytes of text that `read` returned, or that is ours."""
    return text.encode("utf-8", "surrogateescape")


def write(target: Path, content: bytes, mode: int) -> None:
    """Write a file with a mode; a file of FRR belongs to FRR's user."""
    with _in_place_of(target) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            _give_to_frr(file.fileno(), target)
            file.flush()
            os.fsync(file.fileno())


def copy(source: Path, target: Path) -> None:
    """Copy a file with its mode, owner and times; a symbolic link stays one."""
    with _in_place_of(target) as partial:
        if source.is_symlink():
            partial.symlink_to(source.readlink())
        else:
            _copy_file(source, partial)


@contextlib.contextmanager
def _in_place_of(target: Path) -> Iterator[Path]:
    """Yield the place for a new file. At the end it takes the target's place, or is removed."""
    make_folder(target.parent)
    partial = target.with_name(f".{target.name}.new")
    partial.unlink(missing_ok=True)  # of a run that was killed
    try:
        yield partial
        partial.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync_folder(target.parent)


def _copy_file(source: Path, target: Path) -> None:
    status = source.stat()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as old, os.fdopen(descriptor, "wb") as new:
        shutil.copyfileobj(old, new)
        new.flush()
        os.fchown(new.fileno(), status.st_uid, status.st_gid)
        os.fchmod(new.fileno(), status.st_mode & 0o7777)
        os.utime(new.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(new.fileno())


def remove(target: Path) -> None:
    """Remove a file. A missing one is no error."""
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
        sync_folder(target.parent)


def make_folder(folder: Path, mode: int = FOLDER_MODE) -> None:
    """Make a folder and those above it that are missing, with a mode whatever the umask."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):  # another run made it meanwhile
        folder.mkdir()
        folder.chmod(mode)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Have a folder's entries survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def owner_of(target: Path) -> int:
    """Return the user (uid) to whom a file of ours belongs: FRR's, if this machine has it."""
    if target.parent.name == "frr":
        with contextlib.suppress(KeyError):
            return pwd.getpwnam("frr").pw_uid
    return 0


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
