"""From a controller's bytes to checked hosts. Only here an input is refused."""

from typing import Any

import msgspec

from generator.desired.model import Host
from generator.desired.payload import decode, naming
from generator.desired.payload.checks import Segments, active, check_fleet, check_host
from generator.desired.payload.clusters import clusters
from generator.desired.payload.derive import derive
from generator.desired.payload.document import ROLE, HostDocument, Vnet
from generator.desired.payload.fleet import FleetDocument, FleetHost, OtherHost
from generator.desired.payload.membership import Resolver, endpoint, members_of, near_misses
from generator.desired.payload.ports import Ports
from generator.errors import Problem, Problems, Refused, did_you_mean, printable

__all__ = ["Payload", "load"]


class Payload(msgspec.Struct, frozen=True):
    """A checked payload: the hosts that it describes, and warnings."""

    kind: str
    generation: int
    hosts: list[Host]
    warnings: list[Problem]

    def host(self, name: str | None) -> Host:
        """Return the host of that name (letters of either case), or the only one.

        Raises `Refused` when there is none, or none is named and there are several.
        """
        known = ", ".join(host.name for host in self.hosts) or "none"
        if name is None and len(self.hosts) == 1:
            return self.hosts[0]
        if name is None:
            raise Refused(
                f"the payload is for {len(self.hosts)} hosts ({known}): say which with -H"
            )
        for host in self.hosts:
            if host.name.lower() == name.lower():
                return host
        rule = f"the payload has no host {printable(name)} in role {ROLE}; it has: {known}"
        raise Refused(Problem("", "", rule, did_you_mean(name, (h.name for h in self.hosts))))


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
    warnings: list[Problem] = []
    try:
        generation, hosts = (_host if kind == "Host" else _fleet)(raw, problems, warnings)
    except Refused as refused:
        raise Refused(*(naming.named(problem, raw) for problem in refused.problems)) from None
    hosts.sort(key=lambda host: host.name)
    return Payload(kind, generation, hosts, [naming.named(each, raw) for each in warnings])


def _host(
    raw: dict[str, Any], problems: Problems, warnings: list[Problem]
) -> tuple[int, list[Host]]:
    """Return the generation and the host of a Host document. Raises `Refused`."""
    document = decode.convert(raw, HostDocument, "", problems)
    ports = Ports(active(document.get("vnets")))
    segments = Segments(document, ports, raw, problems)
    hosts = [("", document)]
    check_host("", document, segments, problems, warnings)
    check_fleet(hosts, [], problems)
    return _derived(document, hosts, segments, problems)


def _fleet(
    raw: dict[str, Any], problems: Problems, warnings: list[Problem]
) -> tuple[int, list[Host]]:
    """Return the generation and the hosts of a Fleet, resolved to ports. Raises `Refused`."""
    is_list = isinstance(raw.get("hosts"), list)
    document = decode.convert(raw | {"hosts": []} if is_list else raw, FleetDocument, "", problems)
    hosts, others = _fleet_hosts(raw.get("hosts"), problems, warnings)
    ports, complete = _resolved(document, hosts + others, problems, warnings)
    segments = Segments(document, ports, raw, problems, complete=complete)
    for place, entry in hosts:
        check_host(place, entry, segments, problems, warnings)
    check_fleet(hosts, others, problems)
    fleet = _derived(document, hosts, segments, problems)
    warnings.extend(near_misses(ports.vnets, hosts + others))
    return fleet


def _derived(
    document: decode.Sections,
    hosts: list[tuple[str, decode.Sections]],
    segments: Segments,
    problems: Problems,
) -> tuple[int, list[Host]]:
    if problems:
        raise Refused(*problems)
    found = [derive(e["server"], e["links"], segments, document["generation"]) for _, e in hosts]
    return document["generation"], found


def _resolved(
    document: decode.Sections,
    entries: list[tuple[str, decode.Sections]],
    problems: Problems,
    warnings: list[Problem],
) -> tuple[Ports, bool]:
    """Return the V-Nets of a Fleet with their ports, and whether there is no other V-Net."""
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


def _fleet_hosts(
    hosts: Any, problems: Problems, warnings: list[Problem]
) -> tuple[list[tuple[str, decode.Sections]], list[tuple[str, decode.Sections]]]:
    """Return the VTEPs of a Fleet and its other hosts, each with its place."""
    vteps, others = [], []
    for index, raw in enumerate(hosts if isinstance(hosts, list) else []):
        place = f"hosts[{index}]"
        server = raw.get("server") if isinstance(raw, dict) else None
        role = server.get("srvRole") if isinstance(server, dict) else None
        if isinstance(role, str) and role != ROLE:
            rule = f"is not {ROLE}: this host is left out"
            warnings.append(Problem(f"{place}.server.srvRole", printable(role), rule))
            others.append((f"{place}.", decode.convert(raw, OtherHost, place, problems)))
        else:
            vteps.append((f"{place}.", decode.convert(raw, FleetHost, place, problems)))
    return vteps, others
