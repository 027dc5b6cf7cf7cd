"""docs/operations.md: how long things take on a host of the lab, and what commands print there.

A test calls `write`, which prints the figure. With EVPN_HOST_FIGURES=1 it updates its row under
"Figures" too, and keeps all others. `shown` compares an output with the one in the page, or with
EVPN_HOST_FIGURES=1 writes it there.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lab.fabric import Lab

PAGE = Path(__file__).parents[2] / "docs/operations.md"
BEGIN = "<!-- figures, written by EVPN_HOST_FIGURES=1 tests/run -->\n"
END = "<!-- end of figures -->\n"
HEAD = "| what | system | |\n| --- | --- | --- |\n"


def write(lab: Lab, name: str, figure: str) -> None:
    """Print a figure, and write it down if EVPN_HOST_FIGURES is set."""
    system = f"{lab.machine.suite}-{lab.backend}"
    print(f"{name}, {system}: {figure}")
    if os.environ.get("EVPN_HOST_FIGURES"):
        with Path(__file__).open() as lock:  # other processes write their rows too
            fcntl.flock(lock, fcntl.LOCK_EX)
            PAGE.write_text(updated(PAGE.read_text(), name, system, figure))


def shown(name: str, output: str) -> None:
    """Compare an output with the block of this name in the page, or write it there."""
    place = f"<!-- printed by a test: {name} -->\n```text\n"
    before, mark, rest = PAGE.read_text().partition(place)
    block, end, after = rest.partition("```\n")
    assert mark, f"docs/operations.md has no place for {name}"
    if os.environ.get("EVPN_HOST_FIGURES"):
        PAGE.write_text(before + mark + output + end + after)
    else:
        assert output == block


def updated(page: str, name: str, system: str, figure: str) -> str:
    """Return the page with a figure in its row."""
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {}
    for line in table.removeprefix(HEAD).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0], cells[1]] = cells[2]
    rows[name, system] = figure
    lines = [f"| {' | '.join((*key, rows[key]))} |\n" for key in sorted(rows)]
    return before + BEGIN + HEAD + "".join(lines) + END + after
