"""Makes a tree of rendered files exactly what it should be, and touches nothing of others.

Each folder is opened relative to the folder above it, and no link below the tree is followed. A
file is written beside its place and takes it whole. What is the same is not written. Nothing is
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
_PARTIAL = ".new"  # how the name of a file ends that is being written
_HEAD = 200  # bytes of a file in which its first line is


class Counts(msgspec.Struct):
    """How many files were there and what became of them."""

    new: int = 0
    changed: int = 0
    removed: int = 0
    same: int = 0

    def add(self, other: "Counts") -> None:
        """Count what another tree had too."""
        self.new += other.new
        self.changed += other.changed
        self.removed += other.removed
        self.same += other.same


class File(msgspec.Struct, frozen=True):
    """A file as it should be."""

    content: bytes
    mode: int


class Ours(msgspec.Struct, frozen=True):
    """How files are recognised as ours."""

    files: re.Pattern[str]  # matches a path that a file of ours can have, without leading slash
    folders: re.Pattern[str]  # matches a folder through which such a path can lead
    drop_ins: re.Pattern[str]  # matches a path that is the only one of ours in its folder
    line: Callable[[str], bool]  # whether a content begins with a first line of ours


class _Folder(msgspec.Struct):
    """A folder as it should be, by the names of what is in it."""

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


def bring(root: Path, base: str, wanted: Mapping[str, File], ours: Ours) -> Counts:
    """Make the files below `root/base` those that are wanted; return what that took.

    Files of ours that are not wanted go, with the folders that become empty by that; `base` itself
    too, unless it is "". Raises `OSError`.
    """
    tree = _Folder()
    for path, file in wanted.items():
        tree.put(path, file)
    work = _Work(root / base, ours)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if base:
            work.folder(descriptor, base, "", tree)
        else:  # all files are in one folder, whose neighbours are of others
            work.folder(descriptor, "etc", "etc", tree.folders.get("etc", _Folder()))
    finally:
        os.close(descriptor)
    return work.counts


class _Work:
    """One tree on its way to what it should be. Paths are below it."""

    def __init__(self, place: Path, ours: Ours) -> None:
        self._place = place
        self._ours = ours
        self.counts = Counts()

    def folder(
        self, parent: int, name: str, path: str, wanted: _Folder, *, is_new: bool = False
    ) -> bool:
        """Bring a folder to what is wanted; return whether it went, because it became empty.

        `is_new`: nothing is there yet. Trying to open it would cost as much as making it.
        """
        try:
            if not is_new:
                descriptor = os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            if not wanted:
                return False
            is_new = True
        except OSError as error:
            if error.errno in _NOT_OURS and not wanted:
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
            empty = self._inside(descriptor, path, wanted, is_new=is_new)
        finally:
            os.close(descriptor)
        try:
            if empty:
                os.rmdir(name, dir_fd=parent)
        except OSError:  # somebody has put a file into it meanwhile
            return False
        return empty

    def _inside(self, folder: int, path: str, wanted: _Folder, *, is_new: bool) -> bool:
        """Bring what is in a folder to what is wanted; return whether that has emptied it."""
        present = {}
        if not is_new:
            with os.scandir(folder) as entries:
                present = {entry.name: entry for entry in entries}
        prefix = f"{path}/" if path else ""
        for name, below in wanted.folders.items():
            if not self._is_drop_in(folder, present.get(name), prefix + name, below):
                self.folder(folder, name, prefix + name, below, is_new=is_new)
        for name, file in wanted.files.items():
            self._file(folder, name, prefix + name, file, present.get(name))
        others = [
            self._remove(folder, entry, prefix + name)
            for name, entry in present.items()
            if name not in wanted.folders and name not in wanted.files
        ]
        return not wanted and bool(others) and all(others)

    def _is_drop_in(
        self, parent: int, entry: os.DirEntry[str] | None, path: str, wanted: _Folder
    ) -> bool:
        """Whether a folder has the drop-in that is wanted. Looking at it alone saves half the time.

        The path to it has two parts, so a folder that becomes a link meanwhile would be followed:
        nothing is written here.
        """
        if entry is None or wanted.folders or len(wanted.files) != 1:
            return False
        ((name, file),) = wanted.files.items()
        if not (
            self._ours.drop_ins.fullmatch(f"{path}/{name}") and entry.is_dir(follow_symlinks=False)
        ):
            return False
        same = _is(parent, f"{entry.name}/{name}", file, mend=False)
        same = same and not _is_there(parent, f"{entry.name}/.{name}{_PARTIAL}")
        self.counts.same += same
        return same

    def _remove(self, folder: int, entry: os.DirEntry[str], path: str) -> bool:
        """Remove what is ours at a path; return whether nothing is there any more."""
        if entry.is_dir(follow_symlinks=False):
            leads = self._ours.folders.fullmatch(path) is not None
            return leads and self.folder(folder, entry.name, path, _Folder())
        if not entry.is_file(follow_symlinks=False):
            return False
        half = entry.name.startswith(".") and entry.name.endswith(_PARTIAL)
        place = path
        if half:
            name = entry.name.removeprefix(".").removesuffix(_PARTIAL)
            place = path.removesuffix(entry.name) + name
        if not self._ours.files.fullmatch(place):
            return False
        begin = _begin(folder, entry.name)
        if begin is None or not (self._ours.line(begin) or (half and not begin)):
            return False
        try:
            os.unlink(entry.name, dir_fd=folder)
        except OSError as error:
            raise self._at(path, error) from None
        self.counts.removed += not half  # a half is what a run that was killed has left
        return True

    def _file(
        self, folder: int, name: str, path: str, wanted: File, entry: os.DirEntry[str] | None
    ) -> None:
        """Write a file, unless it is as it should be."""
        if entry and entry.is_file(follow_symlinks=False) and _is(folder, name, wanted, mend=True):
            self.counts.same += 1
            return
        partial = f".{name}{_PARTIAL}"
        try:
            _write(folder, partial, wanted)
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
        """Return an error of the system with the whole path: it knows the last part alone."""
        return OSError(error.errno, error.strerror, str(self._place / path))


def _write(folder: int, name: str, file: File) -> None:
    try:
        descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
    except FileExistsError:  # of a run that was killed
        os.unlink(name, dir_fd=folder)
        descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
    try:
        os.fchmod(descriptor, file.mode)  # whatever the umask
        content = file.content
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def _is(folder: int, name: str, wanted: File, *, mend: bool) -> bool:
    """Whether a file has the content and the mode that are wanted; `mend` sets the mode."""
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except OSError:  # it is replaced, whatever it is
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != len(wanted.content):
            return False
        if os.read(descriptor, status.st_size + 1) != wanted.content:
            return False
        if stat.S_IMODE(status.st_mode) != wanted.mode:
            if not mend:
                return False
            os.fchmod(descriptor, wanted.mode)
    except PermissionError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_there(folder: int, path: str) -> bool:
    try:
        os.lstat(path, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _begin(folder: int, name: str) -> str | None:
    """Return the begin of a regular file, None for anything else."""
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return None
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _HEAD).decode(errors="replace") if is_file else None
    finally:
        os.close(descriptor)
