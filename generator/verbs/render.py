"""`evpn-host render`: a folder with the files of hosts, exactly as a payload says."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
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
    """The names of hosts, or of leaves, by what became of their files."""

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
    single = payload.host(host).name if payload.kind == "Host" or host is not None else None

    def texts(name: str) -> dict[str, str]:
        return texts_of(payload.host(name), backend)

    hosts, files = bring(output, payload.names, texts, single=single, others=host is None)
    return Done(hosts, files, [each.name for each in payload.left_out])


def bring(
    output: Path,
    names: list[str],
    texts: Callable[[str], dict[str, str]],
    *,
    single: str | None = None,
    others: bool = True,
) -> tuple[Hosts, Counts]:
    """Make a folder the files of hosts, or of leaves; return what became of them.

    `texts` returns the files of a name. Those of `single` are in the folder itself, of others in a
    folder of their name. Without `others` the folders of names that are not known stay.
    """
    hosts, counts = Hosts(), Counts()
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output):
        trees = list(_trees(names, single, output, others=others))
        of_ours = names_of_files()
        ours = Ours(of_ours.files, of_ours.folders, of_ours.drop_ins, plan.ours)

        def write(tree: _Tree) -> Counts:
            files = {}
            if tree.host is not None:
                files = {
                    path: File(text.encode(), plan.mode(path))
                    for path, text in texts(tree.host).items()
                }
            return rendered.write_tree(output, tree.base, files, ours)

        with counted(len(trees), "the files are written") as advance:
            pending = iter(trees)
            for part in spread(write, trees):
                for each in part:
                    counts.add(each)
                    _note(hosts, next(pending), each)
                advance(len(part))
    return hosts, counts


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


def _trees(names: list[str], single: str | None, output: Path, *, others: bool) -> Iterator[_Tree]:
    """Yield the trees that these names have, then those that may be of names before.

    Without `others` they are left alone: one host was asked for, and the payload may have them.
    """
    yield _Tree("", single)
    known = set() if single else set(names)
    yield from (_Tree(name, name) for name in sorted(known))
    if others:
        with os.scandir(output) as entries:
            folders = {each.name for each in entries if each.is_dir(follow_symlinks=False)}
        yield from (_Tree(name, None) for name in sorted(folders - known) if _may_be_a_host(name))


def _may_be_a_host(folder: str) -> bool:
    try:
        msgspec.convert(folder, HostName)
    except msgspec.ValidationError:
        return False
    return True


def _note(hosts: Hosts, tree: _Tree, counts: Counts) -> None:
    """Add what became of a tree."""
    if tree.host is None:
        if tree.base and counts.removed:
            hosts.removed.append(tree.base)
    elif not (counts.new or counts.changed or counts.removed):
        hosts.same.append(tree.host)
    elif counts.new and not (counts.changed or counts.removed or counts.same):
        hosts.new.append(tree.host)
    else:
        hosts.changed.append(tree.host)


def lines(done: Done) -> Iterator[str]:
    """Yield a line for each host that changed, then how much there was of what."""
    yield from lines_of("hosts", done.hosts, done.files)


def lines_of(what: str, hosts: Hosts, files: Counts) -> Iterator[str]:
    """Yield a line for each name that changed, then how much there was of what."""
    marked = [("+", hosts.new), ("~", hosts.changed), ("-", hosts.removed)]
    for name, mark in sorted((name, mark) for mark, names in marked for name in names):
        yield f"{mark} {name}"
    of_hosts = Counts(*map(len, (hosts.new, hosts.changed, hosts.removed, hosts.same)))
    yield f"{what}: {_text(of_hosts)}; files: {_text(files)}"


def _text(counts: Counts) -> str:
    return (
        f"{counts.new} new, {counts.changed} changed, {counts.removed} removed, "
        f"{counts.same} the same"
    )
