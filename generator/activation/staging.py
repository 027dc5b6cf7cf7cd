"""Files on their way to the host: what differs, a staged tree for the native tools, the commit.

`state.files` writes each file so that no half of it is ever there.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from generator.activation import backends, commands, devices, frr
from generator.activation.commands import Log
from generator.desired import plan
from generator.errors import ActivationFailed, NotInstalled, Refused, Unchecked
from generator.state import changes as reading
from generator.state import files, record
from generator.state.changes import Change

# The contract's names of our files, besides each backend's. No file of another name is touched.
_SHARED = (frr.CONF, frr.DAEMONS, devices.SYSCTL, devices.MODULES)


def present(root: Path) -> set[str]:
    """Return the paths below `root` that have our names, whoever wrote the files."""
    fixed = [*_SHARED, *(path for backend in backends.registered() for path in backend.files)]
    paths = {path for path in fixed if (root / path).is_file()}
    for pattern in _drop_ins():
        paths |= {str(path.relative_to(root)) for path in root.glob(pattern)}
    return paths


def _drop_ins() -> list[str]:
    """Return the patterns of all backends' drop-ins."""
    return [backend.drop_ins for backend in backends.registered() if backend.drop_ins]


def _is_drop_in(path: str) -> bool:
    return any(PurePath(path).match(pattern) for pattern in _drop_ins())


def has_other_mode(root: Path, path: str) -> bool:
    """Whether a file of ours, or the folder of a drop-in, has not the mode or owner it should."""
    status = (root / path).lstat()
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != plan.mode(path):
        return True
    if _is_drop_in(path) and (root / path).parent.stat().st_mode & 0o005 != 0o005:
        return True
    return os.geteuid() == 0 and status.st_uid != files.owner_of(root / path)


def changes(root: Path, texts: dict[str, str]) -> list[Change]:
    """Return what has to be written, and which files of ours go. A first line does not count."""
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
    """Make a folder with the new files, and beside them the operator's files for the backend."""
    base = root / "run/evpn-host"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stage-", dir=base) as name:
        tree = Path(name)
        for path, text in texts.items():
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files.encoded(text))
            target.chmod(plan.mode(path))
        for pattern in backends.named(backend).foreign_files:
            for source in sorted(root.glob(pattern)):
                target = tree / source.relative_to(root)
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, target)
        yield tree


def check(tree: Path, backend: str, size: int, log: Log) -> None:
    """Have the native tools read a staged tree with so many devices.

    Raises `Refused` with what they say, or `Unchecked` if one is not installed.
    """
    try:
        commands.run(frr.check(tree), log)
        commands.run(backends.named(backend).check(tree, size), log)
    except NotInstalled as missing:
        raise Unchecked(*missing.problems) from None
    except ActivationFailed as failure:
        raise Refused(*failure.problems) from None


def _has_text(copy: Path, text: str) -> bool:
    """Whether a kept copy is of this very text: an operator may have written another file since."""
    with contextlib.suppress(OSError):
        return files.read(copy) == text
    return False


def commit(root: Path, needed: Iterable[Change]) -> list[str]:
    """Write what changed and remove what goes; return the operator's files that were copied first.

    Raises `ActivationFailed` if the disk does not take it.
    """
    kept = []
    try:
        for change in needed:
            target = root / change.path
            if change.new is None:
                files.remove(target)
                if _is_drop_in(change.path):
                    with contextlib.suppress(OSError):  # others may have files in the folder too
                        target.parent.rmdir()
                continue
            copy = root / record.KEPT / change.path
            if not plan.ours(change.new) and _has_text(copy, change.new):
                files.copy(copy, target)  # with the mode and owner that it had
                continue
            if change.old is not None and not plan.ours(change.old) and not os.path.lexists(copy):
                files.make_folder(copy.parent, 0o700)
                files.copy(target, copy)
                kept.append(change.path)
            if _is_drop_in(change.path):
                files.make_folder(target.parent)
                target.parent.chmod(files.FOLDER_MODE)  # networkd reads it as its own user
            files.write(target, files.encoded(change.new), plan.mode(change.path))
    except OSError as error:
        raise ActivationFailed(f"{error.filename}: {error.strerror}") from None
    return kept
