"""Both backends describe the same devices, read back from their files as data."""

from collections import defaultdict
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

from generator.desired.model import Device, Host, devices
from generator.desired.payload import load
from generator.desired.render import render

NETPLAN = "etc/netplan/60-evpn-host.yaml"
INTERFACES = "etc/network/interfaces.d/evpn-host"
DROP_IN = "etc/systemd/network/10-netplan-{}.network.d/evpn-host.conf"


class DeviceEntry(msgspec.Struct, frozen=True):
    """A device as a file describes it, with the settings that all devices of its kind share."""

    device: Device
    port: int | None = None
    learning: bool | None = None  # the setting of a VXLAN device
    port_learning: bool | None = None  # the setting of the device as a port of its bridge
    stp: bool | None = None
    forward_delay: int | None = None
    link_local: bool | None = None  # whether the kernel gives it an IPv6 link-local address


class NicEntry(msgspec.Struct, frozen=True):
    """The settings of a NIC or lo in our files."""

    addresses: tuple[str, ...] = ()
    mtu: int | None = None


def from_netplan(files: dict[str, str]) -> tuple[dict[str, DeviceEntry], dict[str, NicEntry]]:
    network = YAML(typ="safe").load(files[NETPLAN])["network"]
    bridges, vrfs = network.get("bridges", {}), network.get("vrfs", {})
    for section in (bridges, vrfs, network.get("tunnels", {})):
        assert section.pop("renderer", "networkd") == "networkd"
    masters = {
        inside: name
        for name, entry in (bridges | vrfs).items()
        for inside in entry.get("interfaces", ())
    }
    by_name = {
        name: DeviceEntry(
            Device(
                name=name,
                kind="bridge",
                mtu=entry["mtu"],
                mac=entry["macaddress"],
                master=masters.get(name),
                addresses=tuple(entry.get("addresses", ())),
            ),
            stp=entry["parameters"]["stp"],
            forward_delay=entry["parameters"]["forward-delay"],
            link_local="ipv6" in entry["link-local"],
        )
        for name, entry in bridges.items()
    }
    for name, entry in network.get("tunnels", {}).items():
        assert entry["mode"] == "vxlan"
        device = Device(
            name=name,
            kind="vxlan",
            mtu=entry["mtu"],
            master=masters.get(name),
            vni=entry["id"],
            local=entry["local"],
            suppress=entry["neigh-suppress"],
        )
        by_name[name] = DeviceEntry(
            device,
            port=entry["port"],
            learning=entry["mac-learning"],
            port_learning=drop_in(files, name)["Bridge"].getboolean("Learning"),
            link_local="ipv6" in entry["link-local"],
        )
    for name, entry in vrfs.items():
        by_name[name] = DeviceEntry(Device(name=name, kind="vrf", table=entry["table"]))
    assert network["ethernets"].pop("renderer") == "networkd"
    nics = {name: nic(files, name, entry) for name, entry in network["ethernets"].items()}
    return by_name, nics


def nic(files: dict[str, str], name: str, entry: dict[str, Any]) -> NicEntry:
    """Return the settings of a NIC in netplan's file and networkd's drop-in."""
    lines = drop_in(files, name)
    addresses = (*entry.get("addresses", ()), *filter(None, [lines["Network"].get("Address")]))
    mtu = lines.getint("Link", "MTUBytes", fallback=None)
    return NicEntry(addresses, mtu)


def drop_in(files: dict[str, str], device: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_string(files[DROP_IN.format(device)])
    return parser


def stanzas(text: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Yield the interfaces of an ifupdown2 file: name and values by keyword. All are `auto`."""
    automatic = set()
    inside: dict[str, list[str]] = {}
    interfaces: dict[str, dict[str, list[str]]] = {}
    for line in text.splitlines():
        match line.split():
            case ["auto", name]:
                automatic.add(name)
            case ["iface", name]:
                assert name not in interfaces
                interfaces[name] = inside = defaultdict(list)
            case [keyword, *value] if not keyword.startswith("#"):
                inside[keyword].append(" ".join(value))
    assert automatic == interfaces.keys()
    yield from interfaces.items()


_SWITCH = {"on": True, "yes": True, "off": False, "no": False}


def from_interfaces(files: dict[str, str]) -> tuple[dict[str, DeviceEntry], dict[str, NicEntry]]:
    entries = dict(stanzas(files[INTERFACES]))
    masters = {
        port: name
        for name, entry in entries.items()
        for ports in entry.get("bridge-ports", ())
        for port in ports.split()
    }
    by_name: dict[str, DeviceEntry] = {}
    nics = {}
    for name, several in entries.items():
        entry: dict[str, Any] = {k: v[0] for k, v in several.items() if len(v) == 1}
        addresses = tuple(several.get("address", ()))
        mtu = int(entry["mtu"]) if "mtu" in entry else None
        if "vxlan-id" in entry:
            device = Device(
                name=name,
                kind="vxlan",
                mtu=mtu,
                master=masters.get(name),
                vni=int(entry["vxlan-id"]),
                local=entry["vxlan-local-tunnelip"],
                suppress=_SWITCH[entry["bridge-arp-nd-suppress"]],
            )
            by_name[name] = DeviceEntry(
                device,
                port=int(entry["vxlan-port"]),
                learning=_SWITCH[entry["vxlan-learning"]],
                port_learning=_SWITCH[entry["bridge-learning"]],
                link_local=_SWITCH[entry["ipv6-addrgen"]],
            )
        elif "bridge-ports" in entry:
            device = Device(
                name=name,
                kind="bridge",
                mtu=mtu,
                mac=entry["hwaddress"],
                master=entry.get("vrf"),
                addresses=addresses,
            )
            by_name[name] = DeviceEntry(
                device,
                stp=_SWITCH[entry["bridge-stp"]],
                forward_delay=int(entry["bridge-fd"]),
                link_local=_SWITCH[entry["ipv6-addrgen"]],
            )
        elif "vrf-table" in entry:
            by_name[name] = DeviceEntry(
                Device(name=name, kind="vrf", table=int(entry["vrf-table"]))
            )
        else:
            nics[name] = NicEntry(addresses, mtu)
    return by_name, nics


def hosts(payload: Path) -> list[Host]:
    return load(payload.read_bytes()).hosts


def expected_entry(device: Device) -> DeviceEntry:
    if device.kind == "vxlan":
        return DeviceEntry(device, port=4789, learning=False, port_learning=False, link_local=False)
    if device.kind == "bridge":
        routed6 = any(":" in address for address in device.addresses)
        return DeviceEntry(device, stp=False, forward_delay=0, link_local=routed6)
    return DeviceEntry(device)


def test_same_devices(accepted: Path) -> None:
    """Both backends' files describe the devices that the model asks for, and no others.

    No VXLAN port learns addresses, no bridge speaks STP, and only a bridge with an IPv6 gateway has
    a link-local address.
    """
    for host in hosts(accepted):
        expected = {device.name: expected_entry(device) for device in devices(host)}
        netplan, nics = from_netplan(render(host, "netplan"))
        assert netplan == expected
        assert from_interfaces(render(host, "ifupdown")) == (expected, nics)


def test_nics(accepted: Path) -> None:
    """Both backends set on a NIC what the underlay needs, and leave all other NICs alone."""
    for host in hosts(accepted):
        expected = {"lo": NicEntry((f"{host.loopback}/32",))} | {
            uplink.ifname: NicEntry((uplink.address,) if uplink.address else (), uplink.mtu)
            for uplink in host.uplinks
        }
        assert from_netplan(render(host, "netplan"))[1] == expected
        assert from_interfaces(render(host, "ifupdown"))[1] == expected


def test_each_vrf_ends_in_unreachable_routes(accepted: Path) -> None:
    """No packet of a tenant leaves its VRF, in both families (ifupdown2 does this by itself)."""
    for host in hosts(accepted):
        files = render(host, "netplan")
        for vrf in host.vrfs:
            routes = files[DROP_IN.format(vrf.name)].split("[Route]\n")[1:]
            assert [dict(line.split("=", 1) for line in r.split()) for r in routes] == [
                {
                    "Destination": everything,
                    "Type": "unreachable",
                    "Table": str(1000 + vrf.id),
                    "Metric": "4278198272",
                }
                for everything in ("0.0.0.0/0", "::/0")
            ]


def test_sysctl_and_frr_files_do_not_depend_on_the_backend(accepted: Path) -> None:
    """They are the same with both backends, byte for byte."""
    for host in hosts(accepted):
        netplan, ifupdown = render(host, "netplan"), render(host, "ifupdown")
        shared = {path for path in netplan if path.startswith(("etc/frr/", "etc/sysctl.d/"))}
        assert len(shared) == 3
        assert {path: netplan[path] for path in shared} == {p: ifupdown[p] for p in shared}
