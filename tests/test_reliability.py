"""docs/reliability.md has today's introduction, and a run changes only the rows of its system."""

from collections import Counter
from pathlib import Path

import pytest

from tests.lab import reliability
from tests.lab.faults import Counts


def test_introduction_is_today_s() -> None:
    """`python -m tests.lab.reliability` writes it anew, and keeps the rows."""
    text = reliability.TABLE.read_text()
    assert text == reliability.table(reliability.read(text))


def test_a_run_writes_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run writes the rows of its system alone, and only if the variable is set."""
    monkeypatch.setattr(reliability, "TABLE", tmp_path / "reliability.md")
    monkeypatch.setenv("EVPN_HOST_RELIABILITY", "1")
    first = Counts(9, Counter(killed=2, EIO=1), Counter({"3": 1, "killed": 2}), 3)
    reliability.write("trixie-netplan", {"rollback": first})
    second = Counts(5, Counter(killed=1), Counter({"killed": 1}), 0, ["wrong"], 2)
    reliability.write("trixie-ifupdown", {"rollback": second})
    rows = reliability.read(reliability.TABLE.read_text())
    assert rows == {
        ("trixie-netplan", "rollback"): (
            *("trixie-netplan", "rollback", "9"),
            *("1 × EIO, 2 × killed", "1 × 3, 2 × killed", "3 of 3"),
        ),
        ("trixie-ifupdown", "rollback"): (
            *("trixie-ifupdown", "rollback", "5"),
            *(
                "1 × killed",
                "1 × killed",
                "0 of 1; 2 × the point was not reached; 1 × something wrong",
            ),
        ),
    }
    monkeypatch.delenv("EVPN_HOST_RELIABILITY")
    reliability.write("trixie-netplan", {"rollback": second})
    assert reliability.read(reliability.TABLE.read_text()) == rows
