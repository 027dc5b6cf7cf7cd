"""Checks what no single field shows: references, duplicates, overlaps, rules between fields.

A field that did not decode is absent here, and such an element of a list is None. The rest is
checked, so that one wrong character does not hide the other problems of a document.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any

from netaddr import IPAddress, IPNetwork

from generator.desired.model import VXLAN_OVERHEAD
from generator.desired.payload import advertisements
from generator.desired.payload.decode import Sections
from generator.desired.payload.document import Link, Mgmt, Server, Vnet, Vpc
from generator.desired.payload.fleet import OtherServer
from generator.desired.payload.ports import Members, Ports
from generator.errors import Problem, Problems, printable

_AS_LOOPBACK = "is the VTEP's mainAddress as well"

Value = tuple[str, Hashable, str]  # place, value, and the name of what has it


class Segments:
    """The VPCs and V-Nets of a document, checked once and indexed for all of its hosts."""

    def __init__(
        self,
        document: Sections,
        ports: Ports,
        raw: dict[str, Any],
        problems: Problems,
        *,
        complete: bool = True,
    ) -> None:
        """Take the V-Nets of a document with their ports.

        `complete` says whether these are all V-Nets: an ill-formed one may be missing.
        """
        vpcs = document.get("vpcs")
        self.vpcs = {f"vpcs[{index}]": vpc for index, vpc in enumerate(vpcs or []) if vpc}
        self.vnets = ports.vnets
        self.ports = ports
        # A reference to an ill-formed element is not a second problem.
        self.ill_formed_vnets = _named(raw.get("vnets"), document.get("vnets"), "name", str)
        if not complete:
            self.ill_formed_vnets = _Anything()
        self.ill_formed_vpcs = _named(raw.get("vpcs"), vpcs, "id", int)
        self.vpc_by_id = {vpc.id: vpc for vpc in self.vpcs.values()}
        self.vnet_by_name: dict[str, tuple[str, Vnet]] = {}
        for place, vnet in self.vnets.items():
            self.vnet_by_name.setdefault(vnet.name, (place, vnet))
        self._check(problems)

    def is_untagged(self, vnet: str, port: str) -> bool:
        """Whether a port is untagged in the active V-Net of a name."""
        if vnet not in self.vnet_by_name:
            return False
        return self.ports.is_untagged(self.vnet_by_name[vnet][0], port)

    def _check(self, problems: Problems) -> None:
        vpcs, vnets = self.vpcs, self.vnets
        problems.extend(_repeated((f"{p}.id", v.id, _vpc(v)) for p, v in vpcs.items()))
        problems.extend(_repeated((f"{p}.name", v.name, "") for p, v in vpcs.items()))
        problems.extend(_repeated((f"{p}.name", v.name, "") for p, v in vnets.items()))
        vnis = [(f"{p}.vni", v.vni, _vpc(v)) for p, v in vpcs.items() if v.vni]
        vnis += [(f"{p}.vxlanID", v.vxlan_id, _vnet(v)) for p, v in vnets.items()]
        problems.extend(_repeated(vnis))
        prefixes: dict[int, list[tuple[str, IPNetwork, str]]] = defaultdict(list)
        for place, vnet in vnets.items():
            problems.extend(self._check_vnet(place, vnet))
            for number, gateway in enumerate(vnet.gateways):
                where = f"{place}.gateways[{number}].prefix"
                prefixes[vnet.vpc.id].append((where, gateway.prefix, _vnet(vnet)))
        for id_, members in prefixes.items():
            problems.extend(_overlaps(members, id_))

    def _check_vnet(self, place: str, vnet: Vnet) -> Iterable[Problem]:
        if vnet.vpc.id not in self.vpc_by_id and vnet.vpc.id not in self.ill_formed_vpcs:
            # The V-Nets of a Server Cluster have its VPC.
            where = f"{place.partition('.')[0]}.vpc.id"
            yield Problem(where, str(vnet.vpc.id), "is no VPC of this payload")
        if vnet.l2only and vnet.gateways:
            yield Problem(f"{place}.l2only", "true", "can't stand together with gateways")
        if vnet.l3vpn:
            yield Problem(f"{place}.l3vpn", "true", "is not supported on a host")
        if vnet.vlan_aware:
            yield Problem(f"{place}.vlanAware", "true", "is not supported on a host")
        yield from _repeated(
            (f"{place}.ports[{i}].name", p.name, "") for i, p in enumerate(vnet.ports)
        )
        if vnet.ipv6_neighbor_discovery:
            routed = any(gateway.prefix.version == 6 for gateway in vnet.gateways)
            where = f"{place}.ipv6NeighborDiscovery"
            yield from advertisements.check(where, vnet.ipv6_neighbor_discovery, routed=routed)


def active(vnets: list[Vnet | None] | None) -> dict[str, Vnet]:
    """Return the V-Nets of a document by place. A disabled one counts as absent."""
    return {
        f"vnets[{index}]": vnet
        for index, vnet in enumerate(vnets or [])
        if vnet and vnet.state == "active"
    }


def _vnet(vnet: Vnet) -> str:
    return f"V-Net {printable(vnet.name)}"


def _vpc(vpc: Vpc) -> str:
    return f"VPC {printable(vpc.name)}"


class _Anything(frozenset[Hashable]):
    """The unknown names of ill-formed elements: a reference may mean any of them."""

    def __contains__(self, _: object) -> bool:
        return True


def _named(raw: Any, decoded: list[Any] | None, field: str, kind: type) -> frozenset[Hashable]:
    """Return the names that the ill-formed elements of a list have."""
    if decoded is None:
        return _Anything()
    ill_formed = [raw[index] for index, element in enumerate(decoded) if element is None]
    names = [element.get(field) for element in ill_formed if isinstance(element, dict)]
    sound = len(names) == len(ill_formed) and all(type(name) is kind for name in names)
    return frozenset(names) if sound else _Anything()


def _repeated(values: Iterable[Value]) -> Iterable[Problem]:
    first: dict[Hashable, tuple[str, str]] = {}
    for place, value, owner in values:
        if value in first:
            other, of = first[value]
            rule = f"is already {other} of {of}" if of else f"is already {other}"
            yield Problem(place, printable(str(value)), rule)
        else:
            first[value] = place, owner


def _overlaps(prefixes: list[tuple[str, IPNetwork, str]], vpc: int) -> Iterable[Problem]:
    """Find prefixes of one VPC that overlap. When sorted, the widest so far covers the next."""
    bounds = sorted(
        (prefix.version, prefix.first, -prefix.last, place, prefix, owner)
        for place, prefix, owner in prefixes
    )
    widest: tuple[int, int, str, IPNetwork, str] | None = None
    for version, first, last, place, prefix, owner in bounds:
        if widest and version == widest[0] and first <= widest[1]:
            rule = f"overlaps {widest[2]} ({widest[3]}) of {widest[4]} in VPC {vpc}"
            yield Problem(place, str(prefix), rule)
        if not widest or version != widest[0] or -last > widest[1]:
            widest = (version, -last, place, prefix, owner)


def check_host(
    place: str,
    entry: Sections,
    segments: Segments,
    problems: Problems,
    warnings: list[Problem],
) -> None:
    """Check the rules of one host. All its places begin with `place`."""
    server: Server | None = entry.get("server")
    links = {f"{place}links[{i}]": link for i, link in enumerate(entry.get("links") or []) if link}
    problems.extend(_repeated((f"{p}.local.ifname", k.local.ifname, "") for p, k in links.items()))
    numbered = {p: k for p, k in links.items() if k.local.ipv4 and k.remote.ipv4}
    for end in ("local", "remote"):
        addresses = ((p, getattr(k, end).ipv4.ip) for p, k in numbered.items())
        problems.extend(_repeated((f"{p}.{end}.ipv4", ip, "") for p, ip in addresses))
    for where, link in links.items():
        problems.extend(_check_link(where, link, server))
    members = segments.ports.members(links.values())
    problems.extend(_check_members(members, server))
    nics = {link.local.ifname: f"{p}.local.ifname" for p, link in links.items()}
    for name, owner in _devices(members, segments):
        if name in nics:
            problems.append(Problem(nics[name], name, f"is the name of a device of {owner}"))
    if server:
        where = f"{place}server"
        if 3 * server.bgp.keepalive > server.bgp.holdtime:
            rule = f"is less than 3 × keepalive ({server.bgp.keepalive})"
            problems.append(Problem(f"{where}.bgp.holdtime", str(server.bgp.holdtime), rule))
        if server.mgmt:
            complete = "links" in entry and None not in entry["links"]
            nic = _check_management_nic(f"{where}.mgmt", server.mgmt, links, segments, complete)
            problems.extend(nic)
            problems.extend(_check_management(f"{where}.mgmt", server.mgmt, server))
        elif entry.get("links"):
            problems.append(Problem(f"{where}.mgmt", "", "is required when there is a link"))
        warnings.extend(_check_mtu(links, members))


def _check_link(place: str, link: Link, server: Server | None) -> Iterable[Problem]:
    ours, theirs = link.local.ipv4, link.remote.ipv4
    if server and ours and ours.ip == server.main_address:
        yield Problem(f"{place}.local.ipv4", str(ours), _AS_LOOPBACK)
    if ours and theirs:
        if ours.cidr != theirs.cidr:
            rule = f"is not in the subnet of local.ipv4 ({ours})"
            yield Problem(f"{place}.remote.ipv4", str(theirs), rule)
        elif ours.ip == theirs.ip:
            yield Problem(f"{place}.remote.ipv4", str(theirs), "is local.ipv4 as well")
    elif ours or theirs:
        present, missing = ("local", "remote") if ours else ("remote", "local")
        rule = f"is required beside {present}.ipv4: a numbered session has two ends"
        yield Problem(f"{place}.{missing}.ipv4", "", rule)


def _check_members(members: Members, server: Server | None) -> Iterable[Problem]:
    owner = f"links of host {server.name}" if server else "links of one host"
    for place, (vnet, untagged) in members.items():
        if len(untagged) > 1:
            yield Problem(f"{place}.ports", "", f"are tagged and untagged on the {owner}")
        elif untagged == {False} and vnet.gateways and not vnet.anycast_mac:
            rule = "is required: hosts and leaves share the gateway's MAC"
            yield Problem(f"{place}.macAddress", "", rule)


def _devices(members: Members, segments: Segments) -> Iterable[tuple[str, str]]:
    """Yield the names of the devices that a host gets, each with its V-Net or VPC."""
    for vnet, _ in members.values():
        yield f"nbr-{vnet.vxlan_id}", _vnet(vnet)
        yield f"vxlan{vnet.vxlan_id}", _vnet(vnet)
    routed = {v.vpc.id for v, untagged in members.values() if v.gateways and False in untagged}
    for id_ in sorted(routed):
        yield f"Vrf_{id_}", f"VPC {id_}"
        if id_ in segments.vpc_by_id and (vni := segments.vpc_by_id[id_].vni):
            yield f"l3br-{vni}", f"VPC {id_}"
            yield f"l3vx-{vni}", f"VPC {id_}"


def _check_management_nic(
    place: str, mgmt: Mgmt, links: dict[str, Link], segments: Segments, complete: bool
) -> Iterable[Problem]:
    ports = [link.remote.name for link in links.values() if link.local.ifname == mgmt.ifname]
    if complete and not ports:
        yield Problem(f"{place}.ifname", mgmt.ifname, "is no local.ifname of this host's links")
    if mgmt.vnet in segments.vnet_by_name:
        inside, _ = segments.vnet_by_name[mgmt.vnet]
        if ports and not any(segments.is_untagged(mgmt.vnet, port) for port in ports):
            port = f"the port of {mgmt.ifname} ({printable(ports[0])})"
            rule = f"does not have {port} untagged: {inside}.ports"
            yield Problem(f"{place}.vnet", printable(mgmt.vnet), rule)
    elif mgmt.vnet not in segments.ill_formed_vnets:
        yield Problem(f"{place}.vnet", printable(mgmt.vnet), "is no active V-Net of this payload")


def _check_management(place: str, mgmt: Mgmt, server: Server) -> Iterable[Problem]:
    yield from _check_gateway(f"{place}.gateway", mgmt.gateway, mgmt.ipv4)
    if mgmt.gateway6 and mgmt.ipv6:
        yield from _check_gateway(f"{place}.gateway6", mgmt.gateway6, mgmt.ipv6)
    elif mgmt.gateway6:
        yield Problem(f"{place}.ipv6", "", "is required beside gateway6")
    if mgmt.ipv4.ip == server.main_address:
        yield Problem(f"{place}.ipv4", str(mgmt.ipv4), _AS_LOOPBACK)


def _check_gateway(place: str, gateway: IPAddress, address: IPNetwork) -> Iterable[Problem]:
    if gateway not in address:
        yield Problem(place, str(gateway), f"is not in the subnet of {address}")
    elif gateway == address.ip:
        yield Problem(place, str(gateway), "is the host's own address")


def _check_mtu(links: dict[str, Link], members: Members) -> Iterable[Problem]:
    """Warn where a full-size packet of a V-Net does not fit a link that may carry it."""
    largest = max((vnet.mtu for vnet, _ in members.values()), default=0)
    for place, link in links.items():
        if link.mtu and largest + VXLAN_OVERHEAD > link.mtu:
            rule = (
                f"is too small for V-Nets of MTU {largest}: VXLAN adds {VXLAN_OVERHEAD} bytes, "
                "full-size packets are lost or fragmented"
            )
            yield Problem(f"{place}.mtu", str(link.mtu), rule)


def check_fleet(
    hosts: list[tuple[str, Sections]], others: list[tuple[str, Sections]], problems: Problems
) -> None:
    """Check the rules between hosts, and between them and servers of other roles."""
    servers = {f"{p}server": e["server"] for p, e in hosts if e.get("server")}
    elsewhere = {f"{p}server": e["server"] for p, e in others if e.get("server")}
    everybody = {p: s.name for p, s in (servers | elsewhere).items() if s.name}
    problems.extend(_repeated((f"{p}.name", name.lower(), "") for p, name in everybody.items()))
    problems.extend(_repeated((f"{p}.asn", s.asn, _host(s)) for p, s in servers.items()))
    problems.extend(
        _repeated((f"{p}.mainAddress", s.main_address, _host(s)) for p, s in servers.items())
    )
    links = [
        (f"{place}links[{index}]", link, place and _host(entry.get("server")))
        for place, entry in hosts + others
        for index, link in enumerate(entry.get("links") or [])
        if link
    ]
    problems.extend(_repeated((f"{p}.remote.name", k.remote.name, of) for p, k, of in links))
    leaves = {
        link.remote.asn: (f"{place}.remote.asn", owner)
        for place, link, owner in links
        if isinstance(link, Link) and link.remote.asn
    }
    for place, server in servers.items():
        if server.asn in leaves:
            where, owner = leaves[server.asn]
            of = f" of {owner}" if owner else ""
            rule = f"is a leaf's AS number ({where}{of}): sessions are eBGP"
            problems.append(Problem(f"{place}.asn", str(server.asn), rule))


def _host(server: Server | OtherServer | None) -> str:
    return f"host {printable(server.name)}" if server and server.name else ""
