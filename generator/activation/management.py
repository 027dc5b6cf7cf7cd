"""Starts the hook, and waits until it has moved the management address."""

from generator.activation import commands, services
from generator.activation.backend import Activation
from generator.activation.commands import Log, Step
from generator.errors import ActivationFailed
from generator.observed import netlink
from generator.observed.management import HOOK

MOVE_TIMEOUT = 15.0  # seconds: a busy host creates the new bridge, then the hook moves the address


def wait_for_hook(activation: Activation) -> None:
    """Wait until no bridge that will be removed has the management address, but not for ever."""
    if carriers(activation):
        commands.until(lambda: carriers(activation), MOVE_TIMEOUT)


def carriers(activation: Activation) -> list[str]:
    """Return the devices that will be removed and have a management address."""
    removed = [device.name for device in activation.removed]
    moving = set(activation.target.moving_addresses)
    if not removed or not moving:
        return []
    links, addresses = netlink.links(), netlink.addresses()
    return [
        name
        for name in removed
        if name in links and moving & addresses.get(links[name].index, set())
    ]


def successors(activation: Activation) -> list[str]:
    """Return the bridge to which the management address will move, after its ports."""
    management = activation.target.management
    bridge = management.bridge if management else ""
    devices = [d for d in activation.target.devices if bridge in {d.name, d.master}]
    return [device.name for device in sorted(devices, key=lambda d: d.name == bridge)]


def start_hook(activation: Activation, log: Log, say: Log) -> None:
    """Have systemd run the hook now and at every boot, if there is a management address.

    If the address has changed, wait for it. Raises `ActivationFailed` if it does not come.
    """
    if not activation.target.management:
        return
    if services.is_installed(HOOK, activation.root):
        services.enable(HOOK, "the management address follows the fabric", log)
        if _is_renumbered(activation):
            # Otherwise it would read the record only at its next poll.
            restart = ("systemctl", "restart", HOOK)
            commands.run(Step(restart, "the management address has changed"), log)
            commands.note("waiting until the hook has moved the management address", log)
            if left := commands.until(lambda: _misplaced(activation), MOVE_TIMEOUT):
                raise ActivationFailed(*left)
    else:
        say(f"warning: {HOOK} is not installed: the management address stays on the NIC")


def _is_renumbered(activation: Activation) -> bool:
    """Whether addresses, gateways or the NIC have changed."""
    old = activation.previous.target.management if activation.previous else None
    new = activation.target.management
    return bool(old and new and (old.ifname, old.pairs) != (new.ifname, new.pairs))


def _misplaced(activation: Activation) -> list[str]:
    """Return what keeps the host from having exactly the new management address."""
    old = activation.previous.target.management if activation.previous else None
    new = activation.target.management
    if not (old and new):
        return []
    links, addresses = netlink.links(), netlink.addresses()
    on = {
        name: addresses.get(links[name].index, set())
        for name in {old.ifname, old.bridge, new.ifname, new.bridge} & links.keys()
    }
    current = {address for address, _ in new.pairs}
    left = [
        f"{name} still has the old management address {address}"
        for name, present in on.items()
        for address in sorted(present)
        if address in {before for before, _ in old.pairs} - current
    ]
    if on and not any(new.ipv4 in present for present in on.values()):
        left.append(f"the management address {new.ipv4} is on no device")
    return left
