"""The systems on which a lab test runs: in the gate those of a table, with `--all` every system.

A system is a Debian suite and a backend. A module's fixture `lab`, `story` or `both` has a
parameter for each system, and this plugin deselects the systems that a run does not need. `--system
NAME` (repeatable) selects systems in place of the table's. If the command line names a test with
its parameter (`test_x.py::test_y[trixie-netplan]`), the test always runs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

System = tuple[str, str]
"""Suite and backend."""

RELEASES = ("trixie", "bookworm")
NEXT_RELEASES = ("forky",)
BACKENDS = ("netplan", "ifupdown")
RELEASED: tuple[System, ...] = tuple((suite, each) for suite in RELEASES for each in BACKENDS)
NEXT: tuple[System, ...] = tuple((suite, each) for suite in NEXT_RELEASES for each in BACKENDS)
SYSTEMS = (*RELEASED, *NEXT)
NAMES = tuple("-".join(system) for system in SYSTEMS)

# The systems on which the gate runs each module. Each system boots the published example, gets a
# change and loses its power (test_k8s01), and fails over (the core of test_failover). Tests of
# activation run with both backends and on both releases. tests/test_systems.py checks this.
GATE = {
    "test_k8s01.py": ("trixie-netplan", "trixie-ifupdown", "bookworm-netplan", "bookworm-ifupdown"),
    "test_failover.py": ("trixie-netplan",),
    "test_life.py": ("trixie-ifupdown", "bookworm-netplan"),
    "test_guard.py": ("trixie-netplan", "bookworm-ifupdown"),
    "test_going_back.py": ("trixie-netplan", "bookworm-ifupdown"),
    "test_unconfirmed.py": ("trixie-netplan", "bookworm-ifupdown"),
    "test_renumbering.py": ("trixie-netplan", "bookworm-ifupdown"),
    "test_both_ends.py": ("trixie-netplan",),
    "test_changed_by_others.py": ("trixie-netplan",),
    "test_boot.py": ("trixie-netplan",),
    "test_upgrades.py": ("bookworm-ifupdown",),
    "test_preflight_outputs.py": ("trixie-netplan",),
    "test_neighbours.py": ("trixie-netplan",),
    "test_steps.py": ("trixie-netplan", "bookworm-ifupdown"),
    "test_faults.py": ("trixie-netplan",),
    "test_power_cuts.py": ("bookworm-ifupdown",),
    "test_nics.py": ("bookworm-netplan",),
    "test_nics_ifupdown.py": ("bookworm-ifupdown",),
    "test_what_follows.py": ("bookworm-ifupdown",),
    "test_names.py": ("trixie-netplan", "bookworm-ifupdown"),
    "test_refresh.py": ("trixie-netplan", "bookworm-ifupdown"),
    "test_on_and_off.py": ("bookworm-netplan",),
    "test_membership.py": ("trixie-ifupdown",),
    "test_control_plane.py": ("bookworm-netplan",),
    "test_isolation.py": ("trixie-netplan",),
    "test_datapath.py": ("bookworm-ifupdown",),
    "test_silent_guests.py": ("trixie-netplan",),
    "test_moving_guests.py": ("trixie-netplan", "bookworm-ifupdown"),
    "test_router_advertisements.py": ("trixie-netplan",),
    "test_guest_ports.py": ("trixie-ifupdown",),
    "test_trace.py": ("trixie-netplan",),
    "test_emulated.py": ("trixie-netplan",),
    "test_backends_agree.py": ("bookworm-netplan", "bookworm-ifupdown"),
    "test_docs_on_a_host.py": ("trixie-netplan",),
    "test_review_on_a_host.py": ("trixie-netplan",),
    "test_lab.py": ("trixie-netplan",),
    "test_leaves.py": ("bookworm-ifupdown",),
}
# Single tests that run on more systems than their module does.
MORE = {
    "test_silent_guests.py::test_a_floating_address": ("trixie-netplan", "bookworm-ifupdown"),
    "test_failover.py::test_the_address_follows_the_fabric": GATE["test_k8s01.py"],
    "test_what_follows.py::test_a_further_address_of_the_operators_file": (
        "trixie-netplan",
        "bookworm-ifupdown",
    ),
    "test_what_follows.py::test_router_advertisements": ("trixie-netplan", "bookworm-ifupdown"),
}

_outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
"""By system ("": no system), the number of tests with each outcome."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--all` and `--system`."""
    group = parser.getgroup("evpn-host")
    group.addoption(
        "--all",
        action="store_true",
        dest="all_of_it",
        help="run every test on every system, the next ones too, and in its long form",
    )
    group.addoption(
        "--system",
        action="append",
        choices=NAMES,
        default=[],
        dest="systems",
        metavar="NAME",
        help=f"run the lab's tests on this system: {', '.join(NAMES)}",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests on systems that this run does not need."""
    if any("[" in argument for argument in config.args):
        return
    selection = config.getoption("systems") or (NAMES if config.getoption("all_of_it") else ())
    selected: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        systems = set(_systems(item))
        allowed = set(selection) if selection else set(gate(item.nodeid))
        (selected if systems <= allowed else deselected).append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = selected


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the outcome of a test on its system."""
    if "lab" in report.keywords and (report.failed or report.when == "call"):
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        _outcomes[next((name for name in NAMES if name in report.nodeid), "")][outcome] += 1


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the outcomes on each system, and how many tests did not run."""
    for name in (name for name in NAMES if name in _outcomes):
        counts = ", ".join(f"{count} {outcome}" for outcome, count in _outcomes[name].items())
        terminalreporter.write_line(f"lab on {name}: {counts}")
    left_out = len(terminalreporter.stats.get("deselected", []))
    if _outcomes and left_out and not config.getoption("all_of_it"):
        terminalreporter.write_line(f"{left_out} more with tests/run --all, on further systems")


def gate(nodeid: str) -> tuple[str, ...]:
    """Name the systems on which the gate runs a test."""
    test = nodeid.partition("[")[0].rpartition("/")[2]
    return MORE.get(test, GATE.get(test.partition("::")[0], ()))


def _systems(item: pytest.Item) -> Iterator[str]:
    """Name the system of a test, or the systems; none for a test outside the lab."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    for name in ("lab", "story", "both"):
        match parameters.get(name):
            case (suite, backend):
                yield f"{suite}-{backend}"
            case str(suite):
                yield from (f"{suite}-{backend}" for backend in BACKENDS)
