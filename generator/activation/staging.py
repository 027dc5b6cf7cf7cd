"""Files on their way to the host: the difference, a staged tree for the native tools, the commit.

Nothing else changes a host's files (`files` says how one is written).
"""

import contextlib
import difflib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.commands import Log
from generator.desired import plan
from generator.errors import ActivationFailed, NotInstalled, Refused, Unchecked
from generator.state import files, record

_SECRET = re.compile(r"^(.* password )(\S+)$", re.MULTILINE)


class Change(msgspec.Struct, frozen=True):
    """A file's content before and after; None where there is no file."""

    path: str
    old: str | None
    new: str | None


def present(root: Path) -> set[str]:
    """The paths below `root` that bear our names, whoever wrote them."""
    named = {path for path in plan.FIXED if (root / path).is_file()}
    return named | {str(path.relative_to(root)) for path in root.glob(plan.DROP_INS)}


def changes(root: Path, wanted: dict[str, str]) -> list[Change]:
    """What is to be written, and which files of ours go; a file's first line does not count."""
    found = []
    for path, new in wanted.items():
        old = read(root, path)
        if old is None or plan.body(old) != plan.body(new):
            found.append(Change(path, old, new))
    for path in sorted(present(root) - wanted.keys()):
        old = read(root, path)
        if old is not None and plan.ours(old):
            found.append(Change(path, old, None))
    return found


def read(root: Path, path: str) -> str | None:
    """A file's text, None when there is none. Raises `Refused` when it can't be read."""
    try:
        return (root / path).read_text(errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"/{path}: can't be read: {error.strerror}") from None


def diff(found: Iterable[Change]) -> Iterator[str]:
    """Unified diff, line by line, without line ends; a session's password is not shown."""
    for change in found:
        old, new = _lines(change.old), _lines(change.new)
        yield from difflib.unified_diff(
            old,
            new,
            fromfile=f"a/{change.path}" if change.old is not None else "/dev/null",
            tofile=f"b/{change.path}" if change.new is not None else "/dev/null",
            lineterm="",
        )


def _lines(text: str | None) -> list[str]:
    return _SECRET.sub(r"\1(not shown)", text or "").splitlines()


@contextlib.contextmanager
def staged(root: Path, texts: dict[str, str]) -> Iterator[Path]:
    """A folder with the new files, and the operator's netplan files beside ours."""
    base = root / "run/evpn-host"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stage-", dir=base) as name:
        tree = Path(name)
        for path, text in texts.items():
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, errors="surrogateescape")
            target.chmod(plan.mode(path))
        for folder in ("lib/netplan", "etc/netplan"):
            for source in sorted((root / folder).glob("*.yaml")):
                target = tree / folder / source.name
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, target)
        yield tree


def judge(tree: Path, backend: str, devices: int, log: Log) -> None:
    """Have the native tools read a staged tree.

    Raises `Refused` with what they say, or `Unchecked` where one is not installed.
    """
    try:
        commands.run(commands.frr_check(tree / "etc/frr/frr.conf"), log)
        if backend == "netplan":
            commands.run(commands.netplan_generate(tree, devices), log)
        else:
            file = tree / "etc/network/interfaces.d/evpn-host"
            commands.run(commands.ifquery(file, devices), log)
    except NotInstalled as missing:
        raise Unchecked(*missing.problems) from None
    except ActivationFailed as failure:
        raise Refused(*failure.problems) from None


def commit(root: Path, found: Iterable[Change]) -> list[str]:
    """Write what changed, remove what goes; the operator's files of which a copy was kept.

    Raises `ActivationFailed` when the disk does not take it.
    """
    kept = []
    try:
        for change in found:
            target = root / change.path
            if change.new is None:
                target.unlink(missing_ok=True)
                if target.parent.name.startswith("10-netplan-"):
                    with contextlib.suppress(OSError):  # a drop-in's folder that others use stays
                        target.parent.rmdir()
                continue
            if change.old is not None and not plan.ours(change.old):
                copy = root / record.KEPT / change.path
                if not copy.exists():
                    _keep(target, copy)
                    kept.append(change.path)
            files.write(target, change.new.encode(errors="surrogateescape"), plan.mode(change.path))
    except OSError as error:
        raise ActivationFailed(f"{error.filename}: {error.strerror}") from None
    return kept


def _keep(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    give_back(source, copy)


def give_back(copy: Path, target: Path) -> None:
    """Put a copy of a file in a place, whole, with its owner and permissions."""
    partial = target.with_name(f".{target.name}.evpn-host")
    shutil.copy2(copy, partial)
    info = copy.stat()
    os.chown(partial, info.st_uid, info.st_gid)
    partial.replace(target)


def sync_networkd(tree: Path, root: Path, stale: set[str], left_out: set[str]) -> list[str]:
    """Take over networkd's files that netplan made in `tree`, where they differ.

    Devices that are `left_out` of it keep their files.

    `netplan generate` on the host itself rewrites every file, and networkd reconfigures each link
    whose file is new: FRR's routes over an uplink would go with it. Files of `stale` devices are
    written all the same, so that networkd looks at these again.
    """
    made, used = tree / "run/systemd/network", root / "run/systemd/network"
    used.mkdir(parents=True, exist_ok=True)
    new = {file.name: file.read_bytes() for file in made.glob("10-netplan-*") if file.is_file()}
    if not new:
        raise ActivationFailed("netplan made no files for networkd")
    kept = _networkd_files(left_out)
    again = _networkd_files(stale)
    new |= {n: f.read_bytes() for n in again & kept if (f := used / n).exists()}
    changed = []
    for file in used.glob("10-netplan-*"):
        if file.name not in new and file.name not in kept:
            file.unlink()
            changed.append(file.name)
    for name, content in sorted(new.items()):
        target = used / name
        if name in again or not target.exists() or target.read_bytes() != content:
            files.write(target, content, 0o640)
            with contextlib.suppress(LookupError):
                shutil.chown(target, group="systemd-network")
            changed.append(name)
    return changed


def _networkd_files(devices: Iterable[str]) -> set[str]:
    return {f"10-netplan-{name}.{kind}" for name in devices for kind in ("netdev", "network")}
