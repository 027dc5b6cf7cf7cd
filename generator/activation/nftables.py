"""Loads the packet filter: who may send VXLAN into V-Nets, and what guests reach of the host."""

from pathlib import Path

from generator.activation import commands, services
from generator.activation.backend import Activation
from generator.activation.commands import Log, Step
from generator.errors import ActivationFailed, see_gone
from generator.observed import boot
from generator.observed import filter as packet_filter
from generator.state import unfiltered

FILE = "etc/nftables.d/evpn-host.nft"
UNIT = boot.FILTER


def load(activation: Activation, log: Log, say: Log) -> None:
    """Have the kernel filter as the file says, now and from the beginning of each boot.

    A host without nftables works without it, and is told what that means.
    """
    root, target = activation.root, activation.target
    if FILE not in target.files:  # of a version that had none
        remove(log)
        return
    changed = activation.whole or FILE in activation.changed_files
    if changed or packet_filter.differences(target, root):
        _load(root, log, say)
    if packet_filter.limits(root):
        return
    if services.is_installed(UNIT, root):
        services.enable(UNIT, "the filter is there before the first device", log)
    elif changed:
        say(f"warning: {UNIT} is not installed: after a boot nothing filters until the next apply")


def _load(root: Path, log: Log, say: Log) -> None:
    step = Step(("nft", "-f", str(root / FILE)), "only the fabric sends VXLAN into V-Nets")
    try:
        commands.run(step, log)
    except ActivationFailed as failure:
        reason = str(failure).partition("\n")[0]
        unfiltered.write(root, packet_filter.here(reason))
        say(f"warning: {packet_filter.warning(root)}")
    else:
        unfiltered.remove(root)


def remove(log: Log) -> None:
    """Have the kernel forget our tables, if it has them. Raises `ActivationFailed` if one stays."""
    if not packet_filter.rules():
        return
    for family in ("inet", "bridge"):  # one may be missing
        argv = ("nft", "delete", "table", family, packet_filter.TABLE)
        commands.run(Step(argv, "nothing is filtered any more", may_fail=True), log)
    see_gone([f"nftables table {packet_filter.TABLE}"] if packet_filter.rules() else [])
