"""Compares what FRR has with a target."""

from pathlib import Path

from generator.desired.target import Target, Vni
from generator.observed import frr, routes
from generator.observed.routes import Lost


def frr_differences(target: Target, root: Path) -> list[str]:
    """Return what FRR should know and does not, and what the kernel has lost of FRR's."""
    try:
        wrong, lost, unheard = compare_frr(target, root)
    except frr.Silent as silent:
        return [str(silent)]
    return wrong + [f"FRR: {each.text}" for each in lost + unheard]


def compare_frr(target: Target, root: Path) -> tuple[list[str], list[Lost], list[Lost]]:
    """Return what is not as planned, what the kernel lost, and what FRR did not hear.

    Raises `frr.Silent`.
    """
    sessions, vnis = missing_in_frr(target, root)
    wrong = [f"FRR: no session {name}" for name in sessions]
    wrong += [f"FRR: VNI {vni.vni} is {how}" for vni, how in vnis.items()]
    return wrong, routes.lost(root), routes.unheard(target.devices, root)


def missing_in_frr(target: Target, root: Path) -> tuple[list[str], dict[Vni, str]]:
    """Return sessions that FRR does not have, and VNIs that are not as planned: what they are.

    Raises `frr.Silent`.
    """
    sessions = frr.sessions(root)
    known = frr.vnis(root)
    vnis = {}
    for vni in target.vnis:
        shown = known.get(vni.vni)
        if shown is None:
            vnis[vni] = "not known"
        elif (shown.type, shown.tenant_vrf) != (vni.type, vni.vrf):
            vnis[vni] = f"{shown.type} in {shown.tenant_vrf}, not {vni.type} in {vni.vrf}"
    return [name for name in target.sessions if name not in sessions], vnis
