"""Groups equal changes of many hosts, and shortens lists of host names: pure."""

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from generator.desired.change import Change

_NUMBERED = re.compile(r"(.*?)([0-9]+)", re.DOTALL)
_ORDER = ("host", "V-Net", "VPC", "uplink", "management", "AS", "loopback")
_MOST_ALIKE = 3  # more groups that differ only in the detail become one
_PART = re.compile(r"([0-9]+)")


class Group(msgspec.Struct, frozen=True):
    """A change and the hosts that have it, sorted by name."""

    change: Change
    hosts: list[str]


def grouped(changes: Mapping[str, Iterable[Change]]) -> list[Group]:
    """Return each change once, with its hosts: V-Nets first, each kind sorted by name."""
    hosts: dict[Change, list[str]] = {}
    for host in sorted(changes, key=natural):
        for change in changes[host]:
            hosts.setdefault(change, []).append(host)
    return sorted((Group(*each) for each in hosts.items()), key=_order)


def _order(group: Group) -> tuple[object, ...]:
    change = group.change
    kind = change.subject.partition(" ")[0]
    rank = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    return rank, natural(change.subject), "+~-".index(change.sign), change.detail, change.risks


def folded(groups: Iterable[Group]) -> Iterator[Group]:
    """Yield the groups; many that differ only in the detail become one.

    Otherwise 500 hosts that each get another AS number would be 500 lines.
    """
    alike: dict[tuple[str, str, tuple[str, ...]], list[Group]] = {}
    for group in groups:
        change = group.change
        alike.setdefault((change.sign, change.subject, change.risks), []).append(group)
    for members in alike.values():
        if len(members) <= _MOST_ALIKE:
            yield from members
            continue
        first = members[0].change
        detail = f"{first.detail} and {len(members) - 1} others"
        hosts = sorted({host for each in members for host in each.hosts}, key=natural)
        yield Group(msgspec.structs.replace(first, detail=detail), hosts)


def natural(text: str) -> tuple[object, ...]:
    """Return a sort key that compares numbers in a text by value: srv9 before srv10."""
    parts = _PART.split(text)
    return tuple((int(p), p) if n % 2 else p for n, p in enumerate(parts)), text


def short_list(hosts: Iterable[str], most: int) -> str:
    """Return sorted names as a short list: `srv0007, srv0100–srv0111 and 5 more`.

    It has at most `most` names and ranges.
    """
    runs = list(_runs(hosts))
    shown = [_run(run) for run in runs[:most]]
    more = sum(len(run) for run in runs[most:])
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _runs(hosts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the names in runs with consecutive numbers; any other name is a run of its own."""
    run: list[str] = []
    for host in hosts:
        if run and not _follows(run[-1], host):
            yield from _pieces(run)
            run = []
        run.append(host)
    yield from _pieces(run)


def _pieces(run: list[str]) -> Iterator[list[str]]:
    if len(run) > 2:  # a range of two names would be no shorter
        yield run
    else:
        yield from ([each] for each in run)


def _run(run: list[str]) -> str:
    return run[0] if len(run) == 1 else f"{run[0]}–{run[-1]}"


def _follows(before: str, after: str) -> bool:
    first, second = _NUMBERED.fullmatch(before), _NUMBERED.fullmatch(after)
    if not (first and second) or first[1] != second[1]:
        return False
    return second[2] == str(int(first[2]) + 1).zfill(len(first[2]))
