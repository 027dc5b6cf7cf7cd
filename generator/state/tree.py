"""Reads what is below a root. A symbolic link never leads out of a root that is not `/`.

Files of `/` are opened as any program opens them. Another root (`--root`, `render -o`) may have
been filled by somebody else. Each of its folders is opened relative to the folder above it, and a
link on the way is an error, as with RESOLVE_NO_SYMLINKS of openat2(2), which Python does not offer.
So nobody can exchange a folder for a link between a check and its use.
"""

import contextlib
import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LINK = "is a symbolic link, which is not followed in another root"
_MISSING = (FileNotFoundError, NotADirectoryError)
_OTHER_KIND = "is not a regular file"


def no_follow(root: Path) -> int:
    """Return the flag of open(2) that refuses a link, 0 for the machine's own root."""
    return 0 if root == Path("/") else os.O_NOFOLLOW


@contextlib.contextmanager
def folder(root: Path, path: PurePath | str) -> Iterator[int]:
    """Open a folder below a root, and yield its descriptor. Raises `OSError`."""
    descriptor = _open_folder(root, PurePath(path))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_folder(root: Path, path: PurePath) -> int:
    if not no_follow(root):
        return os.open(root / path, _FOLDER)
    descriptor = os.open(root, _FOLDER)
    for number, part in enumerate(path.parts, start=1):
        try:
            if part == "..":
                raise OSError(errno.EXDEV, "leads out of the root", f"/{path}")
            below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
        except NotADirectoryError:
            place = "/" + "/".join(path.parts[:number])
            if stat.S_ISLNK(os.lstat(part, dir_fd=descriptor).st_mode):
                raise OSError(errno.ELOOP, _LINK, place) from None
            raise
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def status(root: Path, path: PurePath | str) -> os.stat_result | None:
    """Return what lstat(2) says about a path below a root, None if it does not exist."""
    parent, name = os.path.split(path)
    try:
        with folder(root, parent) as descriptor:
            return os.lstat(name, dir_fd=descriptor)
    except _MISSING:
        return None


def is_file(root: Path, path: PurePath | str) -> bool:
    """Whether a path below a root is a regular file; below `/` a link to one counts too."""
    if not no_follow(root):
        return (root / path).is_file()
    result = status(root, path)
    return result is not None and stat.S_ISREG(result.st_mode)


def is_folder(root: Path, path: PurePath | str) -> bool:
    """Whether a path below a root is a folder. Raises `OSError` for a link of another root."""
    try:
        with folder(root, path):
            return True
    except _MISSING:
        return False


def links_to_nothing(root: Path, path: PurePath | str) -> bool:
    """Whether a path below a root is a link to /dev/null: systemd takes such a unit as masked."""
    parent, name = os.path.split(path)
    with contextlib.suppress(OSError), folder(root, parent) as descriptor:
        return os.readlink(name, dir_fd=descriptor) == os.devnull
    return False


def read(root: Path, path: PurePath | str, limit: int | None = None) -> bytes:
    """Return a regular file's bytes. Raises `OSError`, also if there are more than `limit`.

    It never blocks: a FIFO in a file's place is an error, as is a folder or a device.
    """
    parent, name = os.path.split(path)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | no_follow(root)
    with folder(root, parent) as descriptor:
        try:
            file = os.open(name, flags, dir_fd=descriptor)
        except OSError as error:
            what = _LINK if error.errno == errno.ELOOP else error.strerror
            raise OSError(error.errno, what, f"/{path}") from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, _OTHER_KIND, f"/{path}")
        with os.fdopen(file, "rb", closefd=False) as opened:
            data = opened.read() if limit is None else opened.read(limit + 1)
    finally:
        os.close(file)
    if limit is not None and len(data) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit >> 10} KiB", f"/{path}")
    return data


@contextlib.contextmanager
def opened(root: Path, path: PurePath | str) -> Iterator[str]:
    """Yield a path with which a library can open a file below a root, during the `with` block."""
    parent, name = os.path.split(path)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | no_follow(root)
    with folder(root, parent) as descriptor:
        file = os.open(name, flags, dir_fd=descriptor)
    try:
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)


def names(root: Path, path: PurePath | str) -> list[str]:
    """Return the names in a folder, sorted; none if the folder does not exist."""
    try:
        with folder(root, path) as descriptor:
            return sorted(os.listdir(descriptor))  # noqa: PTH208  # Path knows no descriptor
    except _MISSING:
        return []


def find(root: Path, pattern: str) -> list[str]:
    """Return the paths below a root that match a pattern, in which `*` stands for part of a name.

    As in a shell, names that begin with a dot need a pattern that does.
    """
    paths = [""]
    for part in PurePath(pattern).parts:
        if "*" in part:
            paths = [
                os.path.join(path, name)  # noqa: PTH118  # strings: there can be thousands
                for path in paths
                for name in names(root, path)
                if fnmatch.fnmatchcase(name, part) and name.startswith(".") == part.startswith(".")
            ]
        else:
            paths = [os.path.join(path, part) for path in paths]  # noqa: PTH118
    return [path for path in paths if status(root, path)]


def walk(root: Path, path: PurePath | str) -> Iterator[str]:
    """Yield the paths of the files and links below a folder, sorted by folder."""
    for name in names(root, path):
        below = f"{path}/{name}"
        result = status(root, below)
        if result and stat.S_ISDIR(result.st_mode):
            yield from walk(root, below)
        elif result:
            yield below
