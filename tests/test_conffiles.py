"""Diversions of the conffiles that FRR's package shares with us, by the real dpkg-divert."""

import subprocess
from pathlib import Path

import pytest

from generator.activation import conffiles
from generator.activation.commands import silent
from generator.errors import ActivationFailed
from generator.state import record

DAEMONS = "etc/frr/daemons"
OURS = f"/{DAEMONS}{conffiles.SUFFIX}"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a tree with a database of dpkg, FRR's package in it, and a kept file."""
    database = tmp_path / "var/lib/dpkg"
    (database / "info").mkdir(parents=True)
    (database / "info/frr.conffiles").write_text(f"/{DAEMONS}\n")
    for name in ("status", "diversions"):
        (database / name).touch()
    for path in (tmp_path / DAEMONS, tmp_path / record.KEPT / DAEMONS):
        path.parent.mkdir(parents=True)
        path.write_text("the operator's\n")
    monkeypatch.setenv("DPKG_ADMINDIR", str(database))
    return tmp_path


def place() -> str:
    """Return where dpkg puts the package's daemons file."""
    argv = ["dpkg-divert", "--truename", f"/{DAEMONS}"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def test_there_and_back(root: Path) -> None:
    """The operator's file is what dpkg goes on with; nothing is left in the end."""
    conffiles.divert(root, silent)
    assert place() == OURS
    assert Path(f"{root}{OURS}").read_text() == "the operator's\n"
    assert conffiles.packaged(root, DAEMONS, silent) == OURS[1:]
    conffiles.restore(root, silent)
    assert place() == f"/{DAEMONS}"
    assert not Path(f"{root}{OURS}").exists()


def test_diversions_of_others_stay(root: Path) -> None:
    """Theirs is not moved, its file is not taken for ours, and it is there in the end."""
    theirs = f"/{DAEMONS}.distrib"
    argv = ["dpkg-divert", "--quiet", "--local", "--no-rename", "--divert", theirs]
    subprocess.run([*argv, "--add", f"/{DAEMONS}"], check=True)
    Path(f"{root}{theirs}").write_text("theirs\n")
    conffiles.divert(root, silent)
    assert conffiles.packaged(root, DAEMONS, silent) is None
    conffiles.restore(root, silent)
    assert place() == theirs
    assert Path(f"{root}{theirs}").read_text() == "theirs\n"


def test_what_a_stopped_run_has_left(root: Path) -> None:
    """A copy without a diversion is no version of the package, and goes."""
    Path(f"{root}{OURS}").write_text("half\n")
    assert conffiles.packaged(root, DAEMONS, silent) is None
    conffiles.restore(root, silent)
    assert not Path(f"{root}{OURS}").exists()


def test_a_damaged_database(root: Path) -> None:
    """dpkg's trouble is no reason for an apply to go back, but an uninstall says so."""
    (root / "var/lib/dpkg/diversions").write_text("one line\n")
    conffiles.divert(root, silent)
    assert conffiles.packaged(root, DAEMONS, silent) is None
    with pytest.raises(ActivationFailed, match="dpkg-divert"):
        conffiles.restore(root, silent)


def test_another_distribution(root: Path) -> None:
    """Where dpkg does not have FRR, nothing is asked and nothing is written."""
    (root / "var/lib/dpkg/info/frr.conffiles").unlink()
    conffiles.divert(root, silent)
    assert place() == f"/{DAEMONS}"
    assert not Path(f"{root}{OURS}").exists()
