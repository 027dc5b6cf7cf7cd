"""Finds the file that networkd applies to a device.

networkd sorts its `.network` files by name, whatever folder they are in, and applies the first
whose [Match] fits the device (systemd.network(5); net_match_config() in network-util/net-match,
257). Drop-ins in `<file>.d` add to a file.
"""

import contextlib
import fnmatch
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

import msgspec

from generator.desired import plan
from generator.observed import netlink
from generator.observed.pairs import LINK_STATES, pairs
from generator.state import tree

# A file of an earlier folder hides one of the same name in a later folder.
FOLDERS = (
    "etc/systemd/network",
    "run/systemd/network",
    "usr/local/lib/systemd/network",
    "usr/lib/systemd/network",
)
_UDEV = Path("run/udev/data")
_TYPES = {"1": "ether", "772": "loopback"}  # ARPHRD_…, linux/if_arp.h

Words = dict[str, list[str]]


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a device that [Match] can name."""

    name: str
    altnames: tuple[str, ...] = ()
    mac: str = ""
    permanent_mac: str = ""
    driver: str = ""
    type: str = ""
    kind: str = ""
    path: str = ""
    file: str = ""  # the name of the file that networkd has applied to it
    is_known: bool = True  # False: only the name is known

    def values(self, key: str) -> tuple[str, ...] | None:
        """Return what the device has for a key of [Match], None if only networkd knows."""
        known = {
            "Name": (self.name, *self.altnames),
            "MACAddress": (self.mac,),
            "PermanentMACAddress": (self.permanent_mac,),
            "Driver": (self.driver,),
            "Type": (self.type,),
            "Kind": (self.kind,),
            "Path": (self.path,),
        }
        return known.get(key)


class NetworkFile(msgspec.Struct, frozen=True, kw_only=True):
    """A `.network` file with its drop-ins, but not ours."""

    name: str  # such as 20-wired.network
    place: str  # where the operator finds it
    match: Words
    settings: dict[str, str] = {}  # `Section.Key` to the last value

    def fits(self, nic: Nic) -> bool:
        """Whether networkd may apply this file to a device."""
        if not any(self.match.values()):
            return False  # networkd ignores such a file
        if not nic.is_known:  # its other properties may fit
            return "Name" in self.match and _one_fits(self.match["Name"], nic.name)
        for key, patterns in self.match.items():
            values = nic.values(key)
            if values is None:
                if nic.file != self.name:
                    return False
            elif not any(_one_fits(patterns, value) for value in values):
                return False
        return True


def _one_fits(patterns: list[str], value: str) -> bool:
    """Whether a value fits a list of globs, of which those with a `!` exclude."""
    fitting = [p for p in patterns if value and fnmatch.fnmatchcase(value, p.removeprefix("!"))]
    if any(pattern.startswith("!") for pattern in fitting):
        return False
    return bool(fitting) or all(pattern.startswith("!") for pattern in patterns)


def first(files: Iterable[NetworkFile], nic: Nic) -> NetworkFile | None:
    """Return the first file that fits a device; the files are sorted by name."""
    return next((file for file in files if file.fits(nic)), None)


def read_files(root: Path, generated: str) -> Iterator[NetworkFile]:
    """Yield the files, not sorted, but none in /run whose name begins with `generated`."""
    names: set[str] = set()
    for folder in FOLDERS:
        for name in tree.names(root, folder):
            if not name.endswith(".network") or name in names:
                continue
            if folder.startswith("run/") and name.startswith(generated):
                continue
            names.add(name)
            yield with_drop_ins(root, name, f"/{folder}/{name}", _read(root, f"{folder}/{name}"))


def with_drop_ins(root: Path, name: str, place: str, text: str) -> NetworkFile:
    """Return a file with this text, and with the drop-ins that others have written for it."""
    drop_ins: dict[str, str] = {}
    for folder in reversed(FOLDERS):
        below = f"{folder}/{name}.d"
        drop_ins |= {n: f"{below}/{n}" for n in tree.names(root, below) if n.endswith(".conf")}
    others = [_read(root, path) for _, path in sorted(drop_ins.items())]
    return parsed(name, place, text, *(other for other in others if not plan.ours(other)))


def parsed(name: str, place: str, *texts: str) -> NetworkFile:
    """Return what a file and its drop-ins say."""
    match: Words = {}
    settings: dict[str, str] = {}
    for text in texts:
        _parse(text, match, settings)
    return NetworkFile(name=name, place=place, match=match, settings=settings)


def _read(root: Path, path: str) -> str:
    """Return a file's text, "" if it is masked or can't be read."""
    with contextlib.suppress(OSError):
        return tree.read(root, path).decode(errors="replace")
    return ""


def _parse(text: str, match: Words, settings: dict[str, str]) -> None:
    """Add a text's settings. Words are added to [Match]; an empty value removes those before it."""
    section = ""
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        if line.startswith(("[", "#", ";")) or "=" not in line:
            continue
        key, _, value = (part.strip() for part in line.partition("="))
        if section != "Match":
            settings[f"{section}.{key}"] = value
        elif not value:
            match[key] = []
        else:
            match.setdefault(key, []).extend(_words(key, value))


def _words(key: str, value: str) -> Iterator[str]:
    """Yield the patterns of a line; a `!` before the first one inverts all of them."""
    excludes = "!" if value.startswith("!") else ""
    for word in value.removeprefix("!").split():
        plain = word.strip("\"'")
        yield excludes + (_mac(plain) if key.endswith("MACAddress") else plain)


def _mac(text: str) -> str:
    """Return a MAC in the kernel's form, from any form that systemd reads."""
    digits = text.lower().replace(":", "").replace("-", "").replace(".", "")
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def nics(root: Path, without: Set[str]) -> dict[str, Nic]:
    """Return this machine's devices by name, but not those of `without`; none for another root."""
    if root != Path("/"):
        return {}
    return {n: _nic(link) for n, link in netlink.links().items() if n not in without}


def _nic(link: netlink.Link) -> Nic:
    udev = dict(pairs(_UDEV / f"n{link.index}", "E:"))
    device = Path("/sys/class/net") / link.name
    kind = dict(pairs(device / "uevent")).get("DEVTYPE", "")
    number = ""
    with contextlib.suppress(OSError):
        number = (device / "type").read_bytes().decode().strip()
    return Nic(
        name=link.name,
        altnames=link.altnames,
        mac=link.mac,
        permanent_mac=link.permanent_mac,
        driver=udev.get("ID_NET_DRIVER", link.kind),
        type=kind or _TYPES.get(number, ""),
        kind=link.kind,
        path=udev.get("ID_PATH", ""),
        file=file_of(link.index),
    )


def file_of(index: int) -> str:
    """Return the name of the file that networkd has applied to a device, "" if there is none."""
    return dict(pairs(LINK_STATES / str(index))).get("NETWORK_FILE", "").rpartition("/")[2]


def digest(root: Path, own_prefixes: tuple[str, ...], generated: str) -> str:
    """Return a digest of the files and drop-ins of others, without reading them.

    Names with one of `own_prefixes` are left out: with 1,000 V-Nets there are thousands. So are
    files below /run whose names begin with `generated`: their tool rewrites them each time.
    """
    parts = []
    for folder in FOLDERS:
        for name in tree.names(root, folder):
            if name.startswith(own_prefixes):
                continue
            if name.endswith(".network"):
                if folder.startswith("run/") and name.startswith(generated):
                    continue
                parts.append(stamp(root, f"{folder}/{name}"))
            elif name.endswith(".network.d"):
                below = tree.names(root, f"{folder}/{name}")
                others = (each for each in below if each != "evpn-host.conf")
                parts += [stamp(root, f"{folder}/{name}/{each}") for each in others]
    return plan.digest(*parts)


def stamp(root: Path, path: str) -> str:
    """Return a text that changes whenever a file changes."""
    status = tree.status(root, path)
    return f"{path} {status.st_ino} {status.st_size} {status.st_mtime_ns}" if status else path
