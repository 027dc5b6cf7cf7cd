"""`evpn-host guests`: definitions by which a platform's guests join the V-Nets of a host.

Everything is named after the bridge, `nbr-<VNI>`. That name is valid on every platform, belongs to
only one V-Net, and stays when the V-Net is renamed. The V-Net's own name is in a comment. The
bridge exists already: no platform creates it, gives it an address or routes through it.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from textwrap import indent
from xml.etree import ElementTree as ET

import msgspec

from generator.desired.model import Host, label
from generator.desired.payload import load
from generator.errors import Problem, Refused, printable
from generator.state import files, record, tree

# Our names in the documents of platforms.
_NAMESPACE = "urn:evpn-host"
_ANNOTATION = "evpn-host/vnet"
_LABEL = "evpn-host.vnet"


class Vnet(msgspec.Struct, frozen=True):
    """A V-Net with what guests need of it."""

    vni: int
    bridge: str
    mtu: int  # bytes, of the packets that guests send
    name: str  # from the payload, safe in any text; "" without a payload
    gateways: tuple[str, ...] = ()  # on this host, with prefix length

    @property
    def title(self) -> str:
        """The name of the V-Net for a person."""
        return f"V-Net {self.name} (VNI {self.vni})" if self.name else f"VNI {self.vni}"


def planned(host: Host) -> list[Vnet]:
    """Return the V-Nets that a payload gives a host, by VNI."""
    return [
        Vnet(bridge.port.vni, bridge.name, bridge.mtu, bridge.label, tuple(bridge.addresses))
        for bridge in host.bridges
        if not bridge.l3vni
    ]


def applied(root: Path) -> list[Vnet]:
    """Return the V-Nets of the last apply, by VNI. Raises `Refused` if there was none."""
    last = record.read(root)
    if last is None:
        raise Refused("nothing was applied yet: give a payload, -p SRC")
    names = _names(root, last.target.host)
    bridges = {device.name: device for device in last.target.devices if device.kind == "bridge"}
    ports = [device for device in last.target.devices if device.vni and device.suppress]
    return [
        Vnet(port.vni or 0, name, bridge.mtu or 0, names.get(name, ""), bridge.addresses)
        for port in ports
        if (bridge := bridges.get(name := port.master or ""))
    ]


def _names(root: Path, host: str) -> dict[str, str]:
    """Return the names of V-Nets, by bridge, from the last good payload: the record has none."""
    try:
        model = load(tree.read(root, record.PAYLOAD)).host(host)
    except (OSError, Refused):
        return {}
    return {vnet.bridge: vnet.name for vnet in planned(model)}


def choose(vnets: list[Vnet], name: str | None) -> list[Vnet]:
    """Return all V-Nets, or the one of a VNI, a bridge or a name.

    Raises `Refused` if there is none, or more than one.
    """
    if name is None:
        return vnets
    chosen = [vnet for vnet in vnets if name in (str(vnet.vni), vnet.bridge)]
    chosen = chosen or [vnet for vnet in vnets if vnet.name and vnet.name == label(name)]
    if len(chosen) == 1:
        return chosen
    rule = "is the name of several" if chosen else "is no V-Net of this host"
    known = ", ".join(vnet.title for vnet in chosen or vnets) or "none"
    raise Refused(Problem("VNET", printable(name), rule, f"there are: {known}"))


def libvirt(vnets: Iterable[Vnet]) -> str:
    """Return networks for `virsh net-define`, which takes one at a time (formatnetwork.html).

    libvirt refuses `<mtu>` for a bridge that it did not create, and gives each guest's port the
    MTU of the bridge (virNetDevTapAttachBridge). So the MTU is only in the metadata.
    """
    return "".join(map(_libvirt, vnets))


def _libvirt(vnet: Vnet) -> str:
    network = ET.Element("network")
    ET.SubElement(network, "name").text = vnet.bridge
    # Always the same UUID, so that the network can be defined again.
    ET.SubElement(network, "uuid").text = str(uuid.uuid5(uuid.NAMESPACE_OID, vnet.bridge))
    vnet_data = {"vni": str(vnet.vni), "name": vnet.name, "mtu": str(vnet.mtu)}
    metadata = ET.SubElement(network, "metadata")
    ET.SubElement(metadata, "evpn-host:vnet", {"xmlns:evpn-host": _NAMESPACE} | vnet_data)
    ET.SubElement(network, "forward", mode="bridge")
    ET.SubElement(network, "bridge", name=vnet.bridge)
    ET.indent(network)
    return ET.tostring(network, encoding="unicode") + "\n"


def nad(vnets: Iterable[Vnet]) -> str:
    """Return NetworkAttachmentDefinitions for Multus and the `bridge` plugin of CNI.

    `ipam` is empty: the pod is a host of an L2 segment, and gets its address as others do there.
    Without `isGateway`, `ipMasq`, `promiscMode` and `vlan` the plugin only sets an existing bridge
    up, and turns off its `accept_ra` (plugins/main/bridge/bridge.go).
    """
    return "".join(map(_nad, vnets))


def _nad(vnet: Vnet) -> str:
    config = {
        "cniVersion": "0.3.1",
        "name": vnet.bridge,
        "type": "bridge",
        "bridge": vnet.bridge,
        "mtu": vnet.mtu,
        "isGateway": False,
        "hairpinMode": False,
        "ipam": {},
    }
    return f"""\
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: {vnet.bridge}
  annotations:
    {_ANNOTATION}: {_scalar(vnet.title)}
spec:
  config: |
{indent(json.dumps(config, indent=2), "    ")}
"""


def incus(vnets: Iterable[Vnet]) -> str:
    """Return profiles with a NIC each, for `incus admin init --preseed` or LXD's `lxd init`.

    The NIC is named after the bridge too, so that an instance can be in several V-Nets.
    """
    profiles = "".join(map(_profile, vnets))
    return f"---\nprofiles:\n{profiles}" if profiles else "---\nprofiles: []\n"


def _profile(vnet: Vnet) -> str:
    return f"""\
  - name: {vnet.bridge}
    description: {_scalar(vnet.title)}
    config: {{}}
    devices:
      {vnet.bridge}:
        type: nic
        nictype: bridged
        parent: {vnet.bridge}
        mtu: "{vnet.mtu}"
"""


def podman(vnets: Iterable[Vnet]) -> str:
    """Return networks in the format of the files in Podman's folder of networks.

    `unmanaged`: Podman gives the bridge no address and no firewall rules. With a subnet a
    container can be given an address (`--network nbr-26:ip=…`); without one it sets its own.
    """
    return "".join(map(_podman, vnets))


def _podman(vnet: Vnet) -> str:
    gateways = [ip_interface(each) for each in vnet.gateways]
    subnets = [{"subnet": str(each.network), "gateway": str(each.ip)} for each in gateways]
    network = {
        "name": vnet.bridge,
        # Podman identifies a network by it: it must differ for each bridge, and never change.
        "id": hashlib.sha256(vnet.bridge.encode()).hexdigest(),
        "driver": "bridge",
        "network_interface": vnet.bridge,
        "created": "2026-01-01T00:00:00Z",
        **({"subnets": subnets} if subnets else {}),
        "ipv6_enabled": any(each.version == 6 for each in gateways),
        "internal": False,
        "dns_enabled": False,
        "labels": {_LABEL: vnet.title},
        "options": {"mode": "unmanaged", "mtu": str(vnet.mtu)},
        "ipam_options": {"driver": "host-local" if subnets else "none"},
    }
    return json.dumps(network, indent=2) + "\n"


def qemu(vnets: Iterable[Vnet]) -> str:
    """Return lines for /etc/qemu/bridge.conf, which let a user join a bridge.

    The helper gives the tap the bridge's MTU; `host_mtu` tells the guest (qemu-bridge-helper.c).
    """
    return "".join(
        f"""\
# {vnet.title}:
# -netdev bridge,id={vnet.bridge},br={vnet.bridge}
# -device virtio-net-pci,netdev={vnet.bridge},host_mtu={vnet.mtu},mac=MAC
allow {vnet.bridge}
"""
        for vnet in vnets
    )


def nspawn(vnets: Iterable[Vnet]) -> str:
    """Return settings for /etc/systemd/nspawn/MACHINE.nspawn, and for networkd in the container.

    systemd-nspawn can set neither an MTU nor an address (systemd.nspawn(5)).
    """
    return "".join(map(_nspawn, vnets))


def _nspawn(vnet: Vnet) -> str:
    inside = [
        "[Match]",
        "Name=host0",
        "[Link]",
        f"MTUBytes={vnet.mtu}",
        *(["[Network]"] if vnet.gateways else []),
    ]
    for gateway in map(ip_interface, vnet.gateways):
        inside += [f"Address=ADDRESS/{gateway.network.prefixlen}", f"Gateway={gateway.ip}"]
    comment = "".join(f"# {line}\n" for line in inside)
    return f"""\
# {vnet.title}
[Network]
Bridge={vnet.bridge}
# In the container, /etc/systemd/network/10-{vnet.bridge}.network:
{comment}"""


def lxc(vnets: Iterable[Vnet]) -> str:
    """Return lines for the configuration of a container (lxc.container.conf(5)), by VNI."""
    return "".join(map(_lxc, vnets))


def _lxc(vnet: Vnet) -> str:
    key = f"lxc.net.{vnet.vni}"
    lines = [
        f"# {vnet.title}",
        f"{key}.type = veth",
        f"{key}.link = {vnet.bridge}",
        f"{key}.mtu = {vnet.mtu}",
        f"{key}.flags = up",
    ]
    for gateway in map(ip_interface, vnet.gateways):
        family = f"# {key}.ipv{gateway.version}"
        lines += [
            f"{family}.address = ADDRESS/{gateway.network.prefixlen}",
            f"{family}.gateway = {gateway.ip}",
        ]
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """Return any text as a string of YAML: a JSON string is one (YAML 1.2, 1.3).

    A YAML library writes the same, but takes 4 ms for each V-Net.
    """
    return json.dumps(text)


# By format: the function that writes it, and the suffix of its files.
FORMATS: dict[str, tuple[Callable[[Iterable[Vnet]], str], str]] = {
    "libvirt": (libvirt, "xml"),
    "nad": (nad, "yaml"),
    "incus": (incus, "yaml"),
    "podman": (podman, "json"),
    "qemu": (qemu, "conf"),
    "nspawn": (nspawn, "nspawn"),
    "lxc": (lxc, "conf"),
}


def text(form: str, vnets: list[Vnet]) -> str:
    """Return V-Nets in a format of `FORMATS`."""
    return FORMATS[form][0](vnets)


def write(form: str, vnets: list[Vnet], folder: Path) -> Iterator[Path]:
    """Write a file for each V-Net; yield its path."""
    _, suffix = FORMATS[form]
    for vnet in vnets:
        name = f"{vnet.bridge}.{suffix}"
        files.write_plain(folder, name, text(form, [vnet]).encode(), 0o644)
        yield folder / name
