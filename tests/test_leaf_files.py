"""`leaves` writes what each leaf needs for the hosts at its ports, or refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from generator.desired.model import Leaf
from generator.desired.payload import load
from generator.desired.payload.leaves import Leaves, switches
from generator.errors import Refused
from lab.result import Result
from tests.conftest import REPO
from tests.strategies import HOSTILE_NAMES

Command = Callable[..., Result]
Json = dict[str, Any]
ALL = REPO / "tests/payloads/fleet-leaves.yaml"
SWITCHES = REPO / "tests/switches.yml"


@pytest.fixture
def document() -> Json:
    """Return the Fleet with all that a leaf can need."""
    fleet: Json = YAML(typ="safe").load(ALL.read_text())
    return fleet


def known(text: str = "") -> dict[str, Any]:
    return dict(switches(text.encode() or SWITCHES.read_bytes()))


def leaf(document: Json, name: str = "leaf1") -> Leaf:
    return Leaves(load(json.dumps(document).encode()), known()).leaf(name)


def refusal(document: Json, text: str = "") -> list[str]:
    with pytest.raises(Refused) as refused:
        Leaves(load(json.dumps(document).encode()), known(text))
    return list(map(str, refused.value.problems))


def files(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def test_a_port_is_what_the_payload_says_of_it(document: Json) -> None:
    """An underlay port has a session; others are access ports of Management or of a V-Net."""
    ports = {port.name: (port.bridge, port.remote_as) for port in leaf(document).ports}
    assert ports == {
        "swp1": (None, 4200000001),
        "swp2": ("br-14", 0),
        "swp3": (None, 4200000003),
        "swp9": ("br-26", 0),
        "swp10": ("br-32", 0),
    }
    document["hosts"][0]["links"][0]["underlay"] = "disabled"
    assert leaf(document).ports[0].bridge == "br-14"
    for each in document["vnets"][0]["ports"]:
        each["untagged"] = each["name"] != "swp2@leaf1"
    del document["hosts"][1]["server"]["mgmt"], document["hosts"][1]["links"]
    assert "swp2" not in {port.name for port in leaf(document).ports}


def test_a_leaf_has_the_gateways_that_are_on_the_switch(document: Json) -> None:
    """A leaf has the gateways of V-Nets with an untagged port; hosts have all others."""
    assert [bridge.port.vni for bridge in leaf(document).bridges] == [14, 26, 32, 1033]
    assert [bridge.port.vni for bridge in leaf(document, "leaf2").bridges] == [14, 26, 1033]
    management, servers, layer2, routed = leaf(document).bridges
    assert (management.mac, management.vrf) == ("44:38:39:ff:00:0e", "Vrf_26")
    assert (servers.mac, servers.vrf) == ("44:38:39:ff:00:1a", "Vrf_33")
    assert servers.addresses == ["10.188.0.254/24", "fd00:26::1/64"]
    assert (layer2.addresses, layer2.vrf) == ([], None)
    assert (routed.mtu, routed.vrf) == (9000, "Vrf_33")
    other = leaf(document, "leaf2").bridges
    assert [b.mac for b in other[:2]] == [management.mac, servers.mac]
    assert other[2].mac != routed.mac


def test_placeholders_are_named(evpn_host: Command, tmp_path: Path) -> None:
    """Placeholders are named, `--switches` replaces them, and no tool takes them for values."""
    result = evpn_host("leaves", "-p", ALL, "-o", tmp_path / "without")
    assert result.code == 0
    assert "leaf1: nothing says its LOOPBACK and ASN: the word" in result.err
    assert "leaf2: nothing says its LOOPBACK: the word" in result.err
    text = (tmp_path / "without/leaf1/etc/frr/frr.conf").read_text()
    assert "router bgp ASN\n bgp router-id LOOPBACK\n" in text
    result = evpn_host("leaves", "-p", ALL, "-o", tmp_path / "with", "--switches", SWITCHES)
    assert "nothing says" not in result.err
    assert "ns-leaf-0 is no leaf of this payload" in result.err
    for path in files(tmp_path / "with"):
        assert "LOOPBACK" not in (tmp_path / "with" / path).read_text()


def test_the_folder_is_what_the_payload_says(
    evpn_host: Command, tmp_path: Path, document: Json
) -> None:
    """A removed leaf goes, files of others stay, and equal files are not written."""
    argv = ["leaves", "-o", tmp_path / "out", "--switches", SWITCHES, "--json", "-p"]
    result = json.loads(evpn_host(*argv, ALL).out)
    assert result["leaves"]["new"] == ["leaf1", "leaf2"]
    assert files(tmp_path / "out") == {
        f"{name}/etc/{path}"
        for name in ("leaf1", "leaf2")
        for path in ("frr/frr.conf", "network/interfaces.d/evpn-host")
    }
    assert (tmp_path / "out/leaf1/etc/frr/frr.conf").stat().st_mode & 0o777 == 0o640
    (tmp_path / "out/leaf2/mine").touch()
    document["hosts"][0]["links"].pop()
    document["hosts"][1]["links"].pop()
    for vnet in document["vnets"]:
        vnet["ports"] = [port for port in vnet["ports"] if "leaf2" not in port["name"]]
    fleet = tmp_path / "fleet.json"
    fleet.write_text(json.dumps(document))
    result = json.loads(evpn_host(*argv, fleet).out)
    assert result["leaves"] == {"new": [], "changed": [], "removed": ["leaf2"], "same": ["leaf1"]}
    assert "leaf2/mine" in files(tmp_path / "out")
    assert evpn_host(*argv[:-2], "-p", fleet).out.startswith("leaves: 0 new, 0 changed")


def test_a_remote_name_that_is_no_port_of_a_switch(document: Json) -> None:
    """A remote name must be a port of a switch: it becomes a folder and a word of FRR."""
    links = document["hosts"][0]["links"]
    names = ["swp1", "swp1@", "@leaf1", "swp1@../leaf1", "swp 1@leaf1", "HOSTS@leaf1", "a/1@leaf1"]
    hostile = [each for each in HOSTILE_NAMES if 0 < len(each) < 200 and not each.isidentifier()]
    for name in [*names, *(f"{each}@leaf1" for each in hostile)]:
        links[1]["remote"] = links[1]["remote"] | {"name": name, "asn": 4200300011}
        (problem,) = refusal(document)
        assert "names no port of a switch" in problem or "control or line-ending" in problem
        assert problem.isprintable()


def test_two_links_that_disagree_about_a_leaf(document: Json) -> None:
    """Two links that disagree about a leaf's AS number or a neighbor's address are refused."""
    document["hosts"][0]["links"][0]["remote"]["asn"] = 4200300011
    document["hosts"][2]["links"][0]["remote"]["asn"] = 4200300099
    (problem,) = refusal(document)
    rule = "is not 4200300011, as another link says of leaf1"
    assert problem == f"remote.asn: 4200300099 {rule} (link eth9@srv3 of host srv3)"


def test_a_neighbor_that_two_ports_have(document: Json) -> None:
    """A neighbor of two ports is refused: FRR would take the second for the first."""
    document["hosts"][0]["links"][0]["local"]["ipv4"] = "10.99.1.1/31"
    document["hosts"][0]["links"][0]["remote"]["ipv4"] = "10.99.1.0/31"
    document["hosts"][2]["links"][0]["local"]["ipv4"] = "10.99.1.1/31"
    document["hosts"][2]["links"][0]["remote"]["ipv4"] = "10.99.1.0/31"
    (problem,) = refusal(document)
    assert problem.endswith("10.99.1.1 is already that of link eth9@srv1 of host srv1")


def test_a_port_can_not_have_the_name_of_a_device(document: Json) -> None:
    """A port can't have the name of a device that the leaf gets."""
    remote = document["hosts"][0]["links"][1]["remote"]
    remote |= {"name": "br-26@leaf1", "asn": 4200300011}
    assert refusal(document) == [
        "remote.name: br-26 is the name of a device that leaf1 gets (link eth10@srv1 of host srv1)"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    {
        "leaf1: {loopback: 10.2.0.101}": "leaf1.loopback: 10.2.0.101 is the mainAddress of",
        "leaf1: {loopback: 10.2.0.9, asn: 4200000001}": "is the AS number of host srv1 too",
        "leaf2: {loopback: 10.2.0.9, asn: 5}": "leaf2.asn: 5 is not 4200300012, as the payload",
        "leaf1: {loopback: 10.2.0.9, uplinks: [swp1]}": "leaf1.uplinks: swp1 is a port to a host",
        "leaf1: {loopback: 10.2.0.9}\nleaf2: {loopback: 10.2.0.9}": "is already that of leaf1",
        "leaf1: {loopback: 10.2.0.900}": "leaf1.loopback: 10.2.0.900",
        "leaf1: {}": "leaf1.loopback: is required",
        "leaf1: {lopback: 10.2.0.9}": "did you mean loopback?",
        "[]": "is not an object",
        "leaf1: {loopback: 10.2.0.9, uplinks: [HOSTS]}": "leaf1.uplinks: HOSTS is the name of",
    }.items(),
)
def test_what_a_file_of_switches_can_have_wrong(document: Json, text: str, problem: str) -> None:
    """Each problem has the leaf as its place."""
    assert any(problem in each for each in refusal(document, text))


def test_a_refusal_names_the_file_and_writes_nothing(evpn_host: Command, tmp_path: Path) -> None:
    """A refusal names the file of switches, does not call it a payload, and writes nothing."""
    file = tmp_path / "switches.yml"
    for text, message in {
        "leaf1: {loopback: x}": f"evpn-host: leaf1.loopback: x is not an IPv4 address ({file})",
        "a: [": f"{file} is not YAML",
        "": f"{file} is empty",
    }.items():
        file.write_text(text)
        result = evpn_host("leaves", "-p", ALL, "-o", tmp_path / "out", "--switches", file)
        assert result.code == 1
        assert message in result.err
        assert not (tmp_path / "out").exists()


def test_a_mistyped_leaf_is_named(document: Json) -> None:
    """A leaf in the file whose name is nearly one of the payload is named."""
    leaves = Leaves(load(json.dumps(document).encode()), known("laef1: {loopback: 10.2.0.9}"))
    assert "laef1 is no leaf of this payload (did you mean leaf1?)" in list(leaves.warnings)
