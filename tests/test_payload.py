"""What `load` promises: what it derives for a host, what it refuses in which words, its limits."""

import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from generator.desired.model import devices
from generator.desired.payload import Payload, load
from generator.errors import Refused
from tests.conftest import ACCEPTED
from tests.counting import instructions
from tests.strategies import (
    IGNORED_FIELDS,
    LEAF1,
    LEAF2,
    MAC,
    Json,
    bridge,
    derived,
    encoded,
    fleet,
    host,
    link,
    management,
    mgmt,
    parsed,
    places,
    refusals,
    server,
    tagged,
    untagged,
    vnet,
    vpc,
    vrf,
)

HERE = Path(__file__).parent
REFUSED = sorted(HERE.glob("payloads/refused/*.json"))
BOTH = tagged(LEAF1, LEAF2)


def routed(vxlan_id: int = 26, vpc_id: int = 33, **fields: Any) -> Json:
    """Return a V-Net whose gateway is on the host."""
    number = vxlan_id % 256
    return vnet(vxlan_id, vpc_id, prefixes=[f"10.188.{number}.1/24"], ports=BOTH) | fields


def loaded(document: Json) -> Payload:
    return load(encoded(document))


# --- Cases ---


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_accepted_cases(path: Path) -> None:
    """`load` accepts every case and example."""
    load(path.read_bytes())


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_refused_cases(path: Path) -> None:
    """`load` refuses every case, and names each problem once, in a printable line."""
    problems = refusals(path.read_bytes())
    assert problems
    assert len(set(problems)) == len(problems)
    assert all(line.isprintable() for line in problems)


# --- Rule 1: the V-Nets of a host ---


def test_a_vnet_is_on_the_host_by_the_port_of_a_link() -> None:
    """One of its ports is the leaf's end of a link; its other ports do not matter."""
    host_ = derived(
        host(
            vnet(100, ports=tagged("swp7@leaf9", LEAF2)),
            vnet(101, ports=tagged("swp7@leaf9")),
            vnet(102),
            vnet(103, ports=tagged("ens4@K8S01", "ens4", "SWP1@leaf1")),
        )
    )
    assert [bridge.name for bridge in host_.bridges] == ["nbr-14", "nbr-100"]


def test_devices_have_the_names_of_the_contract() -> None:
    """nbr-<vxlanID>, vxlan<vxlanID>, Vrf_<id> with table 1000 + id, l3br-<vni> and l3vx-<vni>."""
    by_name = {device.name: device for device in devices(derived(host(routed())))}
    assert list(by_name) == [
        "Vrf_33",
        *("nbr-14", "vxlan14"),
        *("nbr-26", "vxlan26"),
        *("l3br-1033", "l3vx-1033"),
    ]
    assert by_name["Vrf_33"].table == 1033
    port = by_name["vxlan26"]
    assert (port.vni, port.local, port.mtu, port.master) == (26, "10.2.0.101", 1500, "nbr-26")
    assert by_name["nbr-26"].master == by_name["l3br-1033"].master == "Vrf_33"
    assert by_name["l3vx-1033"].vni == 1033


def test_the_example_is_the_documentations_host() -> None:
    """K8S01: two sessions, three bridges, the gateways 10.188.0.254 and 10.188.1.254."""
    host_ = load((HERE.parent / "examples" / "k8s01.json").read_bytes()).host("k8s01")
    assert (host_.asn, host_.loopback) == (4200000001, "10.2.0.101")
    assert [(u.neighbor, u.remote_as) for u in host_.uplinks] == [
        ("ens4", "4200300001"),
        ("ens5", "4200300002"),
    ]
    assert {b.name: b.addresses for b in host_.bridges} == {
        "nbr-14": [],
        "nbr-26": ["10.188.0.254/24"],
        "nbr-31": ["10.188.1.254/24"],
        "l3br-1033": [],
    }


# --- Rule 2: tagged and untagged ---


def test_gateways_and_mac_are_on_the_host_only_when_tagged() -> None:
    """Tagged: gateway addresses and the V-Net's MAC on the bridge. Untagged: neither."""
    inside = bridge(derived(host(routed())), "nbr-26")
    outside = bridge(derived(host(routed(ports=untagged(LEAF1, LEAF2)))), "nbr-26")
    assert (inside.addresses, inside.mac, inside.vrf) == (["10.188.26.1/24"], MAC, "Vrf_33")
    assert (outside.addresses, outside.vrf) == ([], None)
    assert outside.mac != MAC


def test_custom_anycast_mac_wins() -> None:
    """`customAnycastMac` wins over `macAddress`, in lower case."""
    host_ = derived(host(routed(customAnycastMac="02:AA:00:00:00:01")))
    assert bridge(host_, "nbr-26").mac == "02:aa:00:00:00:01"


def test_bridges_without_gateway_have_a_mac_of_their_own() -> None:
    """It is local, unicast, stable, and unlike that of any other host or bridge."""
    segment = vnet(27, macAddress=MAC, ports=BOTH)
    here = derived(host(routed(), segment))
    again = derived(host(segment, generation=9))
    elsewhere = derived(host(routed(), segment, server=server(mainAddress="10.2.0.102")))
    macs = [bridge(here, name).mac for name in ("nbr-14", "nbr-27", "l3br-1033")]
    others = [bridge(elsewhere, name).mac for name in ("nbr-14", "nbr-27", "l3br-1033")]
    assert len({MAC, *macs, *others}) == 7
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)
    assert bridge(again, "nbr-27").mac == bridge(here, "nbr-27").mac


def test_a_host_has_no_generation() -> None:
    """The same host in two payloads gives the same files."""
    assert derived(host(routed(), generation=1)) == derived(host(routed(), generation=2))


def test_tagged_here_and_untagged_there_is_refused() -> None:
    """It is tagged on all of a host's ports, or untagged on all; ports of others do not count."""
    mixed = tagged(LEAF1) + untagged(LEAF2)
    assert places(host(routed(ports=mixed))) == ["vnets[1].ports"]
    assert not places(host(routed(ports=tagged(LEAF1) + untagged("swp7@leaf9"))))


def test_the_first_gateway_of_a_family_is_primary() -> None:
    """The first of each family comes first, IPv4 before IPv6. The order of the others is ours."""

    def addresses(*prefixes: str) -> list[str]:
        segment = vnet(26, prefixes=prefixes, ports=BOTH)
        return bridge(derived(host(segment)), "nbr-26").addresses

    first = ["10.9.0.1/24", "10.1.0.1/24", "10.5.0.1/24", "fd00:9::1/64", "fd00:1::1/64"]
    assert addresses(*first) == first
    assert addresses(*reversed(first)) == [
        *("10.5.0.1/24", "10.1.0.1/24", "10.9.0.1/24"),
        *("fd00:1::1/64", "fd00:9::1/64"),
    ]
    a, b, c, d, e = first
    assert addresses(d, a, e, c, b) == first


# --- Rule 3: management ---


def test_the_management_bridge_is_in_no_vrf_and_has_no_address() -> None:
    """This holds where the management V-Net has a gateway too. The hook moves the address."""
    host_ = derived(host(vnets=[management(gateways=[{"prefix": "10.12.0.1/16"}])]))
    assert bridge(host_, "nbr-14").vrf is None
    assert bridge(host_, "nbr-14").addresses == []
    assert host_.management is not None
    assert host_.management.bridge == "nbr-14"
    assert host_.management.ifname == "ens4"
    assert (host_.management.ipv4, host_.management.gateway) == ("10.12.0.101/16", "10.12.0.1")
    assert (host_.management.ipv6, host_.management.gateway6) == (None, None)


def test_an_ipv6_management_address_enables_ipv6_on_its_bridge() -> None:
    """Without such an address the bridge has no IPv6."""
    both = mgmt(ipv6="2001:DB8::101/64", gateway6="2001:db8::1")
    host_ = derived(host(server=server(mgmt=both)))
    assert host_.management is not None
    assert (host_.management.ipv6, host_.management.gateway6) == (
        "2001:db8::101/64",
        "2001:db8::1",
    )
    assert bridge(host_, "nbr-14").ipv6
    assert not bridge(derived(host()), "nbr-14").ipv6


def test_other_links_may_be_in_the_management_vnet_or_not() -> None:
    """Only the port of `mgmt.ifname` has to be untagged in it."""
    assert not places(host(vnets=[management(ports=untagged(LEAF1))]))
    assert places(host(vnets=[management(ports=untagged(LEAF2))])) == ["server.mgmt.vnet"]
    assert "vnets[0].ports" in places(
        host(vnets=[management(ports=untagged(LEAF1) + tagged(LEAF2))])
    )


def test_a_host_without_links_needs_no_management() -> None:
    """`server.mgmt` is required with any link, and only then."""
    bare = {name: value for name, value in server().items() if name != "mgmt"}
    host_ = derived(host(server=bare, links=[]))
    assert (host_.management, host_.uplinks, host_.bridges) == (None, (), ())
    assert places(host(server=bare)) == ["server.mgmt"]


# --- Rule 4: sessions ---


@pytest.mark.parametrize(
    ("ports", "underlay", "expected"),
    [
        (untagged(LEAF1, LEAF2), "disabled", True),
        (untagged(LEAF1, LEAF2), "enabled", True),
        (untagged(LEAF1), "enabled", True),
        (untagged(LEAF1), "disabled", False),
    ],
)
def test_where_a_session_is_attempted(ports: list[Json], underlay: str, expected: bool) -> None:
    """Links untagged in the management V-Net and links in the underlay have one, no others."""
    links = [link("ens4", LEAF1), link("ens5", LEAF2, underlay=underlay, mtu=9000)]
    host_ = derived(host(routed(), vnets=[management(ports=ports), routed()], links=links))
    assert [uplink.ifname for uplink in host_.uplinks] == ["ens4", "ens5"][: 1 + expected]
    assert bridge(host_, "nbr-26")


def test_a_session_is_unnumbered_by_default() -> None:
    """It names the interface and `remote-as external`, and the NIC keeps its MTU."""
    uplink = derived(host()).uplinks[0]
    assert (uplink.neighbor, uplink.remote_as) == ("ens4", "external")
    assert (uplink.mtu, uplink.address, uplink.peer) == (None, None, None)


def test_a_session_is_numbered_when_both_ends_have_addresses() -> None:
    """The NIC gets the local address, and the session goes to the other one."""
    numbered = link(
        *("ens4", LEAF1),
        mtu=9216,
        local={"ipv4": "100.64.0.1/31"},
        remote={"ipv4": "100.64.0.0/31", "asn": 4200300001},
    )
    uplink = derived(host(links=[numbered, link("ens5", LEAF2)])).uplinks[0]
    assert (uplink.neighbor, uplink.remote_as) == ("100.64.0.0", "4200300001")
    assert (uplink.mtu, uplink.address) == (9216, "100.64.0.1/31")


def test_sessions_have_defaults_that_a_payload_can_change() -> None:
    """They are no BFD, 3 and 9 seconds, and no password; `server.bgp` changes them."""
    plain = derived(host()).bgp
    assert (plain.bfd, plain.keepalive, plain.holdtime, plain.password) == (False, 3, 9, None)
    settings = {"bfd": True, "keepalive": 10, "holdtime": 30, "password": "s3cret|!"}
    bgp = derived(host(server=server(bgp=settings))).bgp
    assert {name: getattr(bgp, name) for name in settings} == settings


# --- Rule 5: VRFs ---


def test_a_vpc_without_gateway_here_has_no_vrf() -> None:
    """It has no V-Net, or only pure L2, untagged or distant ones: it gets no VRF and no L3VNI."""
    host_ = derived(
        host(
            vnet(100, 40, ports=BOTH, l2only=True),
            routed(101, 41, ports=untagged(LEAF1)),
            routed(102, 42, ports=tagged("swp7@leaf9")),
            vpcs=[vpc(26), vpc(33, vni=1033), *(vpc(i, vni=1000 + i) for i in (40, 41, 42))],
        )
    )
    assert host_.vrfs == ()
    assert [bridge.name for bridge in host_.bridges] == ["nbr-14", "nbr-100", "nbr-101"]
    assert [bridge.vrf for bridge in host_.bridges] == [None, None, None]


def test_a_pure_l2_vnet_beside_a_routed_one_is_in_no_vrf() -> None:
    """A V-Net without a gateway is in no VRF, even when its VPC has a VRF here."""
    host_ = derived(host(routed(), vnet(27, ports=BOTH)))
    assert bridge(host_, "nbr-27").vrf is None
    assert vrf(host_, "Vrf_33").bridges == ("nbr-26", "l3br-1033")


def test_a_vpc_without_vni_is_routed_on_this_host_only() -> None:
    """It has a VRF, and no L3VNI."""
    host_ = derived(host(routed(), vpcs=[vpc(26), vpc(33)]))
    assert vrf(host_, "Vrf_33").vni is None
    assert host_.l3vnis == []
    assert vrf(host_, "Vrf_33").bridges == ("nbr-26",)


def test_an_l3vni_has_room_for_the_largest_of_its_vnets() -> None:
    """It has the MTU of the largest, no address, and no suppression: it has no neighbours."""
    host_ = derived(host(routed(26, mtu=1400), routed(27, mtu=9000), vnet(28, 26, mtu=9216)))
    l3 = bridge(host_, "l3br-1033")
    assert (l3.mtu, l3.port.mtu, l3.addresses) == (9000, 9000, [])
    assert (bridge(host_, "nbr-26").mtu, bridge(host_, "nbr-26").port.mtu) == (1400, 1400)
    assert not l3.port.suppress
    assert bridge(host_, "nbr-26").port.suppress


def test_route_targets_are_canonical_and_distinct() -> None:
    """Route targets are canonical and distinct, and automatic where a payload has none."""
    targets = {"import": ["65000:033", "192.0.2.1:5", "65000:33"], "export": []}
    vrf_ = vrf(derived(host(routed(), vpcs=[vpc(26), vpc(33, routeTargets=targets)])), "Vrf_33")
    assert vrf_.import_targets == ("192.0.2.1:5", "65000:33")
    assert vrf_.export_targets == ()


def test_two_vpcs_may_use_the_same_prefixes() -> None:
    """Each VPC has a VRF of its own, so both can have the same addresses."""
    both = ["10.0.0.1/24", "fd00::1/64"]
    host_ = derived(
        host(
            vnet(100, 40, prefixes=both, ports=BOTH),
            vnet(200, 41, prefixes=both, ports=BOTH),
            vpcs=[vpc(26), vpc(40), vpc(41)],
        )
    )
    assert bridge(host_, "nbr-100").addresses == bridge(host_, "nbr-200").addresses == both
    assert [vrf.bridges for vrf in host_.vrfs] == [("nbr-100",), ("nbr-200",)]


# --- Rules 6 and 7 ---


def test_a_gateway_on_the_host_needs_a_mac() -> None:
    """Hosts and leaves share this MAC. A host whose gateway is on the switch needs none."""

    def without_mac(ports: list[Json]) -> Json:
        return host(vnet(26, gateways=[{"prefix": "10.0.0.1/24"}], ports=ports))

    assert places(without_mac(BOTH)) == ["vnets[1].macAddress"]
    assert not places(without_mac(untagged(LEAF1)))
    assert not places(without_mac(tagged("swp7@leaf9")))


def test_a_vnet_that_is_not_on_the_host_leaves_nothing_there() -> None:
    """A V-Net that is absent, disabled, or without a port here has no device; nor has its VPC."""
    plain = derived(host())
    assert derived(host(routed(state="disabled"))) == plain
    assert derived(host(routed(ports=[]))) == plain
    assert derived(host(routed())) != plain


def test_a_disabled_vnet_has_no_effect() -> None:
    """A disabled V-Net may repeat a name, VNI or prefix, or have an unknown VPC."""
    disabled = routed(state="disabled", vpc={"id": 99}, l3vpn=True, macAddress="02:00:00:00:00:01")
    assert derived(host(routed(), disabled)) == derived(host(routed()))


# --- Order, Host and Fleet ---


def shuffled(value: Any, chance: random.Random, key: str = "") -> Any:
    """Return a document with every list and object in another order, except gateways."""
    if isinstance(value, dict):
        items = [(name, shuffled(inside, chance, name)) for name, inside in value.items()]
        chance.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        items_ = [shuffled(inside, chance) for inside in value]
        if key != "gateways":
            chance.shuffle(items_)
        return items_
    return value


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_order_means_nothing(path: Path) -> None:
    """A shuffled payload derives equal hosts, in the same order."""
    document = parsed(path)
    expected = loaded(document).hosts
    for seed in range(5):
        assert loaded(shuffled(document, random.Random(seed))).hosts == expected  # noqa: S311


def test_a_host_is_the_same_alone_and_in_a_fleet() -> None:
    """A Fleet is many Hosts that share one list of segments."""
    alone = host(routed(), vnet(27, ports=BOTH))
    other = server(name="K8S02", asn=4200000002, mainAddress="10.2.0.102")
    del other["mgmt"]
    both = fleet(
        {"server": other, "links": []},
        {"server": alone["server"], "links": alone["links"]},
        vnets=alone["vnets"],
    )
    payload = loaded(both)
    assert payload.kind == "Fleet"
    assert [entry.name for entry in payload.hosts] == ["K8S01", "K8S02"]
    assert payload.host("k8s01") == derived(alone)


def test_chooses_a_host_by_name_or_the_only_one() -> None:
    """Names match in letters of either case. A refusal names the hosts of the payload."""
    one = loaded(host())
    assert one.host(None) == one.host("k8s01") == one.hosts[0]
    with pytest.raises(Refused, match=r"no host K8S09 .* it has: K8S01"):
        one.host("K8S09")
    with pytest.raises(Refused, match="0 hosts"):
        loaded(fleet()).host(None)


def test_a_fleet_leaves_out_other_roles_and_says_so() -> None:
    """A host of another role is a warning in a Fleet; a Host document is refused."""
    other = {"server": {"srvRole": "generic", "cpu": 5}, "rack": []}
    payload = loaded(fleet({"server": server(), "links": host()["links"]}, other))
    assert [entry.name for entry in payload.hosts] == ["K8S01"]
    assert [(each.name, each.role, str(each.warning)) for each in payload.left_out] == [
        (
            "hosts[1]",
            "generic",
            "hosts[1].server.srvRole: generic is not EVPN-VTEP: this host is left out",
        )
    ]
    assert places(host(server=server(srvRole="generic"))) == ["server.srvRole"]


def test_refuses_two_hosts_with_the_same_identity() -> None:
    """Name (in letters of either case), AS number and VTEP address belong to one host."""
    entries = [{"server": server(name=name), "links": [link("ens4", LEAF1)]} for name in ("a", "A")]
    assert places(fleet(*entries)) == [
        *(f"hosts[1].server.{field}" for field in ("name", "asn", "mainAddress")),
        "hosts[1].links[0].remote.name",
    ]


def test_a_generation_has_up_to_63_bits() -> None:
    """It is 0 when it is absent."""
    document = host()
    del document["generation"]
    assert loaded(document).generation == 0
    assert loaded(host(generation=2**63 - 1)).generation == 2**63 - 1
    assert places(host(generation=2**63)) == ["generation"]


# --- Ignored and unknown fields ---


def _objects(value: Any) -> list[Json]:
    if isinstance(value, list):
        return [each for inside in value for each in _objects(inside)]
    if isinstance(value, dict):
        return [value, *(each for inside in value.values() for each in _objects(inside))]
    return []


def _everything() -> Json:
    targets = {"import": ["65000:33"], "export": ["65000:33"]}
    document = host(
        routed(),
        server=server(bgp={"bfd": True}),
        vpcs=[vpc(26), vpc(33, vni=1033, routeTargets=targets)],
    )
    copy: Json = json.loads(json.dumps(document))  # a deep copy
    return copy


@pytest.mark.parametrize("field", IGNORED_FIELDS)
def test_fields_without_meaning_are_ignored(field: str) -> None:
    """`load` accepts fields of the real API in every object, with any value."""
    for value in (None, True, 7, "text", [{"id": 1}], {"a": {"b": [1.5]}}):
        document = _everything()
        for inside in _objects(document):
            inside.setdefault(field, value)
        assert derived(document) == derived(_everything())


def test_fields_of_a_gateway_without_meaning_are_ignored() -> None:
    """They are `vlan`, `dhcpEnabled` and `dhcp`; elsewhere the last two are unknown."""
    document = host(routed())
    document["vnets"][1]["gateways"][0] |= {"vlan": 5, "dhcpEnabled": True, "dhcp": {"start": "x"}}
    assert derived(document) == derived(host(routed()))
    assert places(host(routed(dhcp={}))) == ["vnets[1].dhcp"]


def test_any_other_field_is_refused_wherever_it_stands() -> None:
    """An unknown field is refused, or a typing error could silently drop a tenant's network."""
    count = len(_objects(_everything()))
    for index in range(count):
        document = _everything()
        _objects(document)[index]["vxlanid"] = 5
        (problem,) = refusals(document)
        assert "vxlanid: is not a field that is known here" in problem


def test_names_every_required_field_that_is_missing() -> None:
    """The test removes each field of a document in turn."""
    required = set()
    for document in (_everything(), fleet({"server": server(), "links": host()["links"]})):
        for index, inside in enumerate(_objects(document)):
            for name in inside:
                changed = json.loads(json.dumps(document))
                del _objects(changed)[index][name]
                required |= {
                    problem.split(":")[0].split(".")[-1]
                    for problem in refusals(changed)
                    if "is required" in problem
                }
    assert required == {
        *("apiVersion", "kind", "server", "hosts", "name", "srvRole", "asn", "mainAddress"),
        *("mgmt", "vnet", "ifname", "ipv4", "gateway", "local", "remote"),
        *("id", "vxlanID", "vpc", "prefix", "macAddress"),
    }


# --- All problems, and no others ---

ONE_FAULT: dict[str, tuple[Json, str]] = {
    "an unknown VPC": (host(routed(vpc={"id": 34})), "vnets[1].vpc.id"),
    "a VNI of two V-Nets": (host(routed(), vnet(26, name="b")), "vnets[2].vxlanID"),
    "a VNI of V-Net and VPC": (host(vnet(1033)), "vnets[1].vxlanID"),
    "a name of two V-Nets": (host(routed(), routed(27, name="vnet-26")), "vnets[2].name"),
    "an id of two VPCs": (host(vpcs=[vpc(26), vpc(26, name="b")]), "vpcs[1].id"),
    "a NIC of two links": (
        host(links=[link("ens4", LEAF1), link("ens4", LEAF2)]),
        "links[1].local.ifname",
    ),
    "overlapping prefixes": (
        host(routed(), vnet(27, prefixes=["10.188.0.9/16"])),
        "vnets[1].gateways[0].prefix",
    ),
    "an ill-formed VPC that V-Nets refer to": (
        host(routed(), vpcs=[vpc(26), vpc(33, vni=1)]),
        "vpcs[1].vni",
    ),
    "a VPC without a sound id": (
        host(routed(), vpcs=[vpc(26), vpc(33) | {"id": "33"}]),
        "vpcs[1].id",
    ),
    "VPCs that are no list": (host(routed(), vpcs={}), "vpcs"),
    "an ill-formed management V-Net": (host(vnets=[management(mtu=0)]), "vnets[0].mtu"),
    "a management V-Net without name": (host(vnets=[management(name=None)]), "vnets[0].name"),
    "V-Nets that are no list": (host(vnets=None), "vnets"),
    "an ill-formed link of the management": (
        host(links=[link("ens4", LEAF1, mtu=0), link("ens5", LEAF2)]),
        "links[0].mtu",
    ),
    "links that are no list": (host(links="ens4"), "links"),
    "a bad keepalive": (
        host(server=server(bgp={"keepalive": 0, "holdtime": 1})),
        "server.bgp.keepalive",
    ),
}


@pytest.mark.parametrize("fault", ONE_FAULT)
def test_one_fault_is_one_problem(fault: str) -> None:
    """`load` does not name consequences of a problem as further problems."""
    document, place = ONE_FAULT[fault]
    assert places(document) == [place]


def test_names_all_problems_together() -> None:
    """Faults of form and of meaning are named with their places in one refusal."""
    document = host(
        vnet(26, 34),
        vnet(1),
        vnet(28, l3vpn=True, vlanAware=False),
        vnet(29, vlanaware=False),
        vnet(30, prefixes=["10.0.0.0/24", "fd00::1/127"]),
        generation=-1,
        server=server(bgp={"keepalive": 60}),
        links=[link("ens4", LEAF1, mtu=100), link("ens5", LEAF2), link("ens6", LEAF2)],
        vpcs=[vpc(26), vpc(33, vni=1033), vpc(27, vni=1033)],
    )
    assert sorted(places(document)) == sorted(
        [
            "generation",
            "links[0].mtu",
            "links[2].remote.name",
            "server.bgp.holdtime",
            "vnets[1].vpc.id",
            "vnets[2].vxlanID",
            "vnets[3].l3vpn",
            "vnets[4].vlanaware",
            "vnets[5].gateways[0].prefix",
            "vnets[5].gateways[1].prefix",
            "vpcs[2].vni",
        ]
    )


def test_a_problem_names_place_value_and_rule() -> None:
    """The form is that of the contract; quotes show a text where a number belongs."""
    assert refusals(host(vnet(70000000))) == [
        "vnets[1].vxlanID: 70000000 is not in 2–16777215 (V-Net vnet-70000000)"
    ]
    assert refusals(host(vnet(26) | {"vxlanID": "26"})) == [
        'vnets[1].vxlanID: "26" is not a whole number (V-Net vnet-26)'
    ]


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1], {"id": 1}])
def test_true_is_not_one(value: object) -> None:
    """`load` takes nothing but a number for a number, and no number for true."""
    assert places(host(generation=value)) == ["generation"]
    assert places(host(server=server(asn=value))) == ["server.asn"]
    assert places(host(vpcs=[vpc(26), vpc(27, vni=value)])) == ["vpcs[1].vni"]
    if value is not True:
        assert places(host(vnet(26, l2only=value))) == ["vnets[1].l2only"]


def test_addresses_are_canonical() -> None:
    """The model has one form of an address or a MAC, whatever form the payload has."""
    segment = vnet(26, gateways=[{"prefix": "FD00:0:0::0001/064"}], ports=BOTH)
    bridge_ = bridge(derived(host(segment | {"macAddress": "44:38:39:FF:00:1A"})), "nbr-26")
    assert (bridge_.addresses, bridge_.mac) == (["fd00::1/64"], MAC)


def test_a_gateway_needs_a_host_address_and_room_for_a_guest() -> None:
    """The addresses of the network and of broadcasts are refused."""
    good = [
        *("10.0.0.1/30", "10.0.0.2/30", "10.0.1.0/16", "10.1.0.255/16", "128.0.0.1/1"),
        *("fd00::1/126", "fd00::ffff/112"),
    ]
    bad = [
        *("10.0.0.0/30", "10.0.0.3/30", "10.0.255.255/16", "10.0.0.1/31", "10.0.0.1/32"),
        *("fd00::/126", "fd00::1/127", "fd00::1/128"),
    ]
    for prefix in good:
        assert places(host(vnet(26, prefixes=[prefix]))) == [], prefix
    for prefix in bad:
        place = "vnets[1].gateways[0].prefix"
        assert places(host(vnet(26, prefixes=[prefix]))) == [place], prefix


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [("vxlanID", 2, 16777215), ("mtu", 1280, 9216)],
)
def test_bounds_of_a_vnet(field: str, low: int, high: int) -> None:
    """`load` accepts both bounds, and refuses the next value beyond each."""
    for value, accepted in ((low - 1, 0), (low, 1), (high, 1), (high + 1, 0)):
        assert (places(host(vnet(26) | {field: value})) == []) is bool(accepted)


def test_bounds_of_timers() -> None:
    """They have 1–65535 seconds; the hold time is at least three times the keepalive."""
    for keepalive, holdtime, accepted in (
        *((1, 3, True), (21845, 65535, True), (3, 9, True)),
        *((0, 9, False), (3, 8, False), (21846, 65535, False), (3, 65536, False)),
    ):
        document = host(server=server(bgp={"keepalive": keepalive, "holdtime": holdtime}))
        assert (places(document) == []) is accepted


def test_bounds_of_identifiers() -> None:
    """VPC 1–4294966294, so that netplan takes its table; ASN 1–4294967294 but for reserved ones."""
    for id_, accepted in ((0, 0), (1, 1), (4294966294, 1), (4294966295, 0)):
        assert (places(host(vpcs=[vpc(26), vpc(id_)])) == []) is bool(accepted)
    for asn, accepted in (
        *((0, 0), (1, 1), (23456, 0), (65534, 1), (65535, 0), (65536, 1)),
        *((4294967294, 1), (4294967295, 0)),
    ):
        assert (places(host(server=server(asn=asn))) == []) is bool(accepted)
        remote = link("ens4", LEAF1, remote={"asn": asn})
        assert (places(host(links=[remote, link("ens5", LEAF2)])) == []) is bool(accepted)


def test_names_of_nics() -> None:
    """They have up to 15 characters, and are not names of devices that this host has from us."""
    for name, accepted in (
        *(("e" * 15, 1), ("e" * 16, 0), ("ens4.100", 1), ("lo", 0), ("lo0", 1), ("all", 0)),
        # A setting of netplan's, a peer-group of frr.conf, and what ifupdown2 takes for a VLAN.
        *(("renderer", 0), ("Renderer", 1), ("LEAVES", 0), ("leaves", 1), ("a.b", 0), ("a.", 0)),
        *(("a.1e3", 0), ("a.1.2", 1), ("a.1.2.3", 0), ("a." + "1" * 5, 0), ("e" * 11 + ".100", 1)),
        *(("nbr-26", 0), ("vxlan26", 0), ("Vrf_33", 0), ("l3br-1033", 0), ("l3vx-1033", 0)),
        *(("nbr-27", 1), ("vxlan27", 1), ("Vrf_26", 1), ("vrf_33", 1)),
    ):
        links = [link("ens4", LEAF1), link(name, LEAF2)]
        expected = [] if accepted else ["links[1].local.ifname"]
        assert places(host(routed(), links=links)) == expected, name


# --- Warnings ---


def test_vnets_too_large_for_a_link_are_a_warning() -> None:
    """VXLAN adds 50 bytes to a V-Net's MTU. More than a link's MTU is accepted with a warning."""

    def warnings(vnet_mtu: int, *link_mtus: int) -> list[str]:
        ports = [LEAF1, LEAF2]
        links = [
            link(f"ens{4 + i}", ports[i], **({"mtu": mtu} if mtu else {}))
            for i, mtu in enumerate(link_mtus)
        ]
        document = host(vnets=[management(mtu=1280), routed(mtu=vnet_mtu)], links=links)
        return [warning.place for warning in loaded(document).warnings]

    assert warnings(1500, 1500, 1550) == ["links[0].mtu"]
    assert warnings(1500, 1549, 1549) == ["links[0].mtu", "links[1].mtu"]
    assert warnings(9000, 0, 0) == []
    assert warnings(9166, 9216, 9216) == []


# --- Limits of a document ---


def test_more_than_64_mib_is_refused_unread() -> None:
    """The size alone decides, at once, whatever the content."""
    document = b" " * ((64 << 20) + 1)
    before = time.process_time()
    assert refusals(document) == ["the payload is larger than 64 MiB"]
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize("beside", ["", "\\u0041"], ids=["plain", "escaped"])
def test_nesting_is_bounded(beside: str) -> None:
    """32 levels are more than any payload has; other content does not change the bound."""

    def nested(depth: int) -> list[str]:
        text = json.dumps(host(customData="@", id=beside))
        return refusals(text.replace('"@"', "[" * depth + "]" * depth).encode())

    assert nested(31) == []
    assert nested(32) == nested(100_000) == ["the payload is nested more than 32 deep"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the payload is empty"),
        (b" \n", "the payload is empty"),
        (b"{", "the payload is not JSON: Expecting property name"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"\xff", "the payload is not UTF-8: byte 0 (invalid start byte)"),
        (b'{"kind": "Host"', "the payload is not JSON"),
        (b'{"kind": NaN}', "NaN is not a JSON number"),
        (b'{"kind": -Infinity}', "-Infinity is not a JSON number"),
        (b"[" + b"9" * 5000 + b"]", "Exceeds the limit"),
        (b'{"kind": "Host"} {}', "Extra data"),
        (b"[]", "payload: [] is not an object"),
        (b'"\\ud800"', 'payload: "\\ud800" is not an object'),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_refuses_anything_but_one_object_in_utf8(data: bytes, expected: str) -> None:
    """The refusal is one message."""
    (problem,) = refusals(data)
    assert expected in problem


def test_repeated_keys_are_refused() -> None:
    """Repeated keys are refused at any depth, in ignored fields, and with equal values too."""
    text = json.dumps(host(customData={"a": {"b": 1}}))
    text = text.replace('"b": 1', '"b": 1, "b": 1').replace('"asn":', '"asn": 7, "asn":')
    assert sorted(places(text.encode())) == ["customData.a.b", "server.asn"]


def test_huge_numbers_are_out_of_range() -> None:
    """A number beyond 64 bits gets the same message as any other that does not fit."""
    for number in (2**63, 2**64, -(2**70), 10**4000):
        assert places(host(vnet(26) | {"vxlanID": number})) == ["vnets[1].vxlanID"]
        assert not places(host(customData=number))


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\x00", "\x7f", "\x85", "\u2028", "\ud800"], ids=ascii
)
def test_refuses_characters_that_could_end_a_line(character: str) -> None:
    """It refuses them in names, values of the wrong kind, keys and ignored fields."""
    assert places(host(routed(name=f"a{character}b"))) == ["vnets[1].name"]
    assert places(host(customData=["x", {"y": character}])) == ["customData[1].y"]
    (problem,) = refusals(host(customData={f"a{character}b": 1}))
    assert problem.startswith("customData.a")
    assert character not in problem


def test_messages_show_no_raw_characters_of_names() -> None:
    """Marks that reverse text are legal in a name, and a message about it escapes them."""
    name = "a\u202eb"
    (problem,) = refusals(host(vnet(26, name=name), vnet(27, name=name)))
    assert problem == "vnets[2].name: a\\u202eb is already vnets[1].name"


# --- Work ---


def _large(count: int) -> bytes:
    vnets = [
        vnet(100 + i, 1 + i % 50, prefixes=[f"10.{i >> 8}.{i & 255}.1/24"], ports=BOTH)
        for i in range(count)
    ]
    return encoded(host(*vnets, vpcs=[vpc(1 + i, vni=100_000 + i) for i in range(60)]))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("", ""),
        ('"name": "vnet-100"', '"name": 5'),
        ("44:38", "01:38"),
        ('"id": ', '"id": 0, "id": 1'),
    ],
    ids=["sound", "one name wrong", "every MAC wrong", "every key twice"],
)
def test_work_grows_with_the_number_of_vnets(right: str, wrong: str) -> None:
    """Four times the V-Nets are about four times the work, even with a problem in each one."""
    few, many = (_large(n).decode().replace(right, wrong).encode() for n in (100, 400))
    refusals(few)  # imports and caches of the first call do not count
    assert instructions(partial(refusals, many)) < 5 * instructions(partial(refusals, few))


def _repeated_key(count: int) -> bytes:
    keys = ", ".join(f'"k{n}": 0' for n in range(count))
    return f'{{"kind": "Fleet", {keys}, "k0": 1}}'.encode()


def test_a_repeated_key_among_many() -> None:
    """A repeated key does not make the time for reading an object quadratic."""
    assert places(_repeated_key(100_000))
    few, many = (partial(refusals, _repeated_key(count)) for count in (1000, 4000))
    assert instructions(many) < 5 * instructions(few)


def _links_and_vnets_of_one_port(count: int) -> bytes:
    vnets = [vnet(100 + n, 1, ports=untagged("swp1@leaf-0")) for n in range(count)]
    links = [link(f"e{n}", "swp1@leaf-0") for n in range(count)]
    return encoded(host(vpcs=[vpc(1)], vnets=vnets, links=links))


def _fleet_in_one_vnet(count: int) -> bytes:
    """Return a sound Fleet whose hosts all have their management address in the same V-Net."""
    ports = untagged(*(f"swp{n}@leaf-0" for n in range(count)))
    hosts = [
        {
            "server": server(
                name=f"h{n}",
                asn=4200000001 + n,
                mainAddress=f"10.2.{n >> 8}.{n & 255}",
                mgmt=mgmt(vnet="m", ipv4=f"10.12.{1 + (n >> 8)}.{n & 255}/16"),
            ),
            "links": [link("ens4", f"swp{n}@leaf-0")],
        }
        for n in range(1, count)
    ]
    management = {"name": "m", "vxlanID": 14, "vpc": {"id": 1}, "ports": ports}
    return encoded(fleet(*hosts, vpcs=[vpc(1)], vnets=[management]))


def test_prints_addresses_as_the_kernel_is_read() -> None:
    """Addresses have the kernel's form; netaddr would print `::1.2.3.4`."""
    segment = vnet(26, prefixes=["::1.2.3.4/96", "2001:DB8:0:0::1/64"], ports=tagged(LEAF1))
    [bridge_] = [each for each in derived(host(segment)).bridges if each.name == "nbr-26"]
    assert sorted(bridge_.addresses) == ["2001:db8::1/64", "::102:304/96"]


def test_a_name_of_spaces_becomes_a_label() -> None:
    """A name of spaces becomes a label: FRR would refuse a description of spaces."""
    document = host()
    document["links"][0]["remote"]["name"] = "  "
    document["vnets"][0]["ports"][0]["name"] = "  "
    assert derived(document).uplinks[0].label == "_"


@pytest.mark.parametrize("document", [_links_and_vnets_of_one_port, _fleet_in_one_vnet])
def test_work_grows_with_the_document(document: Callable[[int], bytes]) -> None:
    """No part of a document is looked through for each element of another part."""
    few, many = (partial(refusals, document(count)) for count in (100, 400))
    few()  # imports and caches of the first call do not count
    assert instructions(many) < 5 * instructions(few)


def test_a_fleet_in_one_vnet_is_sound() -> None:
    """The test above would count little if the document was refused at once."""
    assert len(load(_fleet_in_one_vnet(20)).hosts) == 19


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "Host", "vnets": [0] * 5000},
        {"kind": "Fleet", "hosts": [{}] * 5000},
        {"kind": "Host", "customData": {f"\x7f{n}": 0 for n in range(5000)}},
    ],
)
def test_the_number_of_problems_is_limited(document: Json) -> None:
    """A broken document does not fill the memory with its problems."""
    problems = refusals(encoded(document))
    assert len(problems) == 1001
    assert "there are more than 1000 problems; the rest is not shown" in str(problems[-1])
