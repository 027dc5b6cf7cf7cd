"""Looks whether systemd starts at boot what a host needs then. It asks systemd nothing.

A host whose FRR or hook does not start has its management address on the NIC after a boot, where
nobody in the fabric looks for it.
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
# What `systemctl enable` makes, and `enable --runtime`.
_WANTED = ("etc/systemd/system/*.wants", "run/systemd/system/*.wants")


def stopped(target: Target, root: Path) -> list[str]:
    """Return that somebody has stopped the hook: only `failover --once` moves the address then."""
    unit = any(tree.status(root, f"{folder}/{HOOK}") for folder in _UNITS)
    if target.management and unit and not hook_runs(root):
        return [f"{HOOK} does not run: the management address stays where it is"]
    return []


def differences(target: Target, root: Path) -> list[str]:
    """Return which units do not start."""
    return [f"{unit}: does not start at boot" for unit in disabled(target, root)]


def disabled(target: Target, root: Path) -> list[str]:
    """Return the units that are there and do not start at boot."""
    if not tree.is_folder(root, _BOOTED):
        return []
    return [
        unit
        for unit in _needed(target, root)
        if any(tree.status(root, f"{folder}/{unit}") for folder in _UNITS)
        and not any(tree.find(root, f"{folder}/{unit}") for folder in _WANTED)
    ]


def _needed(target: Target, root: Path) -> Iterator[str]:
    yield FRR
    if target.management:
        yield HOOK
    if target.filter_rules and not packet_filter.limits(root):
        yield FILTER
