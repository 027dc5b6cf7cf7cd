"""`check`: problems and warnings for a person and for a script."""

import json
from pathlib import Path

from tests.strategies import (
    LEAF1,
    LEAF2,
    Json,
    encoded,
    fleet,
    host,
    link,
    management,
    server,
    tagged,
    untagged,
    vnet,
)
from tests.test_apply import Command

PORTS = tagged(LEAF1, LEAF2)
NARROW = [link("ens4", LEAF1, mtu=1500), link("ens5", LEAF2, mtu=1500)]


def file(folder: Path, document: object) -> Path:
    path = folder / "payload.json"
    path.write_bytes(encoded(document))
    return path


def narrow_fleet(count: int, **fields: object) -> Json:
    """Hosts whose links are too narrow for a V-Net of MTU 1500."""
    hosts = [
        {
            "server": server(name=f"K{n}", mainAddress=f"10.2.1.{n}", asn=4200000100 + n)
            | {"mgmt": server()["mgmt"] | {"ipv4": f"10.12.1.{n}/16"}},
            "links": [
                link("ens4", f"swp{n}@leaf1", mtu=1500),
                link("ens5", f"swp{n}@leaf2", mtu=1500),
            ],
        }
        for n in range(1, count + 1)
    ]
    ports = [f"swp{n}@leaf{leaf}" for n in range(1, count + 1) for leaf in (1, 2)]
    return fleet(*hosts, vnets=[management(ports=untagged(*ports))]) | fields


def test_problems_for_a_script(evpn_host: Command, tmp_path: Path) -> None:
    """`--json` has place, value, rule and hint of each problem; the exit code is 1."""
    path = file(tmp_path, host(vnet(70_000_000, ports=PORTS), vxlan=1))
    result = evpn_host("check", "-p", path, "--json")
    assert (result.code, result.err) == (1, "")
    shown = json.loads(result.out)
    assert shown["warnings"] == []
    assert {"place": "vnets[1].vxlanID", "value": "70000000"}.items() <= shown["problems"][
        1
    ].items()
    assert all(
        each.keys() == {"place", "value", "rule", "hint", "whose"} for each in shown["problems"]
    )


def test_a_good_payload_for_a_script(evpn_host: Command, tmp_path: Path) -> None:
    """`--json` has the same parts of each warning; the exit code is 0."""
    path = file(tmp_path, host(vnet(26, ports=PORTS), links=NARROW))
    result = evpn_host("check", "-p", path, "--json")
    assert result.code == 0
    shown = json.loads(result.out)
    assert shown["problems"] == []
    assert [each["place"] for each in shown["warnings"]] == ["links[0].mtu", "links[1].mtu"]


def test_a_host_of_a_fleet_is_chosen_by_name(evpn_host: Command, tmp_path: Path) -> None:
    """`-H` needs a host of the Fleet; a name that is nearly right gets a hint."""
    path = file(tmp_path, narrow_fleet(2))
    assert evpn_host("check", "-p", path, "-H", "K2").code == 0
    result = evpn_host("check", "-p", path, "-H", "K11")
    assert result.code == 1
    assert "the payload has no host K11" in result.err


def test_like_warnings_of_many_hosts_are_one_line(evpn_host: Command, tmp_path: Path) -> None:
    """Five hundred hosts with narrow links are two lines, not a thousand."""
    path = file(tmp_path, narrow_fleet(50))
    lines = evpn_host("check", "-p", path).err.splitlines()
    assert [line.partition(": 1500")[0] for line in lines] == [
        "warning: 50 hosts: links[0].mtu",
        "warning: 50 hosts: links[1].mtu",
    ]
    assert all(line.endswith("(K1, K2, K3 and 47 more)") for line in lines)
    single = file(tmp_path, narrow_fleet(1))
    assert evpn_host("check", "-p", single).err.startswith("warning: hosts[0].links[0].mtu: 1500")


def test_names_what_a_problem_is_about(evpn_host: Command, tmp_path: Path) -> None:
    """A problem names its host, V-Net or VPC, not an index alone."""
    document = narrow_fleet(2)
    document["hosts"][1]["links"][0]["mtu"] = 1
    document["vnets"].append(vnet(14, name="r"))
    result = evpn_host("check", "-p", file(tmp_path, document))
    assert result.err.splitlines() == [
        "evpn-host: hosts[1].links[0].mtu: 1 is not in 1280–9216 (host K2)",
        "evpn-host: vnets[1].vxlanID: 14 is already vnets[0].vxlanID of V-Net Management (V-Net r)",
    ]
    result = evpn_host("check", "--json", "-p", file(tmp_path, document))
    problems = json.loads(result.out)["problems"]
    assert [each["whose"] for each in problems] == ["host K2", "V-Net r"]
    assert problems[0]["place"] == "hosts[1].links[0].mtu"


def test_many_warnings_of_a_kind_are_counted(evpn_host: Command, tmp_path: Path) -> None:
    """The text counts warnings of a kind, and `--json` has all of them."""
    document = narrow_fleet(30)
    document["vnets"].append(vnet(26, ports=tagged(*(f"swp{n}@laef1" for n in range(1, 31)))))
    path = file(tmp_path, document)
    lines = [line for line in evpn_host("check", "-p", path).err.splitlines() if "port of" in line]
    assert len(lines) == 11
    assert "swp10@laef1 is no port of a host of this Fleet" in lines[0]
    assert "(V-Net vnet-26; did you mean swp10@leaf1?)" in lines[0]
    assert lines[10] == "warning: 20 more of this kind: … is no port of a host of this Fleet"
    assert len(json.loads(evpn_host("check", "--json", "-p", path).out)["warnings"]) == 30 + 60
