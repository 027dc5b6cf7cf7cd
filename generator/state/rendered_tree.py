"""Reads a tree of rendered files. No link below the tree is followed."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
LIMIT = 64 << 20  # bytes of a file


def folders(root: Path) -> list[str]:
    """Return the names of hosts' folders in a folder, and `etc` if it has one. Raises `OSError`."""
    with os.scandir(root) as entries:
        below = [each for each in entries if each.is_dir(follow_symlinks=False)]
    return sorted(each.name for each in below if each.name == "etc" or _has_etc(each.path))


def _has_etc(folder: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(f"{folder}/etc").st_mode)
    except OSError:
        return False


def read(root: Path, base: str, files: re.Pattern[str], above: re.Pattern[str]) -> dict[str, bytes]:
    """Return the files below `root/base` whose paths there match `files`.

    `above` matches a folder through which such a path can lead. Raises `OSError`.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if base:
            outer, descriptor = descriptor, os.open(base, _FOLDER, dir_fd=descriptor)
            os.close(outer)
        return dict(_below(descriptor, "", files, above))
    finally:
        os.close(descriptor)


def read_paths(root: Path, base: str, paths: Iterable[str]) -> dict[str, bytes]:
    """Return the files at these paths below `root/base`, if they exist. Raises `OSError`."""
    folders_ = {path[:end] for path in paths for end, each in enumerate(path) if each == "/"}
    return read(root, base, _any_of(paths), _any_of(folders_))


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, texts)))


def _below(
    folder: int, prefix: str, files: re.Pattern[str], above: re.Pattern[str]
) -> Iterator[tuple[str, bytes]]:
    with os.scandir(folder) as entries:
        present = sorted(entries, key=lambda entry: entry.name)
    for entry in present:
        path = prefix + entry.name
        if entry.is_dir(follow_symlinks=False) and above.fullmatch(path):
            below = os.open(entry.name, _FOLDER, dir_fd=folder)
            try:
                yield from _below(below, f"{path}/", files, above)
            finally:
                os.close(below)
        elif entry.is_file(follow_symlinks=False) and files.fullmatch(path):
            yield path, _read(folder, entry.name, path)


def _read(folder: int, name: str, path: str) -> bytes:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LIMIT:
            raise OSError(0, "is not a regular file of at most 64 MiB", path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(LIMIT)
    finally:
        os.close(descriptor)
