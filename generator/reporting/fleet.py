"""Reads the reports that hosts have posted.

A report is the output of `status --json`. The time of its file is the last contact with the host.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from generator.desired.payload.values import Generation, HostName
from generator.errors import printable
from generator.state import stored, tree

_LIMIT = 4 << 20  # bytes; a report with a difference in each of 4,000 V-Nets has 1 MB
_MOST_DIFFERENCES = 10  # kept of each host; the others are counted
_DEEPEST = 16  # folders; a host may choose any path, and each is opened part by part
_LONGEST = 160  # characters of a text from a host


class Host(NamedTuple):
    """The last report of a host. All texts are safe for a terminal."""

    name: str
    report: str  # path of its file below the folder
    contact: float  # seconds since 1970
    health: str
    reason: str
    generation: int | None  # None: nothing was applied yet
    left_alone: str
    differences: list[str]  # only the first ones
    total: int  # of all differences


class Damaged(msgspec.Struct, frozen=True):
    """A file that is not the report of a host, or not the last one."""

    report: str
    reason: str


class Reports(NamedTuple):
    """All reports in a folder."""

    hosts: dict[str, Host]  # by name in lower case
    damaged: list[Damaged]


class _Report(msgspec.Struct, frozen=True):
    """The fields of a report that are read. Other fields, of any version, are ignored."""

    health: str
    host: HostName | None
    generation: Generation | None
    health_reason: str = ""
    detail: str = ""
    differences: list[str] = []
    left_alone: str = ""


def read(folder: Path) -> Reports:
    """Return the reports in a folder and its subfolders.

    A file whose name begins with a dot is ignored: it may be half written. No link is followed.
    Raises `OSError` if the folder itself can't be read.
    """
    reports = Reports({}, [])
    top = folder.resolve()
    with tree.folder(top, ""):
        pass
    for path in _files(top, reports.damaged):
        try:
            if host := _host(top, path):
                _take(host, reports)
        except (OSError, msgspec.DecodeError) as error:
            reports.damaged.append(_damaged(path, stored.problem(error)))
    return reports


def _files(top: Path, damaged: list[Damaged]) -> Iterator[str]:
    """Yield the paths of all files. A folder that can't be read is added to `damaged`."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            names = tree.names(top, folder)
        except OSError as error:
            damaged.append(_damaged(folder, stored.problem(error)))
            continue
        for name in names:
            path = f"{folder}/{name}" if folder else name
            if name.startswith("."):
                continue
            if not _is_folder(top, path):
                yield path
            elif path.count("/") < _DEEPEST:
                folders.append(path)
            else:
                damaged.append(_damaged(path, f"is more than {_DEEPEST} folders deep"))


def _is_folder(top: Path, path: str) -> bool:
    with contextlib.suppress(OSError):  # the caller then fails to read it, and reports why
        status = tree.status(top, path)
        return status is not None and stat.S_ISDIR(status.st_mode)
    return False


def _host(top: Path, path: str) -> Host | None:
    """Return the host of a report, None if the file no longer exists.

    Raises `OSError` or `msgspec.DecodeError`.
    """
    try:
        data = tree.read(top, path, _LIMIT)
        status = tree.status(top, path)
    except FileNotFoundError:
        return None
    if status is None:
        return None
    report = stored.decode(data, _Report)
    name = report.host or os.path.basename(path).partition(".")[0]  # noqa: PTH119  # a string is enough
    try:
        msgspec.convert(name, HostName)
    except msgspec.ValidationError:
        raise msgspec.DecodeError("it names no host, and neither does the file's name") from None
    return Host(
        name=name,
        report=_safe(path),
        contact=status.st_mtime,
        health=_safe(report.health),
        reason=_safe(report.health_reason or report.detail),
        generation=report.generation if report.host else None,
        left_alone=_safe(report.left_alone),
        differences=_all_safe(report.differences[:_MOST_DIFFERENCES]),
        total=len(report.differences),
    )


def _take(host: Host, reports: Reports) -> None:
    """Keep a host's report, or the newer one if two reports name the same host."""
    other = reports.hosts.setdefault(host.name.lower(), host)
    if other is host:
        return
    newer, older = (host, other) if host.contact > other.contact else (other, host)
    reports.hosts[host.name.lower()] = newer
    reason = f"is of {older.name} too, and older than {newer.report}"
    reports.damaged.append(Damaged(older.report, printable(reason, _LONGEST)))


def _damaged(path: str, reason: str) -> Damaged:
    return Damaged(_safe(path) or ".", printable(reason, _LONGEST))


def _safe(text: str) -> str:
    return printable(text, _LONGEST)


def _all_safe(texts: Iterable[str]) -> list[str]:
    return [_safe(text) for text in texts]
