"""Reads files and folders of a Git repository at a revision, as `git show REV:path` does."""

import re

import msgspec

from generator.activation import commands
from generator.activation.commands import Step
from generator.errors import ActivationFailed, Problem, Refused, printable

_TIMEOUT = 120.0  # seconds: a partial clone may have to fetch first
_LIMIT = 64 << 20  # bytes of a payload, or of a file
_REVISION = re.compile(r"(?!-)[^\0\n]*:[^\0\n]*", re.DOTALL)
_FILE_MODES = {"100644", "100755"}


class Object(msgspec.Struct, frozen=True):
    """A file or a folder of a repository."""

    id: str
    is_folder: bool


def is_revision(text: str) -> bool:
    """Whether a text has the form `REV:path`."""
    return _REVISION.fullmatch(text) is not None


def find(text: str) -> Object:
    """Return the file or folder that `REV:path` names. Raises `Refused`."""
    why = f"find {printable(text)}"
    argv = ("rev-parse", "--verify", "--quiet", "--end-of-options", text)
    try:
        identity = _git(*argv, reason=why).decode().strip()
    except Refused:
        _git("rev-parse", "--git-dir", reason=why)  # fails with a better message without one
        hint = "the path is the one from the top of the repository; begin it with ./ otherwise"
        rule = "is no file, folder, or REV:path of this Git repository"
        raise Refused(Problem(printable(text), "", rule, hint)) from None
    if not re.fullmatch(r"[0-9a-f]{40,64}", identity):
        raise Refused(Problem(printable(text), "", "is no file or folder of this Git repository"))
    kind = _git("cat-file", "-t", identity, reason=why).decode().strip()
    if kind not in {"blob", "tree"}:
        raise Refused(Problem(printable(text), "", f"is a {printable(kind)} of Git"))
    return Object(identity, kind == "tree")


def file(identity: str) -> bytes:
    """Return the content of a file. Raises `Refused`."""
    return files([identity])[identity]


def entries(folder: str) -> dict[str, str]:
    """Return the ids of the files below a folder, by path. Links are left out. Raises `Refused`."""
    listing = _git("ls-tree", "-r", "-z", "--full-tree", folder, reason="list a folder")
    ids = {}
    for entry in listing.decode(errors="surrogateescape").split("\0"):
        head, _, path = entry.partition("\t")
        mode, _, rest = head.partition(" ")
        if mode in _FILE_MODES:
            ids[path] = rest.rpartition(" ")[2]
    return ids


def files(identities: list[str]) -> dict[str, bytes]:
    """Return the contents of files by their ids. Raises `Refused`."""
    request = "".join(f"{each}\n" for each in dict.fromkeys(identities))
    sizes = _git("cat-file", "--batch-check=%(objectsize)", request=request, reason="look at files")
    if any(not each.isdigit() or int(each) > _LIMIT for each in sizes.split()):
        raise Refused("Git has a file that can't be read, or that is larger than 64 MiB")
    data = _git("cat-file", "--batch", request=request, reason="read files")
    contents, place = {}, 0
    while place < len(data):
        end = data.index(b"\n", place)
        identity, _, size = data[place:end].decode().split(" ")
        contents[identity] = data[end + 1 : end + 1 + int(size)]
        place = end + 2 + int(size)
    return contents


def _git(*argv: str, reason: str, request: str = "") -> bytes:
    step = Step(("git", *argv), reason, _TIMEOUT, request)
    try:
        return commands.read(step, commands.silent)
    except ActivationFailed as failed:
        raise Refused(*failed.problems) from None
