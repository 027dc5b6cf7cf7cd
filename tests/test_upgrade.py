"""Today's version can apply over the state that an older version wrote, and can uninstall it.

`tests/state/<name>/` is the tree of a host after `apply --root` of examples/k8s01.json by:

before-uplinks  the version before commit 5c5bc39: no uplinks in the record, no before.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from generator.activation import before
from generator.state import record
from lab.result import Result
from tests.conftest import REPO

Command = Callable[..., Result]

STATES = sorted((REPO / "tests/state").iterdir())
PAYLOAD = REPO / "examples/k8s01.json"
OPERATOR = Path("etc/netplan/01.yaml")


@pytest.fixture(params=STATES, ids=[state.name for state in STATES])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Copy a host's tree as an older version left it."""
    return Path(shutil.copytree(request.param, tmp_path / "root"))


def test_the_state_is_older(root: Path) -> None:
    """The tests below need a state that lacks what today's version writes."""
    data = json.loads((root / record.RECORD).read_text())
    assert "uplinks" not in data
    assert data["format"] <= record.FORMAT
    assert not (root / before.FILE).exists()


def test_apply_updates_older_state(
    evpn_host: Command, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next apply writes today's files and a complete record; another apply writes nothing."""
    # Neither version was released, so both have the same number.
    monkeypatch.setattr("generator.verbs.apply.__version__", "9")
    old = record.read(root)
    assert old is not None
    guests = evpn_host("guests", "--format", "libvirt", "--root", root)
    assert (guests.code, guests.out.count("<network>")) == (0, 3)
    result = evpn_host("apply", "--root", root, "-p", PAYLOAD)
    assert result.code == 0, result
    new = record.read(root)
    assert new is not None
    assert new.target.uplinks == ["ens4", "ens5"]
    assert {path: (root / path).is_file() for path in new.target.files} == dict.fromkeys(
        new.target.files, True
    )
    assert not [
        path for path in old.target.files.keys() - new.target.files.keys() if (root / path).exists()
    ]
    again = evpn_host("apply", "--root", root, "-p", PAYLOAD)
    assert (again.code, again.out) == (0, "")


def test_uninstall_removes_older_state(evpn_host: Command, root: Path) -> None:
    """No file of the older version stays; the operator's own file does."""
    result = evpn_host("uninstall", "--root", root)
    assert result.code == 0, result
    remaining = [file.relative_to(root) for file in root.rglob("etc/**/*") if file.is_file()]
    assert remaining == [OPERATOR]
    assert record.read(root) is None
