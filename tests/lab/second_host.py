"""Another VTEP host in a namespace, from files that we render: FRR, sysctls, FRR's start script.

This module creates the plan's devices with ip(8): the machine itself uses networkd and ifupdown2.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from generator.desired.model import devices
from generator.desired.payload import load
from lab.by_hand import ip_lines
from lab.fabric import Lab, Node, Router, eventually
from lab.guest.fabric import DAEMONS

NAME, VTEP, ASN = "k8s02", "10.2.0.102", 4200000002
PYTHON = ("env", "PYTHONPATH=/opt/repo", "/opt/evpn-host/bin/python", "-Bc")
LEAF, PORT = "ns-leaf-0", "swp9s2"


def payload_for(document: dict[str, Any]) -> dict[str, Any]:
    """Turn K8S01's payload into that of K8S02, which has one cable, to the first leaf."""
    second = copy.deepcopy(document)
    second["server"] |= {"name": NAME.upper(), "mainAddress": VTEP, "asn": ASN}
    second["server"]["mgmt"] |= {"ipv4": "10.12.0.102/16"}
    [second["links"][0]["remote"]["name"]] = [f"{PORT}@{LEAF}"]
    del second["links"][1:]
    for vnet in second["vnets"]:
        untagged = [{"untagged": True}] if vnet["ports"][0].get("untagged") else [{}]
        vnet["ports"] = [{"name": f"{PORT}@{LEAF}"} | untagged[0]]
    return second


def start(lab: Lab, document: dict[str, Any]) -> Router:
    """Connect the second host, configure it, and wait for its session."""
    machine, leaf = lab.machine, lab.fabric.leaf(LEAF)
    second = payload_for(document)
    machine.write("/root/second.json", json.dumps(second))
    lab.host.evpn_host("render", "-p", "/root/second.json", "-o", "/root/second")
    cable = f"ens4 mtu 9216 netns {NAME} type veth peer name {PORT} mtu 9216 netns {leaf.name}"
    machine.run(["ip", "netns", "add", NAME])
    machine.run(["ip", "link", "add", *cable.split()])
    host = Router(machine, NAME, VTEP)
    [plan] = load(json.dumps(second).encode()).hosts
    lines = [
        "link set lo up",
        "link set ens4 up",
        f"address add {VTEP}/32 dev lo",
        *ip_lines(devices(plan)),
    ]
    host.run(["ip", "-batch", "-"], input="".join(f"{line}\n" for line in lines))
    sysctls = "/root/second/etc/sysctl.d/90-evpn-host.conf"
    host.run(["/usr/lib/systemd/systemd-sysctl", sysctls], check=False)
    host.run(["sh", "/root/second/etc/frr/daemons"], check=False)
    _route(host)
    # The part of the hook that is about guests: this host has no management address.
    host.start(
        [
            *PYTHON,
            "from generator.failover import floating; floating.follow(print, lambda: ['nbr-14'])",
        ]
    )
    leaf.run(["ip", "link", "set", PORT, "up"])
    leaf.configure(
        f"router bgp {leaf.asn}",
        f"neighbor {PORT} interface peer-group HOSTS",
        f"neighbor {PORT} remote-as external",
        "address-family ipv4 unicast",
        f"neighbor {PORT} route-map ANY in",
    )
    eventually(lambda: "Established" in str(host.show("show bgp neighbors ens4 json")), within=40)
    return host


def _route(host: Node) -> None:
    """Run FRR with the rendered configuration; its sockets are separate from the machine's own."""
    folder = f"/run/lab/{NAME}"
    host.machine.run(["install", "-d", "-o", "frr", "-g", "frr", folder, f"{folder}/etc"])
    for daemon, options in DAEMONS.items():
        log = f"{folder}/{daemon}.log"
        script = (
            f"test -x /usr/lib/frr/{daemon} || exit 0;"
            f"mount --bind {folder} /run/frr && mount --bind {folder}/etc /etc/frr"
            f" && exec /usr/lib/frr/{daemon} --daemon{options} >{log} 2>&1 </dev/null"
        )
        host.run(["unshare", "--mount", "sh", "-c", script])
    load = ["vtysh", "--vty_socket", folder, "-f", "/root/second/etc/frr/frr.conf"]
    eventually(lambda: host.run(load, check=False).code == 0)  # once all daemons listen
