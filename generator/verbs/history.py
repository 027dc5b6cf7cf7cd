"""`evpn-host history`: the applies and rollbacks of this host, the newest first."""

from pathlib import Path

import msgspec

from generator.secrets import mask
from generator.state import generations, record, unconfirmed


class Entry(msgspec.Struct, frozen=True):
    """An apply or a rollback that changed something, or that failed and went back."""

    number: int
    time: str  # ISO 8601, UTC
    generation: int
    started_by: str
    outcome: str  # current, unconfirmed, applied, rollback, failed
    seconds: float
    summary: list[str]  # its changes, in network terms
    origin: int | None = None  # the entry whose state a rollback has restored
    detail: str = ""  # why it failed


def entries(root: Path) -> list[Entry]:
    """Return the history, the newest entry first. Raises `Refused` for a damaged record."""
    current = record.read(root)
    waiting = unconfirmed.read(root)
    return [
        Entry(
            number=each.number,
            time=each.time,
            generation=_generation(each, current),
            started_by=each.started_by,
            outcome=_outcome(
                each, current.number if current else 0, waiting.number if waiting else 0
            ),
            seconds=each.seconds,
            summary=each.summary,
            origin=each.origin or None,
            detail=mask(each.detail),
        )
        for each in generations.entries(root)
    ]


def _generation(entry: record.Record, current: record.Record | None) -> int:
    """Return an entry's generation; the current entry has the newest payload's generation."""
    newest = current if current and current.number == entry.number else entry
    return newest.target.generation


def _outcome(entry: record.Record, current: int, waiting: int) -> str:
    if not entry.ok:
        return "failed"
    if entry.number == current == waiting:
        return "unconfirmed"
    if entry.number == current:
        return "current"
    return "rollback" if entry.origin else "applied"


def text(listed: list[Entry]) -> str:
    """Return the history as text for a person."""
    if not listed:
        return "nothing was applied yet"
    return "\n".join(line for entry in listed for line in _lines(entry))


def _lines(entry: Entry) -> list[str]:
    back = f", back to {entry.origin}" if entry.origin else ""
    head = f"{entry.number}  {entry.time}  {entry.outcome}{back}  generation {entry.generation}"
    head += f"  {entry.seconds:.1f} s  {entry.started_by}".rstrip()
    lines = entry.summary or (["~ settings of files"] if not entry.detail else [])
    return [head, *(f"    {line}" for line in [*lines, *entry.detail.splitlines()[:1]])]
