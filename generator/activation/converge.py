"""Brings a running host to its target: native tools in an order that loses nothing, then a check.

Devices come up before FRR learns of them. zebra knows a VRF before the VRF's VNI (FRRouting/frr
#17430). A device is deleted when nothing refers to it any more. FRR is started with its file the
first time and reloaded later: a restart drops every session.
"""

from generator.activation import backends, commands, devices, frr, management, nftables, services
from generator.activation.backend import Activation
from generator.activation.commands import Log
from generator.errors import ActivationFailed
from generator.observed import boot, netlink, others, settings
from generator.observed.devices import Difference
from generator.state.record import Record

_DEVICES = "waiting until the devices are as planned"


def converge(activation: Activation, log: Log, say: Log) -> list[str]:
    """Bring a host to its target, and verify it.

    Returns the differences between FRR and its file or the kernel that were repaired. Raises
    `ActivationFailed`.
    """
    changed = activation.changed_files
    if activation.whole or devices.MODULES in changed:
        commands.run(devices.modules(), log)
    nftables.load(activation, log, say)  # before the first device
    devices.repair(activation, log)
    backends.named(activation.target.backend).activate(activation, log)
    _set_kernel(activation, log, say)
    devices.order_rules(activation.target, log)
    devices.remove_stale_addresses(activation, log)
    devices.remove_advertised_routes(activation.target, log)
    _wait_for_devices(activation, log, say)
    repaired = frr.activate(activation, log, say)
    devices.repair(activation, log, all_nics=True)  # a native tool may have changed more
    for unit in boot.disabled(activation.target, activation.root):
        services.enable_at_boot(unit, "at every boot", log)
    management.start_hook(activation, log, say)
    return repaired


def _set_kernel(activation: Activation, log: Log, say: Log) -> None:
    """Set the kernel's settings if they are new or differ; warn about files that override them."""
    root = activation.root
    fresh = activation.whole or devices.SYSCTL in activation.changed_files
    if not fresh and not settings.differences(root, netlink.links()):
        return
    commands.run(devices.sysctl(root), log)
    if not fresh:  # otherwise preflight has warned
        for line in settings.later(root):
            say(f"warning: {line}")


def _wait_for_devices(activation: Activation, log: Log, say: Log) -> None:
    """Wait until the devices are as planned: networkd still works when its tools have returned."""
    left = _wait_with_remedies(activation, log)
    if left and not activation.whole:
        whole = backends.named(activation.target.backend).whole(activation.size)
        say(f"not all devices are as planned: trying {' '.join(whole.argv)}")
        commands.run(whole, log)
        left = _wait_with_remedies(activation, log)
    if left:
        patterns = backends.named(activation.target.backend).nic_files
        suspects = others.setters(activation.root, patterns, left)
        raise ActivationFailed(
            "the devices are not as planned:", *(f"  {text}" for text in [*left, *suspects])
        )


def _wait_with_remedies(activation: Activation, log: Log) -> list[Difference]:
    """Wait while fewer and fewer devices differ, and try remedies; return what still differs."""
    remedies = backends.named(activation.target.backend).remedies
    if not remedies:
        commands.note(_DEVICES, log)
        return commands.until(activation.differences, activation.patience)
    left: list[Difference] = []
    for remedy in remedies:
        remedy(activation, log)
        commands.note(_DEVICES, log)
        left = commands.until(activation.differences, activation.patience / len(remedies))
        if not left:
            break
    return left


def withdraw(applied: Record, log: Log) -> None:
    """Undo an apply on the running host, once its files are removed or the operator's are back."""
    possible = applied.possible_devices
    devices.delete(possible, log)
    devices.remove_all_addresses(possible, log)
    commands.run(backends.named(applied.target.backend).whole(len(possible)), log)
    frr.restart("FRR starts with the files that it had before", log)
    devices.restore_rules(log)
    nftables.remove(log)
