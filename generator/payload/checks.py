"""What no single field can tell: references, duplicates, overlaps, and rules between fields.

Everything here works on what decoded well (a field that did not is absent, an element of a list
None), so that one wrong character does not hide the other problems of a document.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any

from netaddr import IPAddress, IPNetwork

from generator.errors import Problem
from generator.model import VXLAN_OVERHEAD
from generator.payload.decode import Sections
from generator.payload.document import Link, Mgmt, Server, Vnet, Vpc


class Segments:
    """The VPCs and V-Nets of a document, checked once and indexed for all of its hosts."""

    def __init__(
        self,
        vpcs: list[Vpc | None] | None,
        vnets: list[Vnet | None] | None,
        raw: dict[str, Any],
        problems: list[Problem],
    ) -> None:
        self.vpcs = {index: vpc for index, vpc in enumerate(vpcs or []) if vpc}
        # A disabled V-Net is as if it were not there.
        self.vnets = {
            index: vnet for index, vnet in enumerate(vnets or []) if vnet and vnet.state == "active"
        }
        # What an ill-formed element would have been called: references to it are not a problem too.
        self.ill_formed_vnets = _named(raw.get("vnets"), vnets, "name")
        self.ill_formed_vpcs = _named(raw.get("vpcs"), vpcs, "id")
        self.vpc_by_id = {vpc.id: vpc for vpc in self.vpcs.values()}
        self.vnet_by_name = {vnet.name: (i, vnet) for i, vnet in self.vnets.items()}
        self.by_port: dict[str, list[tuple[int, Vnet, bool]]] = defaultdict(list)
        for index, vnet in self.vnets.items():
            for port in vnet.ports:
                self.by_port[port.name].append((index, vnet, port.untagged))
        self._check(problems)

    def members(self, links: Iterable[Link]) -> dict[int, tuple[Vnet, set[bool]]]:
        """The V-Nets of a host's links, by place, and whether untagged (both: a mistake)."""
        found: dict[int, tuple[Vnet, set[bool]]] = {}
        for link in links:
            for index, vnet, untagged in self.by_port.get(link.remote.name, ()):
                found.setdefault(index, (vnet, set()))[1].add(untagged)
        return found

    def _check(self, problems: list[Problem]) -> None:
        vpcs = {f"vpcs[{index}]": vpc for index, vpc in self.vpcs.items()}
        vnets = {f"vnets[{index}]": vnet for index, vnet in self.vnets.items()}
        problems.extend(_repeated((f"{p}.id", vpc.id) for p, vpc in vpcs.items()))
        problems.extend(_repeated((f"{p}.name", vpc.name) for p, vpc in vpcs.items()))
        problems.extend(_repeated((f"{p}.name", vnet.name) for p, vnet in vnets.items()))
        vnis = [(f"{p}.vni", vpc.vni) for p, vpc in vpcs.items() if vpc.vni]
        vnis += [(f"{p}.vxlanID", vnet.vxlan_id) for p, vnet in vnets.items()]
        problems.extend(_repeated(vnis))
        prefixes: dict[int, list[tuple[str, IPNetwork]]] = defaultdict(list)
        for place, vnet in vnets.items():
            problems.extend(self._check_vnet(place, vnet))
            for number, gateway in enumerate(vnet.gateways):
                prefixes[vnet.vpc.id].append((f"{place}.gateways[{number}].prefix", gateway.prefix))
        for id_, members in prefixes.items():
            problems.extend(_overlaps(members, id_))

    def _check_vnet(self, place: str, vnet: Vnet) -> Iterable[Problem]:
        if vnet.vpc.id not in self.vpc_by_id and vnet.vpc.id not in self.ill_formed_vpcs:
            yield Problem(f"{place}.vpc.id", str(vnet.vpc.id), "is no VPC of this payload")
        if vnet.l2only and vnet.gateways:
            yield Problem(f"{place}.l2only", "true", "can't stand together with gateways")
        if vnet.l3vpn:
            yield Problem(f"{place}.l3vpn", "true", "is not supported on a host")
        if vnet.vlan_aware:
            yield Problem(f"{place}.vlanAware", "true", "is not supported on a host")
        yield from _repeated((f"{place}.ports[{i}].name", p.name) for i, p in enumerate(vnet.ports))


def _named(raw: Any, decoded: list[Any] | None, field: str) -> set[Hashable]:
    """What the ill-formed elements of a list call themselves."""
    if not isinstance(raw, list):
        return set()
    sound = decoded or [None] * len(raw)
    names = [
        r.get(field) for r, d in zip(raw, sound, strict=True) if d is None and isinstance(r, dict)
    ]
    return {name for name in names if isinstance(name, str | int)}


def _repeated(values: Iterable[tuple[str, Hashable]]) -> Iterable[Problem]:
    first: dict[Hashable, str] = {}
    for place, value in values:
        if value in first:
            yield Problem(place, str(value), f"is already {first[value]}")
        else:
            first[value] = place


def _overlaps(prefixes: list[tuple[str, IPNetwork]], vpc: int) -> Iterable[Problem]:
    """Prefixes of one VPC that share addresses: sorted, the widest so far covers what follows."""
    bounds = sorted(
        (prefix.version, prefix.first, -prefix.last, place, prefix) for place, prefix in prefixes
    )
    widest: tuple[int, int, str, IPNetwork] | None = None
    for version, first, last, place, prefix in bounds:
        if widest and version == widest[0] and first <= widest[1]:
            rule = f"overlaps {widest[3]} ({widest[2]}) in VPC {vpc}"
            yield Problem(place, str(prefix), rule)
        if not widest or version != widest[0] or -last > widest[1]:
            widest = (version, -last, place, prefix)


def check_host(
    place: str,
    entry: Sections,
    segments: Segments,
    problems: list[Problem],
    warnings: list[Problem],
) -> None:
    """Rules of one host: `place` is what stands before `server` and `links` in its places."""
    server: Server | None = entry.get("server")
    links = {f"{place}links[{i}]": link for i, link in enumerate(entry.get("links") or []) if link}
    problems.extend(_repeated((f"{p}.local.ifname", k.local.ifname) for p, k in links.items()))
    problems.extend(_repeated((f"{p}.remote.name", k.remote.name) for p, k in links.items()))
    for where, link in links.items():
        problems.extend(_check_link(where, link, server))
    members = segments.members(links.values())
    problems.extend(_check_members(members, links))
    if server:
        where = f"{place}server"
        if 3 * server.bgp.keepalive > server.bgp.holdtime:
            rule = f"is less than 3 × keepalive ({server.bgp.keepalive})"
            problems.append(Problem(f"{where}.bgp.holdtime", str(server.bgp.holdtime), rule))
        if server.mgmt:
            if len(links) == len(entry.get("links") or ()):
                found = _check_management(f"{where}.mgmt", server.mgmt, server, links, segments)
                problems.extend(found)
        elif entry.get("links"):
            problems.append(Problem(f"{where}.mgmt", "", "is required when there is a link"))
        warnings.extend(_check_mtu(links, members))


def _check_link(place: str, link: Link, server: Server | None) -> Iterable[Problem]:
    if server and link.remote.asn == server.asn:
        rule = "is the host's own AS number: sessions are eBGP"
        yield Problem(f"{place}.remote.asn", str(link.remote.asn), rule)
    ours, theirs = link.local.ipv4, link.remote.ipv4
    if ours and theirs:
        if ours.cidr != theirs.cidr:
            rule = f"is not in the subnet of local.ipv4 ({ours})"
            yield Problem(f"{place}.remote.ipv4", str(theirs), rule)
        elif ours.ip == theirs.ip:
            yield Problem(f"{place}.remote.ipv4", str(theirs), "is local.ipv4 as well")
    elif ours or theirs:
        given, missing = ("local", "remote") if ours else ("remote", "local")
        rule = f"is required beside {given}.ipv4: a numbered session has two ends"
        yield Problem(f"{place}.{missing}.ipv4", "", rule)


def _check_members(
    members: dict[int, tuple[Vnet, set[bool]]], links: dict[str, Link]
) -> Iterable[Problem]:
    nics = {link.local.ifname: f"{place}.local.ifname" for place, link in links.items()}
    for index, (vnet, untagged) in members.items():
        place = f"vnets[{index}]"
        if len(untagged) > 1:
            yield Problem(f"{place}.ports", "", "are tagged and untagged on one host's links")
        elif untagged == {False} and vnet.gateways and not vnet.anycast_mac:
            rule = "is required: hosts and leaves share the gateway's MAC"
            yield Problem(f"{place}.macAddress", "", rule)
        for name in (f"nbr-{vnet.vxlan_id}", f"vxlan{vnet.vxlan_id}"):
            if name in nics:
                yield Problem(nics[name], name, f"is the name of a device of {place}")


def _check_management(
    place: str, mgmt: Mgmt, server: Server, links: dict[str, Link], segments: Segments
) -> Iterable[Problem]:
    by_nic = {link.local.ifname: link for link in links.values()}
    if mgmt.ifname not in by_nic:
        yield Problem(f"{place}.ifname", mgmt.ifname, "is no local.ifname of this host's links")
    if mgmt.vnet in segments.vnet_by_name:
        index, vnet = segments.vnet_by_name[mgmt.vnet]
        port = by_nic[mgmt.ifname].remote.name if mgmt.ifname in by_nic else None
        untagged = {p.name for p in vnet.ports if p.untagged}
        if port is not None and port not in untagged:
            rule = (
                f"does not have the port of {mgmt.ifname} ({port}) untagged: vnets[{index}].ports"
            )
            yield Problem(f"{place}.vnet", mgmt.vnet, rule)
    elif mgmt.vnet not in segments.ill_formed_vnets:
        yield Problem(f"{place}.vnet", mgmt.vnet, "is no active V-Net of this payload")
    yield from _check_gateway(f"{place}.gateway", mgmt.gateway, mgmt.ipv4)
    if mgmt.gateway6 and mgmt.ipv6:
        yield from _check_gateway(f"{place}.gateway6", mgmt.gateway6, mgmt.ipv6)
    elif mgmt.gateway6:
        yield Problem(f"{place}.ipv6", "", "is required beside gateway6")
    if mgmt.ipv4.ip == server.main_address:
        yield Problem(f"{place}.ipv4", str(mgmt.ipv4), "is the VTEP's mainAddress as well")


def _check_gateway(place: str, gateway: IPAddress, address: IPNetwork) -> Iterable[Problem]:
    if gateway not in address:
        yield Problem(place, str(gateway), f"is not in the subnet of {address}")
    elif gateway == address.ip:
        yield Problem(place, str(gateway), "is the host's own address")


def _check_mtu(
    links: dict[str, Link], members: dict[int, tuple[Vnet, set[bool]]]
) -> Iterable[Problem]:
    """Warn where a full packet of a V-Net does not fit a link that is to carry it."""
    largest = max((vnet.mtu for vnet, _ in members.values()), default=0)
    for place, link in links.items():
        if link.mtu and largest + VXLAN_OVERHEAD > link.mtu:
            rule = (
                f"is too small for V-Nets of MTU {largest}: VXLAN adds {VXLAN_OVERHEAD} bytes, "
                "full-size packets are lost or fragmented"
            )
            yield Problem(f"{place}.mtu", str(link.mtu), rule)


def check_fleet(entries: list[tuple[str, Sections]], problems: list[Problem]) -> None:
    """Rules between hosts."""
    servers = {f"{p}server": e["server"] for p, e in entries if e.get("server")}
    problems.extend(_repeated((f"{p}.name", s.name.lower()) for p, s in servers.items()))
    problems.extend(_repeated((f"{p}.asn", s.asn) for p, s in servers.items()))
    problems.extend(_repeated((f"{p}.mainAddress", s.main_address) for p, s in servers.items()))
