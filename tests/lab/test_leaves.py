"""Leaves that only `evpn-host leaves` has configured carry the published example.

ns-leaf-0 and ns-leaf-1 lose the lab's configuration: FRR, VRFs, bridges and VXLAN ports. Then
they get the files of `leaves`, by ifupdown2 and FRR. ns-leaf-2 and the spine stay as the lab has
them.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from lab.fabric import Host, Lab, Node, at_rest, eventually
from tests.lab.k8s01 import LEAVES, established, payload
from tests.lab.systems import SYSTEMS

FLEET, SWITCHES, TREE = "/root/fleet.json", "/root/switches.yml", "/root/leaves"
LOOPBACKS = {"ns-leaf-0": "10.2.0.1", "ns-leaf-1": "10.2.0.2"}
CONFIGURE = """
import os, shutil, subprocess, sys
from pathlib import Path
sys.path.insert(0, "/opt/repo")
from lab.guest import fabric
name, tree = sys.argv[1:]
(leaf,) = [each for each in fabric.LEAVES if each.name == name]
for pid in fabric._run(["ip", "netns", "pids", name]).split():
    os.kill(int(pid), 9)
own = Path("/run/lab-leaves", name)
if not own.exists():
    names = [device["ifname"] for device in fabric._devices(name)]
    made = ("Vrf_", "br-", "vx-", "l3br-", "l3vx-")
    fabric._delete(leaf, [each for each in names if each.startswith(made)])
    for folder in ("run", "tables", "state"):
        (own / folder).mkdir(parents=True)
    shutil.copytree("/etc/network", own / "network", symlinks=True)
    (own / "network/interfaces").write_text("source /etc/network/interfaces.d/*\\n")
shutil.rmtree(own / "network/interfaces.d", ignore_errors=True)
shutil.copytree(f"{tree}/etc/network/interfaces.d", own / "network/interfaces.d")
# ifupdown2 has a state of its own for each leaf, as on a computer of its own.
script = f'''
    mkdir -p /run/network /etc/iproute2/rt_tables.d /var/tmp/network
    mount --bind {own}/run /run/network
    mount --bind {own}/state /var/tmp/network
    mount --bind {own}/tables /etc/iproute2/rt_tables.d
    mount --bind {own}/network /etc/network
    ifreload -a
'''
fabric._run(["ip", "netns", "exec", name, "sh", "-ec", script])
folder = fabric.RUN / name
shutil.rmtree(folder, ignore_errors=True)
for place in (folder, folder / "etc"):
    place.mkdir(parents=True)
    shutil.chown(place, "frr", "frr")
(folder / "applied").write_text("[]")
fabric._start_daemons(name, fabric.DAEMONS).wait()
shutil.copy(f"{tree}/etc/frr/frr.conf", folder / "etc/frr.conf")
vtysh = ["nsenter", f"--net=/run/netns/{name}", "vtysh", "--vty_socket", str(folder)]
# FRR 10 would start a process for each daemon.
options = ["--no-fork"] if fabric._installed("mgmtd") else []
fabric._run([*vtysh, *options, "--inputfile", str(folder / "etc/frr.conf")])
"""


def fleet(*, underlay: str) -> dict[str, Any]:
    """K8S01 as a Fleet, with the port of a server in V-Net 26 at ns-leaf-0."""
    host = payload()
    host["vnets"][1]["ports"].append({"name": "swp-gpu@ns-leaf-0", "untagged": True})
    assert host["vnets"][1]["vxlanID"] == 26
    links = [link | {"underlay": underlay} for link in host["links"]]
    document = {key: host[key] for key in ("apiVersion", "generation", "vpcs", "vnets")}
    return document | {"kind": "Fleet", "hosts": [{"server": host["server"], "links": links}]}


def configure(lab: Lab, document: dict[str, Any]) -> None:
    """Have `evpn-host leaves` write the files of both leaves, which have no other configuration."""
    switches = {name: {"loopback": it, "uplinks": ["swp51"]} for name, it in LOOPBACKS.items()}
    lab.machine.write(FLEET, json.dumps(document))
    lab.machine.write(SWITCHES, json.dumps(switches))
    lab.host.evpn_host("leaves", "-p", FLEET, "-o", TREE, "--switches", SWITCHES)
    for leaf in LEAVES:
        lab.machine.run(["python3", "-B", "-c", CONFIGURE, leaf, f"{TREE}/{leaf}"])


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric, K8S01 with its payload, and a server behind ns-leaf-0 and ns-leaf-2 each."""
    lab: Lab = fresh_lab(*request.param)
    document = payload()
    lab.fabric.carry(document)
    lab.host.apply(document)
    lab.fabric.server("gpu", leaf="ns-leaf-0", ipv4="10.188.0.20/24")
    lab.fabric.server("far", leaf="ns-leaf-2", ipv4="10.188.0.22/24")
    return lab


def test_a_port_that_is_provisioned(lab: Lab, host: Host) -> None:
    """An access port of the management V-Net leads to the controller, by VXLAN."""
    configure(lab, fleet(underlay="disabled"))
    host.evpn_host("failover", "--once")
    eventually(lambda: host.ping(lab.fabric.controller, count=1))
    assert established(host) == set()


def test_a_port_that_is_underlay(lab: Lab, host: Host) -> None:
    """Sessions come up, and guests reach servers behind two leaves, bridged and routed."""
    configure(lab, fleet(underlay="enabled"))
    eventually(lambda: established(host) == {"ens4", "ens5"})
    host.evpn_host("failover", "--once")
    eventually(lambda: host.ping(lab.fabric.controller, count=1))
    gpu = Node(lab.machine, "gpu", "10.188.0.20")
    far = Node(lab.machine, "far", "10.188.0.22")
    bridged = host.pod("bridged", "nbr-26", "10.188.0.10/24", "10.188.0.254")
    routed = host.pod("routed", "nbr-31", "10.188.1.10/24", "10.188.1.254")
    for guest in (bridged, routed):
        for server in (gpu, far):
            eventually(partial(guest.ping, server, count=1))
            eventually(partial(server.ping, guest, count=1))
    eventually(lambda: gpu.ping(far, count=1))


def test_a_reload_of_the_same_file_changes_nothing(lab: Lab) -> None:
    """FRR would change no line: the file has the form of `show running-config`."""
    configure(lab, fleet(underlay="enabled"))
    leaf = lab.fabric.leaf("ns-leaf-0")
    options = ["--test", "--stdout", "--vty_socket", "/run/lab/ns-leaf-0"]
    file = f"{TREE}/ns-leaf-0/etc/frr/frr.conf"
    answer = leaf.run(["/usr/lib/frr/frr-reload.py", *options, file], timeout=120).out
    lines = [line for line in answer.splitlines() if line and not line.startswith(("Lines", "="))]
    assert lines == ["no hostname K8S01", "hostname ns-leaf-0"]


def test_a_leaf_takes_a_hosts_loopback_alone(lab: Lab, host: Host) -> None:
    """A host that announces another leaf's loopback does not get that leaf's packets."""
    configure(lab, fleet(underlay="enabled"))
    eventually(lambda: established(host) == {"ens4", "ens5"})
    network(host, "network 10.2.0.3/32")
    try:
        announced = "show bgp ipv4 unicast neighbors ens4 advertised-routes json"
        eventually(lambda: "10.2.0.3/32" in host.show(announced)["advertisedRoutes"])
        leaf = lab.fabric.leaf("ns-leaf-0")
        command = "show bgp ipv4 unicast neighbors swp9s1 routes json"
        assert set(at_rest(lambda: leaf.show(command)["routes"])) == {"10.2.0.101/32"}
    finally:
        network(host, "no network 10.2.0.3/32")


def network(host: Host, line: str) -> None:
    """Let the host begin or end to announce a prefix."""
    lines = ("configure terminal", "router bgp 4200000001", "address-family ipv4 unicast", line)
    host.run(["vtysh", *(word for each in lines for word in ("-c", each))])
