"""A server is in V-Nets by ports, labels or Server Clusters, with the same result."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from generator.desired.payload import load
from generator.desired.payload.near import Names, distance
from generator.desired.payload.schema import schema
from lab.result import Result
from tests.conftest import REPO
from tests.counting import instructions
from tests.profiles import rounds
from tests.strategies import (
    MAC,
    Json,
    by_hand,
    encoded,
    fleet,
    fleets,
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
)
from tests.test_payload import shuffled

WAYS = ("ports", "labels", "cluster")
SCHEMA = Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


# --- The documentation's example ---


@pytest.mark.parametrize("way", WAYS)
def test_three_ways_give_the_same_bytes(
    way: str, evpn_host: Callable[..., Result], tmp_path: Path, backend: str
) -> None:
    """Ports by hand, labels, a Server Cluster: K8S01 has the files of its Host document."""
    result = evpn_host(
        "render", "-p", REPO / f"examples/coke-{way}.yaml", "-o", tmp_path, "-b", backend
    )
    assert result.code == 0, result.err
    assert [each.name for each in tmp_path.iterdir()] == ["K8S01"]  # gpu-node-10 gets no files
    expected = files(REPO / f"snapshots/k8s01-{backend}")
    assert len(expected) > 4
    assert files(tmp_path / "K8S01") == expected


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file()
    }


# --- Any Fleet ---


@settings(max_examples=rounds(short=100, long=1500))
@given(fleets())
def test_a_fleet_is_what_its_ports_by_hand_would_be(document: Json) -> None:
    """Every generated Fleet is accepted, has the form of the schema, and its hosts are right."""
    SCHEMA.validate(document)
    assert refusals(document) == []
    expected = load(encoded(by_hand(document))).hosts
    assert load(encoded(document)).hosts == expected
    for seed in range(2):
        again = shuffled(document, random.Random(seed))  # noqa: S311
        assert load(encoded(again)).hosts == expected


# --- Builders ---


def a_host(number: int = 1, labels: Sequence[object] | None = None, **fields: Any) -> Json:
    """Return a VTEP of two links, eth9 and eth10 at the controller."""
    ports = [f"swp{number}@leaf{leaf}" for leaf in (1, 2)]
    links = [
        link(f"ens{4 + n}", port, local={"name": f"eth{9 + n}@h{number}"})
        for n, port in enumerate(ports)
    ]
    entry = server(
        name=f"h{number}",
        asn=4200000100 + number,
        mainAddress=f"10.2.1.{number}",
        mgmt=mgmt(ipv4=f"10.12.1.{number}/16"),
    )
    return {"server": entry | ({"labels": labels} if labels else {}), "links": links} | fields


def metal(name: str = "gpu", labels: Sequence[object] | None = None) -> Json:
    links = [
        {"local": {"name": f"eth{9 + n}@{name}"}, "remote": {"name": f"{name}@leaf{3 + n}"}}
        for n in range(2)
    ]
    entry = {"name": name, "srvRole": "generic"} | ({"labels": labels} if labels else {})
    return {"server": entry, "links": links}


def a_fleet(*hosts: Json, vnets: list[Json] | None = None, **fields: Any) -> Json:
    vteps = [each for each in hosts if "asn" in each["server"]]
    ports = [each["remote"]["name"] for host in vteps for each in host["links"]]
    return fleet(*hosts, vnets=[management(ports=untagged(*ports)), *(vnets or [])]) | fields


def red(*labels: Json, **fields: Any) -> Json:
    return vnet(100, name="red", prefixes=["10.9.0.1/24"], labels=list(labels)) | fields


def template(*nics: str, **fields: Any) -> Json:
    segment = {"postfix": "in-band", "type": "l2vpn", "serverNics": list(nics or ("eth9", "eth10"))}
    return {"name": "gpus", "vnets": [segment | fields]}


def cluster(name: str = "coke", vni: int = 500, **fields: Any) -> Json:
    segment = {"vxlanID": vni, "macAddress": MAC}
    return {
        "name": name,
        "vpc": {"id": 33},
        "template": "gpus",
        "servers": [],
        "sharedEndpoints": [],
        "vnets": {"in-band": segment | fields.pop("of", {})},
    } | fields


def clustered(*clusters: Json, hosts: list[Json] | None = None, **fields: Any) -> Json:
    entries = hosts or [a_host(1), a_host(2), metal()]
    return a_fleet(*entries, serverClusters=list(clusters)) | (
        {"serverClusterTemplates": [template()]} | fields
    )


def bridges(document: Json, host: str = "h1") -> dict[int, list[str]]:
    """Return the V-Nets of a host by VNI, with the gateways that the host has."""
    host_ = load(encoded(document)).host(host).bridges
    return {each.port.vni: each.addresses for each in host_ if not each.l3vni}


def warnings(document: Json) -> list[str]:
    """Return the warnings of `load`, except those about hosts of another role."""
    messages = load(encoded(document)).warnings
    return [str(each) for each in messages if "srvRole" not in each.place]


# --- Labels ---


def test_a_label_puts_the_ports_of_its_nics_into_a_vnet() -> None:
    """Only those of the NICs with this value; `<nic>` is the controller's name, not the host's."""
    document = a_fleet(
        a_host(1, ["iface.eth9 = red", "iface.eth10=blue"]),
        a_host(2, ["iface.eth10 = red"]),
        vnets=[red({"value": "red"}), vnet(101, name="blue", labels=[{"value": "blue"}])],
    )
    assert bridges(document, "h1") == {14: [], 100: ["10.9.0.1/24"], 101: []}
    assert bridges(document, "h2") == {14: [], 100: ["10.9.0.1/24"]}
    assert warnings(document) == []


def test_a_nic_is_what_stands_before_the_first_at() -> None:
    """A name at the controller may have no @, or several."""
    for name, nic in (("eth9", "eth9"), ("eth9@h1@site", "eth9"), ("eth 9@h1", "eth 9")):
        document = a_fleet(a_host(1, [f"iface.{nic} = red"]), vnets=[red({"value": "red"})])
        document["hosts"][0]["links"][0]["local"]["name"] = name
        assert bridges(document)[100] == ["10.9.0.1/24"]


def test_a_label_may_be_untagged() -> None:
    """The management V-Net by a label: then the port of `mgmt.ifname` is untagged in it."""
    segment = management(ports=[], labels=[{"value": "mgmt", "untagged": True}])
    document = fleet(a_host(1, ["iface.eth9 = mgmt"]), vnets=[segment])
    host = load(encoded(document)).host("h1")
    assert [uplink.ifname for uplink in host.uplinks] == ["ens4"]
    elsewhere = fleet(a_host(1, ["iface.eth10 = mgmt"]), vnets=[segment])
    assert places(elsewhere) == ["hosts[0].server.mgmt.vnet"]


def test_a_port_by_hand_wins_over_a_label() -> None:
    """In the same V-Net the port is as `ports` says, whatever the label says."""
    labels = ["iface.eth9 = red", "iface.eth10 = red"]
    for direct, label in ((True, False), (False, True)):
        both = [{"name": f"swp1@leaf{n}", "untagged": direct} for n in (1, 2)]
        segment = red({"value": "red", "untagged": label}, ports=both)
        vnets = [management(ports=untagged("swp1@leaf1"), gateways=[]), segment]
        document = fleet(a_host(1, labels), vnets=vnets)
        assert bridges(document)[100] == ([] if direct else ["10.9.0.1/24"])
        assert warnings(document) == []


def test_a_port_untagged_by_hand_elsewhere_wins_too() -> None:
    """A NIC is untagged in one V-Net only: it stays where somebody wrote it, with a warning."""
    document = a_fleet(
        *(a_host(n, ["iface.eth9 = red"]) for n in (1, 2)),
        vnets=[red({"value": "red", "untagged": True})],
    )
    assert bridges(document) == {14: []}
    rule = (
        "is untagged in V-Net Management, which names its port, so label red does not put it "
        "untagged into V-Net red"
    )
    assert warnings(document) == [f"hosts[{n}].links[0]: {rule} (host h{n + 1})" for n in (0, 1)]


def test_a_nic_is_untagged_in_one_vnet_only() -> None:
    """A NIC that two labels, or a label and a Server Cluster, make untagged twice is refused."""
    labels = ["iface.eth9 = red", "iface.eth9 = blue"]
    blue = vnet(101, name="blue", labels=[{"value": "blue", "untagged": True}])
    document = a_fleet(
        a_host(), metal(labels=labels), vnets=[red({"value": "red", "untagged": True}), blue]
    )
    assert refusals(document) == [
        (
            "hosts[1].links[0].remote.name: gpu@leaf3 is untagged in V-Net red (label red) and in "
            "V-Net blue (label blue): a NIC is untagged in one V-Net only (host gpu)"
        )
    ]
    document = clustered(cluster(servers=["gpu"]), hosts=[a_host(), metal(labels=labels[:1])])
    document["vnets"].append(red({"value": "red", "untagged": True}))
    assert refusals(document) == [
        (
            "hosts[1].links[0].remote.name: gpu@leaf3 is untagged in V-Net red (label red) and in "
            "V-Net coke-in-band (Server Cluster coke): a NIC is untagged in one V-Net only "
            "(host gpu)"
        )
    ]


def test_two_labels_of_one_vnet_must_agree() -> None:
    """One says tagged, the other untagged, and a NIC has both."""
    document = a_fleet(
        a_host(),
        metal(labels=["iface.eth9 = a", "iface.eth9 = b"]),
        vnets=[red({"value": "a"}, {"value": "b", "untagged": True})],
    )
    assert refusals(document) == [
        (
            "hosts[1].links[0].remote.name: gpu@leaf3 is untagged in V-Net red by label b, and "
            "tagged by label a (host gpu)"
        )
    ]


def test_a_label_of_no_nic_is_refused() -> None:
    """A label of an unknown NIC is refused, with the host and the NIC that was probably meant."""
    document = a_fleet(a_host(1, ["iface.eth99 = red"]), vnets=[red({"value": "red"})])
    assert refusals(document) == [
        (
            "hosts[0].server.labels[0]: eth99 is no NIC of this host's links (the part of "
            "local.name before the @) (host h1; did you mean eth9?)"
        )
    ]


@pytest.mark.parametrize("text", ["eth9 = red", "iface. = red", "iface.eth9", "iface.eth9 =", 5])
def test_refuses_what_is_no_label(text: object) -> None:
    """A mistyped label is refused, or it would silently drop a tenant's network."""
    assert places(a_fleet(a_host(labels=[text]))) == ["hosts[0].server.labels[0]"]
    assert places(a_fleet(metal(labels=[text]))) == ["hosts[0].server.labels[0]"]


def test_warns_of_labels_that_do_nothing() -> None:
    """A V-Net's label that no NIC has, and a NIC's that is nearly the label of a V-Net."""
    document = a_fleet(
        a_host(1, ["iface.eth9 = rde", "iface.eth10 = anything"]), vnets=[red({"value": "red"})]
    )
    assert warnings(document) == [
        "vnets[1].labels: red is a label of no NIC of this Fleet (V-Net red; did you mean rde?)",
        "hosts[0].server.labels[0]: rde is a label of no V-Net (host h1; did you mean red?)",
    ]


def test_a_host_document_has_no_labels() -> None:
    """A Host document with labels is refused: they belong into a Fleet."""
    document = a_host(1, ["iface.eth9 = red"]) | {
        "apiVersion": "evpn-host/v1",
        "kind": "Host",
        "vpcs": [vpc(26), vpc(33)],
        "vnets": [management(ports=untagged("swp1@leaf1")), red({"value": "red"})],
    }
    assert refusals(document) == [
        "server.labels: is not a field that is known here (only a Fleet has it)",
        "vnets[1].labels: is not a field that is known here (V-Net red; only a Fleet has it)",
    ]


# --- Server Clusters ---


def test_servers_are_untagged_and_shared_endpoints_tagged() -> None:
    """The V-Net is `<cluster>-<postfix>`; names of servers match in letters of either case."""
    document = clustered(
        cluster(servers=["gpu"], sharedEndpoints=["H1"]),
        serverClusterTemplates=[template(ipv4Gateway="10.9.0.1/24")],
    )
    assert bridges(document, "h1") == {14: [], 500: ["10.9.0.1/24"]}
    assert bridges(document, "h2") == {14: []}
    labels = [each.label for each in load(encoded(document)).host("h1").bridges]
    assert "coke-in-band" in labels


def test_a_dedicated_host_has_no_gateway() -> None:
    """A VTEP may be a dedicated server: its ports are untagged, so the switch has the gateway."""
    document = clustered(
        cluster(servers=["h1"]),
        serverClusterTemplates=[template("eth10", ipv4Gateway="10.9.0.1/24")],
        vnets=[management(ports=untagged("swp1@leaf1", "swp2@leaf1"))],
    )
    assert bridges(document) == {14: [], 500: []}


def test_gateways_of_the_template_or_of_the_cluster() -> None:
    """`specify` in both its forms needs one in the cluster, an address allows none."""
    own = {"gateways": [{"prefix": "10.9.0.1/24"}]}
    shared = partial(cluster, sharedEndpoints=["h1"])
    for way in ("specify", {"assignType": "specify"}):
        templates = [template(ipv4Gateway=way)]
        document = clustered(shared(of=own), serverClusterTemplates=templates)
        assert bridges(document)[500] == ["10.9.0.1/24"]
        assert refusals(clustered(shared(), serverClusterTemplates=templates)) == [
            (
                "serverClusters[0].vnets.in-band.gateways: is required with an IPv4 gateway: the "
                "template says `specify` (Server Cluster coke)"
            )
        ]
    document = clustered(
        shared(of=own), serverClusterTemplates=[template(ipv4Gateway="10.8.0.1/24")]
    )
    assert refusals(document) == [
        (
            "serverClusters[0].vnets.in-band.gateways: 10.9.0.1/24 is an IPv4 gateway, for "
            "which the template does not say `specify` (Server Cluster coke)"
        )
    ]


def test_a_gateway_that_a_controller_chooses_is_refused() -> None:
    """The message says what to write instead."""
    auto = {"assignType": "auto", "allocation": "10.0.0.0/16", "childSubnetPrefixLength": 24}
    (problem,) = refusals(clustered(cluster(), serverClusterTemplates=[template(ipv4Gateway=auto)]))
    assert problem.startswith("serverClusterTemplates[0].vnets[0].ipv4Gateway: ")
    assert "a controller chooses (assignType: auto): write the address that it chose" in problem
    assert problem.endswith("(template gpus)")


@pytest.mark.parametrize("type_", ["l3vpn", "netris-ufm", "netris-nvlink"])
def test_vnets_that_concern_no_shared_host_are_left_out(type_: str) -> None:
    """They are accepted with their own fields, without an entry in the cluster."""
    other = {"postfix": "E-W", "type": type_, "ufm": "ufm-88", "pkey": "auto", "partition": "auto"}
    both = template()
    both["vnets"].append(other | {"serverNics": ["eth1", "eth2"], "vlanID": "auto"})
    document = clustered(cluster(sharedEndpoints=["h1"]), serverClusterTemplates=[both])
    assert bridges(document) == {14: [], 500: []}


CLUSTER_FAULTS: dict[str, tuple[Json, str]] = {
    "a server that is not there": (
        clustered(cluster(servers=["gpo"])),
        (
            "serverClusters[0].servers[0]: gpo is no host of this Fleet "
            "(Server Cluster coke; did you mean gpu?)"
        ),
    ),
    "a shared endpoint that is not there": (
        clustered(cluster(sharedEndpoints=["h1", "K8S99"])),
        (
            "serverClusters[0].sharedEndpoints[1]: K8S99 is no host of this Fleet "
            "(Server Cluster coke)"
        ),
    ),
    "dedicated and shared": (
        clustered(cluster(servers=["gpu"], sharedEndpoints=["GPU"])),
        (
            "serverClusters[0].sharedEndpoints[0]: GPU is one of its servers as well: a server is "
            "dedicated or shared (Server Cluster coke)"
        ),
    ),
    "dedicated twice": (
        clustered(cluster(servers=["gpu"]), cluster("pepsi", 501, servers=["gpu"])),
        (
            "serverClusters[1].servers[0]: gpu is dedicated to Server Cluster coke already "
            "(Server Cluster pepsi)"
        ),
    ),
    "a template that is not there": (
        clustered(cluster(template="gpu")),
        (
            "serverClusters[0].template: gpu is no template of this payload "
            "(Server Cluster coke; did you mean gpus?)"
        ),
    ),
    "no VNI": (
        clustered(cluster(vnets={})),
        (
            "serverClusters[0].vnets.in-band.vxlanID: is required: template gpus has this V-Net "
            "(Server Cluster coke)"
        ),
    ),
    "an unknown postfix": (
        clustered(cluster(vnets=cluster()["vnets"] | {"in-bnd": {"vxlanID": 7}})),
        (
            "serverClusters[0].vnets: in-bnd is no postfix of template gpus "
            "(Server Cluster coke; did you mean in-band?)"
        ),
    ),
    "a NIC that no server has": (
        clustered(
            cluster(servers=["gpu"]), serverClusterTemplates=[template("eth9", "eth10", "eth11")]
        ),
        (
            "serverClusters[0].vnets.in-band: eth11 of template gpus is no NIC of any server of "
            "this Server Cluster (Server Cluster coke; did you mean eth10?)"
        ),
    ),
    "a server with no NIC of the template": (
        clustered(cluster(servers=["gpu"]), serverClusterTemplates=[template("ens1", "ens2")]),
        (
            "hosts[2].links: has none of the NICs that template gpus of Server Cluster coke has: "
            "ens1, ens2 (host gpu)"
        ),
    ),
    "a V-Net of the same name": (
        clustered(cluster()) | {"vnets": [vnet(9, name="coke-in-band")], "hosts": []},
        (
            "serverClusters[0].vnets.in-band.name: coke-in-band is already vnets[0].name "
            "(Server Cluster coke)"
        ),
    ),
    "a VNI that is taken": (
        clustered(cluster(vni=14)),
        (
            "serverClusters[0].vnets.in-band.vxlanID: 14 is already vnets[0].vxlanID of V-Net "
            "Management (Server Cluster coke)"
        ),
    ),
    "a VPC that is not there": (
        clustered(cluster(vpc={"id": 34})),
        "serverClusters[0].vpc.id: 34 is no VPC of this payload (Server Cluster coke)",
    ),
    "a gateway without MAC": (
        clustered(
            cluster(sharedEndpoints=["h1", "h2"], vnets={"in-band": {"vxlanID": 500}}),
            serverClusterTemplates=[template(ipv4Gateway="10.9.0.1/24")],
        ),
        (
            "serverClusters[0].vnets.in-band.macAddress: is required: hosts and leaves share the "
            "gateway's MAC (Server Cluster coke)"
        ),
    ),
    "two templates of a name": (
        clustered(serverClusterTemplates=[template(), template()]),
        "serverClusterTemplates[1].name: gpus is already serverClusterTemplates[0].name",
    ),
    "two clusters of a name": (
        clustered(cluster(), cluster(vni=501)),
        "serverClusters[1].name: coke is already serverClusters[0].name",
    ),
    "a postfix twice": (
        clustered(serverClusterTemplates=[{"name": "t", "vnets": template()["vnets"] * 2}]),
        (
            "serverClusterTemplates[0].vnets[1].postfix: in-band is already vnets[0].postfix of "
            "this template (template t)"
        ),
    ),
    "no NICs": (
        clustered(
            serverClusterTemplates=[{"name": "t", "vnets": [{"postfix": "a", "type": "l2vpn"}]}]
        ),
        "serverClusterTemplates[0].vnets[0].serverNics: is required for type l2vpn (template t)",
    ),
    "tagged in a template": (
        clustered(serverClusterTemplates=[template(vlan="tagged")]),
        "serverClusterTemplates[0].vnets[0].vlan: tagged is not untagged (template gpus)",
    ),
    "an ill-formed template": (
        clustered(cluster(), serverClusterTemplates=[template(type="l2")]),
        (
            "serverClusterTemplates[0].vnets[0].type: l2 is not l2vpn or l3vpn or netris-ufm or "
            "netris-nvlink (template gpus)"
        ),
    ),
    "an ill-formed cluster whose V-Net is meant": (
        clustered(
            cluster(vni=1),
            hosts=[a_host() | {"server": a_host()["server"] | {"mgmt": mgmt(vnet="coke-in-band")}}],
        ),
        "serverClusters[0].vnets.in-band.vxlanID: 1 is not in 2–16777215 (Server Cluster coke)",
    ),
    "an ill-formed host that is meant": (
        clustered(
            cluster(servers=["h1"]), hosts=[a_host() | {"server": a_host()["server"] | {"asn": 0}}]
        ),
        "hosts[0].server.asn: 0 is not in 1–4294967294 (host h1)",
    ),
}


@pytest.mark.parametrize("fault", CLUSTER_FAULTS)
def test_each_fault_of_a_cluster_has_one_message(fault: str) -> None:
    """It names the server, the Server Cluster and the template, and no consequences."""
    document, expected = CLUSTER_FAULTS[fault]
    assert refusals(document) == [expected]


def test_a_missing_nic_is_a_warning() -> None:
    """A NIC that one server lacks and another one has is a warning."""
    short = metal("short")
    del short["links"][1]
    document = clustered(cluster(servers=["gpu", "short"]), hosts=[a_host(), metal(), short])
    assert warnings(document) == [
        (
            "hosts[2].links: has no NIC eth10, which template gpus of Server Cluster coke has "
            "(host short)"
        )
    ]


# --- Ports ---


def test_a_switch_port_belongs_to_one_host() -> None:
    """A switch port of two hosts is refused, whatever their roles."""
    other = metal()
    other["links"][0]["remote"]["name"] = "swp1@leaf1"
    assert refusals(a_fleet(a_host(), other)) == [
        (
            "hosts[1].links[0].remote.name: swp1@leaf1 is already hosts[0].links[0].remote.name of "
            "host h1 (host gpu)"
        )
    ]


def test_warns_of_ports_that_are_nearly_those_of_a_host() -> None:
    """One or two characters away; a port of a bare-metal server is known, a distant one is not."""
    ports = tagged("swp1@laef1", "swp1@leaf1", "gpu@leaf3", "gpu@laef4", "Ethernet48@spine-7")
    document = a_fleet(a_host(), metal(), vnets=[vnet(100, ports=ports), vnet(101, ports=ports)])
    assert warnings(document) == [
        (
            "vnets[1].ports[3].name: gpu@laef4 is no port of a host of this Fleet "
            "(V-Net vnet-100; did you mean gpu@leaf4?)"
        ),
        (
            "vnets[1].ports[0].name: swp1@laef1 is no port of a host of this Fleet "
            "(V-Net vnet-100; did you mean swp1@leaf1?)"
        ),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("swp9@leaf3", "swp9@leaf1"), ("swp9@laef1", "swp9@leaf1"), ("spw9@leaf1", "swp9@leaf1")),
        *(("SWP9@leaf1", "swp9@leaf1"), ("swp9leaf1", "swp9@leaf1"), ("swp9@@leaf1", "swp9@leaf1")),
        *(
            ("swp99@leaf11", "swp19@leaf21"),
            ("swp9@leaf111", "swp9@leaf1"),
            ("swp9@leaf", "swp9@leaf1"),
            ("swpp9@leeaf1", "swp9@leaf1"),
        ),
        *(("eth9@leaf1", ""), ("swp9@spine1", ""), ("swp1234@leaf1", ""), ("", ""), ("@", "")),
    ],
)
def test_finds_a_name_that_is_two_characters_away(name: str, expected: str) -> None:
    """Added, missing and different characters, on both sides of the @."""
    assert Names(["swp9@leaf1", "swp19@leaf21"]).nearest(name) == expected


def test_distance_is_that_of_levenshtein() -> None:
    """For short texts it is compared with the plain recursion."""

    def plain(one: str, other: str) -> int:
        if not one or not other:
            return len(one) + len(other)
        step = plain(one[1:], other[1:]) + (one[0] != other[0])
        return min(step, plain(one[1:], other) + 1, plain(one, other[1:]) + 1)

    chance = random.Random(7)  # noqa: S311
    for _ in range(500):
        one, other = ("".join(chance.choices("ab1", k=chance.randint(0, 5))) for _ in range(2))
        assert distance(one, other) == min(plain(one, other), 3), (one, other)


# --- Work ---


def _labels(count: int) -> bytes:
    """Return many V-Nets with a label each, and as many labels on hosts."""
    vnets = [vnet(100 + n, name=f"v{n}", labels=[{"value": f"l{n}"}]) for n in range(count)]
    hosts = [metal(f"m{n}", [f"iface.eth9 = l{n}", f"iface.eth10 = x{n}"]) for n in range(count)]
    return encoded(a_fleet(*hosts, vnets=vnets))


def _clusters(count: int) -> bytes:
    """Return many Server Clusters of one template, and one with many servers."""
    hosts = [metal(f"m{n}") for n in range(count)]
    clusters = [cluster(f"c{n}", 500 + n, servers=[f"m{n}"]) for n in range(count)]
    shared = cluster("all", 400, sharedEndpoints=[f"m{n}" for n in range(count)])
    return encoded(clustered(*clusters, shared, hosts=hosts))


def _misses(count: int) -> bytes:
    """Return many ports that are nearly those of hosts."""
    hosts = [metal(f"m{n}") for n in range(count)]
    ports = tagged(*(f"m{n}@laef3" for n in range(count)))
    return encoded(a_fleet(*hosts, vnets=[vnet(100, ports=ports)]))


def _misses_elsewhere(count: int) -> bytes:
    """Return many ports of as many switches that nobody knows."""
    hosts = [metal(f"m{n}") for n in range(count)]
    for number, each in enumerate(hosts):
        each["links"][0]["remote"]["name"] = f"swp1@leaf-{number}-a"
    ports = tagged(*(f"swp1@leaf-{number}-xyz" for number in range(count)))
    return encoded(a_fleet(*hosts, vnets=[vnet(100, ports=ports)]))


def _clusters_without_servers(count: int) -> bytes:
    """Return many Server Clusters without servers, of a template with many NICs and V-Nets."""
    wide = template(*(f"eth{n}" for n in range(count)))
    wide["vnets"] += [{"postfix": f"p{n}", "type": "l3vpn"} for n in range(count)]
    clusters = [cluster(f"c{n}", 500 + n) for n in range(count)]
    return encoded(clustered(*clusters, serverClusterTemplates=[wide]))


@pytest.mark.parametrize("document", [_labels, _clusters, _clusters_without_servers])
def test_work_grows_with_the_fleet(
    document: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the Fleet is about four times the work."""
    monkeypatch.setattr(Names, "BUDGET", 100)  # the search for near names has a bound of its own
    few, many = (partial(load, document(count)) for count in (50, 200))
    few()  # imports and caches of the first call do not count
    assert instructions(many) < 5 * instructions(few)


@pytest.mark.parametrize("document", [_misses, _misses_elsewhere])
def test_the_search_for_near_misses_is_bounded(
    document: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its budget nothing is compared, and the payload is accepted without these warnings."""
    monkeypatch.setattr(Names, "BUDGET", 1000)
    few, many = (partial(load, document(count)) for count in (200, 800))
    assert instructions(many) < 5 * instructions(few)


def test_the_number_of_memberships_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short document could ask for millions: each V-Net has each NIC of a label."""
    monkeypatch.setattr("generator.desired.payload.membership.Resolver.LIMIT", 10_000)
    vnets = [vnet(100 + n, name=f"v{n}", labels=[{"value": "x"}]) for n in range(200)]
    hosts = [metal(f"m{n}", ["iface.eth9 = x"]) for n in range(200)]
    assert refusals(a_fleet(*hosts, vnets=vnets)) == [
        "labels and Server Clusters put more than 10,000 ports into V-Nets"
    ]


def test_the_same_document_is_not_changed() -> None:
    """The strategies' oracle works on a copy."""
    document = clustered(cluster(servers=["gpu"]))
    before = copy.deepcopy(document)
    by_hand(document)
    assert json.dumps(document) == json.dumps(before)
