"""`evpn-host diff`: what an apply would change."""

from collections.abc import Iterator

import msgspec

from generator.activation import staging
from generator.desired import plan
from generator.desired.summary import summary, total
from generator.state import changes, record
from generator.state.changes import Change
from generator.verbs.options import Options
from generator.verbs.planning import make_plan


class File(msgspec.Struct, frozen=True):
    """A file that would change."""

    path: str
    change: str  # added, changed, removed


class Difference(msgspec.Struct, frozen=True):
    """All that `diff --json` says."""

    summary: list[str]  # in network terms
    files: list[File]
    removed_devices: list[str]


class Preview:
    """What an apply of a payload would change on a host."""

    def __init__(self, data: bytes, options: Options) -> None:
        """Plan the payload, and compare. Raises `Refused`."""
        planned, _, _ = make_plan(data, options)
        applied = record.read(options.root)
        target = plan.target(planned)
        self._changes = staging.changes(options.root, planned.files)
        self._removed = record.removed_devices(applied, target)
        self._summary = summary(applied.target if applied else None, target)

    @property
    def differs(self) -> bool:
        """Whether an apply would change anything."""
        return bool(self._changes or self._removed or self._summary)

    @property
    def difference(self) -> Difference:
        """Return what differs, for a script."""
        files = [File(f"/{each.path}", _kind(each)) for each in self._changes]
        return Difference(self._summary, files, [device.name for device in self._removed])

    def summary(self) -> Iterator[str]:
        """Yield what changes in network terms, a line each, then how much."""
        yield from self._summary
        if self._summary:
            yield total(self._summary)

    def files(self) -> Iterator[str]:
        """Yield a unified diff of the files, then the devices that go."""
        yield from changes.diff(self._changes)
        for device in self._removed:
            yield f"- device {device.name} ({device.kind})"


def _kind(change: Change) -> str:
    if change.old is None:
        return "added"
    return "removed" if change.new is None else "changed"
