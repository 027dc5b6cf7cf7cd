"""What changes on a host, in network terms."""

from typing import Any

import pytest

from generator.desired import plan
from generator.desired.payload import load
from generator.desired.summary import summary, total
from generator.desired.target import Target
from tests.strategies import LEAF1, LEAF2, Json, encoded, host, link, server, tagged, vnet, vpc

PORTS = tagged(LEAF1, LEAF2)


def target(document: Json) -> Target:
    return plan.target(plan.make(load(encoded(document)).hosts[0], "netplan"))


def red(**fields: Any) -> Json:
    return vnet(26, name="red", prefixes=["10.26.0.1/24"], ports=PORTS) | fields


OLD = host(red())
VPCS = host()["vpcs"]


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        (host(red(), generation=9), []),
        (host(red(), vnet(31, name="blue", ports=PORTS)), ["+ V-Net blue (31)"]),
        (host(), ["- V-Net red (26)", "- VPC Vrf_33 (L3VNI 1033)"]),
        (
            host(red(gateways=[{"prefix": "10.26.9.1/24"}])),
            ["~ V-Net red (26): + gateway 10.26.9.1/24, - gateway 10.26.0.1/24"],
        ),
        (host(red(mtu=1400)), ["~ V-Net red (26): MTU 1500 to 1400"]),
        (
            host(red(), links=[link("ens4", LEAF1), link("ens6", LEAF2)]),
            ["+ session ens6", "- session ens5"],
        ),
        (host(red(), server=server(asn=4200000009)), ["~ AS 4200000001 to 4200000009"]),
        (
            host(red(), vpcs=[VPCS[0], vpc(33, vni=2033)]),
            ["~ VPC Vrf_33: L3VNI 1033 to 2033"],
        ),
    ],
)
def test_summary(document: Json, lines: list[str]) -> None:
    """Only what differs is a line, in the words of a payload."""
    assert summary(target(OLD), target(document)) == lines


def test_a_first_apply_adds_all() -> None:
    """Without an old target."""
    lines = summary(None, target(OLD))
    assert "+ V-Net red (26)" in lines
    assert "+ session ens4" in lines
    assert any(line.startswith("+ management address") for line in lines)
    assert all(line.startswith("+ ") for line in lines)
    assert total(lines) == f"{len(lines)} added"


def test_router_advertisements_that_come_and_go() -> None:
    """What guests of a V-Net are told is a change of it."""
    gateways = {"gateways": [{"prefix": "fd00:26::1/64"}]}
    silent = target(host(red(**gateways)))
    told = target(host(red(**gateways, ipv6NeighborDiscovery={"mode": "enabled"})))
    assert summary(silent, told) == ["~ V-Net red (26): + router advertisements"]
    assert summary(told, silent) == ["~ V-Net red (26): - router advertisements"]
    assert not summary(told, told)


def test_a_renumbered_management_address() -> None:
    """The new and the old one, each with its sign."""
    document = host(red())
    old = document["server"]["mgmt"]["ipv4"]
    new = old.replace(".101", ".77")
    document["server"]["mgmt"]["ipv4"] = new
    assert summary(target(OLD), target(document)) == [
        f"+ management address {new}",
        f"- management address {old}",
    ]
    assert total(["+ a", "~ b", "~ c", "- d"]) == "1 added, 2 changed, 1 removed"
