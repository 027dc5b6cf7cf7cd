"""The interface of a backend: what it has to provide, and the activation that it gets."""

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
    """What is needed to bring a host from its present state to its target."""

    root: Path
    stage: Path  # the staged files, and the files that the backend's check made from them
    target: Target
    removed: list[Device]  # devices that may exist and that the target does not have
    changed_files: set[str]
    whole: bool = False  # have the native tools take up all files
    first: bool = False  # nothing of ours was ever active here
    previous: Record | None = None  # names what may still exist
    partial: frozenset[str] | None = None  # the only devices to handle; None: all of them

    @property
    def size(self) -> int:
        """The number of devices that the tools have to handle."""
        return len(self.target.devices) + len(self.removed)

    @property
    def patience(self) -> float:
        """Seconds without progress after which waiting ends."""
        return 20 + self.size / 20

    @property
    def previous_loopbacks(self) -> frozenset[str]:
        """The VTEP addresses before this apply."""
        return loopbacks(self.previous.possible_devices if self.previous else [])

    @property
    def previous_sessions(self) -> frozenset[str]:
        """The neighbors of the sessions before this apply."""
        return frozenset(self.previous.target.sessions if self.previous else ())

    @property
    def previous_numbered(self) -> frozenset[tuple[str, str]]:
        """The NICs with our addresses before this apply."""
        return frozenset(self.previous.possible_numbered if self.previous else ())

    def differences(self) -> list[devices.Difference]:
        """Read the kernel, and return the devices and rules that are not as planned."""
        before = self.previous.target.moving_addresses if self.previous else []
        return devices.differences(self.target.devices, [*self.target.moving_addresses, *before])


Remedy = Callable[[Activation, Log], None]


class Backend(Protocol):
    """A tool that configures a host's network from files, such as netplan.

    Its templates are in `templates/<name>`. docs/contributing.md says what another backend takes.
    """

    @property
    def name(self) -> str:
        """Its name in options, in records and of its folder of templates."""

    @property
    def file(self) -> str:
        """The file of ours that `check` reads, without leading slash."""

    @property
    def files(self) -> Sequence[str]:
        """All our files that only this backend has, including `file`."""

    @property
    def drop_ins(self) -> str:
        """A `Path.glob` pattern of our drop-ins, each in its own folder; "" for none."""

    @property
    def foreign_files(self) -> Sequence[str]:
        """Patterns of the operator's files that `check` has to read with ours."""

    @property
    def nic_files(self) -> Sequence[str]:
        """Patterns of files in which an operator may give a NIC its addresses."""

    @property
    def folders(self) -> Sequence[Path]:
        """Folders that the tool needs and does not create."""

    @property
    def notes(self) -> Sequence[Path]:
        """Files in which the tool notes devices, without leading slash."""

    @property
    def unit(self) -> str:
        """The service whose status shows a person what went wrong."""

    @property
    def remedies(self) -> Sequence[Remedy]:
        """What to try, one after the other, while devices are not as planned."""

    def is_used(self, root: Path) -> bool:
        """Whether this tool configures the host. Only for `/` the running system is checked.

        Raises `Refused` if a similar tool that we can't use configures it.
        """

    def locate(self, root: Path, host: Host) -> Host:
        """Return the host with the operator's files to which our settings of a NIC belong."""

    def conflicts(self, root: Path, host: Host) -> list[Problem]:
        """Return why NICs can't be uplinks: our settings would do nothing, or undo others."""

    def lease(self, root: Path, host: Host) -> str | None:
        """Return what to do so that a boot does not wait for a lease of the management NIC.

        "": it does not wait. None: the NIC asks for no lease.
        """

    def digest(self, root: Path) -> str:
        """Return a digest of the operator's files on which `locate` and `conflicts` depend."""

    def refuse_devices(self, root: Path, host: Host) -> None:
        """Raise `Refused` if the tool, as configured here, would not create a device of a host."""

    def check(self, stage: Path, devices: int) -> Step:
        """Return the step with which the tool checks the files below `stage`, for so many devices.

        Raises `NotInstalled`.
        """

    def whole(self, devices: int) -> Step:
        """Return the step with which the tool takes up all of its files."""

    def activate(self, activation: Activation, log: Log) -> None:
        """Have the tool create the devices, and remove those that the target does not have.

        It may return before the tool is done. Raises `ActivationFailed`.
        """

    def remove_notes(self, root: Path) -> None:
        """Remove the tool's notes if their devices do not exist any more."""

    def unchanged_devices(
        self, root: Path, plan: Plan, changes: list[Change], known: Names[str]
    ) -> set[str] | None:
        """Return devices that the tool must handle although they stay the same.

        `known` are the devices of the plan and of the apply before. None: handle all devices.
        """
