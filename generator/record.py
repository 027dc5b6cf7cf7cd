"""What was applied: the record, the last good payload, and the generations before.

/var/lib/evpn-host/record.json                what the host should be, and whether it is
/var/lib/evpn-host/payload.json               the payload that it came from
/var/lib/evpn-host/generations/<n>/etc/…      every file of each generation kept
/var/lib/evpn-host/kept/etc/…                 an operator's files that ours took the place of
"""

import os
import shutil
from pathlib import Path

import msgspec

from generator import files
from generator.errors import Problem, Refused, printable
from generator.model import Bridge, Device, Management

STATE = Path("var/lib/evpn-host")
RECORD = STATE / "record.json"
PAYLOAD = STATE / "payload.json"
GENERATIONS = STATE / "generations"
KEPT = STATE / "kept"
KEEP = 10  # generations
FORMAT = 1  # of the record; raised when a version before could not read it


class Vni(msgspec.Struct, frozen=True):
    """A VNI as FRR should know it."""

    vni: int
    type: str  # "L2" or "L3"
    vrf: str  # the tenant's, or "default"


class _Format(msgspec.Struct):
    """What any version can read of a record."""

    format: int
    version: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The last apply. `ok` is False from before the first file is written until all is verified."""

    format: int = FORMAT
    version: str
    ok: bool
    activated: bool  # whether this or an earlier apply brought the host up
    time: str  # ISO 8601, UTC
    host: str
    generation: int
    serial: int  # counts applies that changed something; names the folder below `generations`
    backend: str
    asn: int
    inputs: str  # digest of all that the files are made from
    files: dict[str, str]  # path to SHA-256 of its content
    devices: list[Device]
    management: Management | None
    sessions: list[str]  # neighbors on which a session is attempted
    vnis: list[Vni]
    uplinks: list[str] | None = None  # their NICs; None: of a version that did not say
    numbered: list[tuple[str, str]] = []  # NICs with our address on a numbered link
    detail: str = ""  # why `ok` is False

    @property
    def moving(self) -> list[str]:
        """The management addresses, which the hook moves between the NIC and a bridge."""
        return [address for address, _ in self.management.pairs] if self.management else []


def read(root: Path) -> Record | None:
    """The record of the last apply, None when there was none. Raises `Refused` when unreadable."""
    try:
        data = (root / RECORD).read_bytes()
        if (found := msgspec.json.decode(data, type=_Format)).format > FORMAT:
            rule = f"is of a newer version, {printable(found.version)}"
            raise Refused(Problem(f"/{RECORD}", "", rule, "install that one again"))
        return msgspec.json.decode(data, type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Refused(f"/{RECORD}: can't be read ({error}); apply --full writes it anew") from None


def vni_of(bridge: Bridge) -> Vni:
    """What FRR should say of a bridge's VNI."""
    return Vni(bridge.port.vni, "L3" if bridge.l3vni else "L2", bridge.vrf or "default")


def write(root: Path, record: Record, payload: bytes | None = None) -> None:
    """Store the record, and the payload with it once it is known to be good."""
    if payload is not None:
        files.write(root / PAYLOAD, payload, 0o600)
    text = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
    files.write(root / RECORD, text, 0o600)


def keep_generation(root: Path, record: Record, texts: dict[str, str]) -> None:
    """Keep the files of a generation that was seen to work, and only the newest few of them."""
    base = root / GENERATIONS
    folder = base / str(record.serial)
    shutil.rmtree(folder, ignore_errors=True)  # of a line of applies whose record was lost
    partial = base / f".{record.serial}"
    shutil.rmtree(partial, ignore_errors=True)
    for path, text in texts.items():
        target = partial / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.write_text(text, errors="surrogateescape")
    (partial / "record.json").write_bytes(msgspec.json.encode(record))
    os.sync()  # all of it before its name: thousands of files, so not one by one
    partial.rename(folder)
    kept = sorted((int(f.name) for f in base.iterdir() if f.name.isdigit()), reverse=True)
    for serial in kept[KEEP:]:
        shutil.rmtree(base / str(serial), ignore_errors=True)


def remove(root: Path) -> None:
    """Forget the last apply: there is none."""
    (root / RECORD).unlink(missing_ok=True)
