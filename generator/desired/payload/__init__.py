"""Turns a controller's bytes into checked hosts. Input is refused only here."""

from typing import Any, NamedTuple

import msgspec

from generator.desired.model import Host
from generator.desired.payload import decode, naming
from generator.desired.payload.checks import Segments, active, check_fleet, check_host
from generator.desired.payload.clusters import clusters
from generator.desired.payload.derive import Gateways, derive
from generator.desired.payload.document import ROLE, HostDocument, Link, Server, Vnet
from generator.desired.payload.fleet import FleetDocument, FleetHost, OtherHost
from generator.desired.payload.membership import Resolver, endpoint, members_of, near_misses
from generator.desired.payload.ports import Ports
from generator.errors import Problem, Problems, Refused, did_you_mean, printable

__all__ = ["Payload", "load"]

Entries = list[tuple[str, decode.Sections]]
"""Hosts, each with its place in the document."""


class LeftOut(NamedTuple):
    """A host of a Fleet that gets no files, because it has another role."""

    name: str  # or its place, if it has none
    role: str
    warning: Problem


class Payload(msgspec.Struct, frozen=True):
    """A checked payload: the hosts that it describes, and warnings.

    A host is derived only when it is asked for: all hosts of a large Fleet with all their V-Nets
    would need ten times the memory of the document.
    """

    kind: str
    generation: int
    warnings: list[Problem]
    left_out: list[LeftOut]
    segments: Segments
    entries: dict[str, tuple[Server, list[Link]]]  # by the host's name, sorted
    gateways: Gateways = {}  # of the V-Nets of the hosts that were derived

    @property
    def names(self) -> list[str]:
        """The names of the hosts, sorted."""
        return list(self.entries)

    @property
    def passwords(self) -> set[str]:
        """The passwords of all hosts' sessions."""
        return {server.bgp.password for server, _ in self.entries.values() if server.bgp.password}

    @property
    def hosts(self) -> list[Host]:
        """All hosts, sorted by name."""
        return [self.host(name) for name in self.entries]

    def host(self, name: str | None) -> Host:
        """Return the host of that name (upper or lower case), or without a name the only host.

        Raises `Refused` when there is no such host, or several and no name.
        """
        if name in self.entries:
            return derive(*self.entries[name], self.segments, self.gateways)
        if name is None and len(self.entries) == 1:
            return self.host(*self.entries)
        known = ", ".join(self.entries) or "none"
        if name is None:
            raise Refused(
                f"the payload is for {len(self.entries)} hosts ({known}): say which with -H"
            )
        for each in self.entries:
            if each.lower() == name.lower():
                return self.host(each)
        rule = f"the payload has no host {printable(name)} in role {ROLE}; it has: {known}"
        raise Refused(Problem("", "", rule, did_you_mean(name, self.entries)))


def load(data: bytes) -> Payload:
    """Decode, check and derive. Raises `Refused` with every problem of the document."""
    raw, problems = decode.parse(data)
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in ("Host", "Fleet"):
        value = decode.shown(kind) if kind is not None else ""
        rule = "is not Host or Fleet" if kind is not None else "is required: Host or Fleet"
        if not isinstance(raw, dict):
            raise Refused(Problem("payload", decode.shown(raw, quoted=True), "is not an object"))
        raise Refused(*problems, Problem("kind", value, rule))
    try:
        checked = (_host if kind == "Host" else _fleet)(raw, problems)
    except Refused as refused:
        raise Refused(*(naming.named(problem, raw) for problem in refused.problems)) from None
    warnings = [naming.named(each, raw) for each in checked.warnings]
    left_out = [each._replace(warning=naming.named(each.warning, raw)) for each in checked.left_out]
    return msgspec.structs.replace(checked, warnings=warnings, left_out=left_out)


def _host(raw: dict[str, Any], problems: Problems) -> Payload:
    """Return the payload of a Host document. Raises `Refused`."""
    warnings: list[Problem] = []
    document = decode.convert(raw, HostDocument, "", problems)
    ports = Ports(active(document.get("vnets")))
    segments = Segments(document, ports, raw, problems)
    hosts = [("", document)]
    check_host("", document, segments, problems, warnings)
    check_fleet(hosts, [], problems)
    return _checked("Host", document, hosts, segments, problems, warnings, [])


def _fleet(raw: dict[str, Any], problems: Problems) -> Payload:
    """Return the payload of a Fleet, resolved to ports. Raises `Refused`."""
    warnings: list[Problem] = []
    is_list = isinstance(raw.get("hosts"), list)
    document = decode.convert(raw | {"hosts": []} if is_list else raw, FleetDocument, "", problems)
    hosts, others, left_out = _fleet_hosts(raw.get("hosts"), problems)
    ports, complete = _resolved(document, hosts + others, problems, warnings)
    segments = Segments(document, ports, raw, problems, complete=complete)
    for place, entry in hosts:
        check_host(place, entry, segments, problems, warnings)
    check_fleet(hosts, others, problems)
    if not problems:
        warnings.extend(near_misses(ports.vnets, hosts + others))
    return _checked("Fleet", document, hosts, segments, problems, warnings, left_out)


def _checked(  # noqa: PLR0913, PLR0917  # what a payload consists of
    kind: str,
    document: decode.Sections,
    hosts: Entries,
    segments: Segments,
    problems: Problems,
    warnings: list[Problem],
    left_out: list[LeftOut],
) -> Payload:
    if problems:
        raise Refused(*problems)
    by_name = {entry["server"].name: (entry["server"], entry["links"]) for _, entry in hosts}
    entries = dict(sorted(by_name.items()))
    return Payload(kind, document["generation"], warnings, left_out, segments, entries)


def _resolved(
    document: decode.Sections,
    entries: Entries,
    problems: Problems,
    warnings: list[Problem],
) -> tuple[Ports, bool]:
    """Return the V-Nets of a Fleet with their ports, and whether these are all of its V-Nets."""
    before = len(problems)
    listed = document.get("server_clusters")
    clusters_ = clusters(document, problems)
    complete = len(problems) == before and listed is not None and len(clusters_) == len(listed)
    vnets: dict[str, Vnet] = active(document.get("vnets"))
    vnets |= {each.place: each.vnet for cluster in clusters_ for each in cluster.segments}
    endpoints = [endpoint(place.removesuffix("."), entry) for place, entry in entries]
    servers = {each.name.lower(): each for each in endpoints if each.name}
    sound = all(entry.get("server") for _, entry in entries)
    members = members_of(clusters_, servers, problems, complete=sound)
    resolver = Resolver(Ports(vnets), problems)
    resolver.label(vnets, endpoints)
    resolver.cluster(clusters_, members)
    ports = resolver.resolve()
    warnings += resolver.warnings
    return ports, complete


def _fleet_hosts(hosts: Any, problems: Problems) -> tuple[Entries, Entries, list[LeftOut]]:
    """Return the VTEPs of a Fleet and its other hosts, each with its place.

    The others get no files: the third list has a warning for each.
    """
    vteps: Entries = []
    others: Entries = []
    left_out = []
    for index, raw in enumerate(hosts if isinstance(hosts, list) else []):
        place = f"hosts[{index}]"
        server = raw.get("server") if isinstance(raw, dict) else None
        role = server.get("srvRole") if isinstance(server, dict) else None
        if isinstance(role, str) and role != ROLE:
            rule = f"is not {ROLE}: this host is left out"
            warning = Problem(f"{place}.server.srvRole", printable(role), rule)
            name = server.get("name") if isinstance(server, dict) else None
            shown = printable(name) if name and isinstance(name, str) else place
            left_out.append(LeftOut(shown, printable(role), warning))
            others.append((f"{place}.", decode.convert(raw, OtherHost, place, problems)))
        else:
            vteps.append((f"{place}.", decode.convert(raw, FleetHost, place, problems)))
    return vteps, others, left_out
