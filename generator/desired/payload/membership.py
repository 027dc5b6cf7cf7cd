"""Resolves labels and Server Clusters to ports, as if the payload named the ports itself."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from generator.desired.payload.clusters import Cluster, Segment
from generator.desired.payload.decode import Sections
from generator.desired.payload.document import Link, Vnet
from generator.desired.payload.fleet import FleetVnet, OtherLink
from generator.desired.payload.near import Names
from generator.desired.payload.ports import Member, Ports
from generator.desired.payload.values import NicLabel
from generator.errors import Problem, Problems, Refused, printable

NO_PORT = "is no port of a host of this Fleet"
_MOST_MISSES = 1000


class Nic(NamedTuple):
    """A NIC of a server, and the switch port to which it is connected."""

    place: str  # of the link
    name: str
    port: str


class Endpoint(NamedTuple):
    """A server of the Fleet, of any role."""

    place: str  # hosts[3]
    name: str  # "" when it has none
    labels: list[NicLabel]
    nics: dict[str, list[Nic]]
    complete: bool  # whether all of it is well-formed


# By the place of a Server Cluster: its servers, and whether they are dedicated to it.
Servers = dict[str, list[tuple[Endpoint, bool]]]


class Resolver:
    """Puts ports into V-Nets, by labels and by Server Clusters."""

    LIMIT = 4_000_000
    """Ports in V-Nets. A short document could ask for more than any memory holds."""

    def __init__(self, ports: Ports, problems: Problems) -> None:
        self._ports = ports
        self._problems = problems
        self._left = self.LIMIT
        # By port: the V-Nets that labels and clusters give it, and the NIC at its other end.
        self._members: dict[str, list[Member]] = defaultdict(list)
        self._nics: dict[str, Nic] = {}
        self.warnings: list[Problem] = []

    def label(self, vnets: Mapping[str, Vnet], endpoints: Iterable[Endpoint]) -> None:
        """Put ports into the V-Nets whose labels their NICs have."""
        by_value: dict[str, list[Member]] = defaultdict(list)
        for place, vnet in vnets.items():
            for each in vnet.labels if isinstance(vnet, FleetVnet) else ():
                way = f"label {printable(each.value)}"
                by_value[each.value].append(Member(place, vnet, each.untagged, way))
        used: set[str] = set()
        unknown: dict[str, str] = {}
        for endpoint in endpoints:
            for number, label in enumerate(endpoint.labels):
                used.add(label.value)
                place = f"{endpoint.place}.server.labels[{number}]"
                if label.value not in by_value:
                    unknown.setdefault(label.value, place)
                nics = endpoint.nics.get(label.nic, [])
                if not nics and endpoint.complete:
                    self._problems.append(_no_nic(place, label.nic, endpoint))
                for nic in nics:
                    self._add(nic, by_value.get(label.value, []))
        self.warnings += _unused_labels(by_value, used)
        self.warnings += _unknown_labels(by_value, unknown)

    def cluster(self, clusters: list[Cluster], servers: Servers) -> None:
        """Put the ports of servers into the V-Nets of their Server Clusters."""
        for cluster in clusters:
            way = f"Server Cluster {printable(cluster.document.name)}"
            both = {
                untagged: [
                    (segment, Member(segment.place, segment.vnet, untagged, way))
                    for segment in cluster.segments
                ]
                for untagged in (False, True)
            }
            connected: set[str] = set()
            for server, untagged in servers[cluster.place]:
                connected |= self._join(server, both[untagged], cluster)
            self._check_nics(cluster, connected)

    def _join(
        self, server: Endpoint, members: list[tuple[Segment, Member]], cluster: Cluster
    ) -> set[str]:
        """Put the ports of one server into V-Nets; return its NICs that are in one of them."""
        connected: set[str] = set()
        missing: list[str] = []
        for segment, member in members:
            self._spend(len(segment.nics))
            for name in segment.nics:
                for nic in server.nics.get(name, []):
                    connected.add(name)
                    self._add(nic, [member])
                if name not in server.nics:
                    missing.append(name)
        if missing and server.complete:
            place = f"{server.place}.links"
            template = printable(cluster.document.template)
            of = f"template {template} of Server Cluster {printable(cluster.document.name)}"
            nics = ", ".join(printable(name) for name in dict.fromkeys(missing[:10]))
            if connected:
                rule = f"has no NIC {nics}, which {of} has"
                self.warnings.append(Problem(place, "", rule))
            else:
                rule = f"has none of the NICs that {of} has: {nics}"
                self._problems.append(Problem(place, "", rule))
        return connected

    def _check_nics(self, cluster: Cluster, connected: set[str]) -> None:
        """Refuse a NIC of a template that no server has: its name is a typing mistake."""
        known = Names(connected)
        if not connected:
            return
        template = printable(cluster.document.template)
        for segment in cluster.segments:
            for nic in segment.nics:
                if nic not in connected:
                    rule = f"of template {template} is no NIC of any server of this Server Cluster"
                    hint = known.hint(nic)
                    self._problems.append(Problem(segment.place, printable(nic), rule, hint))

    def resolve(self) -> Ports:
        """Return the V-Nets of each port, from labels, Server Clusters and V-Nets' own ports."""
        for port, members in self._members.items():
            nic = self._nics[port]
            direct = {member.place: member for member in self._ports.of(port)}
            by_hand = next((each for each in direct.values() if each.untagged), None)
            chosen: dict[str, Member] = {}
            for member in members:
                if member.place in direct:
                    continue
                other = chosen.setdefault(member.place, member)
                if other.untagged != member.untagged:
                    self._problems.append(_both(nic, other, member))
            self._check_untagged(nic, by_hand, chosen)
            for member in chosen.values():
                self._ports.add(port, member)
        return self._ports

    def _check_untagged(self, nic: Nic, by_hand: Member | None, chosen: dict[str, Member]) -> None:
        """Refuse a NIC that is untagged in two V-Nets; a port that the V-Net itself names wins."""
        untagged = [member for member in chosen.values() if member.untagged]
        if by_hand is not None:
            for member in untagged:
                del chosen[member.place]
                self.warnings.append(_left_out(nic, by_hand, member))
        elif len(untagged) > 1:
            one, other = untagged[:2]
            rule = (
                f"is untagged in V-Net {_name(one)} ({one.way}) and in V-Net {_name(other)} "
                f"({other.way}): a NIC is untagged in one V-Net only"
            )
            problem = Problem(f"{nic.place}.remote.name", printable(nic.port), rule)
            self._problems.append(problem)

    def _add(self, nic: Nic, members: list[Member]) -> None:
        self._spend(len(members))
        self._members[nic.port] += members
        self._nics.setdefault(nic.port, nic)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            rule = f"labels and Server Clusters put more than {self.LIMIT:,} ports into V-Nets"
            raise Refused(*self._problems, rule)


def endpoint(place: str, entry: Sections) -> Endpoint:
    """Return what labels and Server Clusters need of a host of the Fleet."""
    server, links = entry.get("server"), entry.get("links")
    nics: dict[str, list[Nic]] = defaultdict(list)
    for number, link in enumerate(links or []):
        if link:
            nic = Nic(f"{place}.links[{number}]", _nic_of(link), link.remote.name)
            nics[nic.name].append(nic)
    complete = links is not None and None not in links
    name = (server.name or "") if server else ""
    return Endpoint(place, name, server.labels if server else [], dict(nics), complete)


def _nic_of(link: Link | OtherLink) -> str:
    return link.local.name.partition("@")[0]


def members_of(
    clusters: list[Cluster], servers: Mapping[str, Endpoint], problems: Problems, *, complete: bool
) -> Servers:
    """Return the servers of each Server Cluster, and whether they are dedicated to it.

    A server that the Fleet does not have is a problem, and so is one that is dedicated twice, or
    both dedicated and shared. `complete` says whether the names of all servers are known.
    """
    known = Names(each.name for each in servers.values())
    dedicated: dict[str, Cluster] = {}
    by_cluster: Servers = {}
    for cluster in clusters:
        members = by_cluster[cluster.place] = []
        groups: dict[str, str] = {}
        for group, number, name in _listed(cluster):
            place, key = f"{cluster.place}.{group}[{number}]", name.lower()
            rule = hint = ""
            if groups.setdefault(key, group) != group:
                rule = "is one of its servers as well: a server is dedicated or shared"
            elif group == "servers" and dedicated.setdefault(key, cluster) is not cluster:
                other = printable(dedicated[key].document.name)
                rule = f"is dedicated to Server Cluster {other} already"
            elif key in servers:
                members.append((servers[key], group == "servers"))
            elif complete:
                rule, hint = "is no host of this Fleet", known.hint(name)
            if rule:
                problems.append(Problem(place, printable(name), rule, hint))
    return by_cluster


def _listed(cluster: Cluster) -> Iterator[tuple[str, int, str]]:
    """Yield each server of a Server Cluster: the list that has it, its index there, its name."""
    document = cluster.document
    for number, name in enumerate(document.servers):
        yield "servers", number, name
    for number, name in enumerate(document.shared_endpoints):
        yield "sharedEndpoints", number, name


def _no_nic(place: str, nic: str, endpoint: Endpoint) -> Problem:
    rule = "is no NIC of this host's links (the part of local.name before the @)"
    return Problem(place, printable(nic), rule, Names(endpoint.nics).hint(nic))


def _name(member: Member) -> str:
    return printable(member.vnet.name)


def _both(nic: Nic, one: Member, other: Member) -> Problem:
    tagged, untagged = (other, one) if one.untagged else (one, other)
    rule = f"is untagged in V-Net {_name(one)} by {untagged.way}, and tagged by {tagged.way}"
    return Problem(f"{nic.place}.remote.name", printable(nic.port), rule)


def _left_out(nic: Nic, by_hand: Member, member: Member) -> Problem:
    rule = (
        f"is untagged in V-Net {_name(by_hand)}, which names its port, so {member.way} does not "
        f"put it untagged into V-Net {_name(member)}"
    )
    return Problem(nic.place, "", rule)


def _unused_labels(by_value: Mapping[str, list[Member]], used: set[str]) -> Iterator[Problem]:
    """Warn about labels of V-Nets that no NIC has."""
    known = Names(used)
    for value in sorted(by_value.keys() - used):
        for member in by_value[value]:
            rule = "is a label of no NIC of this Fleet"
            yield Problem(f"{member.place}.labels", printable(value), rule, known.hint(value))


def _unknown_labels(
    by_value: Mapping[str, object], unknown: Mapping[str, str]
) -> Iterator[Problem]:
    """Warn about labels of NICs that are nearly the label of a V-Net."""
    known = Names(by_value)
    for value, place in sorted(unknown.items()):
        if hint := known.hint(value):
            yield Problem(place, printable(value), "is a label of no V-Net", hint)


def near_misses(
    vnets: Mapping[str, Vnet], hosts: Iterable[tuple[str, Sections]]
) -> Iterator[Problem]:
    """Warn about ports that no host has, if a host has a port of nearly the same name."""
    ports = {link.remote.name for _, entry in hosts for link in entry["links"]}
    unknown: dict[str, str] = {}
    for place, vnet in vnets.items():
        for number, port in enumerate(vnet.ports):
            if port.name not in ports:
                unknown.setdefault(port.name, f"{place}.ports[{number}].name")
    known = Names(ports if unknown else ())
    hints = ((name, place, known.hint(name)) for name, place in sorted(unknown.items()))
    for name, place, hint in islice((each for each in hints if each[2]), _MOST_MISSES):
        yield Problem(place, printable(name), NO_PORT, hint)
