"""Finds units that a host needs at boot and systemd does not start then. Runs no command.

If FRR or the hook does not start at boot, the management address stays on the NIC, where the fabric
does not reach it.
"""

from collections.abc import Iterator
from pathlib import Path

from generator.desired.target import Target
from generator.observed import filter as packet_filter
from generator.observed.management import HOOK, hook_runs
from generator.state import tree

FRR = "frr.service"
FILTER = "evpn-host-nftables.service"
_BOOTED = "run/systemd/system"  # sd_booted(3)
_UNITS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")
# Folders with a link to each enabled unit: of `systemctl enable`, `enable --runtime`, a package.
_ENABLED = tuple(
    f"{folder}/*.{kind}"
    for folder in ("etc/systemd/system", "run/systemd/system", *_UNITS[1:])
    for kind in ("wants", "requires")
)


def stopped(target: Target, root: Path) -> list[str]:
    """Return a warning if the hook is installed and does not run, else nothing."""
    unit = any(tree.status(root, f"{folder}/{HOOK}") for folder in _UNITS)
    if target.management and unit and not hook_runs(root):
        return [f"{HOOK} does not run: the management address stays where it is"]
    return []


def differences(target: Target, root: Path) -> list[str]:
    """Return a difference for each needed unit that does not start at boot."""
    return [f"{unit}: does not start at boot" for unit in disabled(target, root)]


def disabled(target: Target, root: Path) -> list[str]:
    """Return the needed units that are installed and do not start at boot."""
    if not tree.is_folder(root, _BOOTED):
        return []
    return [
        unit
        for unit in needed(target, root)
        if any(tree.status(root, f"{folder}/{unit}") for folder in _UNITS)
        and not any(tree.find(root, f"{folder}/{unit}") for folder in _ENABLED)
    ]


def needed(target: Target, root: Path) -> Iterator[str]:
    """Yield the units that a target needs at boot, apart from the backend's."""
    yield FRR
    if target.management:
        yield HOOK
    if target.filter_rules and not packet_filter.limits(root):
        yield FILTER
