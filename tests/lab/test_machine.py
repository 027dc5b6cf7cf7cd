"""The choice of the kernel for the lab's machine, and the errors if no kernel starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab import machine
from lab.machine import Machine
from lab.qemu import QEMU
from lab.result import LabUnavailable
from lab.uml import UML

BROKEN = replace(UML, script="echo this computer is too strange >&2; exit 1")


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the choice: nobody has chosen by hand, and no machine has started."""
    monkeypatch.delenv("EVPN_HOST_LAB_MACHINE", raising=False)
    monkeypatch.setattr(machine, "notes", [])


@pytest.mark.lab
@pytest.mark.usefixtures("root_user")
def test_the_error_has_the_messages_of_both_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """If neither kernel starts, the error contains the messages of both."""
    broken_qemu = replace(QEMU, tree=UML.tree, script="echo no room for this >&2; exit 1")
    monkeypatch.setattr(machine, "KERNELS", [BROKEN, broken_qemu])
    with pytest.raises(LabUnavailable, match=r"(?s)uml: .*strange[^;]*; qemu: .*room"):
        Machine().__enter__()
    assert not machine.notes


def test_the_environment_chooses_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """EVPN_HOST_LAB_MACHINE selects one kernel; an unknown name is an error."""
    monkeypatch.setattr(machine, "KERNELS", [UML, QEMU])
    monkeypatch.setenv("EVPN_HOST_LAB_MACHINE", "qemu")
    assert machine.kernels() == [QEMU]
    monkeypatch.setenv("EVPN_HOST_LAB_MACHINE", "kvm")
    with pytest.raises(ValueError, match="kvm: is not one of uml, qemu"):
        machine.kernels()
