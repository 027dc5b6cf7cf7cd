"""Writes a tree of rendered files, removes ours that it no longer has, and keeps those of others.

Each folder is opened relative to the folder above it, and no link below the tree is followed. A
file is written under another name and then renamed. An equal file is not written. Nothing is
flushed to the disk: no host depends on these files yet, and a fleet has hundreds of thousands.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LINK = "is a symbolic link, which is not followed"
_NOT_OURS = {errno.ENOTDIR, errno.ELOOP, errno.EACCES}  # why a folder is left alone
_PARTIAL = ".new"  # ends the name of a file while it is being written
_HEAD = 200  # bytes at the start of a file that contain its first line


class Counts(msgspec.Struct):
    """How many files are new, changed, removed, or the same as before."""

    new: int = 0
    changed: int = 0
    removed: int = 0
    same: int = 0

    def add(self, other: "Counts") -> None:
        """Add the counts of another tree."""
        self.new += other.new
        self.changed += other.changed
        self.removed += other.removed
        self.same += other.same


class File(msgspec.Struct, frozen=True):
    """A file as it should be."""

    content: bytes
    mode: int


class Ours(msgspec.Struct, frozen=True):
    """How a file is recognised as ours."""

    files: re.Pattern[str]  # matches a path that a file of ours can have, without leading slash
    folders: re.Pattern[str]  # matches a folder through which such a path can lead
    drop_ins: re.Pattern[str]  # matches a path that is the only one of ours in its folder
    line: Callable[[str], bool]  # whether a file's text begins with our first line


class _Folder(msgspec.Struct):
    """A folder as it should be: its folders and files by name."""

    folders: dict[str, "_Folder"] = {}
    files: dict[str, File] = {}

    def __bool__(self) -> bool:
        return bool(self.folders or self.files)

    def put(self, path: str, file: File) -> None:
        """Put a file below this folder."""
        *above, name = path.split("/")
        folder = self
        for each in above:
            folder = folder.folders.setdefault(each, _Folder())
        folder.files[name] = file


def write_tree(root: Path, base: str, files: Mapping[str, File], ours: Ours) -> Counts:
    """Write these files below `root/base`; return how many were new, changed, removed, the same.

    Other files of ours are removed, and then the folders that are empty; `base` itself too, unless
    it is "". Raises `OSError`.
    """
    tree = _Folder()
    for path, file in files.items():
        tree.put(path, file)
    work = _Writer(root / base, ours)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if base:
            work.folder(descriptor, base, "", tree)
        else:  # all files are below `etc`; other folders beside it are not ours
            work.folder(descriptor, "etc", "etc", tree.folders.get("etc", _Folder()))
    finally:
        os.close(descriptor)
    return work.counts


class _Writer:
    """Writes one tree. Paths are relative to it."""

    def __init__(self, place: Path, ours: Ours) -> None:
        self._place = place
        self._ours = ours
        self.counts = Counts()

    def folder(
        self, parent: int, name: str, path: str, expected: _Folder, *, is_new: bool = False
    ) -> bool:
        """Write a folder; return whether it was removed, because it became empty.

        `is_new`: it does not exist. Trying to open it would cost as much as creating it.
        """
        try:
            if not is_new:
                descriptor = os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            if not expected:
                return False
            is_new = True
        except OSError as error:
            if error.errno in _NOT_OURS and not expected:
                return False
            is_link = stat.S_ISLNK(os.lstat(name, dir_fd=parent).st_mode)
            what = _LINK if is_link else error.strerror
            raise OSError(error.errno, what, str(self._place / path)) from None
        if is_new:
            try:
                os.mkdir(name, dir_fd=parent)
                descriptor = os.open(name, _FOLDER, dir_fd=parent)
            except OSError as error:
                raise self._at(path, error) from None
        try:
            empty = self._inside(descriptor, path, expected, is_new=is_new)
        finally:
            os.close(descriptor)
        try:
            if empty:
                os.rmdir(name, dir_fd=parent)
        except OSError:  # somebody has put a file into it meanwhile
            return False
        return empty

    def _inside(self, folder: int, path: str, expected: _Folder, *, is_new: bool) -> bool:
        """Write the content of a folder; return whether that has emptied the folder."""
        present = {}
        if not is_new:
            with os.scandir(folder) as entries:
                present = {entry.name: entry for entry in entries}
        prefix = f"{path}/" if path else ""
        for name, below in expected.folders.items():
            if not self._is_drop_in(folder, present.get(name), prefix + name, below):
                self.folder(folder, name, prefix + name, below, is_new=is_new)
        for name, file in expected.files.items():
            self._file(folder, name, prefix + name, file, present.get(name))
        others = [
            self._remove(folder, entry, prefix + name)
            for name, entry in present.items()
            if name not in expected.folders and name not in expected.files
        ]
        return not expected and bool(others) and all(others)

    def _is_drop_in(
        self, parent: int, entry: os.DirEntry[str] | None, path: str, expected: _Folder
    ) -> bool:
        """Whether a folder has its only file, a drop-in. This quick look saves half the time.

        The path has two parts, so a folder that becomes a link meanwhile would be followed: nothing
        is written here.
        """
        if entry is None or expected.folders or len(expected.files) != 1:
            return False
        ((name, file),) = expected.files.items()
        if not (
            self._ours.drop_ins.fullmatch(f"{path}/{name}") and entry.is_dir(follow_symlinks=False)
        ):
            return False
        same = _is_same(parent, f"{entry.name}/{name}", file, set_mode=False)
        same = same and not _exists(parent, f"{entry.name}/.{name}{_PARTIAL}")
        self.counts.same += same
        return same

    def _remove(self, folder: int, entry: os.DirEntry[str], path: str) -> bool:
        """Remove what is ours at a path; return whether nothing is left there."""
        if entry.is_dir(follow_symlinks=False):
            leads = self._ours.folders.fullmatch(path) is not None
            return leads and self.folder(folder, entry.name, path, _Folder())
        if not entry.is_file(follow_symlinks=False):
            return False
        # A run that was killed leaves an unfinished file behind.
        unfinished = entry.name.startswith(".") and entry.name.endswith(_PARTIAL)
        place = path
        if unfinished:
            name = entry.name.removeprefix(".").removesuffix(_PARTIAL)
            place = path.removesuffix(entry.name) + name
        if not self._ours.files.fullmatch(place):
            return False
        start = _read_start(folder, entry.name)
        if start is None or not (self._ours.line(start) or (unfinished and not start)):
            return False
        try:
            os.unlink(entry.name, dir_fd=folder)
        except OSError as error:
            raise self._at(path, error) from None
        self.counts.removed += not unfinished
        return True

    def _file(
        self, folder: int, name: str, path: str, expected: File, entry: os.DirEntry[str] | None
    ) -> None:
        """Write a file, unless it is the same already."""
        is_file = entry is not None and entry.is_file(follow_symlinks=False)
        if is_file and _is_same(folder, name, expected, set_mode=True):
            self.counts.same += 1
            return
        partial = f".{name}{_PARTIAL}"
        try:
            _write(folder, partial, expected)
            os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(partial, dir_fd=folder)
            raise self._at(path, error) from None
        if entry:
            self.counts.changed += 1
        else:
            self.counts.new += 1

    def _at(self, path: str, error: OSError) -> OSError:
        """Return an error of the system with the whole path: it has only the last part."""
        return OSError(error.errno, error.strerror, str(self._place / path))


def _write(folder: int, name: str, file: File) -> None:
    try:
        descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
    except FileExistsError:  # left by a run that was killed
        os.unlink(name, dir_fd=folder)
        descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
    try:
        os.fchmod(descriptor, file.mode)  # whatever the umask
        content = file.content
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def _is_same(folder: int, name: str, expected: File, *, set_mode: bool) -> bool:
    """Whether a file has this content and this mode. With `set_mode` it gets the mode."""
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except OSError:  # it is replaced, whatever it is
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != len(expected.content):
            return False
        if os.read(descriptor, status.st_size + 1) != expected.content:
            return False
        if stat.S_IMODE(status.st_mode) != expected.mode:
            if not set_mode:
                return False
            os.fchmod(descriptor, expected.mode)
    except PermissionError:
        return False
    finally:
        os.close(descriptor)
    return True


def _exists(folder: int, path: str) -> bool:
    try:
        os.lstat(path, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _read_start(folder: int, name: str) -> str | None:
    """Return the start of a regular file, None for anything else."""
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return None
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _HEAD).decode(errors="replace") if is_file else None
    finally:
        os.close(descriptor)
