"""Routing rules of an operator that would take packets for the host itself elsewhere."""

import socket

import msgspec
import pytest

from generator.desired.model import Device, Management
from generator.desired.target import Target
from generator.observed import diverted, netlink, routing_rules
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
    "with the default route suppressed": rule(source="10.12.0.0/16", suppressed=0),
    "it drops": rule(table=0, source="10.12.0.0/16", refusal="prohibit"),
    "from all but a prefix": rule(source="198.51.100.0/24", table=101, inverted=True),
    "to all but a prefix": rule(destination="198.51.100.0/24", table=101, inverted=True),
    "by all but an uplink": rule(incoming="ens4", table=101, inverted=True),
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
    "with a mark": rule(incoming="ens4", selective=True),
    "no table": rule(incoming="ens4", table=0),
    "of a suppressed route": rule(source="10.12.0.0/16", table=101, suppressed=0),
    "it drops after table local": rule(32766, table=0, incoming="ens4", refusal="blackhole"),
    "from all but the management subnet": rule(source="10.0.0.0/8", table=101, inverted=True),
    "to all but the host": rule(destination="10.0.0.0/8", table=101, inverted=True),
    "of the other family": rule(family=socket.AF_INET6, incoming="ens4"),
}


def findings_of(each: Rule) -> list[tuple[Rule, str]]:
    routes = [Route(socket.AF_INET, table, prefix, 1, 4, 0, ()) for table, prefix in ROUTES]
    return list(routing_rules.diverting([each], routes, OWN, {socket.AF_INET: 32765}))


@pytest.mark.parametrize("name", CATCHES)
def test_a_rule_that_takes_packets_for_the_host_is_named(name: str) -> None:
    """A rule that takes packets for the host is named, with an address that would be forwarded."""
    assert findings_of(CATCHES[name]) == [(CATCHES[name], "10.12.0.101")]


@pytest.mark.parametrize("name", LEAVES_ALONE)
def test_a_rule_that_takes_nothing_is_not_named(name: str) -> None:
    """No finding names a rule that takes no packet for the host."""
    assert findings_of(LEAVES_ALONE[name]) == []


def test_a_rule_is_written_as_ip_rule_shows_it() -> None:
    """The text of a rule is like the line of `ip rule`."""
    assert str(rule(incoming="ens4")) == "100 (from all iif ens4 lookup main)"
    text = str(rule(7, 101, source="10.12.0.0/16", destination="192.0.2.0/24"))
    assert text == "7 (from 10.12.0.0/16 to 192.0.2.0/24 lookup 101)"
    text = str(rule(source="10.0.0.0/8", inverted=True, suppressed=0))
    assert text == "100 (not from 10.0.0.0/8 lookup main suppress_prefixlength 0)"
    assert str(rule(table=0, incoming="ens4", refusal="prohibit")).endswith("iif ens4 prohibit)")


VRF = Device("Vrf_33", "vrf", table=1033)
VTEP = Device("vxlan26", "vxlan", local="10.2.0.101")
NET = Management("ens4", "nbr-14", "10.12.0.101/16", "10.12.0.1", None, None)


def target(*kinds: Device) -> Target:
    return Target(
        host="K8S01",
        generation=1,
        backend="netplan",
        asn=4200000001,
        files={},
        devices=list(kinds),
        management=NET,
        sessions=[],
        vnis=[],
        uplinks=["ens4"],
    )


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Rule:
    """A host with a rule of somebody else and the kernel's, as after an apply."""
    each = rule(source="10.12.0.0/16", table=101)
    kernel = [rule(32765, LOCAL, plain=True), rule(32766, MAIN, plain=True)]
    monkeypatch.setattr(routing_rules, "read", lambda: [each, *kernel])
    findings = [Route(socket.AF_INET, 101, "0.0.0.0/0", 1, 4, 0, ())]
    monkeypatch.setattr(netlink, "routes", lambda _: findings)
    return each


def test_a_later_rule_is_named_and_stops_no_apply(theirs: Rule) -> None:
    """`status` names a rule that came later; an apply that takes no more away goes on."""
    now, later = target(VRF, VTEP), target(VRF, VTEP)
    for findings in (diverted.findings(now), diverted.findings(later, now)):
        assert [(each.what, each.stops) for each in findings] == [
            (f"the routing rule {theirs} comes before table local", False)
        ]


def test_a_rule_before_table_local_stops_the_first_vpc(theirs: Rule) -> None:
    """The first VPC is refused; without VPCs table local comes first, and nothing is found."""
    [findings] = diverted.findings(target(VRF, VTEP), target(VTEP))
    assert findings.stops
    assert findings.what == f"the routing rule {theirs} would come before table local"
    assert "packets for 10.12.0.101 would be forwarded, not delivered" in findings.why
    assert not list(diverted.findings(target(VTEP)))


def test_a_rule_after_ciliums_table_local_takes_nothing(
    theirs: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule after Cilium's own table local, which is at 100, takes no packet away."""
    local = [rule(50, LOCAL, plain=True), theirs, rule(32765, LOCAL, plain=True)]
    monkeypatch.setattr(routing_rules, "read", lambda: local)
    assert not list(diverted.findings(target(VRF, VTEP)))
