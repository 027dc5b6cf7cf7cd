"""The lab as fixtures: `lab`, `host` and `fabric` share a machine, `fresh_lab` boots another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from lab.fabric import Fabric, Host, Lab
from lab.result import LabUnavailable

SUITE = "trixie"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the lab, so that `-m 'not lab'` leaves it out."""
    for item in items:
        if {"lab", "fresh_lab"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("lab")


def boot(stack: ExitStack, suite: str = SUITE, backend: str = "netplan") -> Lab:
    """Boot a lab; where there can be none the test is skipped, or fails if it is required."""
    try:
        return stack.enter_context(Lab(suite, backend))
    except LabUnavailable as reason:
        if os.environ.get("EVPN_HOST_LAB") == "required":
            pytest.fail(f"the lab is required: {reason}")
        pytest.skip(f"no lab here: {reason}")


@pytest.fixture(scope="session")
def shared_labs() -> Iterator[Callable[[str], Lab]]:
    """Give the session's one lab of each suite."""
    labs: dict[str, Lab] = {}
    with ExitStack() as stack:

        def of(suite: str) -> Lab:
            if suite not in labs:
                labs[suite] = boot(stack, suite)
            return labs[suite]

        yield of


@pytest.fixture
def lab(request: pytest.FixtureRequest, shared_labs: Callable[[str], Lab]) -> Lab:
    """Give the session's lab; parametrize indirectly with a suite for another than trixie."""
    return shared_labs(getattr(request, "param", SUITE))


@pytest.fixture
def host(lab: Lab) -> Host:
    """Give the host under test."""
    return lab.host


@pytest.fixture
def fabric(lab: Lab) -> Fabric:
    """Give the fabric around it."""
    return lab.fabric


@pytest.fixture(scope="module")
def fresh_lab() -> Iterator[Callable[..., Lab]]:
    """Boot machines of a module's own: `fresh_lab("trixie", backend="ifupdown")`."""
    with ExitStack() as stack:
        yield lambda suite=SUITE, backend="netplan": boot(stack, suite, backend)
