"""Brings files to the host: compares them, stages them for the native tools, and commits them.

`state.files` writes each file whole or not at all.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from generator.activation import backends, commands, devices, frr, nftables
from generator.activation.commands import Log
from generator.desired import plan
from generator.errors import ActivationFailed, NotInstalled, Problem, Refused, Unchecked
from generator.state import changes as reading
from generator.state import files, record, tree
from generator.state.changes import Change
from generator.state.lock import RUN, STAGE

# The paths of our files that all backends share. No other file is touched, except a backend's own.
_SHARED = (frr.CONF, frr.DAEMONS, devices.SYSCTL, devices.MODULES, nftables.FILE)


def present(root: Path) -> set[str]:
    """Return the existing files below `root` that have our paths, whoever wrote them."""
    fixed = [*_SHARED, *(path for backend in backends.registered() for path in backend.files)]
    paths = {path for path in fixed if tree.is_file(root, path)}
    for pattern in _drop_ins():
        paths.update(tree.find(root, pattern))
    return paths


def _drop_ins() -> list[str]:
    """Return the patterns of all backends' drop-ins."""
    return [backend.drop_ins for backend in backends.registered() if backend.drop_ins]


def _is_drop_in(path: str) -> bool:
    return any(PurePath(path).match(pattern) for pattern in _drop_ins())


def has_other_mode(root: Path, path: str) -> bool:
    """Whether a file of ours, or the folder of a drop-in, has a wrong mode or owner."""
    status = tree.status(root, path)
    if (
        status is None
        or not stat.S_ISREG(status.st_mode)
        or stat.S_IMODE(status.st_mode) != plan.mode(path)
    ):
        return True
    folder = tree.status(root, PurePath(path).parent) if _is_drop_in(path) else None
    if folder and folder.st_mode & 0o005 != 0o005:
        return True
    return os.geteuid() == 0 and status.st_uid != files.owner_of(path)


def changes(root: Path, texts: dict[str, str]) -> list[Change]:
    """Return files to write and files of ours to remove. Another first line is no difference."""
    needed = []
    for path, new in texts.items():
        old = reading.read(root, path)
        if old is None or plan.body(old) != plan.body(new) or has_other_mode(root, path):
            needed.append(Change(path, old, new))
    for path in sorted(present(root) - texts.keys()):
        old = reading.read(root, path)
        if old is not None and plan.ours(old):
            needed.append(Change(path, old, None))
    return needed


@contextlib.contextmanager
def staged(root: Path, texts: dict[str, str], backend: str) -> Iterator[Path]:
    """Yield a folder with the new files, and with the operator's files for the backend's check."""
    # If the stage can't be removed, the next run removes it.
    with tempfile.TemporaryDirectory(
        prefix=STAGE, dir=_place_of_stages(root), ignore_cleanup_errors=True
    ) as name:
        stage = Path(name)
        for path, text in texts.items():
            target = stage / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files.encoded(text))
            target.chmod(plan.mode(path))
        for pattern in backends.named(backend).foreign_files:
            for source in tree.find(root, pattern):
                target = stage / source
                if not target.exists() and tree.is_file(root, source):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(tree.read(root, source))
        yield stage


def _place_of_stages(root: Path) -> Path | None:
    """Return the folder for stages; None (the system's) for a tree that others may change."""
    if tree.no_follow(root):
        return None
    files.make_folder(root, RUN)
    return root / RUN


def check(stage: Path, backend: str, size: int, log: Log) -> None:
    """Have the native tools check the staged files, which have so many devices.

    Raises `Refused` with their messages, or `Unchecked` if one is not installed.
    """
    try:
        commands.run(frr.check(stage), log)
        commands.run(backends.named(backend).check(stage, size), log)
    except NotInstalled as missing:
        raise Unchecked(*missing.problems) from None
    except ActivationFailed as failure:
        raise Refused(*failure.problems) from None


def _has_text(root: Path, copy: PurePath, text: str) -> bool:
    """Whether a kept copy has this text: the operator may have written another file since."""
    with contextlib.suppress(OSError):
        return files.read(root, copy) == text
    return False


def refuse_unwritable(root: Path, needed: Iterable[Change]) -> None:
    """Raise `Refused` if a file can't be written, before the first one is."""
    hint = "see findmnt and lsattr"
    reasons = {change.path: files.unwritable(root, change.path) for change in needed}
    if problems := [Problem(f"/{path}", "", why, hint) for path, why in reasons.items() if why]:
        raise Refused(*problems)


def commit(root: Path, needed: Iterable[Change]) -> list[str]:
    """Write and remove files; return the operator's files, of which copies were kept first.

    Raises `ActivationFailed` if the disk refuses.
    """
    kept = []
    try:
        for change in needed:
            path, folder = change.path, PurePath(change.path).parent
            if change.new is None:
                files.remove(root, path)
                if _is_drop_in(path):
                    files.remove_folder(root, folder)
                continue
            copy = record.KEPT / path
            if not plan.ours(change.new) and _has_text(root, copy, change.new):
                files.copy(root, copy, path)  # with the mode and owner that it had
                continue
            if change.old is not None and not plan.ours(change.old) and not tree.status(root, copy):
                files.make_folder(root, copy.parent, 0o700)
                files.copy(root, path, copy)
                kept.append(path)
            if _is_drop_in(path):
                files.make_folder(root, folder)
                files.set_mode(root, folder, files.FOLDER_MODE)  # networkd reads it as its own user
            files.write(root, path, files.encoded(change.new), plan.mode(path))
    except OSError as error:
        place = error.filename or f"/{change.path}"  # a descriptor has no name
        raise ActivationFailed(f"{place}: {error.strerror}") from None
    return kept
