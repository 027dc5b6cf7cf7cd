"""A failed lab test gets a second try, and nothing else does; the summary always shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.second_try import record

pytest_plugins = "pytester"

Run = Callable[..., tuple[pytest.RunResult, list[str]]]

REPO = Path(__file__).parents[1]
CONFTEST = """
import pytest
pytest_plugins = ["tests.lab.systems", "tests.second_try"]

def pytest_configure(config):
    config.addinivalue_line("markers", "lab: in the lab")

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.xdist_group("a-lab"))
"""
# Tests that fail at the first try only, and a good one; BROKEN always fails.
TESTS = """
import pytest
from pathlib import Path

def once(name):
    tried = Path(__file__).with_name(f"{name}.tried")
    again = tried.exists()
    tried.touch()
    assert again, f"{name} was in a hurry"

@pytest.mark.lab
@pytest.mark.parametrize("name", [FLAKY])
def test_flaky(name):
    once(name)

@pytest.mark.lab
def test_good():
    pass
"""
BROKEN = """
@pytest.mark.lab
def test_broken():
    print("the routers", "believe nothing")
    assert not "again"
"""
OUTSIDE = """
def test_outside():
    once("outside")
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run so many flaky tests and others; return the outcome and the lines of the record."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("EVPN_HOST_LAB_CACHE", str(tmp_path))
    monkeypatch.setenv(
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"
    )  # loading plugins takes half of the time

    def run_tests(flaky: int, more: str = "", *options: str) -> tuple[pytest.RunResult, list[str]]:
        pytester.makeconftest(CONFTEST)
        names = ", ".join(repr(f"flaky{number}") for number in range(flaky))
        pytester.makepyfile(TESTS.replace("FLAKY", names) + more)
        result = pytester.runpytest_subprocess("--second-try", "-p", "no:cacheprovider", *options)
        return result, record().read_text().splitlines() if record().exists() else []

    return run_tests


def test_a_pass_at_the_second_try_makes_the_run_green(run: Run, pytester: pytest.Pytester) -> None:
    """The summary has both outcomes of each test, and the record has a line for each."""
    result, lines = run(2, "", "-p", "xdist", "-n", "2", "--dist", "loadgroup")
    assert result.ret == 0
    for number, line in enumerate(lines):
        reason = f"call: AssertionError: flaky{number} was in a hurry"
        assert f"test_flaky[flaky{number}]: {reason}" in line
        result.stdout.fnmatch_lines(
            [f"*::test_flaky?flaky{number}?: failed ({reason}), then passed alone*"]
        )
    assert len(lines) == 2
    result.stdout.fnmatch_lines(["*the run is green*"])
    result.assert_outcomes(passed=1, failed=2)
    assert pytester.runpytest_subprocess("--flaky").outlines[:2] == lines


def test_a_failure_at_the_second_try_keeps_the_run_red(run: Run) -> None:
    """It stays red although another test passes then; the second try's output is shown."""
    result, lines = run(1, BROKEN)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*::test_broken: failed (*), then failed again*"])
    assert result.stdout.str().count("the routers believe nothing") == 2
    assert not lines


@pytest.mark.parametrize(("flaky", "more"), [(3, ""), (1, OUTSIDE)], ids=["three", "outside"])
def test_other_failures_get_no_second_try(run: Run, flaky: int, more: str) -> None:
    """Three lab tests failed, or one outside the lab: the run is red, and nothing runs again."""
    result, lines = run(flaky, more)
    assert result.ret == 1
    assert "then passed" not in result.stdout.str()
    result.stdout.fnmatch_lines(
        ["none: * failed; only up to 2 lab tests, and nothing else, may fail"]
    )
    assert not lines
