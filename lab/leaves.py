"""The frr.conf of the lab's leaves, as `evpn-host leaves` renders it for a Fleet.

The Fleet has what the fabric's state says. A lab's leaf carries every V-Net, so each V-Net has a
port of a server on it that stands for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from generator.desired.payload import load
from generator.desired.payload.leaves import Leaves, Switch
from generator.desired.payload.values import Address4, Asn
from generator.desired.render import render_leaf
from lab.guest.fabric import HOST_PORT, LEAVES, MANAGEMENT_VNI, UPLINK

# A host has to have a management V-Net. No line of frr.conf is about one without gateways.
MANAGEMENT: dict[str, Any] = {"id": 4000000, "name": "lab-management"}

# What the fabric carries before anybody provisions a tenant: the management V-Net, with the
# controller in it.
INITIAL: dict[str, Any] = {
    "host": {"name": "K8S01", "asn": 4200000001, "mainAddress": "10.2.0.101"},
    "underlay": [],
    "vpcs": [{"id": 26, "name": "Infrastructure"}],
    "vnets": [
        {
            "name": "Management",
            "vxlanID": MANAGEMENT_VNI,
            "vpc": {"id": 26},
            "gateways": [{"prefix": "10.12.0.1/16"}],
        }
    ],
    "servers": [
        {
            "name": "controller",
            "leaf": "ns-leaf-2",
            "vni": MANAGEMENT_VNI,
            "addresses": ["10.12.0.5/16"],
            "gateways": ["10.12.0.1"],
        }
    ],
}


def with_frr(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state of the fabric with the text of each leaf's frr.conf. Raises `Refused`."""
    known = {
        leaf.name: Switch(loopback=Address4(leaf.loopback), asn=Asn(leaf.asn), uplinks=[UPLINK])
        for leaf in LEAVES
    }
    leaves = Leaves(load(json.dumps(_fleet(state)).encode()), known)
    texts = {name: render_leaf(leaves.leaf(name))["etc/frr/frr.conf"] for name in known}
    return {**state, "frr": texts}


def of_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the fabric's state that a host's payload decides."""
    parts = {"vpcs": payload.get("vpcs", []), "vnets": payload.get("vnets", [])}
    if payload.get("kind") == "Host":
        keys = INITIAL["host"].keys()
        parts["host"] = {key: payload["server"][key] for key in keys}
    return parts


def _fleet(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Fleet of the V-Nets on every leaf, and of the host if a port of it is underlay."""
    ports = [f"{HOST_PORT}@{name}" for name in state["underlay"]]
    management = {"name": MANAGEMENT["name"], "vxlanID": MANAGEMENT["id"], "vpc": MANAGEMENT}
    stand_ins = [f"swp@{leaf.name}" for leaf in LEAVES]
    vnets = [
        *({**vnet, "ports": _untagged(stand_ins)} for vnet in state["vnets"]),
        {**management, "ports": _untagged([*stand_ins, *ports])},
    ]
    return {
        "apiVersion": "evpn-host/v1",
        "kind": "Fleet",
        "hosts": [_host(state["host"], ports)] if ports else [],
        "vpcs": [*state["vpcs"], MANAGEMENT],
        "vnets": vnets,
    }


def _untagged(ports: list[str]) -> list[dict[str, Any]]:
    return [{"name": port, "untagged": True} for port in ports]


def _host(host: Mapping[str, Any], ports: list[str]) -> dict[str, Any]:
    """Return the host under test, as far as a leaf has to know it."""
    nics = {f"{HOST_PORT}@{leaf.name}": leaf.nic for leaf in LEAVES}
    links = [
        {
            "local": {"name": f"{nics[port]}@{host['name']}", "ifname": nics[port]},
            "remote": {"name": port},
            "underlay": "enabled",
        }
        for port in ports
    ]
    management = {
        "vnet": MANAGEMENT["name"],
        "ifname": nics[ports[0]],
        "ipv4": "192.0.2.2/30",
        "gateway": "192.0.2.1",
    }
    return {"server": {**host, "srvRole": "EVPN-VTEP", "mgmt": management}, "links": links}
