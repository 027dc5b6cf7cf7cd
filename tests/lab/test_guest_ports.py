"""Guests of every kind join a V-Net in their platforms' own ways, and stay in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from ruamel.yaml import YAML

from lab.fabric import Host, Lab, Node, eventually
from tests.lab.k8s01 import (
    OPERATORS_COMMANDS,
    bare_metal,
    bring_up,
    change,
    guest,
    payload,
    vnet,
)
from tests.lab.systems import SYSTEMS

# The path in Debian's package containernetworking-plugins, whose plugin a node's kubelet runs.
PLUGIN = "/usr/lib/cni/bridge"
GATEWAY = "10.188.0.254"
# Steps that change the guests' own V-Net, which may lose packets then.
OWN_CHANGE, ITS_WAY_BACK = "their V-Net has another MTU", "rollback of that"


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """K8S01 as a VTEP, both switch ports in the underlay."""
    lab: Lab = fresh_lab(*request.param)
    bring_up(lab)
    return lab


def definition(host: Host, *arguments: str) -> str:
    """The plugin's configuration from the NetworkAttachmentDefinition that the product prints."""
    text = host.evpn_host("guests", "--format", "nad", *arguments).out
    return str(YAML(typ="safe").load(text)["spec"]["config"])


def plug(host: Host, command: str, name: str, config: str) -> dict[str, Any]:
    """Call the real plugin for a pod, as a container runtime does; give its answer."""
    words = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": name,
        "CNI_NETNS": f"/run/netns/{name}",
        "CNI_IFNAME": "net1",
        "CNI_PATH": "/usr/lib/cni",
    }
    argv = ["env", *(f"{name}={value}" for name, value in words.items()), PLUGIN]
    answer = host.run(argv, input=config).out
    return dict(json.loads(answer)) if answer else {}


def plugged_pod(host: Host, name: str, config: str, ipv4: str, gateway: str) -> Node:
    """Create a pod and let the plugin connect it to a bridge; the pod's address is set here."""
    host.run(["ip", "netns", "add", name])
    plug(host, "ADD", name, config)
    pod = Node(host.machine, name, ipv4)
    pod.run(["ip", "address", "add", ipv4, "dev", "net1"])
    pod.run(["ip", "route", "add", "default", "via", gateway])
    return pod


def ports(host: Host, bridge: str) -> dict[str, dict[str, Any]]:
    """Return the guests' ports of a bridge, with all properties that an apply could change."""
    links = host.run(["ip", "-details", "-json", "link", "show", "master", bridge]).json
    return {
        port["ifname"]: {
            "index": port["ifindex"],
            "mtu": port["mtu"],
            "up": "UP" in port["flags"],
            "port": {
                name: port["linkinfo"]["info_slave_data"][name]
                for name in ("state", "learning", "flood", "hairpin", "neigh_suppress", "isolated")
            },
        }
        for port in links
        if not re.match(r"vxlan\d", port["ifname"])
    }


def bridge(host: Host, name: str) -> dict[str, Any]:
    """Return the properties of our bridge that a platform could change."""
    [shown] = host.run(["ip", "-details", "-json", "address", "show", name]).json
    properties = {key: shown[key] for key in ("mtu", "address", "flags", "promiscuity")}
    addresses = [each["local"] for each in shown["addr_info"]]
    return properties | {"addresses": addresses, "stp": shown["linkinfo"]["info_data"]["stp_state"]}


@pytest.fixture(scope="module")
def gpu(lab: Lab) -> Node:
    """A bare-metal server in V-Net 26."""
    return bare_metal(lab.fabric, "gpu", 26, GATEWAY, 20)


@pytest.fixture(scope="module")
def guests(lab: Lab) -> dict[str, Node]:
    """One guest of each kind in V-Net 26: a pod (by the plugin), a container (veth), a VM (tap)."""
    before = bridge(lab.host, "nbr-26")
    config = definition(lab.host, "26")
    pod = plugged_pod(lab.host, "pod", config, "10.188.0.11/24", GATEWAY)
    assert bridge(lab.host, "nbr-26") == before
    return {
        "pod": pod,
        "veth": guest(lab.host, "veth", 26, GATEWAY, 12),
        "tap": lab.host.vm("tap", "nbr-26", "10.188.0.13/24", GATEWAY),
    }


def test_each_reaches_bare_metal(host: Host, guests: dict[str, Node], gpu: Node) -> None:
    """Each guest reaches bare metal, both ways, and has a plain port of the bridge."""
    for name, node in guests.items():
        eventually(partial(node.ping, gpu, count=1))
        assert gpu.ping(node), name
        for other in guests.values():
            if other is not node:
                eventually(partial(node.ping, other, count=1))
    assert len(ports(host, "nbr-26")) == len(guests)
    for port in ports(host, "nbr-26").values():
        assert port["mtu"] == 1500
        assert not port["port"]["hairpin"]


def test_ports_survive(lab: Lab, guests: dict[str, Node], gpu: Node) -> None:
    """The same ports stay through every apply, ours and the operator's, and work all the time."""
    host, before = lab.host, ports(lab.host, "nbr-26")
    added = vnet(70, 33, "10.188.7.254/24")

    def change_guests_vnet(**fields: Any) -> None:
        document = payload(added)
        next(v for v in document["vnets"] if v["vxlanID"] == 26).update(fields)
        change(lab, document)

    def roll_back() -> None:
        lab.fabric.carry(payload(added))  # the change of the leaves loses packets too
        host.evpn_host("rollback")

    steps: dict[str, Callable[[], Any]] = {
        "a V-Net comes": lambda: change(lab, payload(added)),
        OWN_CHANGE: lambda: change_guests_vnet(mtu=1400),
        ITS_WAY_BACK: roll_back,
        "a V-Net goes": lambda: change(lab, payload()),
        "apply --full": lambda: host.apply(payload(), "--full"),
    }
    for command in OPERATORS_COMMANDS[lab.backend]:
        steps[" ".join(command)] = partial(host.run, command, timeout=300)
    for title, step in steps.items():
        with ExitStack() as stack:
            pings = {
                name: stack.enter_context(node.pinging(gpu, interval=0.05))
                for name, node in guests.items()
            }
            step()
        results = {name: str(ping.result) for name, ping in pings.items()}
        print(f"{title}: {results}")
        assert ports(host, "nbr-26") == before, title
        if title not in {OWN_CHANGE, ITS_WAY_BACK}:
            assert all(ping.result for ping in pings.values()), (title, results)
        for node in guests.values():
            eventually(partial(node.ping, gpu, count=1))
    eventually(lambda: json.loads(host.evpn_host("status", "--json").out)["ok"])


def test_a_pod_leaves(host: Host, guests: dict[str, Node], gpu: Node) -> None:
    """The plugin's DEL removes the pod's port alone; a second DEL does no harm."""
    config = definition(host, "nbr-26")
    before = ports(host, "nbr-26"), bridge(host, "nbr-26")
    pod = plugged_pod(host, "pod2", config, "10.188.0.14/24", GATEWAY)
    eventually(lambda: pod.ping(gpu, count=1))
    assert len(ports(host, "nbr-26")) == len(guests) + 1
    plug(host, "DEL", "pod2", config)
    plug(host, "DEL", "pod2", config)
    assert (ports(host, "nbr-26"), bridge(host, "nbr-26")) == before
    host.run(["ip", "netns", "delete", "pod2"])


def test_a_pod_is_early(lab: Lab) -> None:
    """On a node without the V-Net the plugin makes the bridge; apply takes over bridge and ports.

    Then the bridge works like any other: the pod reaches its gateway and the V-Net's bare metal.
    """
    document = payload(vnet(71, 33, "10.188.71.254/24"))
    lab.host.machine.write("/root/next.json", json.dumps(document))
    config = definition(lab.host, "-p", "/root/next.json", "71")
    pod = plugged_pod(lab.host, "early", config, "10.188.71.10/24", "10.188.71.254")
    change(lab, document)
    assert len(ports(lab.host, "nbr-71")) == 1
    server = bare_metal(lab.fabric, "bm-71", 71, "10.188.71.254", 20)
    eventually(lambda: pod.ping("10.188.71.254", count=1))
    eventually(lambda: pod.ping(server, count=1))
    assert json.loads(lab.host.evpn_host("status", "--json").out)["differences"] == []
