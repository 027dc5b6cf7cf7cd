"""The lab itself works as every other test in this folder assumes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.fabric import Fabric, Host, Lab, Leaf, eventually
from lab.guest.fabric import STATE
from tests.lab.k8s01 import TENANT_A, vnet

EXAMPLE = Path(__file__).parents[2] / "examples" / "k8s01.json"
ADVERTISED = {"mode": "enabled", "interval": 4, "rdnss": {"servers": ["fd00:53::53"]}}


@pytest.fixture
def payload() -> dict[str, Any]:
    """Give the payload of the documentation's host."""
    document: dict[str, Any] = json.loads(EXAMPLE.read_text())
    return document


def test_machine_has_vrfs_and_the_operators_addresses(host: Host) -> None:
    """The kernel has VRFs, and the server has the addresses that its operator configured."""
    host.run(["ip", "link", "add", "probe", "type", "vrf", "table", "99"])
    host.run(["ip", "link", "delete", "probe"])
    [nic] = host.run(["ip", "-json", "-4", "address", "show", "ens4"]).json
    assert [each["local"] for each in nic["addr_info"]] == ["10.12.0.101", "10.254.254.10"]


def test_host_reaches_the_controller_before_anything_is_applied(host: Host, fabric: Fabric) -> None:
    """In the provisioning state the host's port is untagged in the management V-Net."""
    eventually(lambda: host.ping(fabric.controller, count=1))


def test_leaves_see_each_others_broadcast_routes(fabric: Fabric, payload: dict[str, Any]) -> None:
    """Each leaf has a type-3 route of each V-Net from all three leaves."""
    fabric.carry(payload)
    for leaf in fabric.leaves.values():
        eventually(partial(_sees_all, leaf))


def _sees_all(leaf: Leaf) -> bool:
    """Return whether a leaf has all nine type-3 routes."""
    routes = leaf.show("show bgp l2vpn evpn route type multicast json").values()
    return len([each for each in routes if isinstance(each, dict) and "rd" in each]) == 9


def test_bare_metal_talks_within_and_across_vnets(fabric: Fabric, payload: dict[str, Any]) -> None:
    """Servers reach each other in V-Net 26 (bridged), and from 26 to 31 (routed, L3VNI)."""
    fabric.carry(payload)
    first = fabric.server("bm-a", leaf="ns-leaf-0", ipv4="10.188.0.21/24")
    second = fabric.server("bm-b", leaf="ns-leaf-2", ipv4="10.188.0.22/24")
    routed = fabric.server(
        "bm-c", leaf="ns-leaf-1", vni=31, ipv4="10.188.1.23/24", gateway="10.188.1.254"
    )
    eventually(lambda: first.ping(second, count=1))
    eventually(lambda: first.ping(routed, count=1))
    with first.pinging(second) as bridged:
        smaller = {**payload, "vnets": payload["vnets"][:2]}
        fabric.carry(smaller)
        fabric.carry(payload)
    assert bridged.result, str(bridged.result)


def test_everything_is_back_after_a_power_cut(lab: Lab) -> None:
    """After a power cut the fabric comes up with the machine, in its previous state."""
    lab.reboot(hard=True)
    eventually(lambda: lab.host.ping(lab.fabric.controller, count=1))


def test_a_leaf_has_the_file_of_leaves(lab: Lab, payload: dict[str, Any]) -> None:
    """After many changes nothing is left over: FRR's own comparison finds no line to change."""
    fabric = lab.fabric
    other = vnet(80, 50, "10.50.0.254/24", "fd00:50::254/64", ipv6NeighborDiscovery=ADVERTISED)
    for port in (True, False, True):
        fabric.leaf("ns-leaf-0").underlay(on=port)
        for vnets, vpcs in (([other], [TENANT_A]), ([], []), ([other], [TENANT_A | {"vni": 1051}])):
            fabric.carry({"vpcs": payload["vpcs"] + vpcs, "vnets": payload["vnets"] + vnets})
            for leaf in fabric.leaves.values():
                assert _differences(leaf) == []
    fabric.leaf("ns-leaf-0").underlay(on=False)


def _differences(leaf: Leaf) -> list[str]:
    """Return what frr-reload.py would change to have the leaf's file."""
    state = json.loads(leaf.machine.read(str(STATE)))
    leaf.machine.write("/root/leaf.conf", state["frr"][leaf.name])
    options = ["--test", "--stdout", "--vty_socket", f"/run/lab/{leaf.name}"]
    answer = leaf.run(["/usr/lib/frr/frr-reload.py", *options, "/root/leaf.conf"], timeout=120).out
    lines = [line for line in answer.splitlines() if line and not line.startswith(("Lines", "="))]
    # vtysh takes the machine's name for the daemons', and the lab leaves the log out.
    unsent = {"no hostname K8S01", f"hostname {leaf.name}", "log syslog informational"}
    return [line for line in lines if line not in unsent]
