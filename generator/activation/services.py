"""Has systemd enable services, and run a command later."""

from collections.abc import Iterable
from pathlib import Path

from generator.activation import commands, units
from generator.activation.commands import Log, Step
from generator.state import tree

_MASKS = ("etc/systemd/system", "run/systemd/system")
_RETRY = 5  # seconds until a command that had nothing to do yet, or failed, runs again


def enable(unit: str, reason: str, log: Log) -> None:
    """Have systemd run a unit now and at every boot, unless it does so already.

    Enabling a unit a second time has systemd reload its units. That takes a second, and has
    netplan's generator rewrite all of networkd's files; on Debian 12 a unit with a System V script
    takes two more seconds.
    """
    argv = ("systemctl", "show", "--property=UnitFileState,ActiveState", unit)
    state = commands.run(Step(argv, f"{unit}: enabled, and running?"), log).split()
    if not {"UnitFileState=enabled", "ActiveState=active"} <= set(state):
        commands.run(Step(("systemctl", "enable", "--now", unit), reason), log)


def is_installed(unit: str, root: Path) -> bool:
    """Whether systemd has a unit."""
    return any((root / folder / unit).exists() for folder in units.FOLDERS)


def masked(names: Iterable[str], root: Path) -> dict[str, str]:
    """Return the masked units, each with the command that unmasks it.

    systemd looks into /etc first. A unit there is not masked by a link in /run.
    """
    unmasking = {}
    for name in names:
        paths = (f"{folder}/{name}" for folder in _MASKS)
        first = next((path for path in paths if tree.status(root, path)), "")
        if first and tree.links_to_nothing(root, first):
            option = " --runtime" if first.startswith("run/") else ""
            unmasking[name] = f"systemctl unmask{option} {name}"
    return unmasking


def is_enabled(unit: str, log: Log) -> bool:
    """Whether systemd starts a unit at boot."""
    step = Step(("systemctl", "is-enabled", unit), f"whether {unit} runs at boot", may_fail=True)
    return commands.run(step, log).strip() == "enabled"


def enable_at_boot(unit: str, reason: str, log: Log) -> None:
    """Have systemd run a unit at the next boot, and not now."""
    commands.run(Step(("systemctl", "enable", unit), reason), log)


def disable_at_boot(unit: str, reason: str, log: Log) -> None:
    """Have systemd not run a unit at boot any more."""
    commands.run(Step(("systemctl", "disable", unit), reason, may_fail=True), log)


def disable(unit: str, reason: str, log: Log) -> None:
    """Have systemd stop a unit, and not run it at boot any more."""
    commands.run(Step(("systemctl", "disable", "--now", unit), reason), log)


def run_later(name: str, seconds: float, arguments: tuple[str, ...], log: Log) -> None:
    """Have systemd run the command with these arguments in so many seconds, even if we have ended.

    It runs again and again until `cancel`, because the command may find that it is too early, or
    may fail. Raises `ActivationFailed`.
    """
    argv = (
        "systemd-run",
        f"--unit={name}",
        f"--on-active={seconds:g}",
        f"--on-unit-inactive={_RETRY}",
        "--timer-property=AccuracySec=100ms",
        # As in evpn-host.service: a DHCP client that ifupdown2 starts must not be killed.
        "--property=KillMode=process",
        "--property=SyslogIdentifier=evpn-host",
        *units.command(),
        *arguments,
    )
    commands.run(Step(argv, "systemd goes back, even if this process ends"), log)


def cancel(name: str, log: Log) -> None:
    """Have systemd not run a command of `run_later` any more. It may be running now."""
    argv = ("systemctl", "stop", f"{name}.timer")
    commands.run(Step(argv, "there is nothing to go back from", may_fail=True), log)
