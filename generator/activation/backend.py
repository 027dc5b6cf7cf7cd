"""What a backend is: what it is given, and what it has to provide."""

from collections.abc import Callable, Sequence
from collections.abc import Set as Names
from pathlib import Path
from typing import Protocol

import msgspec

from generator.activation.commands import Log, Step
from generator.desired.model import Device, Host
from generator.desired.plan import Plan
from generator.desired.target import Target, loopbacks
from generator.errors import Problem
from generator.observed import devices
from generator.state.changes import Change
from generator.state.record import Record


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """The way from what may be on a host to its target."""

    root: Path
    stage: Path  # the staged files, with what the backend's check made of them
    target: Target
    removed: list[Device]  # devices that may be there and that the target does not have
    changed_files: set[str]
    whole: bool = False  # take the native tools' own whole way
    first: bool = False  # nothing of ours was ever active here
    previous: Record | None = None  # names what may still be there
    partial: frozenset[str] | None = None  # devices to be touched; None: all of them

    @property
    def size(self) -> int:
        """How many devices the tools have to deal with."""
        return len(self.target.devices) + len(self.removed)

    @property
    def patience(self) -> float:
        """Seconds without progress after which nothing more is expected."""
        return 20 + self.size / 20

    @property
    def previous_loopbacks(self) -> frozenset[str]:
        """The VTEP's addresses of before."""
        return loopbacks(self.previous.possible_devices if self.previous else [])

    @property
    def previous_sessions(self) -> frozenset[str]:
        """Neighbors on which sessions were attempted before."""
        return frozenset(self.previous.target.sessions if self.previous else ())

    @property
    def previous_numbered(self) -> frozenset[tuple[str, str]]:
        """NICs with addresses that were ours before."""
        return frozenset(self.previous.possible_numbered if self.previous else ())

    def differences(self) -> list[devices.Difference]:
        """Read the kernel: return what of the target's devices and rules is not as planned."""
        before = self.previous.target.moving_addresses if self.previous else []
        return devices.differences(self.target.devices, [*self.target.moving_addresses, *before])


Remedy = Callable[[Activation, Log], None]


class Backend(Protocol):
    """A tool that configures a host's network from files, such as netplan.

    Its templates are in `templates/<name>`. docs/contributing.md says what another backend takes.
    """

    @property
    def name(self) -> str:
        """What options, records and the folder of templates call it."""

    @property
    def file(self) -> str:
        """The file of ours that `check` reads, without leading slash."""

    @property
    def files(self) -> Sequence[str]:
        """All files of ours that the backend alone has, `file` among them."""

    @property
    def drop_ins(self) -> str:
        """A pattern of more files of ours for `Path.glob`, each in a folder of its own; or ""."""

    @property
    def foreign_files(self) -> Sequence[str]:
        """Patterns of the operator's files that `check` has to read together with ours."""

    @property
    def nic_files(self) -> Sequence[str]:
        """Patterns of files in which an operator may give a NIC its addresses."""

    @property
    def folders(self) -> Sequence[Path]:
        """Folders that the tool needs and does not make."""

    @property
    def notes(self) -> Sequence[Path]:
        """Files in which the tool notes devices, without leading slash."""

    @property
    def unit(self) -> str:
        """The service whose status tells a person what went wrong."""

    @property
    def remedies(self) -> Sequence[Remedy]:
        """What helps the tool on, one after the other, while devices are not as planned."""

    def is_used(self, root: Path) -> bool:
        """Whether this tool configures the host; only for `/` the running system is looked at.

        Raises `Refused` if a similar tool does that we can't use.
        """

    def placed(self, root: Path, host: Host) -> Host:
        """Return the host with the operator's files in which our part of a NIC belongs."""

    def conflicts(self, root: Path, host: Host) -> list[Problem]:
        """Return why NICs can't be taken: our part would do nothing, or harm the operator's."""

    def lease(self, root: Path, host: Host) -> str | None:
        """Return what keeps a boot from waiting for a lease of the management NIC.

        "": it does not wait. None: the NIC asks for no lease.
        """

    def digest(self, root: Path) -> str:
        """Return a digest of the operator's files on which `placed` and `conflicts` depend."""

    def refuse_devices(self, root: Path, host: Host) -> None:
        """Raise `Refused` if the tool would not make a device of a host, as it is set up here."""

    def check(self, stage: Path, devices: int) -> Step:
        """Return the tool's own check of the files below `stage`, for so many devices.

        Raises `NotInstalled`.
        """

    def whole(self, devices: int) -> Step:
        """Return the tool's own way to take up all of its files."""

    def activate(self, activation: Activation, log: Log) -> None:
        """Have the tool make the devices, and remove those that the target does not have.

        It may return before all is done. Raises `ActivationFailed`.
        """

    def remove_notes(self, root: Path) -> None:
        """Remove the tool's notes if the devices in them are gone."""

    def touched(
        self, root: Path, plan: Plan, changes: list[Change], known: Names[str]
    ) -> set[str] | None:
        """Return devices that have to be touched although they are to stay as they are.

        `known` are the devices of the plan and of before. None: all devices have to be touched.
        """
