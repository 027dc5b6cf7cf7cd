"""The two sides of a review: payloads, or trees of rendered files, on disk or in Git."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from generator.activation import backends
from generator.controller import config
from generator.controller import source as sources
from generator.desired import payload, plan
from generator.desired.payload import Payload
from generator.desired.payload.values import HostName
from generator.desired.render import names as names_of_files
from generator.desired.render import render
from generator.errors import Problem, Refused, printable, text_of
from generator.secrets import remember, remember_in_frr
from generator.state import rendered_tree
from generator.verbs import context, repository

ONLY = "host"  # of a tree of one host whose files do not name it
_HOSTNAME = re.compile(r"^hostname (\S+)$", re.MULTILINE)
Files = Mapping[str, str]  # path below a host's folder to text, without our first line


class Tree(Protocol):
    """Rendered files of hosts."""

    @property
    def names(self) -> list[str]:
        """The names of the hosts, sorted."""

    def files(self, host: str, only: Sequence[str] = ()) -> Files:
        """Return the files of ours of a host, or some of them. Raises `Refused`."""

    def same(self, host: str, other: "Tree") -> bool:
        """Whether a host's files are known to be those of another tree, unread."""


def read(source: str) -> Payload | Tree:
    """Return what a path, a URL, `-` or `REV:path` names. Raises `Refused`."""
    if source == "-" or config.is_url(source) or Path(source).is_file():
        return _payload(source, context.data_of(source))
    if Path(source).is_dir():
        return _Folder(source)
    if Path(source).exists() or not repository.is_revision(source):
        return _payload(source, sources.local(source))  # says why it can't be read
    found = repository.find(source)
    if found.is_folder:
        return _OfGit(source, found.id)
    return _payload(source, repository.file(found.id))


def rendered(side: Payload | Tree, other: Payload | Tree) -> Tree:
    """Return the tree of a side: of a payload as the backend of the other side has it.

    Two payloads are rendered for the backend that is registered first.
    """
    if not isinstance(side, Payload):
        return side
    return _Rendered(side, backends.NAMES[0] if isinstance(other, Payload) else _backend(other))


def _payload(source: str, data: bytes) -> Payload:
    try:
        checked = payload.load(data)
    except Refused as refused:
        raise Refused(*(_at(source, problem) for problem in refused.problems)) from None
    remember(*checked.passwords)
    return checked


def _at(source: str, problem: Problem) -> Problem:
    place = f"{printable(source)}: {problem.place}" if problem.place else printable(source)
    return problem._replace(place=place)


def _backend(tree: Tree) -> str:
    """Return the backend whose file the first host of a tree has."""
    files = tree.files(tree.names[0]) if tree.names else {}
    found = (backend.name for backend in backends.registered() if backend.file in files)
    return next(found, backends.NAMES[0])


class _Rendered:
    """A payload's hosts as rendered files."""

    def __init__(self, checked: Payload, backend: str) -> None:
        self._payload = checked
        self._backend = backend
        self.names = checked.names

    def files(self, host: str, only: Sequence[str] = ()) -> Files:
        texts = render(self._payload.host(host), self._backend)
        return {path: plan.body(text) for path, text in texts.items() if not only or path in only}

    def same(self, host: str, other: Tree) -> bool:
        del host, other
        return False


class _Folder:
    """A tree on disk."""

    def __init__(self, source: str) -> None:
        self._root = Path(source)
        try:
            found = rendered_tree.folders(self._root)
        except OSError as error:
            raise Refused(text_of(error)) from None
        self._bases = _bases(found, lambda: self._read(""))
        self.names = sorted(self._bases)
        if not self.names and any(self._root.iterdir()):
            raise _no_hosts(source)

    def files(self, host: str, only: Sequence[str] = ()) -> Files:
        return _ours(self._read(self._bases[host], only))

    def _read(self, base: str, only: Sequence[str] = ()) -> dict[str, bytes]:
        names = names_of_files()
        try:
            if only:
                return rendered_tree.read_paths(self._root, base, only)
            return rendered_tree.read(self._root, base, names.files, names.folders)
        except OSError as error:
            place = printable(str(self._root / base))
            raise Refused(f"{place}: {text_of(error)}") from None

    def same(self, host: str, other: Tree) -> bool:
        del host, other
        return False


class _OfGit:
    """A tree of a Git repository at a revision."""

    def __init__(self, source: str, identity: str) -> None:
        pattern = names_of_files().files
        self._of: dict[str, dict[str, str]] = {}  # ids of files, by path, by folder
        for path, file in repository.entries(identity).items():
            base, _, below = path.partition("/")
            inside = ("", path) if base == "etc" else (base, below)
            if pattern.fullmatch(inside[1]):
                self._of.setdefault(inside[0], {})[inside[1]] = file
        folders = [base or "etc" for base in self._of]
        self._bases = _bases(folders, lambda: self._read(""))
        self.names = sorted(self._bases)
        if not self.names:
            raise _no_hosts(source)

    def files(self, host: str, only: Sequence[str] = ()) -> Files:
        return _ours(self._read(self._bases[host], only))

    def _read(self, base: str, only: Sequence[str] = ()) -> dict[str, bytes]:
        ids = {path: id_ for path, id_ in self._of[base].items() if not only or path in only}
        contents = repository.files(list(ids.values()))
        return {path: contents[file] for path, file in ids.items()}

    def same(self, host: str, other: Tree) -> bool:
        if not isinstance(other, _OfGit):
            return False
        return self._of[self._bases[host]] == other._of[other._bases[host]]


def _no_hosts(source: str) -> Refused:
    hint = "give the folder that render wrote"
    return Refused(Problem(printable(source), "", "has no rendered host in it", hint))


def _bases(folders: list[str], alone: Callable[[], dict[str, bytes]]) -> dict[str, str]:
    """Return the folder of each host by its name, "" for one whose files are not in a folder."""
    bases = {name: name for name in folders if name != "etc" and _may_be_a_host(name)}
    if "etc" in folders and (files := _ours(alone())):
        name = _HOSTNAME.search(files.get("etc/frr/frr.conf", ""))
        bases[name[1] if name and _may_be_a_host(name[1]) else ONLY] = ""
    return bases


def _may_be_a_host(name: str) -> bool:
    try:
        msgspec.convert(name, HostName)
    except msgspec.ValidationError:
        return False
    return True


def _ours(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the texts of the files that we wrote, without the line that says so."""
    texts = {path: data.decode(errors="replace") for path, data in files.items()}
    remember_in_frr(texts.get("etc/frr/frr.conf", ""))
    return {path: plan.body(text) for path, text in texts.items() if plan.ours(text)}
