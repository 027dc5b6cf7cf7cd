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


def test_dpkg_gets_the_operators_file_back(root: Path) -> None:
    """dpkg gets the operator's file back, and no diversion is left."""
    conffiles.divert(root, silent)
    assert place() == OURS
    assert Path(f"{root}{OURS}").read_text() == "the operator's\n"
    assert conffiles.packaged(root, DAEMONS, silent) == OURS[1:]
    conffiles.restore(root, silent)
    assert place() == f"/{DAEMONS}"
    assert not Path(f"{root}{OURS}").exists()


def test_diversions_of_others_stay(root: Path) -> None:
    """Diversions of others stay, and their files are never taken for ours."""
    theirs = f"/{DAEMONS}.distrib"
    argv = ["dpkg-divert", "--quiet", "--local", "--no-rename", "--divert", theirs]
    subprocess.run([*argv, "--add", f"/{DAEMONS}"], check=True)
    Path(f"{root}{theirs}").write_text("theirs\n")
    conffiles.divert(root, silent)
    assert conffiles.packaged(root, DAEMONS, silent) is None
    conffiles.restore(root, silent)
    assert place() == theirs
    assert Path(f"{root}{theirs}").read_text() == "theirs\n"


def test_a_copy_of_a_stopped_run_is_removed(root: Path) -> None:
    """A copy without a diversion, left by a stopped run, is removed."""
    Path(f"{root}{OURS}").write_text("half\n")
    assert conffiles.packaged(root, DAEMONS, silent) is None
    conffiles.restore(root, silent)
    assert not Path(f"{root}{OURS}").exists()


def test_a_damaged_database_fails_uninstall_alone(root: Path) -> None:
    """apply goes on with a damaged database of dpkg; uninstall reports it."""
    (root / "var/lib/dpkg/diversions").write_text("one line\n")
    conffiles.divert(root, silent)
    assert conffiles.packaged(root, DAEMONS, silent) is None
    with pytest.raises(ActivationFailed, match="dpkg-divert"):
        conffiles.restore(root, silent)


def test_nothing_is_written_without_frr_in_dpkg(root: Path) -> None:
    """Without FRR in dpkg's database, we ask and write nothing."""
    (root / "var/lib/dpkg/info/frr.conffiles").unlink()
    conffiles.divert(root, silent)
    assert place() == f"/{DAEMONS}"
    assert not Path(f"{root}{OURS}").exists()
