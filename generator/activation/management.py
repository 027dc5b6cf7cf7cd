"""Leaves the hook time to move the management address, and sees that the hook runs."""

from generator.activation import commands, services, units
from generator.activation.backend import Activation
from generator.activation.commands import Log
from generator.observed import netlink

HOOK = "evpn-host-failover.service"
LET_GO = 15.0  # seconds for a busy host to make the new bridge, and for the hook to move to it


def wait_for_hook(activation: Activation) -> None:
    """Wait until no bridge that goes carries the management address, but not for ever."""
    if carriers(activation):
        commands.until(lambda: carriers(activation), LET_GO)


def carriers(activation: Activation) -> list[str]:
    """Return the devices that go and have a management address."""
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
    """Return the bridge that the management address is to move to, after its ports."""
    management = activation.target.management
    bridge = management.bridge if management else ""
    devices = [d for d in activation.target.devices if bridge in {d.name, d.master}]
    return [device.name for device in sorted(devices, key=lambda d: d.name == bridge)]


def start_hook(activation: Activation, log: Log, say: Log) -> None:
    """Have systemd run the hook now and at every boot, if there is a management address."""
    if not activation.target.management:
        return
    if any((activation.root / folder / HOOK).exists() for folder in units.FOLDERS):
        services.enable(HOOK, "the management address follows the fabric", log)
    else:
        say(f"warning: {HOOK} is not installed: the management address stays on the NIC")
