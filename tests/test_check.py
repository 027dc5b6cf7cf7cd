"""`check`: problems and warnings for a person and for a script."""

import json
from pathlib import Path

from tests.strategies import LEAF1, LEAF2, encoded, fleet, host, link, server, tagged, vnet
from tests.test_apply import Command

PORTS = tagged(LEAF1, LEAF2)
NARROW = [link("ens4", LEAF1, mtu=1500), link("ens5", LEAF2, mtu=1500)]


def file(folder: Path, document: object) -> Path:
    path = folder / "payload.json"
    path.write_bytes(encoded(document))
    return path


def narrow_hosts(count: int) -> list[dict[str, object]]:
    """Hosts whose links are too narrow for a V-Net of MTU 1500."""
    return [
        {
            "server": server(name=f"K{n}", mainAddress=f"10.2.1.{n}", asn=4200000100 + n)
            | {"mgmt": server()["mgmt"] | {"ipv4": f"10.12.1.{n}/16"}},
            "links": NARROW,
        }
        for n in range(1, count + 1)
    ]


def test_problems_for_a_script(evpn_host: Command, tmp_path: Path) -> None:
    """Each with place, value, rule and hint; the exit code is 1."""
    path = file(tmp_path, host(vnet(70_000_000, ports=PORTS), vxlan=1))
    done = evpn_host("check", "-p", path, "--json")
    assert (done.code, done.err) == (1, "")
    shown = json.loads(done.out)
    assert shown["warnings"] == []
    assert {"place": "vnets[1].vxlanID", "value": "70000000"}.items() <= shown["problems"][
        1
    ].items()
    assert all(each.keys() == {"place", "value", "rule", "hint"} for each in shown["problems"])


def test_a_good_payload_for_a_script(evpn_host: Command, tmp_path: Path) -> None:
    """The exit code is 0; warnings have the same parts."""
    path = file(tmp_path, host(vnet(26, ports=PORTS), links=NARROW))
    done = evpn_host("check", "-p", path, "--json")
    assert done.code == 0
    shown = json.loads(done.out)
    assert shown["problems"] == []
    assert [each["place"] for each in shown["warnings"]] == ["links[0].mtu", "links[1].mtu"]


def test_a_fleet_has_a_host(evpn_host: Command, tmp_path: Path) -> None:
    """`-H` asks for it; a name that is nearly right gets a hint."""
    path = file(tmp_path, fleet(*narrow_hosts(2)))
    assert evpn_host("check", "-p", path, "-H", "K2").code == 0
    done = evpn_host("check", "-p", path, "-H", "K11")
    assert done.code == 1
    assert "the payload has no host K11" in done.err


def test_like_warnings_of_many_hosts_are_one_line(evpn_host: Command, tmp_path: Path) -> None:
    """Five hundred hosts with narrow links are two lines, not a thousand."""
    path = file(tmp_path, fleet(*narrow_hosts(50)))
    lines = evpn_host("check", "-p", path).err.splitlines()
    assert [line.partition(": 1500")[0] for line in lines] == [
        "warning: 50 hosts: links[0].mtu",
        "warning: 50 hosts: links[1].mtu",
    ]
    single = file(tmp_path, fleet(*narrow_hosts(1)))
    assert evpn_host("check", "-p", single).err.startswith("warning: hosts[0].links[0].mtu: 1500")
