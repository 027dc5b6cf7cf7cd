"""Asks lldpd which switches are connected to NICs (IEEE 802.1AB)."""

import contextlib
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.errors import ActivationFailed, printable

_SOCKET = Path("/run/lldpd.socket")


# What `lldpcli -f json0` prints (lldpcli(8)): its lists are always lists.
class _Value(msgspec.Struct):
    value: str = ""


class _Chassis(msgspec.Struct):
    name: list[_Value] = []


class _Interface(msgspec.Struct):
    name: str
    chassis: list[_Chassis] = []


class _Neighbors(msgspec.Struct):
    interface: list[_Interface] = []


class _Answer(msgspec.Struct):
    lldp: list[_Neighbors] = []


def switches(log: Log) -> dict[str, str]:
    """Return the name of the switch at the other end, by NIC; nothing if lldpd does not run."""
    if not _SOCKET.exists():
        return {}
    step = Step(("lldpcli", "-f", "json0", "show", "neighbors"), "which switch is where", timeout=5)
    with contextlib.suppress(ActivationFailed):
        return decode(commands.run(step, log))
    return {}


def decode(answer: str) -> dict[str, str]:
    """Return the names in an answer of lldpcli, by NIC; none if it can't be read."""
    try:
        neighbors = msgspec.json.decode(answer, type=_Answer).lldp
    except msgspec.MsgspecError:
        return {}
    return {
        interface.name: printable(chassis.name[0].value, 64)
        for each in neighbors
        for interface in each.interface
        for chassis in interface.chassis
        if chassis.name and chassis.name[0].value
    }
