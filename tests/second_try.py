"""Gives lab tests that failed a second try, and says so where all see it (`--second-try`).

A lab test shares two processors with others, so it may fail for reasons that have nothing to do
with a change. When all tests have ended, each lab test that failed runs once more: in a process and
a lab of its own, with nothing beside it. If all pass, the run is green. Its summary shows both
outcomes, and each such test gets a line in a file beside the lab's images, which `--flaky` prints.
There is no second try when a test outside the lab failed, or more than two lab tests.

pytest-rerunfailures, the usual plugin, repeats a test at once: in the same lab, beside the others.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import build

MOST = 2
"""How many lab tests may fail in a run and get a second try."""
REPO = Path(__file__).parents[1]


def record() -> Path:
    """Return the file that lists the tests that passed only at the second try."""
    return build.cache() / "flaky.txt"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--second-try` and `--flaky`."""
    group = parser.getgroup("evpn-host")
    group.addoption(
        "--second-try",
        action="store_true",
        help=f"run up to {MOST} lab tests that failed once more, each alone and in a new lab",
    )
    group.addoption(
        "--flaky",
        action="store_true",
        help="list the lab tests that passed at a second try only; run nothing",
    )


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Print the record when asked for it."""
    if not config.getoption("flaky"):
        return None
    print(record().read_text() if record().exists() else "none so far\n", end="")
    return 0


def pytest_configure(config: pytest.Config) -> None:
    """Watch the run in the process that sees all of it."""
    if config.getoption("second_try") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SecondTry(config), "second-try")


class SecondTry:
    """The tests that failed, and the outcomes of their second tries."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._failed: dict[str, str] = {}
        """Lab tests by id, with the first line of the reason."""
        self._others = 0
        """How many others failed, or could not even be collected."""
        self._outcomes: dict[str, bool] = {}
        """Lab tests that got a second try, and whether they passed."""
        self._output = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that failed."""
        if not report.failed:
            return
        if "lab" in report.keywords:
            self._failed.setdefault(_plain(report), _reason(report))
        else:
            self._others += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be collected."""
        self._others += report.failed

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Try again when all other processes have ended; turn the run green if all pass."""
        if session.exitstatus != pytest.ExitCode.TESTS_FAILED or self._others:
            return
        if not 0 < len(self._failed) <= MOST:
            return
        for test in self._failed:
            self._outcomes[test] = self._passes(test)
        if all(self._outcomes.values()):
            session.exitstatus = pytest.ExitCode.OK
            self._note()

    def _passes(self, test: str) -> bool:
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA"]
        if self._config.getoption("all_of_it", default=False):
            argv.append("--all")
        result = subprocess.run(
            [*argv, f"--rootdir={self._config.rootpath}", str(self._config.rootpath / test)],
            cwd=self._config.rootpath,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self._output += result.stdout + result.stderr
        return result.returncode == 0

    def _note(self) -> None:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record().parent.mkdir(parents=True, exist_ok=True)
        with record().open("a") as file:
            for test, reason in self._failed.items():
                file.write(f"{now} {commit} {test}: {reason}\n")

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> Generator[None, None, None]:
        """Print both outcomes, below all other lines."""
        yield
        if not self._failed:
            return
        terminalreporter.section("second try")
        if not self._outcomes:
            others = f" and {self._others} others" if self._others else ""
            terminalreporter.write_line(
                f"none: {len(self._failed)} lab tests{others} failed;"
                f" only up to {MOST} lab tests, and nothing else, may fail"
            )
        if not all(self._outcomes.values()):
            terminalreporter.write(self._output)
        for test, passed in self._outcomes.items():
            second = "passed alone in a new lab" if passed else "failed again, alone in a new lab"
            terminalreporter.write_line(
                f"{test}: failed ({self._failed[test]}), then {second}", yellow=True
            )
        if self._outcomes and all(self._outcomes.values()):
            terminalreporter.write_line(
                f"the run is green; {record()} has a line for each (tests/run --flaky)", yellow=True
            )


def _plain(report: pytest.TestReport) -> str:
    """Return a test's id without the group that pytest-xdist adds at its end."""
    test, bracket, _ = report.nodeid.partition("]")
    return test + bracket if bracket else test.partition("@")[0]


def _reason(report: pytest.TestReport) -> str:
    """Return one line that says why a test failed."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash else report.longreprtext).splitlines()
    return f"{report.when}: {lines[0][:200] if lines else 'no reason given'}"
