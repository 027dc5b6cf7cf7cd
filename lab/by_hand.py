"""Devices of a plan made by ip(8), as a reference for the results of networkd and ifupdown2."""

from __future__ import annotations

from collections.abc import Iterable

from generator.desired.model import Device


def ip_lines(devices: Iterable[Device]) -> list[str]:
    """Return the lines for `ip -batch` that make the devices of a plan, in the plan's order.

    In that order VRFs stand before their bridges, and bridges before their ports.
    """
    return [line for device in devices for line in _lines(device)]


def _lines(device: Device) -> list[str]:
    name, master = device.name, f" master {device.master}" if device.master else ""
    if device.kind == "vrf":
        add = f"link add {name} up type vrf table {device.table}"
        options = f"table {device.table} metric 4278198272"
        return [
            add,
            *(f"route add unreachable {prefix} {options}" for prefix in ("0.0.0.0/0", "::/0")),
        ]
    if device.kind == "bridge":
        head = f"link add {name} mtu {device.mtu} address {device.mac}{master}"
        add = f"{head} type bridge stp_state 0 forward_delay 0"
        addresses = [f"address add {each} dev {name}{_nodad(each)}" for each in device.addresses]
        return [add, f"link set {name} up", *addresses]
    suppress = "on" if device.suppress else "off"
    kind = f"type vxlan id {device.vni} local {device.local} dstport 4789 nolearning"
    return [
        f"link add {name} mtu {device.mtu}{master} {kind}",
        f"link set {name} addrgenmode none up",
        f"link set {name} type bridge_slave learning off neigh_suppress {suppress}",
    ]


def _nodad(address: str) -> str:
    return " nodad" if ":" in address else ""
