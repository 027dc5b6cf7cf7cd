"""docs/claims.md: which test proves which claim, and on which systems it was seen to pass.

A lab test carries `@pytest.mark.claim("14.1", "sentence")`. Tests that are run with
EVPN_HOST_CLAIMS=1 write what became of them into the table, and leave the cells of those that were
not run. `python -m tests.lab.claims` brings the rows in step with the tests, without running any:
a new row has been seen nowhere. tests/test_claims.py fails while they are out of step.

Where a system's own tool can't do what is claimed, the test says `pytest.xfail(its message)`.
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

# The claims of the documentation by number, and what they are about.
PARTS = (
    (1, "Placement and membership"),
    (5, "Data path"),
    (11, "Control plane"),
    (13, "Isolation"),
    (14, "Life of a host"),
)
INTRODUCTION = """\
# Claims, and where they were seen to hold

Written by the tests (`EVPN_HOST_CLAIMS=1 tests/run --all`), not by hand: each row is a test on a
real kernel with the real daemons, in the lab (`lab/README.md`). `pass` is the outcome of the last
run on that system, `—` means not seen there yet, and where a system's own tool can't do it, its
message stands there.

| system | |
| --- | --- |
| trixie | Debian 13: systemd 257, FRR 10.3; netplan 1.1 or ifupdown2 3.0 |
| bookworm | Debian 12: systemd 252, FRR 8.4.4 as in Ubuntu 24.04; netplan 0.106 or ifupdown2 3.0 |
| forky | Debian testing (November 2026): systemd 262, FRR 10.7.1; netplan 1.2.2 or ifupdown2 3.0 |

Kernel of the lab: Linux 7.2.
"""


class Claim(NamedTuple):
    """A row: the claim's number, its sentence, and the test (`test_x.py::test_y`) of it."""

    number: str
    sentence: str
    test: str


Outcomes = Mapping[Claim, Mapping[str, str]]
"""What stands in each row's columns."""


def claims() -> list[Claim]:
    """Every claim that a test makes, in order; read from their source, so nothing is run."""
    found = [
        Claim(number, sentence, f"{path.name}::{function.name}")
        for path in sorted(LAB.glob("test_*.py"))
        for function in ast.parse(path.read_text()).body
        if isinstance(function, ast.FunctionDef)
        for number, sentence in _marked(function)
    ]
    return sorted(found, key=_order)


def _marked(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    for each in function.decorator_list:
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.claim":
            number, sentence = (ast.literal_eval(argument) for argument in each.args)
            yield number, sentence


def _order(claim: Claim) -> tuple[list[int], str]:
    return [int(part) for part in claim.number.split(".")], claim.test


def read(text: str) -> dict[Claim, dict[str, str]]:
    """The rows of a table."""
    rows = {}
    for line in text.splitlines():
        cells = re.split(r"(?<!\\)\|", line.strip("|"))
        cells = [cell.strip().replace(r"\|", "|") for cell in cells]
        if len(cells) == 3 + len(NAMES) and cells[0][:1].isdigit():
            number, sentence, test, *seen = cells
            rows[Claim(number, sentence, test.strip("`"))] = dict(zip(NAMES, seen, strict=True))
    return rows


def table(rows: Outcomes) -> str:
    """The document of rows, by part."""
    text = INTRODUCTION
    for (first, part), (last, _) in zip(PARTS, (*PARTS[1:], (10**6, "")), strict=True):
        inside = [row for row in sorted(rows, key=_order) if first <= int(float(row.number)) < last]
        if inside:
            text += f"\n## {part}\n\n| | claim | test | {' | '.join(NAMES)} |\n"
            text += f"|{' --- |' * (3 + len(NAMES))}\n"
        for claim in inside:
            seen = [rows[claim].get(column, UNSEEN) for column in NAMES]
            cells = [claim.number, claim.sentence, f"`{claim.test}`", *seen]
            text += "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"
    return text


def merged(there: Outcomes, outcomes: Mapping[tuple[str, str], str]) -> Outcomes:
    """The rows of today's tests: what was seen before, and over it (test, system) to outcome."""
    return {
        claim: {
            column: outcomes.get((claim.test, column), there.get(claim, {}).get(column, UNSEEN))
            for column in NAMES
        }
        for claim in claims()
    }


def write(outcomes: Mapping[tuple[str, str], str]) -> None:
    """Bring the document in step."""
    there = read(TABLE.read_text()) if TABLE.exists() else {}
    TABLE.write_text(table(merged(there, outcomes)))


# --- During a run: each test tells its system, one process collects what became of all ---

SYSTEM = pytest.StashKey[str]()
_seen: dict[tuple[str, str], list[str]] = {}


def runs_on(node: pytest.Item | pytest.Collector, suite: str, *backends: str) -> None:
    """Note which machine, or which two, the tests of a module run on now."""
    module = node.getparent(pytest.Module)
    assert module
    module.stash[SYSTEM] = " ".join(f"{suite}-{backend}" for backend in backends)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> None:
    """Send the machine along with what became of a test."""
    module = item.getparent(pytest.Module)
    if module and item.get_closest_marker("claim") and SYSTEM in module.stash:
        item.user_properties[:] = [("system", module.stash[SYSTEM])]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what became of a test, or of one of its parameters."""
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
        _seen.setdefault((test, system), []).append(outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table when asked for; the worst of a test's outcomes counts."""
    if os.environ.get("EVPN_HOST_CLAIMS") and not hasattr(session.config, "workerinput") and _seen:
        write({key: min(all_of, key=_badness) for key, all_of in _seen.items()})


def _badness(outcome: str) -> int:
    return [FAIL, CANNOT, PASS].index(CANNOT if outcome.startswith(CANNOT) else outcome)


if __name__ == "__main__":
    write({})
