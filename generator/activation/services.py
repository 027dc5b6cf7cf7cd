"""Enables systemd's services."""

from generator.activation import commands
from generator.activation.commands import Log, Step


def enable(unit: str, reason: str, log: Log) -> None:
    """Have systemd run a unit now and at every boot, unless it does so already.

    Enabling a unit a second time has systemd reload its units. That takes a second, and has
    netplan's generator write all files of networkd anew; on Debian 12 a unit with a System V script
    takes two seconds more.
    """
    argv = ("systemctl", "show", "--property=UnitFileState,ActiveState", unit)
    state = commands.run(Step(argv, f"{unit}: enabled, and running?"), log).split()
    if not {"UnitFileState=enabled", "ActiveState=active"} <= set(state):
        commands.run(Step(("systemctl", "enable", "--now", unit), reason), log)
