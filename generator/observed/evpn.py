"""Reads from FRR what it knows about guests: their MACs, addresses and routes, and BFD's peers."""

from pathlib import Path
from typing import TypeVar

import msgspec

from generator.observed import frr
from generator.observed.frr import Silent

T = TypeVar("T")


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    """Part of an answer of FRR in JSON. A field that a version lacks has its default."""


class Guest(_Answer, frozen=True):
    """A MAC in `show evpn mac …`, or an address in `show evpn arp-cache …`."""

    type: str = ""  # local, remote, or auto: known by its address only
    mac: str = ""  # of an address
    state: str = "active"  # of an address: inactive when the guest no longer answers
    remote_vtep: str = ""
    detection_count: int = 0  # moves that duplicate address detection has counted
    is_duplicate: bool = False


class _Macs(_Answer, frozen=True):
    """The MACs of a VNI in `show evpn mac vni all json`."""

    macs: dict[str, Guest] = {}


class Duplicate(msgspec.Struct, frozen=True, kw_only=True):
    """A MAC that duplicate address detection has marked, or whose address it has marked."""

    vni: int
    mac: str
    addresses: list[str]
    moves: int  # how many FRR has counted
    frozen: bool  # whether FRR has stopped announcing and following it


class _AsPath(_Answer, frozen=True):
    """The AS numbers of a path. The last one has originated it."""

    string: str = ""


class EvpnPath(_Answer, frozen=True):
    """A path of an EVPN route, or of a route in a VRF that came from one."""

    mac: str = ""  # of type 2
    ip: str = ""
    path: str = ""  # AS numbers of an EVPN route
    aspath: _AsPath = _AsPath()  # of a route in a VRF
    nexthops: list[frr.NextHop] = []
    vni: str = ""  # in a VRF; of type 2 `VNI/L3VNI`, of type 5 the L3VNI

    @property
    def origin(self) -> str:
        """The AS number that originated it, "" for this host."""
        last = (self.path or self.aspath.string).split(" ")[-1]
        return last if last.isdigit() else ""


class _Route(_Answer, frozen=True):
    """A route in `show bgp l2vpn evpn route vni VNI json`."""

    paths: list[list[EvpnPath]] = []


class Prefix(_Answer, frozen=True):
    """`show bgp vrf VRF … unicast ADDRESS`: the longest prefix that has the address."""

    prefix: str = ""
    paths: list[EvpnPath] = []


class Bfd(_Answer, frozen=True):
    """A peer in `show bfd peers json`."""

    peer: str = ""
    interface: str = ""
    status: str = ""


def _show(daemon: str, command: str, type_: type[T], root: Path) -> T:
    """Return an answer. If FRR has none, it prints nothing, or a sentence after a `%`."""
    text = frr.ask(daemon, command, root).strip()
    try:
        return msgspec.json.decode("{}" if text[:1] in {"", "%"} else text, type=type_)
    except msgspec.DecodeError as error:
        raise Silent(f"FRR's answer to {command} can't be read: {error}") from None


def vnis_of_address(address: str, root: Path) -> set[int]:
    """Return the VNIs in which FRR knows an address. Raises `Silent`."""
    command = "show evpn arp-cache vni all json"
    # The answer also has the number of addresses.
    shown = _show("zebra", command, dict[int, dict[str, Guest | int]], root)
    return {vni for vni, addresses in shown.items() if address in addresses}


def vnis_of_mac(mac: str, root: Path) -> set[int]:
    """Return the VNIs in which FRR knows a MAC. Raises `Silent`."""
    shown = _show("zebra", "show evpn mac vni all json", dict[int, _Macs], root)
    return {vni for vni, known in shown.items() if mac in known.macs}


def address(vni: int, text: str, root: Path) -> Guest | None:
    """Return what FRR knows about an address in a V-Net. Raises `Silent`."""
    shown = _show("zebra", f"show evpn arp-cache vni {vni} ip {text} json", Guest, root)
    return shown if shown.type else None


def mac(vni: int, text: str, root: Path) -> Guest | None:
    """Return what FRR knows about a MAC in a V-Net. Raises `Silent`."""
    command = f"show evpn mac vni {vni} mac {text} json"
    return _show("zebra", command, dict[str, Guest], root).get(text)


def freezes(root: Path) -> bool:
    """Return whether FRR freezes an address that moves too often, or only warns. Raises `Silent`.

    FRR 8 shows this in JSON only if it releases frozen addresses by itself.
    """
    lines = frr.ask("zebra", "show evpn", root).splitlines()
    return any(line.strip().startswith("Detection freeze") for line in lines)


def duplicates(root: Path) -> list[Duplicate]:
    """Return what duplicate address detection has marked, by VNI and MAC. Raises `Silent`."""
    macs = _show("zebra", "show evpn mac vni all duplicate json", dict[int, _Macs], root)
    command = "show evpn arp-cache vni all duplicate json"
    cached = _show("zebra", command, dict[int, dict[str, Guest | int]], root)
    moves: dict[tuple[int, str], int] = {}
    addresses: dict[tuple[int, str], list[str]] = {}
    for vni, known in macs.items():
        for mac, guest in known.macs.items():
            moves[vni, mac] = guest.detection_count
    for vni, entries in cached.items():
        for address, entry in entries.items():
            if isinstance(entry, Guest):
                key = vni, entry.mac
                moves[key] = max(moves.get(key, 0), entry.detection_count)
                addresses.setdefault(key, []).append(address)
    frozen = bool(moves) and freezes(root)
    return [
        Duplicate(
            vni=vni,
            mac=mac,
            addresses=sorted(addresses.get((vni, mac), [])),
            moves=moves[vni, mac],
            frozen=frozen,
        )
        for vni, mac in sorted(moves)
    ]


def type2(vni: int, mac: str, address: str, root: Path) -> list[EvpnPath]:
    """Return BGP's paths to a guest, by its MAC and, if not "", its address. Raises `Silent`.

    All routes of the V-Net are read: FRR 10 finds none by the MAC alone.
    """
    command = f"show bgp l2vpn evpn route vni {vni} json"
    # The answer also has the number of routes.
    shown = _show("bgpd", command, dict[str, _Route | int | str], root)
    routes = [route for route in shown.values() if isinstance(route, _Route)]
    paths = [path for route in routes for one in route.paths for path in one]
    return [path for path in paths if path.mac == mac and address in {"", path.ip}]


def prefix(vrf: str, address: str, root: Path) -> Prefix:
    """Return BGP's route to an address in a VPC. Raises `Silent`."""
    family = "ipv6" if ":" in address else "ipv4"
    return _show("bgpd", f"show bgp vrf {vrf} {family} unicast {address} json", Prefix, root)


def bfd(root: Path) -> list[Bfd]:
    """Return the peers that BFD watches, none if bfdd does not run."""
    try:
        return _show("bfdd", "show bfd peers json", list[Bfd], root)
    except Silent:
        return []
