"""docs/claims.md: which test proves which claim, and on which systems that test has passed.

A lab test has the mark `@pytest.mark.claim("14.1", "sentence")`. A run with EVPN_HOST_CLAIMS=1
writes the outcomes of its tests into the table, and keeps the cells of tests that it did not run.
`python -m tests.lab.claims` updates the rows to today's tests without running any: a new row has no
outcome yet. tests/test_claims.py fails while the rows differ from the tests.

Where a system's own tool can't do what is claimed, the test calls `pytest.xfail(its message)`.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab.systems import NAMES

LAB = Path(__file__).parent
TABLE = LAB.parents[1] / "docs/claims.md"
UNSEEN, PASS, FAIL, CANNOT = "—", "pass", "**fails**", "can't: "

# The chapters of docs/claims.md: the main number of the first claim, and the heading.
PARTS = (
    (1, "Placement and membership"),
    (5, "Data path"),
    (11, "Control plane"),
    (13, "Isolation"),
    (14, "Life of a host"),
    (18, "An apply over SSH"),
    (19, "Neighbours on the same host"),
)
INTRODUCTION = """\
# Claims, and the systems on which they hold

The tests write this page (`EVPN_HOST_CLAIMS=1 tests/run --all`); do not edit it. Each row is a test
in the lab (`lab/README.md`), on a real kernel with the real daemons. A cell has the outcome of the
last run on that system: `pass`, or `—` if the test has not run there yet. If a system's own tool
can't do it, the cell has the tool's message.

| system | |
| --- | --- |
| trixie | Debian 13: systemd 257, FRR 10.3; netplan 1.1 or ifupdown2 3.0 |
| bookworm | Debian 12: systemd 252, FRR 8.4.4 as in Ubuntu 24.04; netplan 0.106 or ifupdown2 3.0 |
| forky | Debian testing (November 2026): systemd 262, FRR 10.7.1; netplan 1.2.2 or ifupdown2 3.0 |

Kernel of the lab: Linux 7.2.
"""


class Claim(NamedTuple):
    """A row of the table: the claim's number, its sentence, and its test (`test_x.py::test_y`)."""

    number: str
    sentence: str
    test: str


Outcomes = Mapping[Claim, Mapping[str, str]]
"""The outcome by system, for each row."""


def claims() -> list[Claim]:
    """Return every claim that a test makes, in order. Reads the tests' source and runs nothing."""
    rows = [
        Claim(number, sentence, f"{path.name}::{function.name}")
        for path in sorted(LAB.glob("test_*.py"))
        for function in ast.parse(path.read_text()).body
        if isinstance(function, ast.FunctionDef)
        for number, sentence in _marks(function)
    ]
    return sorted(rows, key=_order)


def _marks(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Return number and sentence of each claim with which a function is marked."""
    for each in function.decorator_list:
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.claim":
            number, sentence = (ast.literal_eval(argument) for argument in each.args)
            yield number, sentence


def _order(claim: Claim) -> tuple[list[int], str]:
    return [int(part) for part in claim.number.split(".")], claim.test


def read(text: str) -> dict[Claim, dict[str, str]]:
    """Return the rows of a table."""
    rows = {}
    for line in text.splitlines():
        cells = re.split(r"(?<!\\)\|", line.strip("|"))
        cells = [cell.strip().replace(r"\|", "|") for cell in cells]
        if len(cells) == 3 + len(NAMES) and cells[0][:1].isdigit():
            number, sentence, test, *outcomes = cells
            rows[Claim(number, sentence, test.strip("`"))] = dict(zip(NAMES, outcomes, strict=True))
    return rows


def table(rows: Outcomes) -> str:
    """Return the text of docs/claims.md for these rows, part by part."""
    text = INTRODUCTION
    for (first, part), (end, _) in zip(PARTS, (*PARTS[1:], (10**6, "")), strict=True):
        inside = [row for row in sorted(rows, key=_order) if first <= int(float(row.number)) < end]
        if inside:
            text += f"\n## {part}\n\n| | claim | test | {' | '.join(NAMES)} |\n"
            text += f"|{' --- |' * (3 + len(NAMES))}\n"
        for claim in inside:
            outcomes = [rows[claim].get(column, UNSEEN) for column in NAMES]
            cells = [claim.number, claim.sentence, f"`{claim.test}`", *outcomes]
            text += "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"
    return text


def merged(previous: Outcomes, outcomes: Mapping[tuple[str, str], str]) -> Outcomes:
    """The rows of today's tests, with new outcomes by (test, system), else the previous ones."""
    return {
        claim: {
            column: outcomes.get((claim.test, column), previous.get(claim, {}).get(column, UNSEEN))
            for column in NAMES
        }
        for claim in claims()
    }


def write(outcomes: Mapping[tuple[str, str], str]) -> None:
    """Update docs/claims.md to today's tests and to new outcomes by (test, system)."""
    previous = read(TABLE.read_text()) if TABLE.exists() else {}
    TABLE.write_text(table(merged(previous, outcomes)))


# --- During a run: each test reports its system, and one process collects all outcomes ---

SYSTEM = pytest.StashKey[str]()
_outcomes: dict[tuple[str, str], list[str]] = {}


def runs_on(node: pytest.Item | pytest.Collector, suite: str, *backends: str) -> None:
    """Record the system, or the two systems, on which a module's tests run from now on."""
    module = node.getparent(pytest.Module)
    assert module
    module.stash[SYSTEM] = " ".join(f"{suite}-{backend}" for backend in backends)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> None:
    """Add the system to a test's report."""
    module = item.getparent(pytest.Module)
    if module and item.get_closest_marker("claim") and SYSTEM in module.stash:
        item.user_properties[:] = [("system", module.stash[SYSTEM])]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record the outcome of a test, or of one of its parameters."""
    systems = str(dict(report.user_properties).get("system", "")).split()
    outcome = ""
    if report.failed:
        outcome = FAIL
    elif hasattr(report, "wasxfail"):
        outcome = CANNOT + " ".join(report.wasxfail.removeprefix("reason: ").split())
    elif report.passed and report.when == "call":
        outcome = PASS
    test = Path(report.nodeid.partition("[")[0]).name
    for system in systems if outcome else ():
        _outcomes.setdefault((test, system), []).append(outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table if EVPN_HOST_CLAIMS is set; the worst of a test's outcomes counts."""
    is_worker = hasattr(session.config, "workerinput")
    if os.environ.get("EVPN_HOST_CLAIMS") and not is_worker and _outcomes:
        write({key: min(outcomes, key=_badness) for key, outcomes in _outcomes.items()})


def _badness(outcome: str) -> int:
    return [FAIL, CANNOT, PASS].index(CANNOT if outcome.startswith(CANNOT) else outcome)


if __name__ == "__main__":
    write({})
