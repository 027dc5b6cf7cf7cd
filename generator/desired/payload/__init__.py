"""From a controller's bytes to checked hosts. Only here an input is refused."""

from typing import Any

import msgspec

from generator.desired.model import Host
from generator.desired.payload import decode
from generator.desired.payload.checks import Segments, check_fleet, check_host
from generator.desired.payload.derive import derive
from generator.desired.payload.document import ROLE, FleetDocument, FleetHost, HostDocument
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
    if kind == "Host":
        document = decode.convert(raw, HostDocument, "", problems)
        entries = [("", document)]
    else:
        hosts = raw.get("hosts")
        document = decode.convert(
            raw | {"hosts": []} if isinstance(hosts, list) else raw, FleetDocument, "", problems
        )
        entries = list(_fleet_hosts(hosts, problems, warnings))

    segments = Segments(document.get("vpcs"), document.get("vnets"), raw, problems)
    for place, entry in entries:
        check_host(place, entry, segments, problems, warnings)
    check_fleet(entries, problems)
    if problems:
        raise Refused(*problems)
    found = [derive(e["server"], e["links"], segments) for _, e in entries]
    hosts = sorted(found, key=lambda host: host.name)
    return Payload(kind, document["generation"], hosts, warnings)


def _fleet_hosts(
    hosts: Any, problems: Problems, warnings: list[Problem]
) -> list[tuple[str, decode.Sections]]:
    """Return the hosts of a Fleet that are VTEPs, each with its place; others become warnings."""
    entries = []
    for index, raw in enumerate(hosts if isinstance(hosts, list) else []):
        place = f"hosts[{index}]"
        server = raw.get("server") if isinstance(raw, dict) else None
        role = server.get("srvRole") if isinstance(server, dict) else None
        if isinstance(role, str) and role != ROLE:
            rule = f"is not {ROLE}: this host is left out"
            warnings.append(Problem(f"{place}.server.srvRole", printable(role), rule))
            continue
        entries.append((f"{place}.", decode.convert(raw, FleetHost, place, problems)))
    return entries
