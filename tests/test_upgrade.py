"""State of an older version, as that one wrote it: today's goes on from there, or takes it away.

`tests/state/<name>/` is the tree of a host after `apply --root` of examples/k8s01.json by:

before-uplinks  the version before commit 5c5bc39: no uplinks in the record, no before.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from generator import before, record
from lab.result import Result
from tests.conftest import REPO

Command = Callable[..., Result]

STATES = sorted((REPO / "tests/state").iterdir())
PAYLOAD = REPO / "examples/k8s01.json"
OPERATOR = Path("etc/netplan/01.yaml")


@pytest.fixture(params=STATES, ids=[state.name for state in STATES])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A host's tree as an older version left it."""
    return Path(shutil.copytree(request.param, tmp_path / "root"))


def test_it_is_older(root: Path) -> None:
    """What the state lacks is what the test is about."""
    found = json.loads((root / record.RECORD).read_text())
    assert "uplinks" not in found
    assert found["format"] <= record.FORMAT
    assert not (root / before.FILE).exists()


def test_apply_goes_on(evpn_host: Command, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next apply writes today's files and a record that says all; the one after it nothing."""
    # Neither was released, and both call themselves the same.
    monkeypatch.setattr("generator.apply.__version__", "9")
    old = record.read(root)
    assert old is not None
    asked = evpn_host("guests", "--format", "libvirt", "--root", root)
    assert (asked.code, asked.out.count("<network>")) == (0, 3)
    done = evpn_host("apply", "--root", root, "-p", PAYLOAD)
    assert done.code == 0, done
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


def test_uninstall_takes_it_away(evpn_host: Command, root: Path) -> None:
    """Of the older version's files none stays, and the operator's own does."""
    done = evpn_host("uninstall", "--root", root)
    assert done.code == 0, done
    left = [file.relative_to(root) for file in root.rglob("etc/**/*") if file.is_file()]
    assert left == [OPERATOR]
    assert record.read(root) is None
