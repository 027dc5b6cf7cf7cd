"""Every payload's rendered files and messages as files of the repository: read the git diff.

`pytest tests/test_snapshots.py --snapshot-update` writes them.
"""

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.data import Snapshot, SnapshotCollection
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from generator.verbs.guests import FORMATS
from lab.result import Result
from tests import fabrics
from tests.conftest import ACCEPTED, BACKENDS, REFUSED, REPO

SNAPSHOTS = REPO / "snapshots"
K8S01 = REPO / "examples/k8s01.json"
# Payloads whose leaves have snapshots too; the other file has the switches' own settings.
WITH_LEAVES = ("coke-cluster", "fleet-leaves", "fleet-two-hosts")
SWITCHES = REPO / "tests/switches.yml"


class HostFiles(SingleFileSnapshotExtension):
    """Keep every snapshot as a real file: snapshots/<case>-<backend>/<path on the host>."""

    _write_mode = WriteMode.TEXT
    file_extension = ""

    @classmethod
    def dirname(cls, **_: Any) -> str:
        return str(SNAPSHOTS)

    @classmethod
    def get_location(cls, *, index: Any = 0, **_: Any) -> str:
        return str(SNAPSHOTS / str(index))

    @classmethod
    def get_snapshot_name(cls, *, index: Any = 0, **_: Any) -> str:
        return f"test_snapshots[{index}]"

    @classmethod
    def matches_test_location(cls, **_: Any) -> bool:
        return True

    def is_snapshot_location(self, **_: Any) -> bool:
        return True

    def read_snapshot_collection(self, *, snapshot_location: str) -> SnapshotCollection:
        name = self.get_snapshot_name(index=Path(snapshot_location).relative_to(SNAPSHOTS))
        return SnapshotCollection(snapshot_location, {name: Snapshot(name)})


@pytest.fixture
def snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(HostFiles)


def shown(evpn_host: Callable[..., Result], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each output of the command for the payloads: path below `snapshots`, and text."""
    for case in ACCEPTED:
        for backend in BACKENDS:
            tree = folder / f"{case.stem}-{backend}"
            result = evpn_host("render", "-p", case, "-o", tree, "-b", backend)
            assert result.code == 0, result.err
            yield from _files(tree, folder)
        if case.stem in WITH_LEAVES:
            tree = folder / f"leaves-{case.stem}"
            result = evpn_host("leaves", "-p", case, "-o", tree, "--switches", SWITCHES)
            assert result.code == 0, result.err
            yield from _files(tree, folder)
        if warnings := evpn_host("check", "-p", case).err:
            yield f"warned/{case.stem}.txt", warnings
    for platform in FORMATS:
        result = evpn_host("guests", "--format", platform, "-p", K8S01)
        assert result.code == 0, result.err
        yield f"guests/k8s01-{platform}.txt", result.out
    yield from _reviewed(evpn_host, folder)
    for case in REFUSED:
        result = evpn_host("check", "-p", case)
        assert result.code == 1, f"{case.stem} was not refused"
        yield f"refused/{case.stem}.txt", result.err


def _reviewed(evpn_host: Callable[..., Result], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the review of a fleet of 500 hosts in each form."""
    sources = [folder / "before.json", folder / "after.json"]
    for source, document in zip(sources, (fabrics.before(), fabrics.after()), strict=True):
        source.write_bytes(fabrics.text(document))
    for name, options in (("txt", ()), ("md", ("--markdown",)), ("json", ("--json",))):
        result = evpn_host("review", *sources, *options)
        assert result.code == 1, result.err
        yield f"reviewed/500-hosts.{name}", result.out


def _files(tree: Path, folder: Path) -> Iterator[tuple[str, str]]:
    for file in tree.rglob("*"):
        if file.is_file():
            yield str(file.relative_to(folder)), file.read_text()


def _diff(path: str, text: str) -> str:
    file = SNAPSHOTS / path
    old = file.read_text().splitlines() if file.exists() else []
    return "\n".join(difflib.unified_diff(old, text.splitlines(), path, path, lineterm=""))


def test_snapshots(
    snapshot: SnapshotAssertion, evpn_host: Callable[..., Result], tmp_path: Path
) -> None:
    """The command's output for each payload is that of the repository."""
    rendered = dict(shown(evpn_host, tmp_path))
    files = {str(f.relative_to(SNAPSHOTS)) for f in SNAPSHOTS.rglob("*") if f.is_file()}
    orphans = files - rendered.keys()
    if snapshot.session.update_snapshots:
        for path in orphans:
            (SNAPSHOTS / path).unlink()
    else:
        assert not orphans, "of no payload (--snapshot-update removes them)"
    differ = [path for path, text in rendered.items() if not text == snapshot(name=path)]  # noqa: SIM201  # syrupy compares in __eq__
    diffs = "\n".join(_diff(path, rendered[path]) for path in differ)
    assert not differ, f"not as in snapshots/ (--snapshot-update writes them):\n{diffs}"


def test_each_case_has_its_name() -> None:
    """No two payloads share a name, so each has a snapshot of its own; none is left out."""
    payloads = {file for file in (REPO / "tests/payloads").rglob("*") if file.is_file()}
    assert payloads <= {*ACCEPTED, *REFUSED}
    names = [case.stem for case in ACCEPTED] + [case.stem for case in REFUSED]
    assert len(names) == len(set(names))
