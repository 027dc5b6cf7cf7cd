"""The lab as fixtures: `lab`, `host` and `fabric` share a machine, `fresh_lab` boots a new one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lab import machine
from lab.fabric import Fabric, Host, Lab
from tests.lab.claims import runs_on
from tests.lab.evpn import router_states

SUITE = "trixie"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use the lab, for `-m 'not lab'`; tests that share a lab share a process."""
    for item in items:
        if {"lab", "fresh_lab"} & set(getattr(item, "fixturenames", ())):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            shared = [str(parameters[name]) for name in ("lab", "story") if name in parameters]
            module = item.nodeid.partition("::")[0]
            item.add_marker("lab")
            item.add_marker(pytest.mark.xdist_group("-".join([module, *shared])))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the routers' state to the report of a test that failed in the lab, or in its fixture."""
    report = yield
    if report.failed and call.when != "teardown":
        fixtures = getattr(item, "funcargs", {}).values()
        labs = [each if isinstance(each, Lab) else getattr(each, "lab", None) for each in fixtures]
        for lab in dict.fromkeys(each for each in labs if each):
            report.sections += router_states(lab)
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail unless pytest-xdist has used our marks: it appends the group to an item's id."""
    if getattr(session.config.option, "loadgroup", False):
        grouped = [i for i in session.items if i.get_closest_marker("xdist_group")]
        if any("@" not in item.nodeid.rpartition("::")[2] for item in grouped):
            raise pytest.UsageError("pytest-xdist does not keep the tests of a machine together")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's notes about the machine to pytest-xdist's main process."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["lab"] = machine.notes


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect a worker's notes in the main process; a worker that crashed sends none."""
    notes = getattr(node, "workeroutput", {}).get("lab", [])
    machine.notes.extend(set(notes) - set(machine.notes))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the notes: they say when the tests ran on another kind of machine than usual."""
    for note in machine.notes:
        terminalreporter.write_line(f"lab: {note}")


@pytest.fixture(scope="session")
def shared_labs() -> Iterator[Callable[[str], Lab]]:
    """Give a function from a suite to the session's only lab of that suite."""
    labs: dict[str, Lab] = {}
    with ExitStack() as stack:

        def of(suite: str) -> Lab:
            if suite not in labs:
                labs[suite] = stack.enter_context(Lab(suite))
            return labs[suite]

        yield of


@pytest.fixture
def lab(request: pytest.FixtureRequest, shared_labs: Callable[[str], Lab]) -> Lab:
    """Give the session's lab, with trixie unless an indirect parameter names another suite."""
    suite = getattr(request, "param", SUITE)
    runs_on(request.node, suite, "netplan")
    return shared_labs(suite)


@pytest.fixture
def host(lab: Lab) -> Host:
    """Give the host under test."""
    return lab.host


@pytest.fixture
def fabric(lab: Lab) -> Fabric:
    """Give the fabric around the host."""
    return lab.fabric


@pytest.fixture(scope="module")
def fresh_lab(request: pytest.FixtureRequest) -> Iterator[Callable[..., Lab]]:
    """Give a function that boots a machine for the module and ends the module's previous one.

    Example: `fresh_lab("trixie", backend="ifupdown")`.
    """
    with ExitStack() as stack:

        def another(suite: str = SUITE, backend: str = "netplan") -> Lab:
            stack.close()
            runs_on(request.node, suite, backend)
            return stack.enter_context(Lab(suite, backend))

        yield another
