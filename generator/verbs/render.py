"""`evpn-host render`: a folder with the files of hosts, exactly as a payload says."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from generator.desired import plan
from generator.desired.payload import Payload
from generator.desired.payload.values import HostName
from generator.desired.render import names as names_of_files
from generator.desired.render import render as texts_of
from generator.state import rendered
from generator.state.rendered import Counts, File, Ours
from generator.verbs.progress import counted
from generator.verbs.workers import spread


class Hosts(msgspec.Struct):
    """The names of hosts, by what became of their files."""

    new: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    same: list[str] = []


class Done(msgspec.Struct, frozen=True):
    """All that `render --json` says."""

    hosts: Hosts
    files: Counts
    left_out: list[str]  # hosts of the Fleet in another role


class _Tree(NamedTuple):
    """The files of one host below the output."""

    base: str  # the host's folder; "": the output itself
    host: str | None  # None: the payload has no such host, and its files go


def render(payload: Payload, host: str | None, backend: str, output: Path) -> Done:
    """Make a folder exactly what a payload says of its hosts, or of the one that is named.

    Raises `Refused` or `OSError`.
    """
    done = Done(Hosts(), Counts(), [each.name for each in payload.left_out])
    single = payload.host(host).name if payload.kind == "Host" or host is not None else None
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output):
        trees = list(_trees(payload, single, output, others=host is None))

        names = names_of_files()
        ours = Ours(names.files, names.folders, names.drop_ins, plan.ours)

        def bring(tree: _Tree) -> Counts:
            files = {}
            if tree.host is not None:
                texts = texts_of(payload.host(tree.host), backend)
                files = {path: File(text.encode(), plan.mode(path)) for path, text in texts.items()}
            return rendered.bring(output, tree.base, files, ours)

        with counted(len(trees), "the files are written") as advance:
            pending = iter(trees)
            for part in spread(bring, trees):
                for counts in part:
                    _note(done, next(pending), counts)
                advance(len(part))
    return done


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Have no other `render` write to the same folder meanwhile."""
    descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # NFS locks no folder
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _trees(payload: Payload, single: str | None, output: Path, *, others: bool) -> Iterator[_Tree]:
    """Yield the trees that the payload's hosts have, then those that may be of hosts before.

    Without `others` they are left alone: one host was asked for, and the payload may have them.
    """
    yield _Tree("", single)
    names = set() if single else set(payload.names)
    yield from (_Tree(name, name) for name in sorted(names))
    if others:
        with os.scandir(output) as entries:
            folders = {each.name for each in entries if each.is_dir(follow_symlinks=False)}
        yield from (_Tree(name, None) for name in sorted(folders - names) if _may_be_a_host(name))


def _may_be_a_host(folder: str) -> bool:
    try:
        msgspec.convert(folder, HostName)
    except msgspec.ValidationError:
        return False
    return True


def _note(done: Done, tree: _Tree, counts: Counts) -> None:
    """Add what became of a tree."""
    done.files.add(counts)
    if tree.host is None:
        if tree.base and counts.removed:
            done.hosts.removed.append(tree.base)
    elif not (counts.new or counts.changed or counts.removed):
        done.hosts.same.append(tree.host)
    elif counts.new and not (counts.changed or counts.removed or counts.same):
        done.hosts.new.append(tree.host)
    else:
        done.hosts.changed.append(tree.host)


def lines(done: Done) -> Iterator[str]:
    """Yield a line for each host that changed, then how much there was of what."""
    hosts, files = done.hosts, done.files
    marked = [("+", hosts.new), ("~", hosts.changed), ("-", hosts.removed)]
    for name, mark in sorted((name, mark) for mark, names in marked for name in names):
        yield f"{mark} {name}"
    of_hosts = Counts(*map(len, (hosts.new, hosts.changed, hosts.removed, hosts.same)))
    yield f"hosts: {_text(of_hosts)}; files: {_text(files)}"


def _text(counts: Counts) -> str:
    return (
        f"{counts.new} new, {counts.changed} changed, {counts.removed} removed, "
        f"{counts.same} the same"
    )
