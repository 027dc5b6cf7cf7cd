"""What `load` promises: what a host derives, what is refused and how it is told, and its limits."""

import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from generator.errors import Refused
from generator.model import devices
from generator.payload import Payload, load
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
ACCEPTED = sorted([*HERE.glob("payloads/*.json"), *HERE.parent.glob("examples/*.json")])
REFUSED = sorted(HERE.glob("payloads/refused/*.json"))
BOTH = tagged(LEAF1, LEAF2)


def routed(vxlan_id: int = 26, vpc_id: int = 33, **fields: Any) -> Json:
    """A V-Net whose gateway is on the host."""
    number = vxlan_id % 256
    return vnet(vxlan_id, vpc_id, prefixes=[f"10.188.{number}.1/24"], ports=BOTH) | fields


def loaded(document: Json) -> Payload:
    return load(encoded(document))


# --- Cases ---


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_accepted_cases(path: Path) -> None:
    """Every case and example is accepted."""
    load(path.read_bytes())


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_refused_cases(path: Path) -> None:
    """Every case of a refusal is one, told in printable lines, each problem once."""
    found = refusals(path.read_bytes())
    assert found
    assert len(set(found)) == len(found)
    assert all(line.isprintable() for line in found)


# --- Rule 1: which V-Nets are on a host ---


def test_a_vnet_is_on_the_host_by_the_port_of_a_link() -> None:
    """A V-Net is here when one of its ports is the leaf's end of a link, whatever else it has."""
    found = derived(
        host(
            vnet(100, ports=tagged("swp7@leaf9", LEAF2)),
            vnet(101, ports=tagged("swp7@leaf9")),
            vnet(102),
            vnet(103, ports=tagged("ens4@K8S01", "ens4", "SWP1@leaf1")),
        )
    )
    assert [bridge.name for bridge in found.bridges] == ["nbr-14", "nbr-100"]


def test_devices_have_the_names_of_the_contract() -> None:
    """nbr-<vxlanID>, vxlan<vxlanID>, Vrf_<id> with table 1000 + id, l3br-<vni> and l3vx-<vni>."""
    found = {device.name: device for device in devices(derived(host(routed())))}
    assert list(found) == [
        "Vrf_33",
        *("nbr-14", "vxlan14"),
        *("nbr-26", "vxlan26"),
        *("l3br-1033", "l3vx-1033"),
    ]
    assert found["Vrf_33"].table == 1033
    port = found["vxlan26"]
    assert (port.vni, port.local, port.mtu, port.master) == (26, "10.2.0.101", 1500, "nbr-26")
    assert found["nbr-26"].master == found["l3br-1033"].master == "Vrf_33"
    assert found["l3vx-1033"].vni == 1033


def test_the_example_is_the_documentations_host() -> None:
    """K8S01: two sessions, three bridges, the gateways 10.188.0.254 and 10.188.1.254."""
    found = load((HERE.parent / "examples" / "k8s01.json").read_bytes()).host("k8s01")
    assert (found.asn, found.loopback) == (4200000001, "10.2.0.101")
    assert [(u.neighbor, u.remote_as) for u in found.uplinks] == [
        ("ens4", "4200300001"),
        ("ens5", "4200300002"),
    ]
    assert {b.name: b.addresses for b in found.bridges} == {
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
    found = derived(host(routed(customAnycastMac="02:AA:00:00:00:01")))
    assert bridge(found, "nbr-26").mac == "02:aa:00:00:00:01"


def test_bridges_without_gateway_have_a_mac_of_their_own() -> None:
    """It is locally administered, unicast, stable, of this host and bridge, and not the shared."""
    segment = vnet(27, macAddress=MAC, ports=BOTH)
    here = derived(host(routed(), segment))
    again = derived(host(segment, generation=9))
    there = derived(host(routed(), segment, server=server(mainAddress="10.2.0.102")))
    macs = [bridge(here, name).mac for name in ("nbr-14", "nbr-27", "l3br-1033")]
    others = [bridge(there, name).mac for name in ("nbr-14", "nbr-27", "l3br-1033")]
    assert len({MAC, *macs, *others}) == 7
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)
    assert bridge(again, "nbr-27").mac == bridge(here, "nbr-27").mac


def test_tagged_here_and_untagged_there_is_refused() -> None:
    """A V-Net is tagged on all of a host's ports in it, or untagged; others' ports are free."""
    mixed = tagged(LEAF1) + untagged(LEAF2)
    assert places(host(routed(ports=mixed))) == ["vnets[1].ports"]
    assert not places(host(routed(ports=tagged(LEAF1) + untagged("swp7@leaf9"))))


def test_the_first_gateway_of_a_family_is_primary() -> None:
    """The first of each family comes first, IPv4 before IPv6; what follows has no order."""

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
    """Even where the management V-Net has a gateway; the address is the hook's to move."""
    found = derived(host(vnets=[management(gateways=[{"prefix": "10.12.0.1/16"}])]))
    assert bridge(found, "nbr-14").vrf is None
    assert bridge(found, "nbr-14").addresses == []
    assert found.management is not None
    assert found.management.bridge == "nbr-14"
    assert found.management.ifname == "ens4"
    assert (found.management.ipv4, found.management.gateway) == ("10.12.0.101/16", "10.12.0.1")
    assert (found.management.ipv6, found.management.gateway6) == (None, None)


def test_management_in_ipv6() -> None:
    """An IPv6 management address, with a gateway or without, lets IPv6 onto its bridge."""
    both = mgmt(ipv6="2001:DB8::101/64", gateway6="2001:db8::1")
    found = derived(host(server=server(mgmt=both)))
    assert found.management is not None
    assert (found.management.ipv6, found.management.gateway6) == (
        "2001:db8::101/64",
        "2001:db8::1",
    )
    assert bridge(found, "nbr-14").ipv6
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
    found = derived(host(server=bare, links=[]))
    assert (found.management, found.uplinks, found.bridges) == (None, (), ())
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
    """On links untagged in the management V-Net and on links in the underlay, on no other."""
    links = [link("ens4", LEAF1), link("ens5", LEAF2, underlay=underlay, mtu=9000)]
    found = derived(host(routed(), vnets=[management(ports=ports), routed()], links=links))
    assert [uplink.ifname for uplink in found.uplinks] == ["ens4", "ens5"][: 1 + expected]
    assert bridge(found, "nbr-26")


def test_unnumbered_sessions() -> None:
    """By default a session is by interface, `remote-as external`, and the MTU is the NIC's own."""
    uplink = derived(host()).uplinks[0]
    assert (uplink.neighbor, uplink.remote_as) == ("ens4", "external")
    assert (uplink.mtu, uplink.address, uplink.peer) == (None, None, None)


def test_numbered_sessions() -> None:
    """With both addresses the local one is put on the NIC and the session is to the other."""
    numbered = link(
        *("ens4", LEAF1),
        mtu=9216,
        local={"ipv4": "100.64.0.1/31"},
        remote={"ipv4": "100.64.0.0/31", "asn": 4200300001},
    )
    uplink = derived(host(links=[numbered, link("ens5", LEAF2)])).uplinks[0]
    assert (uplink.neighbor, uplink.remote_as) == ("100.64.0.0", "4200300001")
    assert (uplink.mtu, uplink.address) == (9216, "100.64.0.1/31")


def test_session_settings() -> None:
    """No BFD, 3 and 9 seconds, no password, unless `server.bgp` says so."""
    plain = derived(host()).bgp
    assert (plain.bfd, plain.keepalive, plain.holdtime, plain.password) == (False, 3, 9, None)
    given = {"bfd": True, "keepalive": 10, "holdtime": 30, "password": "s3cret|!"}
    found = derived(host(server=server(bgp=given))).bgp
    assert {name: getattr(found, name) for name in given} == given


# --- Rule 5: VRFs ---


def test_a_vpc_without_gateway_here_has_no_vrf() -> None:
    """No V-Net, only pure L2, only untagged or only elsewhere: no VRF and no L3VNI."""
    found = derived(
        host(
            vnet(100, 40, ports=BOTH, l2only=True),
            routed(101, 41, ports=untagged(LEAF1)),
            routed(102, 42, ports=tagged("swp7@leaf9")),
            vpcs=[vpc(26), vpc(33, vni=1033), *(vpc(i, vni=1000 + i) for i in (40, 41, 42))],
        )
    )
    assert found.vrfs == ()
    assert [bridge.name for bridge in found.bridges] == ["nbr-14", "nbr-100", "nbr-101"]
    assert [bridge.vrf for bridge in found.bridges] == [None, None, None]


def test_a_pure_l2_vnet_beside_a_routed_one_is_in_no_vrf() -> None:
    """Without a gateway a V-Net is in no VRF, even when its VPC has one here."""
    found = derived(host(routed(), vnet(27, ports=BOTH)))
    assert bridge(found, "nbr-27").vrf is None
    assert vrf(found, "Vrf_33").bridges == ("nbr-26", "l3br-1033")


def test_a_vpc_without_vni_is_routed_on_this_host_only() -> None:
    """It has its VRF, and no L3VNI."""
    found = derived(host(routed(), vpcs=[vpc(26), vpc(33)]))
    assert vrf(found, "Vrf_33").vni is None
    assert found.l3vnis == []
    assert vrf(found, "Vrf_33").bridges == ("nbr-26",)


def test_an_l3vni_has_room_for_the_largest_of_its_vnets() -> None:
    """MTU of the largest, no address, no suppression (there are no neighbours to answer for)."""
    found = derived(host(routed(26, mtu=1400), routed(27, mtu=9000), vnet(28, 26, mtu=9216)))
    l3 = bridge(found, "l3br-1033")
    assert (l3.mtu, l3.port.mtu, l3.addresses) == (9000, 9000, [])
    assert (bridge(found, "nbr-26").mtu, bridge(found, "nbr-26").port.mtu) == (1400, 1400)
    assert not l3.port.suppress
    assert bridge(found, "nbr-26").port.suppress


def test_route_targets() -> None:
    """Explicit ones in canonical form, each once; automatic where none is given."""
    given = {"import": ["65000:033", "192.0.2.1:5", "65000:33"], "export": []}
    found = vrf(derived(host(routed(), vpcs=[vpc(26), vpc(33, routeTargets=given)])), "Vrf_33")
    assert found.import_targets == ("192.0.2.1:5", "65000:33")
    assert found.export_targets == ()


def test_two_vpcs_may_use_the_same_prefixes() -> None:
    """That is what tenants are for: a VRF each, and the same addresses in both."""
    both = ["10.0.0.1/24", "fd00::1/64"]
    found = derived(
        host(
            vnet(100, 40, prefixes=both, ports=BOTH),
            vnet(200, 41, prefixes=both, ports=BOTH),
            vpcs=[vpc(26), vpc(40), vpc(41)],
        )
    )
    assert bridge(found, "nbr-100").addresses == bridge(found, "nbr-200").addresses == both
    assert [vrf.bridges for vrf in found.vrfs] == [("nbr-100",), ("nbr-200",)]


# --- Rules 6 and 7 ---


def test_a_gateway_on_the_host_needs_a_mac() -> None:
    """Hosts and leaves share it; where the gateway is on the switch the host needs none."""

    def without_mac(ports: list[Json]) -> Json:
        return host(vnet(26, gateways=[{"prefix": "10.0.0.1/24"}], ports=ports))

    assert places(without_mac(BOTH)) == ["vnets[1].macAddress"]
    assert not places(without_mac(untagged(LEAF1)))
    assert not places(without_mac(tagged("swp7@leaf9")))


def test_gone_from_the_payload_is_gone_from_the_host() -> None:
    """A V-Net that is absent, disabled, or of no port here leaves nothing of itself and its VPC."""
    plain = derived(host())
    assert derived(host(routed(state="disabled"))) == plain
    assert derived(host(routed(ports=[]))) == plain
    assert derived(host(routed())) != plain


def test_a_disabled_vnet_is_as_if_it_were_not_there() -> None:
    """It may repeat a name, a VNI or a prefix, name no VPC, or be of an unsupported kind."""
    disabled = routed(state="disabled", vpc={"id": 99}, l3vpn=True, macAddress="02:00:00:00:00:01")
    assert derived(host(routed(), disabled)) == derived(host(routed()))


# --- Order, Host and Fleet ---


def shuffled(value: Any, chance: random.Random, key: str = "") -> Any:
    """The same document with every list and object in another order, but gateways as they are."""
    if isinstance(value, dict):
        items = [(name, shuffled(inside, chance, name)) for name, inside in value.items()]
        chance.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        found = [shuffled(inside, chance) for inside in value]
        if key != "gateways":
            chance.shuffle(found)
        return found
    return value


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_order_means_nothing(path: Path) -> None:
    """A shuffled payload gives equal hosts, in the same order."""
    document = json.loads(path.read_bytes())
    expected = loaded(document).hosts
    for seed in range(5):
        assert loaded(shuffled(document, random.Random(seed))).hosts == expected  # noqa: S311


def test_a_host_is_the_same_alone_and_in_a_fleet() -> None:
    """A Fleet is many Hosts with the segments said once."""
    alone = host(routed(), vnet(27, ports=BOTH))
    there = server(name="K8S02", asn=4200000002, mainAddress="10.2.0.102")
    del there["mgmt"]
    both = fleet(
        {"server": there, "links": []},
        {"server": alone["server"], "links": alone["links"]},
        vnets=alone["vnets"],
    )
    found = loaded(both)
    assert found.kind == "Fleet"
    assert [entry.name for entry in found.hosts] == ["K8S01", "K8S02"]
    assert found.host("k8s01") == derived(alone)


def test_choosing_a_host() -> None:
    """By name, letters of either case, or the only one; else the message says what there is."""
    one = loaded(host())
    assert one.host(None) is one.host("k8s01") is one.hosts[0]
    with pytest.raises(Refused, match=r"no host K8S09 .* it has: K8S01"):
        one.host("K8S09")
    with pytest.raises(Refused, match="0 hosts"):
        loaded(fleet()).host(None)


def test_a_fleet_leaves_out_other_roles_and_says_so() -> None:
    """A host of another role is a warning in a Fleet, whatever it looks like, and refused alone."""
    other = {"server": {"name": 5, "srvRole": "generic"}, "links": "none"}
    found = loaded(fleet({"server": server(), "links": host()["links"]}, other))
    assert [entry.name for entry in found.hosts] == ["K8S01"]
    assert [str(warning) for warning in found.warnings] == [
        "hosts[1].server.srvRole: generic is not EVPN-VTEP: this host is left out"
    ]
    assert places(host(server=server(srvRole="generic"))) == ["server.srvRole"]


def test_hosts_of_a_fleet_differ() -> None:
    """Names (letters of either case), AS numbers and VTEP addresses are a host's own."""
    entries = [{"server": server(name=name), "links": [link("ens4", LEAF1)]} for name in ("a", "A")]
    assert places(fleet(*entries)) == [
        f"hosts[1].server.{field}" for field in ("name", "asn", "mainAddress")
    ]


def test_generation() -> None:
    """0 when absent; up to 63 bits."""
    document = host()
    del document["generation"]
    assert loaded(document).generation == derived(document).generation == 0
    assert loaded(host(generation=2**63 - 1)).generation == 2**63 - 1
    assert places(host(generation=2**63)) == ["generation"]


# --- What is ignored, and what is unknown ---


def _objects(value: Any) -> list[Json]:
    if isinstance(value, list):
        return [found for inside in value for found in _objects(inside)]
    if isinstance(value, dict):
        return [value, *(found for inside in value.values() for found in _objects(inside))]
    return []


def _everything() -> Json:
    targets = {"import": ["65000:33"], "export": ["65000:33"]}
    document = host(
        routed(),
        server=server(bgp={"bfd": True}),
        vpcs=[vpc(26), vpc(33, vni=1033, routeTargets=targets)],
    )
    found: Json = json.loads(json.dumps(document))  # nothing in it is shared
    return found


@pytest.mark.parametrize("field", IGNORED_FIELDS)
def test_fields_without_meaning_are_ignored(field: str) -> None:
    """Fields of the real API are accepted in every object, with any value, and change nothing."""
    for value in (None, True, 7, "text", [{"id": 1}], {"a": {"b": [1.5]}}):
        document = _everything()
        for inside in _objects(document):
            inside.setdefault(field, value)
        assert derived(document) == derived(_everything())


def test_fields_of_a_gateway_without_meaning_are_ignored() -> None:
    """`vlan`, `dhcpEnabled` and `dhcp` within a gateway, and only there the last two."""
    document = host(routed())
    document["vnets"][1]["gateways"][0] |= {"vlan": 5, "dhcpEnabled": True, "dhcp": {"start": "x"}}
    assert derived(document) == derived(host(routed()))
    assert places(host(routed(dhcp={}))) == ["vnets[1].dhcp"]


def test_any_other_field_is_refused_wherever_it_stands() -> None:
    """A typing error must not silently drop a tenant's network."""
    count = len(_objects(_everything()))
    for index in range(count):
        document = _everything()
        _objects(document)[index]["vxlanid"] = 5
        (problem,) = refusals(document)
        assert problem.endswith("vxlanid: is not a field that is known here")


def test_every_required_field_is_missed() -> None:
    """Taking any one field away gives an accepted document or one problem at its place."""
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
    """What follows from a problem is not told as another one."""
    document, place = ONE_FAULT[fault]
    assert places(document) == [place]


def test_all_problems_are_told_together() -> None:
    """Ten faults are ten problems, of form and of sense, each with its place."""
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
    """As in the contract; a text where a number belongs is seen to be one."""
    assert refusals(host(vnet(70000000))) == ["vnets[1].vxlanID: 70000000 is not in 2–16777215"]
    assert refusals(host(vnet(26) | {"vxlanID": "26"})) == [
        'vnets[1].vxlanID: "26" is not a whole number'
    ]


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1], {"id": 1}])
def test_true_is_not_one(value: object) -> None:
    """A number is a number: nothing else is taken for one, and no number for true."""
    assert places(host(generation=value)) == ["generation"]
    assert places(host(server=server(asn=value))) == ["server.asn"]
    assert places(host(vpcs=[vpc(26), vpc(27, vni=value)])) == ["vpcs[1].vni"]
    if value is not True:
        assert places(host(vnet(26, l2only=value))) == ["vnets[1].l2only"]


def test_addresses_are_canonical() -> None:
    """However an address or a MAC is written, the model has it in one way."""
    segment = vnet(26, gateways=[{"prefix": "FD00:0:0::0001/064"}], ports=BOTH)
    found = bridge(derived(host(segment | {"macAddress": "44:38:39:FF:00:1A"})), "nbr-26")
    assert (found.addresses, found.mac) == (["fd00::1/64"], MAC)


def test_gateway_prefixes() -> None:
    """A host address in a subnet with room for a guest; not the network, nor its broadcast."""
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
    """The bounds are values that are accepted, and their neighbours are not."""
    for value, accepted in ((low - 1, 0), (low, 1), (high, 1), (high + 1, 0)):
        assert (places(host(vnet(26) | {field: value})) == []) is bool(accepted)


def test_bounds_of_timers() -> None:
    """1–65535 seconds, and the hold time at least three times the keepalive."""
    for keepalive, holdtime, accepted in (
        *((1, 3, True), (21845, 65535, True), (3, 9, True)),
        *((0, 9, False), (3, 8, False), (21846, 65535, False), (3, 65536, False)),
    ):
        document = host(server=server(bgp={"keepalive": keepalive, "holdtime": holdtime}))
        assert (places(document) == []) is accepted


def test_bounds_of_identifiers() -> None:
    """VPC 1–4294966295 (so that its table fits 32 bits), ASN 1–4294967294 without reserved ones."""
    for id_, accepted in ((0, 0), (1, 1), (4294966295, 1), (4294966296, 0)):
        assert (places(host(vpcs=[vpc(26), vpc(id_)])) == []) is bool(accepted)
    for asn, accepted in (
        *((0, 0), (1, 1), (23456, 0), (65534, 1), (65535, 0), (65536, 1)),
        *((4294967294, 1), (4294967295, 0)),
    ):
        assert (places(host(server=server(asn=asn))) == []) is bool(accepted)
        remote = link("ens4", LEAF1, remote={"asn": asn})
        assert (places(host(links=[remote, link("ens5", LEAF2)])) == []) is bool(accepted)


def test_names_of_nics() -> None:
    """Up to 15 letters, and not the name of a device of ours; what is not here is free."""
    for name, accepted in (
        *(("e" * 15, 1), ("e" * 16, 0), ("ens4.100", 1), ("lo", 0), ("lo0", 1), ("all", 0)),
        *(("nbr-26", 0), ("vxlan26", 0), ("Vrf_33", 0), ("l3br-1033", 0), ("l3vx-1033", 0)),
        *(("nbr-27", 1), ("vxlan27", 1), ("Vrf_26", 1), ("vrf_33", 1)),
    ):
        links = [link("ens4", LEAF1), link(name, LEAF2)]
        expected = [] if accepted else ["links[1].local.ifname"]
        assert places(host(routed(), links=links)) == expected, name


# --- Warnings ---


def test_vnets_too_large_for_a_link_are_a_warning() -> None:
    """VXLAN adds 50 bytes: a V-Net's MTU and those exceed a link's MTU, but it is accepted."""

    def warned(vnet_mtu: int, *link_mtus: int) -> list[str]:
        ports = [LEAF1, LEAF2]
        links = [
            link(f"ens{4 + i}", ports[i], **({"mtu": mtu} if mtu else {}))
            for i, mtu in enumerate(link_mtus)
        ]
        document = host(vnets=[management(mtu=1280), routed(mtu=vnet_mtu)], links=links)
        return [warning.place for warning in loaded(document).warnings]

    assert warned(1500, 1500, 1550) == ["links[0].mtu"]
    assert warned(1500, 1549, 1549) == ["links[0].mtu", "links[1].mtu"]
    assert warned(9000, 0, 0) == []
    assert warned(9166, 9216, 9216) == []


# --- Limits of a document ---


def test_more_than_64_mib_is_refused_unread() -> None:
    """By its size alone, at once, whatever it is."""
    document = b" " * ((64 << 20) + 1)
    before = time.process_time()
    assert refusals(document) == ["the payload is larger than 64 MiB"]
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize("beside", ["", "\\u0041"], ids=["plain", "escaped"])
def test_nesting_is_bounded(beside: str) -> None:
    """32 deep is more than any payload; the bound is the same whatever else the document has."""

    def nested(depth: int) -> list[str]:
        text = json.dumps(host(customData="@", id=beside))
        return refusals(text.replace('"@"', "[" * depth + "]" * depth).encode())

    assert nested(31) == []
    assert nested(32) == nested(100_000) == ["the payload is nested more than 32 deep"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the payload is not JSON: Expecting value at line 1, column 1"),
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
def test_what_is_no_payload(data: bytes, expected: str) -> None:
    """Anything but one JSON object in UTF-8 is refused with one message."""
    (problem,) = refusals(data)
    assert expected in problem


def test_repeated_keys_are_refused() -> None:
    """At any depth, in ignored fields too, and where both values are the same."""
    text = json.dumps(host(customData={"a": {"b": 1}}))
    text = text.replace('"b": 1', '"b": 1, "b": 1').replace('"asn":', '"asn": 7, "asn":')
    assert sorted(places(text.encode())) == ["customData.a.b", "server.asn"]


def test_huge_numbers_are_out_of_range() -> None:
    """A number beyond 64 bits is like any other that does not fit."""
    for number in (2**63, 2**64, -(2**70), 10**4000):
        assert places(host(vnet(26) | {"vxlanID": number})) == ["vnets[1].vxlanID"]
        assert not places(host(customData=number))


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\x00", "\x7f", "\x85", "\u2028", "\ud800"], ids=ascii
)
def test_what_could_end_a_line_is_refused(character: str) -> None:
    """In any string: names, values of the wrong kind, keys and fields that are ignored."""
    assert places(host(routed(name=f"a{character}b"))) == ["vnets[1].name"]
    assert places(host(customData=["x", {"y": character}])) == ["customData[1].y"]
    (problem,) = refusals(host(customData={f"a{character}b": 1}))
    assert problem.startswith("customData.a")
    assert character not in problem


def test_messages_show_no_raw_characters_of_names() -> None:
    """Marks that turn text around are legal in a name, and escaped in a message about it."""
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
    ("was", "becomes"),
    [
        ("", ""),
        ('"name": "vnet-100"', '"name": 5'),
        ("44:38", "01:38"),
        ('"id": ', '"id": 0, "id": 1'),
    ],
    ids=["sound", "one name wrong", "every MAC wrong", "every key twice"],
)
def test_work_grows_with_the_number_of_vnets(was: str, becomes: str) -> None:
    """Four times the V-Nets are about four times the work, also where each one has a problem."""
    few, many = (_large(n).decode().replace(was, becomes).encode() for n in (100, 400))
    refusals(few)  # what is imported and cached at the first time does not count
    assert instructions(partial(refusals, many)) < 5 * instructions(partial(refusals, few))


def _repeated_key(count: int) -> bytes:
    keys = ", ".join(f'"k{n}": 0' for n in range(count))
    return f'{{"kind": "Fleet", {keys}, "k0": 1}}'.encode()


def test_a_repeated_key_among_many() -> None:
    """One repeated key in an object does not make reading it quadratic."""
    assert places(_repeated_key(100_000))
    few, many = (partial(refusals, _repeated_key(count)) for count in (1000, 4000))
    assert instructions(many) < 5 * instructions(few)
