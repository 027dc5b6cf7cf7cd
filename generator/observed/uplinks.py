"""Compares the file that networkd has taken for an uplink with the one that has our part."""

from collections.abc import Iterator

from generator.desired.target import Target
from generator.observed import networkd
from generator.observed.devices import Kernel


def differences(target: Target, kernel: Kernel) -> Iterator[str]:
    """Yield for which uplinks networkd has taken another file than expected."""
    for name, expected in target.network_files.items():
        taken = networkd.file_of(kernel.links[name].index) if name in kernel.links else ""
        if taken and taken != expected:
            yield f"{name}: networkd has taken {taken}; our part of it is in {expected}.d"
