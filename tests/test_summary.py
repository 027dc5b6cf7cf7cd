"""The changes of a host, in network terms."""

from functools import partial
from typing import Any

import msgspec
import pytest

from generator.desired import plan
from generator.desired.change import total
from generator.desired.payload import load
from generator.desired.summary import changes, summary
from generator.desired.target import Target
from tests.counting import instructions
from tests.strategies import LEAF1, LEAF2, MAC, Json, encoded, host, link, server, tagged, vnet, vpc

PORTS = tagged(LEAF1, LEAF2)


def target(document: Json) -> Target:
    return plan.target(plan.make(load(encoded(document)).hosts[0], "netplan"))


def red(**fields: Any) -> Json:
    return vnet(26, name="red", prefixes=["10.26.0.1/24"], ports=PORTS) | fields


OLD = host(red())
VPCS = host()["vpcs"]


def marked(old: Json, new: Json) -> list[str]:
    """Return what differs between two hosts, with the risks."""
    return [each.text_with_risks for each in changes(target(old), target(new))]


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        (host(red(), generation=9), []),
        (
            host(red(), vnet(31, name="blue", ports=PORTS)),
            ["+ V-Net blue (VNI 31, no gateway here)"],
        ),
        (
            host(),
            ["- V-Net red (VNI 26, 10.26.0.1/24, VPC coke)", "- VPC coke (Vrf_33, L3VNI 1033)"],
        ),
        (
            host(red(gateways=[{"prefix": "10.26.9.1/24"}])),
            ["~ V-Net red: gateway 10.26.0.1/24 → 10.26.9.1/24"],
        ),
        (host(red(mtu=1400)), ["~ V-Net red: MTU 1500 → 1400"]),
        (
            host(red(), links=[link("ens4", LEAF1), link("ens6", LEAF2)]),
            ["- uplink ens5 (swp1@leaf2)", "+ uplink ens6 (swp1@leaf2)"],
        ),
        (
            host(red(), links=[link("ens4", LEAF1)]),
            ["- uplink ens5 (swp1@leaf2)   ! leaves one session"],
        ),
        (
            host(red(name="blue")),
            ["~ V-Net blue: name red → blue"],
        ),
        (
            host(red(vxlanID=27)),
            ["~ V-Net red: VNI 26 → 27   ! its devices are recreated"],
        ),
        (
            host(red(vpc={"id": 34}), vpcs=[VPCS[0], vpc(34, name="coke", vni=1033)]),
            [
                "~ V-Net red: VRF Vrf_33 → Vrf_34",
                "~ VPC coke: VRF Vrf_33 → Vrf_34   ! its VRF is recreated",
            ],
        ),
        (
            host(red(macAddress="44:38:39:ff:00:99")),
            [f"~ V-Net red: MAC {MAC.lower()} → 44:38:39:ff:00:99"],
        ),
        (
            host(red(), server=server(mainAddress="10.2.0.9")),
            ["~ loopback: 10.2.0.101 → 10.2.0.9   ! all VXLAN ports are recreated"],
        ),
        (
            host(red(), server=server(bgp={"bfd": True, "keepalive": 1, "holdtime": 9})),
            ["~ BGP: BFD off → on, keepalive 3 → 1 s"],
        ),
        (
            host(
                red(),
                vpcs=[VPCS[0], VPCS[1] | {"routeTargets": {"import": ["65000:1", "65000:2"]}}],
            ),
            ["~ VPC coke: route targets (import) automatic → 65000:1 65000:2"],
        ),
        (
            host(red(), links=[link("ens4", LEAF1, mtu=1540), link("ens5", LEAF2)]),
            ["~ uplink ens4: MTU of the NIC → 1540   ! MTU too small for V-Nets of MTU 1500"],
        ),
        (
            host(red(), links=[link("ens4", LEAF1, remote={"asn": 9}), link("ens5", LEAF2)]),
            ["~ uplink ens4: AS of the leaf external → 9"],
        ),
        (
            host(red(), server=server(asn=4200000009)),
            ["~ AS number: 4200000001 → 4200000009   ! all sessions end"],
        ),
        (
            host(red(), vpcs=[VPCS[0], vpc(33, name="coke", vni=2033)]),
            ["~ VPC coke: L3VNI 1033 → 2033   ! the devices of its L3VNI are recreated"],
        ),
    ],
)
def test_each_difference_is_a_line(document: Json, lines: list[str]) -> None:
    """Each difference is a line, in the words of a payload; a risk has a mark."""
    assert marked(host(red()), document) == lines


def test_a_first_apply_adds_all() -> None:
    """Without an old target all lines are additions."""
    lines = summary(None, target(OLD))
    assert "+ V-Net red (VNI 26, 10.26.0.1/24, VPC coke)" in lines
    assert "+ uplink ens4 (swp1@leaf1)" in lines
    assert any(line.startswith("+ management address") for line in lines)
    assert all(line.startswith("+ ") for line in lines)
    assert total(lines) == f"{len(lines)} added"


def test_other_router_advertisements_are_a_change() -> None:
    """Other router advertisements are a change of their V-Net."""
    gateways = {"gateways": [{"prefix": "fd00:26::1/64"}]}
    silent = target(host(red(**gateways)))
    advertising = target(host(red(**gateways, ipv6NeighborDiscovery={"mode": "enabled"})))
    assert summary(silent, advertising) == ["~ V-Net red: + router advertisements"]
    assert summary(advertising, silent) == ["~ V-Net red: - router advertisements"]
    assert not summary(advertising, advertising)


def test_a_new_management_address_has_a_mark() -> None:
    """A new management address is a line with both addresses, and a mark."""
    document = host(red())
    old = document["server"]["mgmt"]["ipv4"]
    new = old.replace(".101", ".77")
    document["server"]["mgmt"]["ipv4"] = new
    assert marked(OLD, document) == [
        f"~ management address: {old} → {new}   ! the host is reached at another address"
    ]
    assert total(["+ a", "~ b", "~ c", "- d"]) == "1 added, 2 changed, 1 removed"


def test_one_gateway_for_another_is_a_change() -> None:
    """One gateway for another of its family is a change; others are added or removed."""
    old = ["10.26.0.1/24", "fd00:26::1/64"]
    assert gateways(old, ["10.26.0.2/24", "fd00:26::1/64"]) == "gateway 10.26.0.1/24 → 10.26.0.2/24"
    assert gateways(old, old[:1]) == "- gateway fd00:26::1/64"
    three = ["10.26.0.1/24", "10.26.7.1/24", "10.26.8.1/24"]
    assert gateways(old, three) == (
        "+ gateway 10.26.7.1/24, + gateway 10.26.8.1/24, - gateway fd00:26::1/64"
    )
    assert gateways(three, three[::-1]) == "first gateway 10.26.8.1/24"


def gateways(old: list[str], new: list[str]) -> str:
    old_host, new_host = (host(red(gateways=[{"prefix": p} for p in each])) for each in (old, new))
    (line,) = marked(old_host, new_host)
    return line.removeprefix("~ V-Net red: ")


def test_an_mtu_that_no_longer_fits_is_a_risk() -> None:
    """An MTU that no longer fits is a risk; one that never fitted is not."""
    jumbo = [link("ens4", LEAF1, mtu=9000), link("ens5", LEAF2, mtu=9000)]
    narrow = [link("ens4", LEAF1, mtu=1500), link("ens5", LEAF2, mtu=1500)]
    blue = vnet(31, name="blue", ports=PORTS)
    assert marked(host(red(), links=jumbo), host(red(mtu=9000), links=jumbo)) == [
        (
            "~ V-Net red: MTU 1500 → 9000   ! MTU 9000 + 50 does not fit uplink ens4 (9000), "
            "MTU 9000 + 50 does not fit uplink ens5 (9000)"
        )
    ]
    assert marked(host(red(), links=jumbo), host(red(mtu=8950), links=jumbo)) == [
        "~ V-Net red: MTU 1500 → 8950"
    ]
    assert marked(host(red(), links=narrow), host(red(), blue, links=narrow)) == [
        "+ V-Net blue (VNI 31, no gateway here)"
    ]
    assert (
        "does not fit"
        in marked(host(red(), links=narrow), host(red(), blue | {"mtu": 1600}, links=narrow))[0]
    )


def test_fields_that_an_older_record_lacks_are_no_difference() -> None:
    """Fields that an older record lacks are no difference; of an uplink it has the leaf alone."""
    known = target(OLD)
    older = msgspec.structs.replace(
        known, links=None, bgp=None, imports=None, exports=None, names={}, vpcs={}
    )
    assert changes(older, known) == []
    document = host(red(), links=[link("ens4", LEAF1)])
    assert [each.text_with_risks for each in changes(older, target(document))] == [
        "- uplink ens5 (leaf2)   ! leaves one session"
    ]


def _with_vpcs(count: int, mtu: int) -> Target:
    """Return the target of a host with so many V-Nets, each in a VPC of its own."""
    vnets = [vnet(1000 + n, 100 + n, name=f"v{n}", ports=PORTS, mtu=mtu) for n in range(count)]
    vpcs = [vpc(26), *(vpc(100 + n, vni=100_000 + n) for n in range(count))]
    return target(host(*vnets, vpcs=vpcs))


def test_the_work_grows_with_the_v_nets() -> None:
    """Four times the changed V-Nets are four times the work, not sixteen."""
    few, many = (
        partial(changes, _with_vpcs(count, 1500), _with_vpcs(count, 1400)) for count in (50, 200)
    )
    assert len(few()) == 50
    assert instructions(many) < 6 * instructions(few)
