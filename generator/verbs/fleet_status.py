"""`evpn-host fleet-status`: the state of each host, from the reports that hosts have posted."""

import datetime
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from generator.desired.grouped import natural
from generator.desired.payload import Payload
from generator.errors import Refused, printable
from generator.observed.health import GOOD
from generator.reporting import fleet
from generator.reporting.fleet import Damaged, Host

# Why a person is needed, the most urgent first.
_URGENCY = (
    "failed",
    "down",
    "never reported",
    "stale",
    "degraded",
    "unconfirmed",
    "differs",
    "nothing applied",
    "behind",
    "ahead",
    "not in the fleet",
)
_HEADINGS = ("HOST", "HEALTH", "GENERATION", "DIFFERENCES", "LAST CONTACT", "WHY")


class Row(msgspec.Struct, frozen=True):
    """The state of a host."""

    host: str
    attention: list[str]  # why a person is needed, the most urgent first; empty if none is
    health: str | None  # None: it has never reported
    reason: str
    generation: int | None
    difference_count: int
    differences: list[str]  # only the first ones
    left_alone: str  # which payload is not applied, and why
    last_contact: str | None  # ISO 8601, UTC
    age_seconds: int | None  # since the last contact
    report: str | None  # path of its file below the folder


class Fleet(msgspec.Struct, frozen=True):
    """All that `fleet-status --json` says."""

    ok: bool
    generation: int | None  # of the payload, if there is one
    attention: dict[str, int]  # by reason, how many hosts have it as their most urgent one
    hosts: list[Row]  # those that need a person come first
    damaged: list[Damaged]


def look(folder: Path, payload: Payload | None, stale: float, now: float | None = None) -> Fleet:
    """Return the state of a fleet from a folder of reports.

    A report older than `stale` seconds is marked. Raises `OSError`, or `Refused` if there is
    neither a report nor a payload.
    """
    now = time.time() if now is None else now
    reports = fleet.read(folder)
    if not reports.hosts and not reports.damaged and payload is None:
        raise Refused(f"{printable(str(folder))}: there is no report in it")
    expected = {name.lower(): name for name in payload.names} if payload else {}
    rows = [
        _row(host, payload, stale, now, is_expected=payload is None or key in expected)
        for key, host in reports.hosts.items()
    ]
    rows += [_silent(name) for key, name in expected.items() if key not in reports.hosts]
    rows.sort(key=_order)
    attention = Counter(row.attention[0] for row in rows if row.attention)
    return Fleet(
        ok=not attention and not reports.damaged,
        generation=payload.generation if payload else None,
        attention={word: attention[word] for word in sorted(attention, key=_urgency)},
        hosts=rows,
        damaged=sorted(reports.damaged, key=lambda each: each.report),
    )


def _row(
    host: Host, payload: Payload | None, stale: float, now: float, *, is_expected: bool
) -> Row:
    seconds = max(0, int(now - host.contact))
    attention = [] if host.health in GOOD else [host.health]
    attention += ["stale"] if seconds > stale else []
    attention += ["differs"] if host.total else []
    if host.generation is None:
        attention.append("nothing applied")
    elif payload and is_expected and host.generation != payload.generation:
        attention.append("behind" if host.generation < payload.generation else "ahead")
    attention += [] if is_expected else ["not in the fleet"]
    contact = datetime.datetime.fromtimestamp(host.contact, datetime.UTC)
    return Row(
        host=host.name,
        attention=sorted(attention, key=_urgency),
        health=host.health,
        reason=host.reason,
        generation=host.generation,
        difference_count=host.total,
        differences=host.differences,
        left_alone=host.left_alone,
        last_contact=contact.isoformat(timespec="seconds"),
        age_seconds=seconds,
        report=host.report,
    )


def _silent(name: str) -> Row:
    """Return the row of a host that has never reported."""
    return Row(name, ["never reported"], None, "", None, 0, [], "", None, None, None)


def _urgency(word: str) -> int:
    """Return the rank of a word by urgency. A word of a newer version, not known here, is first."""
    return _URGENCY.index(word) if word in _URGENCY else -1


def _order(row: Row) -> tuple[object, ...]:
    urgency = _urgency(row.attention[0]) if row.attention else len(_URGENCY)
    return urgency, row.health == "ok", natural(row.host.lower()), row.host


def lines(status: Fleet) -> Iterator[str]:
    """Yield a fleet for a person: a summary, a table, and the files that are not reports."""
    yield summary(status)
    cells = [_HEADINGS, *map(_cells, status.hosts)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells if status.hosts else ():
        texts = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield "  ".join(texts).rstrip()
    for each in status.damaged:
        yield f"{each.report}: {each.reason}"


def summary(status: Fleet) -> str:
    """Return how many hosts need a person, and why."""
    total, needed = len(status.hosts), sum(status.attention.values())
    hosts = f"{total} host{'s' if total != 1 else ''}"
    generation = f", generation {status.generation}" if status.generation is not None else ""
    damaged = f"; {len(status.damaged)} damaged" if status.damaged else ""
    if not needed:
        return f"{hosts}{generation}: none needs a person{damaged}"
    need = "needs" if needed == 1 else "need"
    why = ", ".join(f"{count} {word}" for word, count in status.attention.items())
    return f"{hosts}{generation}: {needed} {need} a person ({why}){damaged}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.host,
        row.health or "-",
        "-" if row.generation is None else str(row.generation),
        "-" if row.health is None else str(row.difference_count),
        "never" if row.age_seconds is None else f"{_ago(row.age_seconds)} ago",
        "; ".join(why(row)),
    )


def _ago(seconds: int) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def why(row: Row) -> Iterator[str]:
    """Yield why a host needs a person, then the other remarks of its report."""
    details = {"differs": _differences(row), row.health or "": row.reason}
    for word in row.attention:
        detail = details.get(word)
        yield f"{word}: {detail}" if detail else word
    if row.reason and row.health not in row.attention:
        yield row.reason
    if row.left_alone:
        yield row.left_alone


def _differences(row: Row) -> str:
    more = row.difference_count - 1
    first = row.differences[0] if row.differences else ""
    return f"{first} and {more} more" if more > 0 else first
