"""Reads the operator's netplan files: which section is about which NIC, and who renders it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from generator.observed import networkd
from generator.observed.networkd import NetworkFile, Nic
from generator.state import files, tree

FOLDERS = ("run/netplan", "etc/netplan", "lib/netplan")  # the first one with a name wins
NETWORKD, NETWORK_MANAGER = "networkd", "NetworkManager"
PREFIX = "10-netplan-"  # of the names of the files that netplan writes for networkd
_NO_TYPES = {"version", "renderer", "openvswitch"}


class _Match(msgspec.Struct, frozen=True):
    name: str | list[str] = []
    macaddress: str = ""
    driver: str | list[str] = []


class _Definition(msgspec.Struct, frozen=True, rename="kebab"):
    match: _Match | None = None
    set_name: str = ""
    renderer: str = ""
    interfaces: list[str] = []
    dhcp4: bool | str = False  # a text where it is one of YAML 1.1's words, such as yes
    dhcp6: bool | str = False


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's settings for one id, from all files."""

    kind: str  # ethernets, bonds, …
    id: str
    path: str  # of the first file that has it, without leading slash
    renderer: str
    text: str  # the part that we need of networkd's file, which netplan writes for it
    ports: tuple[str, ...]  # ids of the devices that are its ports

    @property
    def place(self) -> str:
        """Where the operator finds it."""
        return f"/{self.path}: {self.kind}.{self.id}"

    @property
    def file_name(self) -> str:
        """The name of networkd's file that netplan writes for it."""
        return f"{PREFIX}{quote(self.id, safe='~')}.network"

    def fits(self, nic: Nic) -> bool:
        """Whether the section matches a device."""
        return networkd.parsed(self.file_name, self.place, self.text).fits(nic)

    def network_file(self, root: Path) -> NetworkFile:
        """Return networkd's file, as netplan writes it."""
        return networkd.with_drop_ins(root, self.file_name, self.place, self.text)


def paths(root: Path) -> list[str]:
    """Return the paths of netplan's files in the order in which it reads them."""
    by_name = {
        name: f"{folder}/{name}"
        for folder in reversed(FOLDERS)
        for name in tree.names(root, folder)
        if name.endswith(".yaml")
    }
    return [path for _, path in sorted(by_name.items())]


def sections(root: Path, ours: str) -> tuple[list[Section], str]:
    """Return the operator's sections, and the renderer of devices without a section.

    `ours` is the path of our own file. A file that can't be read is left out: netplan itself
    reports what is wrong with it.
    """
    merged: dict[tuple[str, str], dict[str, object]] = {}
    places: dict[tuple[str, str], str] = {}
    default = NETWORKD
    for path in paths(root):
        if path == ours:
            continue
        network = _network(root, path)
        default = str(network.get("renderer", default))
        for kind, entries in network.items():
            if kind in _NO_TYPES or not isinstance(entries, dict):
                continue
            renderer = entries.get("renderer")
            for id_, entry in entries.items():
                if id_ == "renderer" or not isinstance(entry, dict | None):
                    continue
                key = (kind, str(id_))
                places.setdefault(key, path)
                of_type = {"renderer": renderer} if renderer and key not in merged else {}
                merged[key] = merged.get(key, {}) | of_type | (entry or {})
    return [_section(key, merged[key], places[key], default) for key in merged], default


def _network(root: Path, path: str) -> dict[str, object]:
    from ruamel.yaml import YAML  # noqa: PLC0415  # only where there are files to read
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    reader = YAML(typ="safe")
    reader.allow_duplicate_keys = True
    with contextlib.suppress(OSError, YAMLError, ValueError, msgspec.ValidationError):
        document = msgspec.convert(reader.load(files.read(root, path)), dict[str, object])
        return msgspec.convert(document.get("network") or {}, dict[str, object])
    return {}


def _section(key: tuple[str, str], entry: dict[str, object], path: str, default: str) -> Section:
    definition = _Definition()
    with contextlib.suppress(msgspec.ValidationError):
        definition = msgspec.convert(entry, _Definition)
    kind, id_ = key
    return Section(
        kind=kind,
        id=id_,
        path=path,
        renderer=definition.renderer or default,
        text="\n".join(["[Match]", *_match(kind, id_, definition), *_dhcp(definition)]),
        ports=tuple(definition.interfaces),
    )


def _match(kind: str, id_: str, definition: _Definition) -> Iterator[str]:
    """Yield what netplan writes into [Match] (append_match_section in networkd.c, 1.2)."""
    match = definition.match
    if kind != "ethernets" or match is None:
        yield f"Name={id_}"
        return
    if match.driver:
        yield f"Driver={_words(match.driver)}"
    if match.macaddress:
        yield f"PermanentMACAddress={match.macaddress}"
    if name := definition.set_name or _words(match.name):
        yield f"Name={name}"


def _dhcp(definition: _Definition) -> Iterator[str]:
    values = (str(each).lower() for each in (definition.dhcp4, definition.dhcp6))
    if any(each in {"true", "yes", "on", "y"} for each in values):
        yield from ("[Network]", "DHCP=yes")


def _words(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)
