"""The lab as fixtures: `lab`, `host` and `fabric` share a machine, `fresh_lab` boots another."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest

from lab import machine
from lab.fabric import Fabric, Host, Lab
from lab.machine import Machine
from lab.result import LabUnavailable
from tests.conftest import unavailable
from tests.lab.claims import runs_on
from tests.lab.evpn import beliefs

SUITE = "trixie"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the lab, for `-m 'not lab'`; what shares one runs in one process."""
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
    """Have a test that failed in the lab say what the routers believed."""
    report = yield
    if report.failed and call.when == "call":
        fixtures = getattr(item, "funcargs", {}).values()
        labs = [each if isinstance(each, Lab) else getattr(each, "lab", None) for each in fixtures]
        for lab in dict.fromkeys(each for each in labs if each):
            report.sections += beliefs(lab)
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """Be sure that pytest-xdist has seen the marks: it puts the group behind an item's id."""
    if getattr(session.config.option, "loadgroup", False):
        blind = [i for i in session.items if i.get_closest_marker("xdist_group")]
        if any("@" not in item.nodeid.rpartition("::")[2] for item in blind):
            raise pytest.UsageError("pytest-xdist does not keep the tests of a machine together")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that asked for the tests what is to be said about the machine."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["lab"] = machine.notes


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear it there, unless the process crashed and said nothing."""
    told = getattr(node, "workeroutput", {}).get("lab", [])
    machine.notes.extend(set(told) - set(machine.notes))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it when the tests ran on another machine than the usual one."""
    for note in machine.notes:
        terminalreporter.write_line(f"lab: {note}")


Booted = TypeVar("Booted", Lab, Machine)


def boot(stack: ExitStack, machine: Booted) -> Booted:
    """Boot a machine or a lab; where there can be none the test is skipped, or fails."""
    try:
        return stack.enter_context(machine)
    except LabUnavailable as reason:
        unavailable(f"no lab here: {reason}")


@pytest.fixture(scope="session")
def shared_labs() -> Iterator[Callable[[str], Lab]]:
    """Give the session's one lab of each suite."""
    labs: dict[str, Lab] = {}
    with ExitStack() as stack:

        def of(suite: str) -> Lab:
            if suite not in labs:
                labs[suite] = boot(stack, Lab(suite))
            return labs[suite]

        yield of


@pytest.fixture
def lab(request: pytest.FixtureRequest, shared_labs: Callable[[str], Lab]) -> Lab:
    """Give the session's lab; parametrize indirectly with a suite for another than trixie."""
    suite = getattr(request, "param", SUITE)
    runs_on(request.node, suite, "netplan")
    return shared_labs(suite)


@pytest.fixture
def host(lab: Lab) -> Host:
    """Give the host under test."""
    return lab.host


@pytest.fixture
def fabric(lab: Lab) -> Fabric:
    """Give the fabric around it."""
    return lab.fabric


@pytest.fixture(scope="module")
def fresh_lab(request: pytest.FixtureRequest) -> Iterator[Callable[..., Lab]]:
    """Boot a module's own machine, and end its last: `fresh_lab("trixie", backend="ifupdown")`."""
    with ExitStack() as stack:

        def another(suite: str = SUITE, backend: str = "netplan") -> Lab:
            stack.close()
            runs_on(request.node, suite, backend)
            return boot(stack, Lab(suite, backend))

        yield another
