"""Compares a running host with everything that its files set."""

from pathlib import Path

from generator.desired.target import Target, Vni
from generator.observed import (
    boot,
    devices,
    diverted,
    frr,
    management,
    nics,
    routes,
    running,
    settings,
    uplinks,
)
from generator.observed import filter as packet_filter
from generator.observed.devices import Difference, Kernel
from generator.observed.routes import Loss
from generator.state import reloaded


def differences(target: Target, root: Path, *, lasting: bool = True) -> list[str]:
    """Return every difference between the running host and its files.

    Without `lasting` it leaves out what an apply can't change: an uplink that does not exist, a
    routing rule of others, and lines of FRR that a reload has left as they were.
    """
    return [
        *kernel_differences(target, root, lasting=lasting),
        *_frr_differences(target, root, lasting=lasting),
    ]


def kernel_differences(target: Target, root: Path, *, lasting: bool = True) -> list[str]:
    """Return every difference between the kernel and our files."""
    kernel = devices.read()
    listed: list[object] = [
        *(each for each in device_differences(target, kernel) if lasting or not each.lasting),
        *nics.misplaced(target.management, kernel, hook_runs=management.hook_runs(root)),
        *settings.differences(root, kernel.links),
        *packet_filter.differences(target, root),
        *boot.differences(target, root),
        *(uplinks.differences(target, kernel) if lasting else ()),
        *(diverted.findings(target) if lasting else ()),
    ]
    return list(map(str, listed))


def device_differences(target: Target, kernel: Kernel | None = None) -> list[Difference]:
    """Return the differences of devices, of the loopback and uplinks, and of routing rules."""
    kernel = kernel or devices.read()
    ours = devices.differences(target.devices, target.moving_addresses, kernel)
    return ours + nics.differences(target, kernel)


def _frr_differences(target: Target, root: Path, *, lasting: bool) -> list[str]:
    """Return what FRR should know and does not, and what the kernel has lost of FRR's."""
    try:
        wrong, lost, unknown = compare_frr(target, root)
        drift = running.drift(root)
    except frr.Silent as silent:
        return [str(silent)]
    if drift:
        known = reloaded.read(root)
        if drift.digest not in ({known.same} if lasting else {known.same, known.lasting}):
            wrong += drift.texts
    return wrong + [f"FRR: {each.text}" for each in lost + unknown]


def compare_frr(target: Target, root: Path) -> tuple[list[str], list[Loss], list[Loss]]:
    """Return what is not as planned, what the kernel lost, and addresses that FRR does not know.

    Raises `frr.Silent`.
    """
    sessions, vnis = missing_in_frr(target, root)
    wrong = [f"FRR: no session {name}" for name in sessions]
    wrong += [f"FRR: VNI {vni.vni} is {how}" for vni, how in vnis.items()]
    return wrong, routes.losses(root), routes.unknown_addresses(target.devices, root)


def missing_in_frr(target: Target, root: Path) -> tuple[list[str], dict[Vni, str]]:
    """Return sessions that FRR does not have, and VNIs that are not as planned, with their state.

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
