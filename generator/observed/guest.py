"""Reads what this host knows about a guest: the kernel's tables, FRR, and the way to its VTEP."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import msgspec

from generator.desired.target import Target
from generator.observed import devices, evpn, frr, netlink, places, probe
from generator.observed.frr import Session, Silent
from generator.observed.netlink import Entry, Neighbour, Route
from generator.observed.places import Place
from generator.observed.probe import Answer, Probe
from generator.observed.tables import UNREACHABLE, Kernel

_MAIN_TABLE = 254
_NO_MAC = 0x21  # NUD_INCOMPLETE, NUD_FAILED (linux/neighbour.h)
OVERHEAD = 50  # bytes that VXLAN adds to an IP packet of a guest (RFC 7348)


class Port(msgspec.Struct, frozen=True):
    """A port of the V-Net's bridge behind which the guest is."""

    name: str
    up: bool
    carrier: bool
    vlan: int | None


class Bgp(msgspec.Struct, frozen=True, kw_only=True):
    """What FRR knows about the guest."""

    silent: str = ""  # why FRR does not answer
    address: evpn.Guest | None = None
    mac: evpn.Guest | None = None
    freezes: bool = False  # whether an address that moves too often is frozen
    paths: list[evpn.EvpnPath] = []  # type-2
    prefix: evpn.Prefix = evpn.Prefix()  # in the VPC


class Router(msgspec.Struct, frozen=True):
    """A VTEP to which the VPC routes, and whether the kernel can send to it."""

    vtep: str
    mac: str
    sends: bool  # the VXLAN port of the L3VNI has that MAC


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """A next hop to a VTEP."""

    device: str
    gateway: str
    leaf: str  # the switch there, by the payload
    mac: str
    up: bool
    session: str  # state of its EVPN session, "" without one
    bfd: str  # up, down, …, "" when BFD does not watch it

    def __str__(self) -> str:
        return f"{self.device} ({self.leaf})" if self.leaf else self.device


class Vtep(msgspec.Struct, frozen=True):
    """Another VTEP, and the underlay's way to it."""

    address: str
    origin: str  # its AS number, "" if unknown
    prefix: str  # of the route, "" without one
    hops: tuple[Hop, ...]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was read about a guest."""

    subject: str  # the address or MAC in question
    address: str = ""  # "" for a MAC
    mac: str = ""  # "" if unknown
    place: Place
    differences: tuple[str, ...] = ()  # of the devices of the V-Net and its VPC
    own: str = ""  # the device, if the address or MAC is this host's own
    ports: tuple[Port, ...] = ()
    kernel_remote: bool = False  # the bridge sends the MAC to its VXLAN port
    kernel_vtep: str = ""  # to which the VXLAN port sends it
    neighbour: Neighbour | None = None
    bgp: Bgp = Bgp()
    route: Route | None = None  # in the VPC
    routers: tuple[Router, ...] = ()
    vteps: tuple[Vtep, ...] = ()
    sessions: tuple[Session, ...] = ()
    bfd: dict[str, str] = {}  # device, or address of a numbered link, to up, down, …
    answers: dict[Probe, Answer] = {}
    probe_error: str = ""
    bridged_hooks: bool = False  # whether bridged packets pass IP's hooks too (br_netfilter)

    @property
    def family(self) -> Literal["ip", "ip6"]:
        """The address's family, as nftables names it."""
        return "ip6" if ":" in self.address else "ip"

    @property
    def remote(self) -> str:
        """The VTEP that has the guest in the V-Net, by FRR or by the kernel; "" for none."""
        by_frr = (self.bgp.address and self.bgp.address.remote_vtep) or (
            self.bgp.mac and self.bgp.mac.remote_vtep
        )
        return by_frr or self.kernel_vtep

    @property
    def size(self) -> int:
        """The size of the VXLAN packet around a full packet of a guest, in bytes of IP."""
        return self.place.mtu + OVERHEAD


def read(target: Target, kernel: Kernel, place: Place, subject: str, root: Path) -> Facts:
    """Read what is known about an address or a MAC in a V-Net or a VPC, and probe its VTEPs."""
    is_mac = places.is_mac(subject)
    address = "" if is_mac else subject
    neighbour = kernel.neighbour(place.bridge, address) if address and place.bridge else None
    bgp = _bgp(place, address, subject if is_mac else "", neighbour, root)
    mac = subject if is_mac else _mac(neighbour, bgp)
    entries = _entries(kernel, place, mac)
    remote = any(e.bridge and kernel.name(e.index) == place.port for e in entries)
    known = Facts(
        subject=subject,
        address=address,
        mac=mac,
        place=place,
        differences=tuple(_differences(target, place)),
        own=_own(target, kernel, place, address, mac),
        ports=tuple(_ports(kernel, place, entries)),
        kernel_remote=remote,
        # The port's own entry stays, unused, when the guest moves to this host.
        kernel_vtep=next((entry.vtep for entry in entries if entry.vtep and remote), ""),
        neighbour=neighbour,
        bgp=bgp,
        bridged_hooks=_bridged_hooks(root, address),
    )
    return _with_way(known, target, kernel, root)


def _with_way(known: Facts, target: Target, kernel: Kernel, root: Path) -> Facts:
    """Add the VPC's route, the VTEPs and the way to them."""
    route, routers = _routed(kernel, known)
    sessions = _sessions(root)
    origins = {
        _ipv4(hop.ip): path.origin for path in _paths(known.bgp) for hop in path.nexthops if hop.ip
    }
    addresses = [known.remote, *(router.vtep for router in routers)]
    local = bool(known.ports) and not known.remote
    remote = [] if local or known.own else sorted({each for each in addresses if each})
    watched = evpn.bfd(root)
    vteps = tuple(
        _vtep(each, origins.get(each, ""), target, kernel, sessions, watched) for each in remote
    )
    probes = list(_probes(vteps, known.size, kernel))
    answers, error = _probed(min(target.loopbacks, default=""), probes)
    return msgspec.structs.replace(
        known,
        route=route,
        routers=tuple(routers),
        vteps=vteps,
        sessions=tuple(sessions.values()),
        bfd={each.interface or each.peer: each.status for each in watched},
        answers=answers,
        probe_error=error,
    )


def _bridged_hooks(root: Path, address: str) -> bool:
    name = "ip6tables" if ":" in address else "iptables"
    try:
        return (root / f"proc/sys/net/bridge/bridge-nf-call-{name}").read_bytes().strip() == b"1"
    except OSError:  # br_netfilter is not loaded
        return False


def _paths(bgp: Bgp) -> list[evpn.EvpnPath]:
    return [*bgp.paths, *bgp.prefix.paths]


def _sessions(root: Path) -> Mapping[str, Session]:
    try:
        return frr.sessions(root)
    except Silent:
        return {}


def _bgp(place: Place, address: str, mac: str, neighbour: Neighbour | None, root: Path) -> Bgp:
    try:
        by_address = by_mac = None
        paths: list[evpn.EvpnPath] = []
        if place.vni is not None:
            by_address = evpn.address(place.vni, address, root) if address else None
            mac = mac or (by_address.mac if by_address else neighbour.mac if neighbour else "")
            by_mac = evpn.mac(place.vni, mac, root) if mac else None
            paths = evpn.type2(place.vni, mac, address, root) if mac else []
        prefix = evpn.prefix(place.vrf, address, root) if place.vrf and address else evpn.Prefix()
        freezes = evpn.freezes(root)
    except Silent as silent:
        return Bgp(silent=str(silent))
    return Bgp(address=by_address, mac=by_mac, freezes=freezes, paths=paths, prefix=prefix)


def _mac(neighbour: Neighbour | None, bgp: Bgp) -> str:
    """Return the MAC of an address: from FRR for a remote guest, else from the neighbour entry."""
    if bgp.address and bgp.address.remote_vtep:
        return bgp.address.mac
    if neighbour and neighbour.mac and not neighbour.state & _NO_MAC:
        return neighbour.mac
    return bgp.address.mac if bgp.address else ""


def _entries(kernel: Kernel, place: Place, mac: str) -> list[Entry]:
    """Return the entries of a MAC in the V-Net's bridge and in its VXLAN port."""
    bridge, port = kernel.links.get(place.bridge), kernel.links.get(place.port)
    indices = {bridge.index if bridge else 0} - {0}
    own = port.index if port else 0
    return [
        entry
        for entry in kernel.entries
        if entry.mac == mac
        and (entry.bridge in indices or (not entry.bridge and entry.index == own))
    ]


def _ports(kernel: Kernel, place: Place, entries: Iterable[Entry]) -> Iterator[Port]:
    names = {kernel.name(entry.index) for entry in entries if entry.bridge}
    for name in sorted(names - {place.port, place.bridge, ""}):
        link = kernel.links[name]
        yield Port(name, link.up, link.carrier, link.vlan)


def _own(target: Target, kernel: Kernel, place: Place, address: str, mac: str) -> str:
    """Return the device of this host that has the address or the MAC itself, "" for none."""
    names = [place.bridge]
    if target.management and target.management.bridge == place.bridge:
        names.append(target.management.ifname)
    addresses = netlink.addresses()
    for link in (kernel.links[name] for name in names if name in kernel.links):
        has = {each.partition("/")[0] for each in addresses.get(link.index, ())}
        if address in has if address else mac == link.mac:
            return link.name
    return ""


def _differences(target: Target, place: Place) -> Iterator[str]:
    names = {place.bridge, place.port, place.vrf, place.l3vni}
    ours = [each for each in target.devices if each.name in names or each.master == place.l3vni]
    for each in devices.differences([d for d in ours if d.name], target.moving_addresses):
        yield str(each)


def _routed(kernel: Kernel, known: Facts) -> tuple[Route | None, list[Router]]:
    """Return the VPC's route to the guest, and the VTEPs to which it leads."""
    vrf = kernel.links.get(known.place.vrf)
    if vrf is None or vrf.table is None or not known.address:
        return None, []
    route = kernel.longest(vrf.table, known.address)
    if route is None or route.type in UNREACHABLE:
        return None, []
    ports = {link.master: link.index for link in kernel.links.values() if link.kind == "vxlan"}
    l3vni = kernel.links.get(known.place.l3vni)
    routers = []
    for gateway, index in route.hops:
        if gateway and l3vni and index == l3vni.index:
            neighbour = kernel.neighbour(l3vni.name, gateway)
            mac = neighbour.mac if neighbour and not neighbour.state & _NO_MAC else ""
            port = ports.get(index, 0)
            sends = any(
                e.index == port and e.mac == mac and e.vtep == _ipv4(gateway)
                for e in kernel.entries
            )
            routers.append(Router(_ipv4(gateway), mac, bool(mac) and sends))
    return route, routers


def _ipv4(text: str) -> str:
    """Return a VTEP's IPv4 address. As the next hop of an IPv6 route it is IPv4-mapped."""
    address = ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _vtep(  # noqa: PLR0913, PLR0917  # what is known about the underlay
    address: str,
    origin: str,
    target: Target,
    kernel: Kernel,
    sessions: Mapping[str, Session],
    watched: list[evpn.Bfd],
) -> Vtep:
    route = kernel.longest(_MAIN_TABLE, address)
    if route is None or route.type in UNREACHABLE or route.prefix.endswith("/0"):
        return Vtep(address, origin, "", ())
    hops = []
    for gateway, index in route.hops:
        device = kernel.name(index)
        link = kernel.links.get(device)
        neighbour = kernel.neighbour(device, gateway or address)
        session = sessions.get(device) or sessions.get(gateway)
        hops.append(
            Hop(
                device=device,
                gateway=gateway,
                leaf=target.leaves.get(device, target.leaves.get(gateway, "")),
                mac=neighbour.mac if neighbour and not neighbour.state & _NO_MAC else "",
                up=bool(link and link.up and link.carrier),
                session=session.evpn if session else "",
                bfd=_bfd(watched, device, gateway),
            )
        )
    return Vtep(address, origin, route.prefix, tuple(sorted(hops, key=lambda hop: hop.device)))


def _bfd(watched: list[evpn.Bfd], device: str, gateway: str) -> str:
    return next((w.status for w in watched if device == w.interface or gateway == w.peer), "")


def _probes(vteps: Iterable[Vtep], size: int, kernel: Kernel) -> Iterator[Probe]:
    for vtep in vteps:
        for hop in vtep.hops:
            if hop.device in kernel.links:
                for each in (probe.SMALL, size):
                    mtu = kernel.links[hop.device].mtu
                    yield Probe(vtep.address, hop.device, mtu, each)


def _probed(source: str, probes: list[Probe]) -> tuple[dict[Probe, Answer], str]:
    if not probes:
        return {}, ""
    try:
        return probe.send(source, probes), ""
    except OSError as error:
        return {}, error.strerror or str(error)
