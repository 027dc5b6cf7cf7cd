"""Routing rules of an operator that would take packets for the host itself elsewhere."""

import socket

import msgspec
import pytest

from generator.observed import routing_rules
from generator.observed.netlink import Route
from generator.observed.routing_rules import Own, Rule

MAIN, LOCAL = 254, 255
OWN = Own(["10.12.0.101", "10.2.0.101"], {"ens4", "nbr-14"}, ["10.12.0.0/16"])
ROUTES = [(MAIN, "10.12.0.0/16"), (MAIN, "0.0.0.0/0"), (101, "0.0.0.0/0"), (102, "192.0.2.0/24")]


def rule(priority: int = 100, table: int = MAIN, **fields: object) -> Rule:
    known = Rule(socket.AF_INET, priority, table, l3mdev=False, plain=False)
    return msgspec.structs.replace(known, **fields)


CATCHES = {
    "by the uplink": rule(incoming="ens4"),
    "by the bridge": rule(incoming="nbr-14", table=101),
    "from the management subnet": rule(source="10.12.0.0/16", table=101),
    "from all of a larger prefix": rule(source="10.0.0.0/8", table=101),
    "to the management subnet": rule(destination="10.12.0.0/16"),
    "as table local": rule(32765, incoming="ens4"),
}
LEAVES_ALONE = {
    "for every packet": rule(plain=True),
    "of the VRFs": rule(l3mdev=True),
    "after table local": rule(32766, incoming="ens4"),
    "by another NIC": rule(incoming="ens6"),
    "from the host": rule(source="10.12.0.101/32", table=101),
    "from elsewhere": rule(source="198.51.100.0/24", table=101),
    "to elsewhere": rule(destination="198.51.100.0/24", table=101),
    "a table without a route to the host": rule(incoming="ens4", table=102),
    "an empty table": rule(incoming="ens4", table=103),
    "table local itself": rule(incoming="ens4", table=LOCAL),
    "with a mark": rule(incoming="ens4", choosy=True),
    "no table": rule(incoming="ens4", table=0),
    "of the other family": rule(family=socket.AF_INET6, incoming="ens4"),
}


def caught(each: Rule) -> list[tuple[Rule, str]]:
    routes = [Route(socket.AF_INET, table, prefix, 1, 4, 0, ()) for table, prefix in ROUTES]
    return list(routing_rules.catching([each], routes, OWN, {socket.AF_INET: 32765}))


@pytest.mark.parametrize("name", CATCHES)
def test_what_would_take_packets_for_the_host(name: str) -> None:
    """The rule is named, with an address that would be forwarded."""
    assert caught(CATCHES[name]) == [(CATCHES[name], "10.12.0.101")]


@pytest.mark.parametrize("name", LEAVES_ALONE)
def test_what_may_stay(name: str) -> None:
    """Nothing is said of it."""
    assert caught(LEAVES_ALONE[name]) == []


def test_words() -> None:
    """A person finds it in `ip rule`."""
    assert str(rule(incoming="ens4")) == "100 (from all iif ens4 lookup main)"
    text = str(rule(7, 101, source="10.12.0.0/16", destination="192.0.2.0/24"))
    assert text == "7 (from 10.12.0.0/16 to 192.0.2.0/24 lookup 101)"
