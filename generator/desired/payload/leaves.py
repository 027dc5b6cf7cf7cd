"""Derives what each leaf needs for the hosts at its ports, and checks the rules of a leaf."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from generator.desired.model import Bgp, Bridge, Leaf, Port, Vxlan, label
from generator.desired.payload import Payload, decode
from generator.desired.payload.derive import (
    advertisements_of,
    by_vni,
    gateways_of,
    l3_bridge,
    own_mac,
    vrf_of,
)
from generator.desired.payload.document import Link, Server, Vnet, Vpc
from generator.desired.payload.ports import Member
from generator.desired.payload.values import Address4, Asn, HostName, InterfaceName
from generator.errors import Problem, Problems, Refused, did_you_mean, printable

# Placeholders in a file for values that no input has. No tool accepts them as values.
LOOPBACK, ASN = "LOOPBACK", "ASN"
PEER_GROUPS = {"FABRIC", "HOSTS"}  # of templates/leaves: no port may have such a name


class Switch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a payload does not say about a leaf."""

    loopback: Address4
    asn: Asn | UnsetType = UNSET
    uplinks: list[InterfaceName] = []


class _End(NamedTuple):
    """The leaf's end of a link to a host."""

    port: str
    place: str
    server: Server
    link: Link


def switches(data: bytes) -> dict[str, Switch]:
    """Return what a file says about leaves, by their names. Raises `Refused`."""
    raw, problems = decode.parse(data)
    if not isinstance(raw, dict):
        raise Refused(Problem("", decode.shown(raw, quoted=True), "is not an object"))
    by_name = {}
    for name, fields in raw.items():
        before = len(problems)
        values = decode.convert(fields, Switch, printable(name), problems)
        if len(problems) == before:
            by_name[name] = Switch(**values)
    loopbacks = [(f"{name}.loopback", each.loopback) for name, each in by_name.items()]
    problems.extend(_repeated(loopbacks))
    if problems:
        raise Refused(*problems)
    return by_name


class Leaves:
    """The leaves that a payload names. Each is derived only when it is asked for."""

    def __init__(self, payload: Payload, known: Mapping[str, Switch]) -> None:
        """Take a payload, and what else is known about leaves. Raises `Refused`."""
        self._segments = payload.segments
        self._known = known
        self._ends: dict[str, list[_End]] = defaultdict(list)
        self._servers: dict[str, list[tuple[str, Member]]] = defaultdict(list)
        self._asns: dict[str, str] = {}
        problems = Problems()
        for server, links in payload.entries.values():
            for link in links:
                self._add_link(server, link, problems)
        ours = {link.remote.name for _, links in payload.entries.values() for link in links}
        for name in payload.segments.ports.named():
            if name not in ours:
                self._add_server(name)
        hosts = [server for server, _ in payload.entries.values()]
        self._host_addresses = {host.main_address: host.name for host in hosts}
        self._host_asns = {str(int(host.asn)): host.name for host in hosts}
        for leaf in self.names:
            problems.extend(self._check(leaf))
        if problems:
            raise Refused(*problems)

    @property
    def names(self) -> list[str]:
        """The names of the leaves, sorted."""
        return sorted({*self._ends, *self._servers})

    @property
    def warnings(self) -> Iterable[str]:
        """Warnings: values that are missing, and known leaves that the payload does not name."""
        for name in self.names:
            switch = self._known.get(name)
            missing = [LOOPBACK] if switch is None else []
            missing += [ASN] if self._asn(name) == ASN else []
            if missing:
                yield f"{name}: nothing says its {' and '.join(missing)}: the word stands there"
        for name in self._known:
            if name not in self.names:
                hint = did_you_mean(name, self.names)
                beside = f" ({hint})" if hint else ""
                yield f"{printable(name)} is no leaf of this payload{beside}"

    def leaf(self, name: str) -> Leaf:
        """Return what a leaf needs."""
        switch = self._known.get(name)
        loopback = str(switch.loopback) if switch else LOOPBACK
        ports = sorted(self._ports(name), key=lambda port: port.name)
        bridges: list[Bridge] = []
        routed: dict[int, list[Bridge]] = {}
        for vnet in self._vnets(name).values():
            bridges.append(_bridge(vnet, loopback, name))
            if bridges[-1].vrf:
                routed.setdefault(vnet.vpc.id, []).append(bridges[-1])
        vrfs = []
        for id_, inside in sorted(routed.items()):
            vpc: Vpc = self._segments.vpc_by_id[id_]
            if vpc.vni:
                inside.append(l3_bridge(vpc.vni, vpc, inside, loopback, name))
                bridges.append(inside[-1])
            vrfs.append(vrf_of(vpc, inside))
        return Leaf(
            name=name,
            asn=self._asn(name),
            loopback=loopback,
            uplinks=tuple(sorted(set(switch.uplinks))) if switch else (),
            ports=tuple(ports),
            vrfs=tuple(vrfs),
            bridges=by_vni(bridges),
        )

    def _add_link(self, server: Server, link: Link, problems: Problems) -> None:
        place = f"{link.local.name} of host {server.name}"
        port, _, leaf = link.remote.name.rpartition("@")
        owner = f"link {printable(place)}"
        if not (_is(leaf, HostName) and _is(port, InterfaceName)) or port in PEER_GROUPS:
            rule = "names no port of a switch, such as swp9s1@ns-leaf-0"
            problems.append(Problem("remote.name", printable(link.remote.name), rule, whose=owner))
            return
        self._ends[leaf].append(_End(port, owner, server, link))
        if link.remote.asn:
            asn = str(int(link.remote.asn))
            known = self._asns.setdefault(leaf, asn)
            if known != asn:
                rule = f"is not {known}, as another link says of {leaf}"
                problems.append(Problem("remote.asn", asn, rule, whose=owner))

    def _add_server(self, name: str) -> None:
        """Add the port of a server that is no host of ours, if it is untagged in a V-Net.

        A tagged port is left out: no payload has its VLAN number.
        """
        port, _, leaf = name.rpartition("@")
        if _is(leaf, HostName) and _is(port, InterfaceName):
            for member in self._segments.ports.of(name):
                if member.untagged:
                    self._servers[leaf].append((port, member))

    def _check(self, leaf: str) -> Iterable[Problem]:
        """Yield what is wrong with a leaf. The places of the problems name it."""
        switch = self._known.get(leaf)
        ends = self._ends.get(leaf, [])
        yield from _repeated((e.place, _neighbor(e)) for e in ends if _is_routed(e))
        whole = self.leaf(leaf)
        devices = {each.name for each in whole.bridges} | {each.name for each in whole.vxlans}
        devices |= {each.name for each in whole.vrfs}
        named = {port: f"V-Net {member.vnet.name}" for port, member in self._servers.get(leaf, [])}
        named |= {end.port: end.place for end in ends}
        for port, owner in named.items():
            if port in devices:
                rule = f"is the name of a device that {leaf} gets"
                yield Problem("remote.name", port, rule, whose=printable(owner))
        for uplink in switch.uplinks if switch else ():
            if uplink in named:
                rule = f"is a port to a host or server ({printable(named[uplink])})"
                yield Problem(f"{leaf}.uplinks", uplink, rule)
            elif uplink in devices | PEER_GROUPS:
                rule = f"is the name of something that {leaf} gets"
                yield Problem(f"{leaf}.uplinks", uplink, rule)
        if switch and switch.asn and str(int(switch.asn)) != self._asns.get(leaf, self._asn(leaf)):
            rule = f"is not {self._asns[leaf]}, as the payload says"
            yield Problem(f"{leaf}.asn", str(int(switch.asn)), rule)
        if switch and (host := self._host_addresses.get(switch.loopback)):
            rule = f"is the mainAddress of host {host}"
            yield Problem(f"{leaf}.loopback", str(switch.loopback), rule)
        if host := self._host_asns.get(whole.asn):
            rule = f"is the AS number of host {host} too: sessions are eBGP"
            yield Problem(f"{leaf}.asn", whole.asn, rule)

    def _asn(self, leaf: str) -> str:
        switch = self._known.get(leaf)
        return str(int(switch.asn)) if switch and switch.asn else self._asns.get(leaf, ASN)

    def _ports(self, leaf: str) -> Iterable[Port]:
        for end in self._ends.get(leaf, []):
            if _is_routed(end):
                yield _routed_port(end)
            elif vnet := self._access(end):
                yield _access_port(end.port, end.link.local.name, vnet, end.link.mtu or None)
        first: dict[str, Vnet] = {}
        for port, member in self._servers.get(leaf, []):
            first.setdefault(port, member.vnet)
        for port, vnet in first.items():
            yield _access_port(port, f"a server in {vnet.name}", vnet, None)

    def _access(self, end: _End) -> Vnet | None:
        """Return the V-Net of an access port of a host; the management V-Net comes first."""
        untagged = [m.vnet for m in self._segments.ports.of(end.link.remote.name) if m.untagged]
        management = end.server.mgmt.vnet if end.server.mgmt else ""
        untagged.sort(key=lambda vnet: (vnet.name != management, vnet.vxlan_id))
        return untagged[0] if untagged else None

    def _vnets(self, leaf: str) -> dict[int, Vnet]:
        """Return the V-Nets in which a port of the leaf is untagged, by VNI.

        Their gateways are on the leaf.
        """
        members = [member for _, member in self._servers.get(leaf, [])]
        for end in self._ends.get(leaf, []):
            members += [m for m in self._segments.ports.of(end.link.remote.name) if m.untagged]
        return {member.vnet.vxlan_id: member.vnet for member in members}


def _is(text: str, type_: object) -> bool:
    try:
        msgspec.convert(text, type_)
    except msgspec.ValidationError:
        return False
    return True


def _is_routed(end: _End) -> bool:
    return end.link.underlay == "enabled"


def _neighbor(end: _End) -> str:
    return str(end.link.local.ipv4.ip) if end.link.local.ipv4 else end.port


def _routed_port(end: _End) -> Port:
    bgp = end.server.bgp
    return Port(
        name=end.port,
        label=label(end.link.local.name),
        bridge=None,
        mtu=end.link.mtu or None,
        address=str(end.link.remote.ipv4) if end.link.remote.ipv4 else None,
        neighbor=_neighbor(end),
        remote_as=int(end.server.asn),
        loopback=str(end.server.main_address),
        bgp=Bgp(bgp.bfd, bgp.keepalive, bgp.holdtime, bgp.password or None),
    )


def _access_port(name: str, other: str, vnet: Vnet, mtu: int | None) -> Port:
    return Port(name=name, label=label(other), bridge=f"br-{vnet.vxlan_id}", mtu=mtu)


def _bridge(vnet: Vnet, loopback: str, leaf: str) -> Bridge:
    name = f"br-{vnet.vxlan_id}"
    gateways = gateways_of(vnet)
    return Bridge(
        name=name,
        label=label(vnet.name),
        port=Vxlan(
            name=f"vx-{vnet.vxlan_id}",
            vni=vnet.vxlan_id,
            bridge=name,
            local=loopback,
            mtu=vnet.mtu,
            suppress=True,
        ),
        mtu=vnet.mtu,
        mac=_anycast_mac(vnet) if gateways else own_mac(leaf, name),
        vrf=f"Vrf_{vnet.vpc.id}" if gateways else None,
        gateways=gateways,
        ipv6=bool(gateways),
        advertisements=advertisements_of(vnet) if gateways else None,
    )


def _anycast_mac(vnet: Vnet) -> str:
    """Return the MAC of a V-Net's gateways: the payload's, or one derived from the VNI."""
    if vnet.anycast_mac:
        return str(vnet.anycast_mac)
    return f"44:38:39:ff:{vnet.vxlan_id >> 8 & 255:02x}:{vnet.vxlan_id & 255:02x}"


def _repeated(values: Iterable[tuple[str, Hashable]]) -> Iterable[Problem]:
    first: dict[Hashable, str] = {}
    for place, value in values:
        if first.setdefault(value, place) != place:
            yield Problem(place, printable(str(value)), f"is already that of {first[value]}")
