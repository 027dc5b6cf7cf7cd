"""docs/claims.md is complete: it has a row for each claim that a test makes, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lab import claims
from tests.lab.claims import Claim

pytest_plugins = "pytester"

LAB_TESTS = sorted(path for path in claims.LAB.glob("*.py") if path.name != "claims.py")


def test_the_table_names_each_claim_and_no_other() -> None:
    """`python -m tests.lab.claims` writes a row for each claim of a test, in the test's words."""
    text = claims.TABLE.read_text()
    rows = claims.read(text)
    assert list(rows) == claims.claims(), "run python -m tests.lab.claims"
    assert claims.table(rows) == text, "run python -m tests.lab.claims"


def test_only_lab_tests_make_claims() -> None:
    """Nothing reads claims of other tests. The numbers of claims are those of the issue."""
    for path in claims.LAB.parent.glob("*.py"):
        assert path == Path(__file__) or "mark.claim(" not in path.read_text(), path
    # Nor does anything read a claim of a class, a method, a parameter or a whole module.
    marks = [re.findall(r"\bmark\.claim\(", path.read_text()) for path in LAB_TESTS]
    assert sum(map(len, marks)) == len(claims.claims())
    numbers = [claim.number for claim in claims.claims()]
    assert numbers
    assert all(1 <= int(number.split(".")[0]) <= 19 for number in numbers)


def test_a_partial_run_keeps_the_other_outcomes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A test that did not run keeps its cells; a row without a test goes; a new row is empty."""
    old, new = Claim("5.1", "a | b", "test_a.py::test_a"), Claim("13.2", "new", "test_b.py::test_b")
    obsolete = Claim("5.2", "gone", "test_a.py::test_gone")
    monkeypatch.setattr(claims, "TABLE", tmp_path / "claims.md")
    monkeypatch.setattr(claims, "claims", lambda: [old, obsolete])
    claims.write({(old.test, "trixie-netplan"): "pass", (obsolete.test, "trixie-netplan"): "pass"})
    monkeypatch.setattr(claims, "claims", lambda: [old, new])
    claims.write({(old.test, "bookworm-ifupdown"): "can't: no | such option"})
    rows = claims.read(claims.TABLE.read_text())
    assert list(rows) == [old, new]
    assert rows[old]["trixie-netplan"] == "pass"
    assert rows[old]["trixie-ifupdown"] == "—"
    assert rows[old]["bookworm-ifupdown"] == "can't: no | such option"
    assert set(rows[new].values()) == {"—"}


@pytest.mark.parametrize("processes", ["0", "2"])
def test_outcomes_are_written(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    """Passes, failures in a fixture or a test, and what a tool can't do; with and without xdist."""
    monkeypatch.setenv("EVPN_HOST_CLAIMS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makeconftest("""
        from pathlib import Path
        import pytest
        from tests.lab import claims
        from tests.lab.systems import RELEASED
        pytest_plugins = "tests.lab.claims"
        claims.LAB = Path(__file__).parent
        claims.TABLE = claims.LAB / "claims.md"

        @pytest.fixture(scope="module", params=RELEASED, ids="-".join)
        def lab(request):
            claims.runs_on(request.node, *request.param)
            if request.param == ("bookworm", "ifupdown"):
                raise OSError("does not boot")
            return "-".join(request.param)
    """)
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.claim("1.1", "worst of two")
        @pytest.mark.parametrize("seed", [0, 1])
        def test_seeds(lab, seed):
            assert lab != "trixie-ifupdown" or seed == 0

        @pytest.mark.claim("1.2", "not everywhere")
        @pytest.mark.claim("2.1", "twice")
        def test_native(lab):
            if lab == "bookworm-netplan":
                pytest.xfail("netplan: unknown key")

        def test_ordinary(lab):
            pass
    """
    )
    pytester.runpytest_subprocess("-n", processes, "--dist", "load", "-p", "no:cacheprovider")
    rows = claims.read((pytester.path / "claims.md").read_text())
    assert {row.number: list(cells.values())[:4] for row, cells in rows.items()} == {
        "1.1": ["pass", "**fails**", "pass", "**fails**"],
        "1.2": ["pass", "pass", "can't: netplan: unknown key", "**fails**"],
        "2.1": ["pass", "pass", "can't: netplan: unknown key", "**fails**"],
    }
