"""Compares the file that networkd has applied to an uplink with the one that has our drop-in."""

from collections.abc import Iterator

from generator.desired.target import Target
from generator.observed import networkd
from generator.observed.devices import Kernel


def differences(target: Target, kernel: Kernel) -> Iterator[str]:
    """Yield the uplinks to which networkd has applied another file than expected."""
    for name, expected in target.network_files.items():
        applied = networkd.file_of(kernel.links[name].index) if name in kernel.links else ""
        if applied and applied != expected:
            yield f"{name}: networkd has applied {applied}; our part of it is in {expected}.d"
