"""Read a router's EVPN routes, in every layout that FRR's versions have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.fabric import Host, Lab, Router
from lab.result import LabError

VTEP = "10.2.0.101"  # K8S01


@dataclass(frozen=True)
class Route:
    """A path of an EVPN route."""

    prefix: str  # in FRR's notation: [2]:[0]:[48]:[MAC]:[32]:[IPv4]
    vtep: str
    as_path: tuple[int, ...]
    communities: frozenset[str]  # RT:…, Rmac:…, MM:… (mobility, RFC 7432 section 7.7)

    @property
    def sequence(self) -> int:
        """How often the MAC has moved."""
        return max((int(c.removeprefix("MM:")) for c in self.communities if "MM:" in c), default=0)


def routes(router: Router | Host, kind: str, vtep: str = VTEP) -> list[Route]:
    """Return a router's paths of a kind (macip, multicast, prefix) that lead to a VTEP."""
    return [route for route in all_routes(router, kind) if route.vtep == vtep]


def all_routes(router: Router | Host, kind: str) -> list[Route]:
    """Return a router's paths of a kind, whichever VTEP they lead to."""
    return list(_routes(router.show(f"show bgp l2vpn evpn route type {kind} json")))


def prefixes(router: Router | Host, kind: str, vtep: str = VTEP) -> set[str]:
    """Return the prefixes of a router's paths of a kind that lead to a VTEP."""
    return {route.prefix for route in routes(router, kind, vtep)}


JOURNAL = "journalctl --boot --output short-precise --lines 80 -t evpn-host -t systemd"
BELIEFS = ("ip -4 route", "ip neighbour", "bridge fdb", "ip -brief link", "ss -tino")
HEARD = ("bgp summary", "evpn mac vni all", "evpn arp-cache vni all", "bgp l2vpn evpn route")


def router_states(lab: Lab) -> Iterator[tuple[str, str]]:
    """Return title and text of what host and leaves know, for the report of a failed test."""
    routers: list[Host | Router] = [lab.host, *lab.fabric.leaves.values()]
    for router in routers:
        name = router.name or "the host"
        try:
            if router is lab.host:
                yield f"{name}: {JOURNAL}", router.run(JOURNAL.split(), check=False).out
            for words in BELIEFS:
                out = router.run(words.split(), check=False).out
                # Leave out a device's own MACs and groups: they do not show where others are.
                lines = [line for line in out.splitlines() if not line.endswith("permanent")]
                yield f"{name}: {words}", "\n".join(lines[:200])
            for words in HEARD:
                lines = router.show(f"show {words}").splitlines()
                yield f"{name}: show {words}", "\n".join(lines[:200])
        except LabError as error:
            yield name, str(error)


def _routes(shown: dict[str, object]) -> Iterator[Route]:
    for table in shown.values():
        for prefix, entry in table.items() if isinstance(table, dict) else ():
            for paths in entry["paths"] if isinstance(entry, dict) else ():
                for path in paths if isinstance(paths, list) else [paths]:
                    communities = path.get("extendedCommunity", {}).get("string", "")
                    yield Route(
                        prefix,
                        path["nexthops"][0]["ip"],
                        tuple(map(int, path.get("path", "").split())),
                        frozenset(communities.split()),
                    )
