"""What was applied: the record, the last good payload, and earlier generations.

/var/lib/evpn-host/record.json                what the host should be, and whether it is
/var/lib/evpn-host/payload.json               the payload that it came from
/var/lib/evpn-host/generations/<n>/etc/…      every file of each generation kept
/var/lib/evpn-host/kept/etc/…                 copies of an operator's files that ours replaced
"""

import contextlib
import datetime
from pathlib import Path

import msgspec

from generator.desired.model import Device, Management
from generator.desired.target import FormerAddress, Target, Vni
from generator.errors import Problem, Refused, printable
from generator.state import files, stored, tree

STATE = Path("var/lib/evpn-host")
RECORD = STATE / "record.json"
PAYLOAD = STATE / "payload.json"
ORIGIN = STATE / "origin.json"  # of the payload; the one file that is written without the lock
GENERATIONS = STATE / "generations"
KEPT = STATE / "kept"
GOING_BACK = "going back, not ended"  # the `detail` meanwhile
FORMAT = 2  # of the record; raised when an older version can no longer read it


class _Format(msgspec.Struct):
    """The part of a record that any version can read."""

    format: int
    version: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An apply: its number and time, its target, and whether the host reached it.

    `ok` is False from before the first file is written until everything is verified.
    """

    format: int = FORMAT
    version: str
    number: int  # of its entry in the history, and of the folder below `generations`
    time: str  # ISO 8601, UTC
    ok: bool
    detail: str = ""  # why `ok` is False
    activated: bool  # whether this or an earlier apply brought the host up
    inputs: str  # digest of everything from which the files are rendered
    nic_files: str = ""  # digest of the operator's files that configure NICs
    target: Target
    # Until `ok`, earlier devices and addresses may still be there, and have to be removed.
    remaining_devices: list[Device] = []
    remaining_numbered: list[tuple[str, str]] = []
    # The operator's own file may set them again, and then they have to be removed again.
    former_addresses: list[FormerAddress] = []
    origin: int = 0  # the entry that a rollback went back to, 0 for an apply
    started_by: str = ""
    seconds: float = 0.0  # how long it took
    summary: list[str] = []  # what it changed, in network terms

    @property
    def possible_devices(self) -> list[Device]:
        """Every device of ours that may be on the host."""
        return [*self.target.devices, *self.remaining_devices]

    @property
    def possible_numbered(self) -> list[tuple[str, str]]:
        """Every NIC that may have an address of a numbered link because of us."""
        return [*self.target.numbered, *self.remaining_numbered]


class _Format1(msgspec.Struct, frozen=True, kw_only=True):
    """A record of format 1, which had the target's fields among its own."""

    version: str
    ok: bool
    activated: bool
    time: str
    host: str
    generation: int
    serial: int
    backend: str
    asn: int
    inputs: str
    files: dict[str, str]
    devices: list[Device]
    management: Management | None
    sessions: list[str]
    vnis: list[Vni]
    uplinks: list[str] | None = None
    numbered: list[tuple[str, str]] = []
    detail: str = ""

    def converted(self) -> Record:
        """Return the record in today's format."""
        target = Target(
            host=self.host,
            generation=self.generation,
            backend=self.backend,
            asn=self.asn,
            files=self.files,
            devices=self.devices,
            management=self.management,
            sessions=self.sessions,
            vnis=self.vnis,
            uplinks=self.uplinks,
            numbered=self.numbered,
        )
        return Record(
            version=self.version,
            number=self.serial,
            time=self.time,
            ok=self.ok,
            detail=self.detail,
            activated=self.activated,
            inputs=self.inputs,
            target=target,
        )


def decode(data: bytes) -> Record:
    """Return a record of any format up to today's.

    Raises `msgspec.DecodeError`, or `Refused` for a record of a newer version.
    """
    header = stored.decode(data, _Format)
    if header.format > FORMAT:
        rule = f"is of a newer version, {printable(header.version)}"
        raise Refused(Problem(f"/{RECORD}", "", rule, "install that version again"))
    if header.format == 1:
        return stored.decode(data, _Format1).converted()
    return stored.decode(data, Record)


def read(root: Path) -> Record | None:
    """Return the record of the last apply, None if there was none. Raises `Refused`."""
    try:
        return decode(tree.read(root, RECORD, stored.LIMIT))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        hint = "apply --full writes a new one"
        raise Refused(Problem(f"/{RECORD}", "", stored.problem(error), hint)) from None


def now() -> str:
    """Return the time as a record has it: ISO 8601, UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def removed_devices(previous: Record | None, target: Target) -> list[Device]:
    """Return the devices that may be on the host because of us and that a target does not have."""
    names = {device.name for device in target.devices}
    possible = previous.possible_devices if previous else []
    return [device for device in possible if device.name not in names]


def former_addresses(previous: Record | None, target: Target) -> list[FormerAddress]:
    """Return the earlier management addresses, gateways and NICs that a target does not have."""
    if previous is None or target.management is None:
        return []
    old, new = previous.target.management, target.management
    known = list(previous.former_addresses)
    if old:
        known += [FormerAddress(old.ifname, *pair) for pair in old.pairs]
    current = {(new.ifname, *pair) for pair in new.pairs}
    former = {f for f in known if (f.ifname, f.address, f.gateway) not in current}
    return sorted(former, key=lambda f: (f.ifname, f.address, f.gateway or ""))


def write(root: Path, record: Record, payload: bytes | None = None) -> None:
    """Store the record, and the payload if it is known to be good."""
    if payload is not None:
        files.write(root, PAYLOAD, payload, 0o600)
    text = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
    files.write(root, RECORD, text, 0o600)


def begin(root: Path, pending: Record, previous: Record | None) -> None:
    """Store the record of an apply that begins. If that fails, the previous record stays."""
    try:
        write(root, pending)
    except BaseException:  # the file may be in place, and only its flush has failed
        with contextlib.suppress(OSError):
            if previous:
                write(root, previous)
            else:
                remove(root)
        raise


def remove(root: Path) -> None:
    """Remove the record of the last apply."""
    files.remove(root, RECORD)
