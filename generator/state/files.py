"""Writes, copies and removes files so that a power cut at any instant loses none of them.

At any instant the old or the new file is there, whole. A function returns when its change would
survive a power cut, the folder's entry included. Every file that matters is written here. Paths are
relative to a root, and `state.tree` keeps them inside it. All functions raise `OSError`.
"""

import contextlib
import errno
import fcntl
import os
import pwd
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from generator.secrets import remember_in_frr
from generator.state import tree

PARTIAL = ".new"  # ends the name of a file while it is being written
FOLDER_MODE = 0o755  # of folders that are created on the way, whatever the umask
# Why a folder is not removed: others have files in it, it is a mount point, or it does not exist.
_NOT_OURS_ALONE = {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT, errno.ENOTDIR}
# FS_IOC_GETFLAGS, FS_IMMUTABLE_FL | FS_APPEND_FL (linux/fs.h): what `chattr +i` and `+a` set.
_GET_FLAGS, _UNCHANGEABLE = 0x80086601, 0x30
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def read(root: Path, path: PurePath | str) -> str:
    """Return a file's text: UTF-8 whatever the locale, with other bytes and line ends as they are.

    `encoded` gives the same bytes again. The passwords of a file of FRR are masked from then on.
    """
    return _decoded(path, tree.read(root, path))


def _decoded(path: PurePath | str, content: bytes) -> str:
    text = content.decode("utf-8", "surrogateescape")
    if PurePath(path).parent.name == "frr":
        remember_in_frr(text)  # a native tool that reads the file may repeat its lines
    return text


def encoded(text: str) -> bytes:
    """Return the bytes of a text: the reverse of `read`."""
    return text.encode("utf-8", "surrogateescape")


def write(root: Path, path: PurePath | str, content: bytes, mode: int) -> None:
    """Write a file with a mode; a file of FRR belongs to FRR's user."""
    with _replacement(root, path) as (folder, partial):
        descriptor = os.open(partial, _NEW, 0o600, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            _give_to_frr(file.fileno(), path)
            file.flush()
            os.fsync(file.fileno())


def copy(root: Path, source: PurePath | str, target: PurePath | str) -> None:
    """Copy a file with its mode, owner and times; a symbolic link stays one."""
    parent, name = os.path.split(source)
    with tree.folder(root, parent) as old, _replacement(root, target) as (folder, partial):
        status = os.lstat(name, dir_fd=old)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=old), partial, dir_fd=folder)
            return
        content = tree.read(root, source)
        _decoded(source, content)
        descriptor = os.open(partial, _NEW, 0o600, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
            os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(file.fileno())


@contextlib.contextmanager
def _replacement(root: Path, path: PurePath | str) -> Iterator[tuple[int, str]]:
    """Yield a folder and a name for a new file in it. In the end the file is renamed to `path`."""
    parent, name = os.path.split(path)
    partial = partial_of(name)
    make_folder(root, parent)
    with tree.folder(root, parent) as folder:
        _remove(partial, folder)  # left by a run that was killed
        try:
            yield folder, partial
            os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                _remove(partial, folder)
            raise
        os.fsync(folder)


def unwritable(root: Path, path: PurePath | str) -> str:
    """Return why a file can't be written or removed, "" if it can."""
    parent, name = os.path.split(path)
    while parent and not tree.is_folder(root, parent):
        parent, name = os.path.split(parent)
    with tree.folder(root, parent) as folder:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return "is on a read-only file system"
        for each in (".", name):
            with contextlib.suppress(OSError):  # it is not there, or its file system has no flags
                file = os.open(each, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
                try:
                    flags = fcntl.ioctl(file, _GET_FLAGS, bytes(8))
                finally:
                    os.close(file)
                if int.from_bytes(flags, sys.byteorder) & _UNCHANGEABLE:
                    return "can't be changed: it, or its folder, has the attribute i or a"
    return ""


def partial_of(name: str) -> str:
    """Return the name of a file while it is being written."""
    return f".{name}{PARTIAL}"


def sweep(root: Path, paths: Iterable[PurePath | str]) -> None:
    """Remove the unfinished files of a run that was killed."""
    for path in paths:
        parent, name = os.path.split(path)
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            tree.folder(root, parent) as folder,
        ):
            _remove(partial_of(name), folder)


def _remove(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def remove(root: Path, path: PurePath | str) -> None:
    """Remove a file, and the unfinished one of a killed run. A missing file is no error."""
    parent, name = os.path.split(path)
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        tree.folder(root, parent) as folder,
    ):
        _remove(partial_of(name), folder)
        os.unlink(name, dir_fd=folder)
        os.fsync(folder)


def remove_folder(root: Path, path: PurePath | str) -> None:
    """Remove a folder if it is empty: others may have files there too."""
    parent, name = os.path.split(path)
    try:
        with tree.folder(root, parent) as folder:
            os.rmdir(name, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NOT_OURS_ALONE:
            raise


def remove_tree(root: Path, path: PurePath | str) -> None:
    """Remove a folder and all that is below it, as far as that is possible."""
    parent, name = os.path.split(path)
    with contextlib.suppress(FileNotFoundError), tree.folder(root, parent) as folder:
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


def rename(root: Path, path: PurePath | str, name: str) -> None:
    """Give a file or folder another name in its folder."""
    parent, old = os.path.split(path)
    with tree.folder(root, parent) as folder:
        os.rename(old, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def make_folder(root: Path, path: PurePath | str, mode: int = FOLDER_MODE) -> None:
    """Make a folder and those above it that are missing, with a mode whatever the umask."""
    if tree.is_folder(root, path):
        return
    if not PurePath(path).parts:
        root.mkdir(parents=True, exist_ok=True)
        return
    parent, name = os.path.split(path)
    make_folder(root, parent)
    with contextlib.suppress(FileExistsError), tree.folder(root, parent) as folder:
        os.mkdir(name, mode, dir_fd=folder)  # another run may make it meanwhile
        set_mode(root, path, mode)
        os.fsync(folder)


def set_mode(root: Path, path: PurePath | str, mode: int) -> None:
    """Set the mode of a folder."""
    with tree.folder(root, path) as folder:
        os.fchmod(folder, mode)


def owner_of(path: PurePath | str) -> int:
    """Return the user (uid) to whom a file of ours belongs: FRR's, if this machine has it."""
    if PurePath(path).parent.name == "frr":
        with contextlib.suppress(KeyError):
            return pwd.getpwnam("frr").pw_uid
    return 0


def _give_to_frr(descriptor: int, path: PurePath | str) -> None:
    """Give a file of FRR to FRR's user, if this machine has that user."""
    if PurePath(path).parent.name == "frr" and os.geteuid() == 0:
        with contextlib.suppress(LookupError):
            shutil.chown(descriptor, "frr", "frr")


def write_plain(root: Path, path: str, content: bytes, mode: int) -> None:
    """Write a file that nothing depends on yet, fast: there can be thousands of them."""
    parent, name = os.path.split(path)
    try:
        _write_plain(root, parent, name, content, mode)
    except FileNotFoundError:
        make_folder(root, parent)
        _write_plain(root, parent, name, content, mode)


def _write_plain(root: Path, parent: str, name: str, content: bytes, mode: int) -> None:
    with tree.folder(root, parent) as folder:
        # Never write into an existing file: by a hard link it may be in another folder too.
        _remove(name, folder)
        descriptor = os.open(name, _NEW, mode, dir_fd=folder)
        try:
            os.fchmod(descriptor, mode)  # whatever the umask
            while content:
                content = content[os.write(descriptor, content) :]
        finally:
            os.close(descriptor)
