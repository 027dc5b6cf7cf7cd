"""Finds the points at which a command can be stopped: it reads them from a trace of strace.

A point is the n-th call of a system call in the process, because strace can stop exactly there.
Only calls that change something are points: a file or folder written, made, moved or removed, a
command started, or a netlink request that changes the kernel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from posixpath import join, normpath

STARTS = ("vfork", "clone3", "clone", "fork")
"""System calls that start a command."""
SENDS = ("sendto", "sendmsg")
FILES = (
    "open openat creat rename renameat renameat2 unlink unlinkat mkdir mkdirat rmdir symlink"
    " symlinkat link linkat write pwrite64 ftruncate truncate fsync fdatasync sync syncfs chmod"
    " fchmod fchmodat fchmodat2 chown fchown fchownat lchown utimensat fallocate openat2"
).split()
TRACED = ",".join(f"?{name}" for name in (*FILES, *SENDS, *STARTS))
"""For strace; it leaves out a name that it does not know."""
INJECTED = "(INJECTED)"

_CALL = re.compile(r"^(?P<name>\w+)\((?P<rest>.*)$")
_PATH = re.compile(
    r'(?P<fd>AT_FDCWD|\d+)<(?P<at>[^>]*)>(?:, "(?P<below>(?:[^"\\]|\\.)*)")?'
    r'|(?<![\w{=])"(?P<plain>(?:[^"\\]|\\.)*)"'
)
_WRITES = ("O_WRONLY", "O_RDWR", "O_CREAT")
_OPENS = ("open", "openat", "openat2", "creat")
_NETLINK = re.compile(r"nlmsg_type=(?:(?P<name>[A-Z]\w+)|0x(?P<number>[0-9a-f]+))")
# Names that differ between two runs of the same command.
_RANDOM = (
    (re.compile(r"/evpn-host-stage-[^/]+"), "/evpn-host-stage-*"),
    (re.compile(r"/generations/(\.?)\d+"), r"/generations/\1N"),
    (re.compile(r"^socket:\[\d+\]"), "a socket"),
)


@dataclass(frozen=True)
class Point:
    """A call in a trace: its system call, its number among those, and what it acts on."""

    syscall: str
    number: int
    subject: str
    start: int = 0
    """For a command: its number among the commands, and among those like it once it has a name."""

    def __str__(self) -> str:
        return f"{self.syscall} {self.subject} (call {self.number})"

    @property
    def starts(self) -> bool:
        """Return whether the call starts a command."""
        return self.syscall in STARTS

    @property
    def what(self) -> tuple[str, str]:
        """What happens, whichever call it is."""
        return self.syscall, self.subject


def points(trace: str) -> list[Point]:
    """Return the points of a trace, in their order."""
    starts = 0
    result = []
    for point, rest in _calls(trace):
        if _starts_command(point, rest) and not _fails(rest):
            starts += 1
            result.append(replace(point, start=starts, subject="a command"))
        elif not point.starts and _changes(point, rest) and not _fails(rest):
            result.append(point)
    return result


def first_programs(trace: str) -> set[str]:
    """Return the first program that each child of the first process tried to execute.

    The trace has execve and what starts commands, of all processes.
    """
    own, _, _ = trace.partition(" ")
    children: set[str] = set()
    programs: dict[str, str] = {}
    for line in trace.splitlines():
        pid, _, call = line.partition(" ")
        if pid == own and (match := re.search(r"(?:vfork|clone3?|fork)\b.* = (\d+)$", call)):
            children.add(match[1])
        elif match := re.search(r'execve\("([^"]+)"', call):
            programs.setdefault(pid, match[1])
    return {path for pid, path in programs.items() if pid in children}


def starts_before(trace: str, syscall: str, number: int) -> int:
    """Return how many commands were started before a call."""
    starts = 0
    for point, rest in _calls(trace):
        if (point.syscall, point.number) == (syscall, number):
            break
        starts += _starts_command(point, rest) and " = -1 " not in rest
    return starts


def last(trace: str, syscall: str, number: int) -> tuple[Point, str] | None:
    """Return a call of a trace, and the rest of its line; None if the process never came there."""
    for point, rest in _calls(trace):
        if (point.syscall, point.number) == (syscall, number):
            return point, rest
    return None


def nearest(trace: str, point: Point) -> int:
    """Return the number of the call in a trace that does what a point does, 0 if none does.

    A run that reads a file more or less counts its calls otherwise. Of several the nearest counts.
    """
    numbers = (call.number for call, _ in _calls(trace) if call.what == point.what)
    return min(numbers, key=lambda number: abs(number - point.number), default=0)


def _calls(trace: str) -> Iterator[tuple[Point, str]]:
    """Yield each call with the rest of its line."""
    counts: Counter[str] = Counter()
    for line in trace.splitlines():
        if match := _CALL.match(line):
            name, rest = match["name"], match["rest"]
            counts[name] += 1
            yield Point(name, counts[name], _subject(name, rest)), rest


def _subject(name: str, rest: str) -> str:
    """Return the path that a call acts on; for a rename the new one."""
    paths = []
    for match in _PATH.finditer(rest):
        if match["at"] is None:
            paths.append(match["plain"])
        elif match["below"] is not None and name not in ("write", "pwrite64", *SENDS):
            paths.append(normpath(join(match["at"], match["below"])))
        else:
            paths.append(match["at"])
        if not name.startswith(("rename", "link", "symlink")):
            break
    path = paths[-1] if paths else ""
    for pattern, text in _RANDOM:
        path = pattern.sub(text, path)
    return path


def _starts_command(point: Point, rest: str) -> bool:
    """Return whether a call starts a command, and not a thread of the same process."""
    return point.starts and "CLONE_THREAD" not in rest


def _fails(rest: str) -> bool:
    """Return whether the call failed by itself: then there is nothing to take away from it."""
    return re.search(r"\) += -1 E", rest) is not None and INJECTED not in rest


def _changes(point: Point, rest: str) -> bool:
    """Return whether a call changes a file, a folder or the kernel."""
    if point.syscall in SENDS:
        match = _NETLINK.search(rest)
        if not match:
            return False  # a question to FRR, or a message to the journal
        if match["name"]:
            return match["name"].startswith(("RTM_NEW", "RTM_DEL", "RTM_SET"))
        return (int(match["number"], 16) - 16) % 4 != 2  # of each four, the third reads
    if point.syscall in _OPENS:
        return any(flag in rest for flag in _WRITES) and "/dev/" not in point.subject
    if point.syscall in ("write", "pwrite64"):
        number = int(rest.partition("<")[0])
        return number > 2 and point.subject.startswith("/") and "/dev/" not in point.subject
    return True
