"""Reads the operator's interfaces stanzas, in the order in which ifupdown2 reads them.

ifupdown2 up to 3.0 follows `source` with an absolute path only, and knows no `source-directory`
(process_source in networkinterfaces.py; both tried). It makes one interface of all stanzas of a
name, and the first one's method counts (squash in iface.py).
"""

import contextlib
import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from generator.state import tree

FILE = "etc/network/interfaces"
_RANGE = re.compile(r"(.*)\[(\d+)-(\d+)\](.*)")
_STARTS = {"auto", "iface", "vlan", "source", "source-directory"}  # and allow-…


class Stanza(msgspec.Struct, frozen=True, kw_only=True):
    """An `iface` stanza."""

    path: str
    line: str  # its first line
    names: frozenset[str]
    method: str
    settings: dict[str, list[str]]  # words by keyword, with `-` for `_`
    behind_ours: bool  # whether ifupdown2 reads it after our file

    @property
    def place(self) -> str:
        """Where the operator finds it."""
        return f"/{self.path}: {self.line}"


def sources(root: Path, ours: str) -> bool:
    """Whether ifupdown2 reads the file at this path."""
    return any(path == ours for path, _ in _lines(root, FILE, ours))


def stanzas(root: Path, ours: str) -> list[Stanza]:
    """Return the operator's stanzas."""
    read: list[Stanza] = []
    settings: dict[str, list[str]] = {}  # of the stanza to which a line belongs
    behind = False
    for path, line in _lines(root, FILE, ours):
        behind = behind or path == ours
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if words[0] in _STARTS or words[0].startswith("allow-"):
            settings = {}
        if words[0] == "iface" and len(words) > 1:
            read.append(
                Stanza(
                    path=path,
                    line=" ".join(words),
                    names=frozenset(names(words[1])),
                    method=words[3] if len(words) > 3 else "",
                    settings=settings,
                    behind_ours=behind,
                )
            )
        else:
            settings.setdefault(words[0].replace("_", "-"), []).extend(words[1:])
    return read


def names(text: str) -> Iterator[str]:
    """Yield the names in a range such as `swp[1-4].100`, or a single name."""
    match = _RANGE.fullmatch(text)
    if match is None:
        yield text.partition(":")[0]  # an alias follows
        return
    for number in range(int(match[2]), min(int(match[3]), int(match[2]) + 9999) + 1):
        yield f"{match[1]}{number}{match[4]}"


def _lines(root: Path, path: str, ours: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file and of the files that it sources. Our file is one empty line."""
    if path == ours:
        yield ours, ""
        return
    text = ""
    with contextlib.suppress(OSError):
        text = tree.read(root, path).decode(errors="replace")
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        words = line.split()
        if words[:1] == ["source"] and len(words) > 1 and depth < 9:
            for sourced in _sourced(root, words[1], ours):
                yield from _lines(root, sourced, ours, depth + 1)
        else:
            yield path, line


def _sourced(root: Path, pattern: str, ours: str) -> list[str]:
    """Return the files of a `source` line. Ours is among them even if it does not exist yet."""
    if not pattern.startswith("/"):
        return []
    pattern = pattern.strip("/") if not pattern.endswith("/") else ""
    paths = {path for path in tree.find(root, pattern) if tree.is_file(root, path)}
    if _fits(ours, pattern):
        paths.add(ours)
    return sorted(paths)


def _fits(path: str, pattern: str) -> bool:
    parts, globs = path.split("/"), pattern.split("/")
    return len(parts) == len(globs) and all(map(fnmatch.fnmatchcase, parts, globs))
