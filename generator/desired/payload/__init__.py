"""From a controller's bytes to checked hosts. Only here an input is refused."""

from typing import Any, NamedTuple

import msgspec

from generator.desired.model import Host
from generator.desired.payload import decode
from generator.desired.payload.checks import Segments, check_fleet, check_host
from generator.desired.payload.derive import Gateways, derive
from generator.desired.payload.document import (
    ROLE,
    FleetDocument,
    FleetHost,
    HostDocument,
    Link,
    Server,
)
from generator.errors import Problem, Problems, Refused, did_you_mean, printable

__all__ = ["Payload", "load"]


class LeftOut(NamedTuple):
    """A host of a Fleet that gets no files, because it has another role."""

    name: str  # or its place, if it has none
    role: str
    warning: Problem


class Payload(msgspec.Struct, frozen=True):
    """A checked payload: the hosts that it describes, and warnings.

    A host is derived when somebody asks for it: all hosts of a large Fleet with all their V-Nets
    would take ten times the memory of the document.
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
        """Return the host of that name (letters of either case), or the only one.

        Raises `Refused` when there is none, or none is named and there are several.
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

    warnings: list[Problem] = []
    left_out: list[LeftOut] = []
    if kind == "Host":
        document = decode.convert(raw, HostDocument, "", problems)
        entries = [("", document)]
    else:
        hosts = raw.get("hosts")
        document = decode.convert(
            raw | {"hosts": []} if isinstance(hosts, list) else raw, FleetDocument, "", problems
        )
        entries = list(_fleet_hosts(hosts, problems, left_out))

    segments = Segments(document.get("vpcs"), document.get("vnets"), raw, problems)
    for place, entry in entries:
        check_host(place, entry, segments, problems, warnings)
    check_fleet(entries, problems)
    if problems:
        raise Refused(*problems)
    by_name = {entry["server"].name: (entry["server"], entry["links"]) for _, entry in entries}
    hosts = dict(sorted(by_name.items()))
    return Payload(kind, document["generation"], warnings, left_out, segments, hosts)


def _fleet_hosts(
    hosts: Any, problems: Problems, left_out: list[LeftOut]
) -> list[tuple[str, decode.Sections]]:
    """Return the hosts of a Fleet that are VTEPs, each with its place; others are left out."""
    entries = []
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
            continue
        entries.append((f"{place}.", decode.convert(raw, FleetHost, place, problems)))
    return entries
