"""Reads the DNS settings of a link: its servers, and the names for which they are asked.

networkd keeps them in a state file for a link that it manages, else systemd-resolved does. The hook
looks often, and reading a file starts no process. The files' first line says that nobody should
parse them. If we do not know the form, we read no servers, and nothing moves. systemd 252 and 257
write the same form (link_save() in networkd-state-file.c, link_save_user() in resolved-link.c); 262
was not tried.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import msgspec

from generator.desired.model import Management
from generator.observed.following import other_subnets
from generator.observed.management import Observation
from generator.observed.pairs import LINK_STATES, pairs
from generator.observed.routing import IPV4, IPV6
from generator.state.placement import Names

_UNIT = Path("sys/fs/cgroup/system.slice/systemd-resolved.service")
_KEPT = Path("run/systemd/resolve/netif")
# networkd does not manage a link in these states (sd_network_link_get_setup_state() in
# resolved-link.c). It may begin to manage those in the last two.
_UNMANAGED, _UNDECIDED = {"", "unmanaged"}, {"pending", "initialized"}


class Link(msgspec.Struct, frozen=True):
    """The DNS settings of a link."""

    index: int
    names: Names
    managed: bool  # by networkd, which can restore its own settings after a revert


def resolved_runs(root: Path) -> bool:
    """Whether systemd-resolved runs. Its cgroup exists then: no command is needed."""
    return (root / _UNIT).is_dir()


def read(root: Path, index: int) -> Link | None:
    """Return the DNS settings of a link, None while networkd may still begin to manage it."""
    known = dict(pairs(root / LINK_STATES / str(index)))
    state = known.get("ADMIN_STATE", "")
    if state in _UNDECIDED:
        return None
    if state not in _UNMANAGED:
        return Link(index, _managed(known), managed=True)
    return Link(index, _unmanaged(dict(pairs(root / _KEPT / str(index)))), managed=False)


def _managed(known: dict[str, str]) -> Names:
    routing = [f"~{domain}" for domain in known.get("ROUTE_DOMAINS", "").split()]
    return Names(
        servers=tuple(known.get("DNS", "").split()),
        domains=(*known.get("DOMAINS", "").split(), *routing),
        default_route=known.get("DNS_DEFAULT_ROUTE", ""),
        over_tls=known.get("DNS_OVER_TLS", ""),
        dnssec=known.get("DNSSEC", ""),
        anchors=tuple(known.get("DNSSEC_NTA", "").split()),
        llmnr=known.get("LLMNR", ""),
        mdns=known.get("MDNS", ""),
    )


def _unmanaged(known: dict[str, str]) -> Names:
    return Names(
        servers=tuple(known.get("SERVERS", "").split()),
        domains=tuple(known.get("DOMAINS", "").split()),
        default_route=known.get("DEFAULT_ROUTE", ""),
        over_tls=known.get("DNSOVERTLS", ""),
        dnssec=known.get("DNSSEC", ""),
        anchors=tuple(known.get("NTAS", "").split()),
        llmnr=known.get("LLMNR", ""),
        mdns=known.get("MDNS", ""),
    )


def belong(names: Names, management: Management, observed: Observation) -> bool:
    """Whether the management address is used to reach a DNS server of the NIC.

    It is not for link-local servers and for those in the subnet of another address of the NIC.
    """
    return any(
        not any(server in subnet for subnet in other_subnets(management, observed, family))
        for server in _addresses(names)
        if (family := IPV6 if server.version == 6 else IPV4) and not server.is_link_local
    )


def _addresses(names: Names) -> Iterator[IPv4Address | IPv6Address]:
    """Yield the servers' addresses without port, link and name."""
    for server in names.servers:
        text = server.partition("#")[0]
        if text.startswith("["):
            text = text[1:].partition("]")[0]
        elif text.count(":") == 1:
            text = text.partition(":")[0]
        try:
            yield ip_address(text.partition("%")[0])
        except ValueError:  # a form that we do not know
            continue
