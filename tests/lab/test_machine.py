"""What the lab's machine runs under, and what it does where the best is not to be had."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from lab import machine
from lab.machine import Machine
from lab.qemu import QEMU
from lab.result import LabUnavailable
from lab.uml import UML
from tests.lab.conftest import boot

BROKEN = replace(UML, script="echo this computer is too strange >&2; exit 1")


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """No choice was made yet, neither by hand nor by a machine that started."""
    monkeypatch.delenv("EVPN_HOST_LAB_MACHINE", raising=False)
    monkeypatch.setattr(machine, "notes", [])


@pytest.mark.lab
def test_qemu_takes_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where User-Mode Linux does not start, QEMU boots the same disk, and that is said once.

    The machine has the devices of a VTEP, and its disk outlives a power cut.
    """
    monkeypatch.setattr(machine, "KERNELS", [BROKEN, QEMU])
    with ExitStack() as stack:
        emulated = boot(stack, Machine())
        said = capsys.readouterr().err
        assert said.count("qemu takes the place of uml") == 1
        assert "this computer is too strange" in said
        assert machine.kernels() == [QEMU]
        assert machine.patience() > 1
        for device in (
            "Vrf_33 up type vrf table 1033",
            "nbr-26 up master Vrf_33 type bridge",
            "vxlan26 up master nbr-26 type vxlan id 26 local 10.2.0.101 dstport 4789 nolearning",
        ):
            emulated.run(["ip", "link", "add", *device.split()])
        [vxlan] = emulated.run(["ip", "-json", "-detail", "link", "show", "vxlan26"]).json
        assert (vxlan["master"], vxlan["linkinfo"]["info_data"]["id"]) == ("nbr-26", 26)
        text = "".join(f"{number}\n" for number in range(100_000))
        emulated.write("/root/folder/file", text)
        emulated.run(["sync", "/root/folder/file"])
        emulated.reboot(hard=True)
        assert emulated.read("/root/folder/file") == text
        assert emulated.run(["ip", "link", "show", "vxlan26"], check=False).code == 1


@pytest.mark.lab
@pytest.mark.usefixtures("root_user")
def test_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A computer that can do neither is told what each of them said."""
    strange = replace(QEMU, tree=UML.tree, script="echo no room for this >&2; exit 1")
    monkeypatch.setattr(machine, "KERNELS", [BROKEN, strange])
    with pytest.raises(LabUnavailable, match=r"(?s)uml: .*strange[^;]*; qemu: .*room"):
        Machine().__enter__()
    assert not machine.notes


def test_choice_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """EVPN_HOST_LAB_MACHINE leaves one; a word that it does not know is refused."""
    monkeypatch.setattr(machine, "KERNELS", [UML, QEMU])
    monkeypatch.setenv("EVPN_HOST_LAB_MACHINE", "qemu")
    assert machine.kernels() == [QEMU]
    monkeypatch.setenv("EVPN_HOST_LAB_MACHINE", "kvm")
    with pytest.raises(ValueError, match="kvm: is not one of uml, qemu"):
        machine.kernels()
