"""K8S01, the host of the documentation: its payload, changes to it, and steps that tests share."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

from lab.fabric import Fabric, Host, Lab, Node, eventually

EXAMPLE = Path(__file__).parents[2] / "examples/k8s01.json"
LEAVES = ("ns-leaf-0", "ns-leaf-1")
PORTS = [{"name": f"swp9s1@{leaf}"} for leaf in LEAVES]
# Commands by which an operator, or the system itself, reconfigures the network of a running host.
OPERATORS_COMMANDS = {
    "netplan": (
        ["netplan", "apply"],
        ["networkctl", "reconfigure", "ens4", "ens5"],
        ["systemctl", "restart", "systemd-networkd"],
    ),
    "ifupdown": (["ifreload", "-a"], ["ifreload", "-a"]),
}

Payload = dict[str, Any]
_generations = itertools.count(1)


def payload(*vnets: Payload, vpcs: tuple[Payload, ...] = ()) -> Payload:
    """Return K8S01's payload, of the next generation, with these V-Nets and VPCs added."""
    document: Payload = json.loads(EXAMPLE.read_text())
    document["generation"] = next(_generations)
    document["vnets"] += copy.deepcopy(vnets)
    document["vpcs"] += copy.deepcopy(vpcs)
    return document


def vnet(vni: int, vpc: int, *gateways: str, **more: Any) -> Payload:
    """Return a V-Net that is tagged on both of K8S01's ports."""
    document = {"name": f"vnet-{vni}", "vxlanID": vni, "vpc": {"id": vpc}, "ports": PORTS}
    if gateways:
        document["macAddress"] = f"44:38:39:ff:{vni >> 8:02x}:{vni & 255:02x}"
        document["gateways"] = [{"prefix": prefix} for prefix in gateways]
    return document | more


DUAL = vnet(40, 33, "10.188.4.254/24", "fd00:188:4::254/64")
DUAL_2 = vnet(41, 33, "10.188.5.254/24", "fd00:188:5::254/64")
TENANT_A = {"id": 50, "name": "tenant-a", "vni": 1050}
TENANT_B = {"id": 51, "name": "tenant-b", "vni": 1051}


def bring_up(lab: Lab, document: Payload | None = None) -> None:
    """Apply a payload (default: the documentation's), then put both ports into the underlay."""
    change(lab, document or payload())
    underlay(lab.fabric, on=True)
    eventually(lambda: established(lab.host) == {"ens4", "ens5"})


def underlay(fabric: Fabric, on: bool) -> None:
    """Put both of the host's ports into the underlay, or make them access ports."""
    for leaf in LEAVES:
        if on != (leaf in fabric.state["underlay"]):
            fabric.leaf(leaf).underlay(on=on)


def established(host: Host) -> set[str]:
    """Return the neighbors with which both address families are Established."""
    summary = host.show("show bgp summary json")
    families = [summary.get(name, {}).get("peers", {}) for name in ("ipv4Unicast", "l2VpnEvpn")]
    up = [{n for n, peer in f.items() if peer["state"] == "Established"} for f in families]
    return up[0] & up[1]


def resets(host: Host) -> dict[str, tuple[int, int]]:
    """Return for each session how often it came up, and how often it went down."""
    peers = host.show("show bgp neighbors json")
    return {
        n: (peer["connectionsEstablished"], peer["connectionsDropped"]) for n, peer in peers.items()
    }


def change(lab: Lab, document: Payload) -> None:
    """Apply a payload as a controller does: to the leaves first, then to the host."""
    lab.fabric.carry(document)
    lab.host.apply(document)


def no_reload_pending(host: Host) -> bool:
    """Return whether FRR's running configuration equals its file."""
    output = host.run(["/usr/lib/frr/frr-reload.py", "--test", "/etc/frr/frr.conf"]).out
    return "Lines To" not in output


def differences(host: Host) -> list[str]:
    """Return the differences that `status` lists."""
    listed: list[str] = host.evpn_host("status", "--json", check=False).json["differences"]
    return listed


def unit_state(host: Host, unit: str) -> str:
    """Return the state of a unit as `systemctl is-active` prints it."""
    return host.run(["systemctl", "is-active", unit], check=False).out.strip()


def etc_checksums(host: Host) -> str:
    """Return the checksums of all files below /etc."""
    return host.run(["sh", "-c", "find /etc -type f | sort | xargs sha256sum"]).out


def addresses(host: Node, device: str) -> set[str]:
    """Return the global addresses of a device, with their prefix lengths."""
    [shown] = host.run(["ip", "-json", "address", "show", "dev", device]).json
    return {
        f"{each['local']}/{each['prefixlen']}"
        for each in shown["addr_info"]
        if each["scope"] == "global"
    }


def bare_metal(fabric: Fabric, name: str, vni: int, gateway: str, number: int) -> Node:
    """Add a server behind the third leaf, and let it reach its gateway as a booting server does."""
    network = gateway.rsplit(".", 1)[0]
    server = fabric.server(name, vni=vni, ipv4=f"{network}.{number}/24", gateway=gateway)
    eventually(lambda: server.ping(gateway, count=1))
    return server


def guest(host: Host, name: str, vni: int, gateway: str, number: int) -> Node:
    """Add a guest to the host's bridge of a V-Net, or give the guest if it exists."""
    network = gateway.rsplit(".", 1)[0]
    port = f"/sys/class/net/nbr-{vni}/brif/veth-{name}"
    if host.run(["test", "-e", port], check=False).code == 0:
        return Node(host.machine, name, f"{network}.{number}/24")
    pod = host.pod(name, bridge=f"nbr-{vni}", ipv4=f"{network}.{number}/24", gateway=gateway)
    eventually(lambda: pod.ping(gateway, count=1))
    return pod
