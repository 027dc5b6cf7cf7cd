"""`evpn-host diff`: what an apply would change."""

from collections.abc import Iterator

import msgspec

from generator.activation import staging
from generator.desired import plan
from generator.desired.change import Change as Words
from generator.desired.change import total
from generator.desired.summary import changes as summary
from generator.state import changes, record
from generator.state.changes import Change
from generator.verbs.options import Options
from generator.verbs.planning import make_plan


class File(msgspec.Struct, frozen=True):
    """A file that would change."""

    path: str
    change: str  # added, changed, removed


class Risk(msgspec.Struct, frozen=True):
    """A change that a person should look at, and why."""

    change: str  # a line of the summary
    risks: tuple[str, ...]


class Difference(msgspec.Struct, frozen=True):
    """All that `diff --json` says."""

    summary: list[str]  # in network terms
    risks: list[Risk]
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
        self._summary: list[Words] = summary(applied.target if applied else None, target)

    @property
    def differs(self) -> bool:
        """Whether an apply would change anything."""
        return bool(self._changes or self._removed or self._summary)

    @property
    def difference(self) -> Difference:
        """Return what differs, for a script."""
        files = [File(f"/{each.path}", _kind(each)) for each in self._changes]
        texts = [each.text for each in self._summary]
        risks = [Risk(each.text, each.risks) for each in self._summary if each.risks]
        return Difference(texts, risks, files, [device.name for device in self._removed])

    def summary(self) -> Iterator[str]:
        """Yield what changes in network terms, a line each with its risks, then how much."""
        yield from (each.text_with_risks for each in self._summary)
        if self._summary:
            yield total([each.sign for each in self._summary])

    def files(self) -> Iterator[str]:
        """Yield a unified diff of the files, then the devices that go."""
        yield from changes.diff(self._changes)
        for device in self._removed:
            yield f"- device {device.name} ({device.kind})"


def _kind(change: Change) -> str:
    if change.old is None:
        return "added"
    return "removed" if change.new is None else "changed"
