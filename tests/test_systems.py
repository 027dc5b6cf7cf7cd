"""The gate's table of tests and systems leaves out no claim and no system."""

from __future__ import annotations

import re

import pytest

from tests.lab import claims
from tests.lab.systems import GATE, MORE, NAMES, NEXT, RELEASED, gate

LAB = claims.LAB
# On each system of the gate these tests show that the published example boots, takes a change,
# comes back after a power cut, and fails over.
EVERYWHERE = (
    "test_k8s01.py::test_addresses_are_as_documented",
    "test_k8s01.py::test_a_vnet_comes_changes_and_goes_without_touching_others",
    "test_k8s01.py::test_after_a_power_cut_the_files_alone_bring_all_back",
    "test_failover.py::test_the_address_follows_the_fabric",
)
# The modules that test parts of an apply: both backends and both releases run each of them.
ACTIVATION = (
    "test_k8s01.py",
    "test_life.py",
    "test_going_back.py",
    "test_steps.py",
    "test_refresh.py",
)


def names(systems: tuple[tuple[str, str], ...]) -> set[str]:
    return {"-".join(system) for system in systems}


def test_every_claim_is_in_the_gate() -> None:
    """At least one released system runs its test; the next release is not in the gate."""
    for claim in claims.claims():
        assert gate(claim.test), claim
    for test, systems in (GATE | MORE).items():
        assert set(systems) <= names(RELEASED), test
    assert names(NEXT) <= set(NAMES)


@pytest.mark.parametrize("test", EVERYWHERE)
def test_every_system_is_in_the_gate(test: str) -> None:
    """Each released system boots the example, takes a change, reboots and fails over."""
    module, _, function = test.partition("::")
    assert f"def {function}(" in (LAB / module).read_text()
    assert set(gate(test)) == names(RELEASED)


@pytest.mark.parametrize("module", ACTIVATION)
def test_every_backend_and_release_runs_the_activation(module: str) -> None:
    """Each module that tests a part of an apply runs on every backend and release."""
    for part in {word for system in RELEASED for word in system}:
        assert any(part in name.split("-") for name in GATE[module]), part


def test_the_table_has_each_module_and_each_test() -> None:
    """The table has each module with systems, and no module or test that does not exist."""
    parametrized = {
        path.name
        for path in LAB.glob("test_*.py")
        if re.search(r"^@pytest.fixture\(.*params=", path.read_text(), re.MULTILINE)
    }
    assert parametrized <= GATE.keys()
    for test in (*GATE, *MORE):
        module, _, function = test.partition("::")
        assert (LAB / module).exists(), test
        assert f"def {function}" in (LAB / module).read_text(), test
