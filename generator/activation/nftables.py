"""Loads the packet filter: who may send VXLAN into V-Nets, and what guests reach on the host."""

from pathlib import Path

from generator.activation import commands, services
from generator.activation.backend import Activation
from generator.activation.commands import Log, Step
from generator.errors import ActivationFailed, check_removed
from generator.observed import boot
from generator.observed import filter as packet_filter
from generator.state import unfiltered

FILE = "etc/nftables.d/evpn-host.nft"
UNIT = boot.FILTER


def load(activation: Activation, log: Log, say: Log) -> None:
    """Have the kernel filter as the file says, now and from the beginning of each boot.

    A host without nftables works without the filter, and gets a warning.
    """
    root, target = activation.root, activation.target
    if FILE not in target.files:  # an older version had no filter
        remove(log)
        return
    changed = activation.whole or FILE in activation.changed_files
    if changed or packet_filter.differences(target, root):
        _load(root, log, say)
    if packet_filter.limits(root):
        return
    if services.is_installed(UNIT, root):
        services.enable(UNIT, "the filter is loaded before the first device exists", log)
    elif changed:
        say(f"warning: {UNIT} is not installed: after a boot nothing filters until the next apply")


def _load(root: Path, log: Log, say: Log) -> None:
    step = Step(("nft", "-f", str(root / FILE)), "only the fabric sends VXLAN into V-Nets")
    try:
        commands.run(step, log)
    except ActivationFailed as failure:
        reason = str(failure).partition("\n")[0]
        unfiltered.write(root, packet_filter.refusal(reason))
        say(f"warning: {packet_filter.warning(root)}")
    else:
        unfiltered.remove(root)


def remove(log: Log) -> None:
    """Remove our tables from the kernel, if it has them. Raises `ActivationFailed` if one stays."""
    if not packet_filter.rules():
        return
    for family in ("inet", "bridge"):  # one may be missing
        argv = ("nft", "delete", "table", family, packet_filter.TABLE)
        commands.run(Step(argv, "the packet filter is removed", may_fail=True), log)
    check_removed([f"nftables table {packet_filter.TABLE}"] if packet_filter.rules() else [])
