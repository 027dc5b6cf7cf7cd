"""Finds the V-Nets and VPCs of this host in which a guest's address or MAC may be. Pure."""

import re
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

import msgspec

from generator.desired.model import label
from generator.desired.target import Target
from generator.errors import Problem, Refused, did_you_mean, printable

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
VRF_TABLES = 1000  # a VRF's table is this plus the id of its VPC


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A V-Net of this host; or, without one, a VPC that routes to the address."""

    vni: int | None = None
    name: str = ""  # of the V-Net
    bridge: str = ""
    port: str = ""  # its VXLAN port
    gateways: tuple[str, ...] = ()
    vpc: int | None = None  # None: the V-Net has no VRF on this host
    vpc_name: str = ""
    vrf: str = ""
    l3vni: str = ""  # the bridge of the VPC's L3VNI, "" without one
    mtu: int = 1500

    @property
    def vnet(self) -> str:
        """The V-Net's name for a person, "" without one."""
        if self.vni is None:
            return ""
        return f"V-Net {self.name} (VNI {self.vni})" if self.name else f"V-Net {self.vni}"

    @property
    def tenant(self) -> str:
        """The VPC's name for a person, "" without one."""
        if self.vpc is None:
            return ""
        return f"VPC {self.vpc_name} ({self.vpc})" if self.vpc_name else f"VPC {self.vpc}"

    def __str__(self) -> str:
        return " of ".join(filter(None, [self.vnet, self.tenant]))

    @property
    def option(self) -> str:
        """The option that selects it on the command line."""
        return f"--vpc {self.vpc}" if self.vni is None else f"--vnet {self.vni}"

    def has(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether an address is in the subnet of one of the V-Net's gateways."""
        return any(address in ip_interface(each).network for each in self.gateways)


def is_mac(text: str) -> bool:
    """Whether an address, in lower case with colons, is a MAC."""
    return _MAC.fullmatch(text) is not None


def vnets(target: Target) -> list[Place]:
    """Return the V-Nets of a host, by VNI."""
    devices = {device.name: device for device in target.devices}
    vpcs = {place.vrf: place for place in vrfs(target)}
    places = []
    for port in target.devices:
        bridge = devices.get(port.master or "")
        if port.kind != "vxlan" or not port.suppress or bridge is None or port.vni is None:
            continue
        vpc = vpcs.get(bridge.master or "", Place())
        places.append(
            Place(
                vni=port.vni,
                name=target.names.get(port.vni, ""),
                bridge=bridge.name,
                port=port.name,
                gateways=bridge.addresses or _management(target, bridge.name),
                vpc=vpc.vpc,
                vpc_name=vpc.vpc_name,
                vrf=vpc.vrf,
                l3vni=vpc.l3vni,
                mtu=bridge.mtu or 1500,
            )
        )
    return sorted(places, key=lambda place: place.vni or 0)


def _management(target: Target, bridge: str) -> tuple[str, ...]:
    """Return the management addresses, with their subnets, if a bridge is their bridge."""
    management = target.management
    return tuple(target.moving_addresses) if management and management.bridge == bridge else ()


def vrfs(target: Target) -> list[Place]:
    """Return the VPCs of a host, by id."""
    ports = {device.master for device in target.devices if device.kind == "vxlan"}
    inside = [each for each in target.devices if each.kind == "bridge" and each.name in ports]
    suppressing = {each.master for each in target.devices if each.suppress}
    places = []
    for vrf in (device for device in target.devices if device.kind == "vrf"):
        id_ = (vrf.table or VRF_TABLES) - VRF_TABLES
        bridges = [each for each in inside if each.master == vrf.name]
        l3vni = next((each for each in bridges if each.name not in suppressing), None)
        places.append(
            Place(
                vpc=id_,
                vpc_name=target.vpcs.get(id_, ""),
                vrf=vrf.name,
                l3vni=l3vni.name if l3vni else "",
                mtu=(l3vni.mtu if l3vni else None) or 1500,
            )
        )
    return sorted(places, key=lambda place: place.vpc or 0)


def of_mac(target: Target, vnis: Collection[int]) -> list[Place]:
    """Return the V-Nets of this host among those in which a MAC is known."""
    return [place for place in vnets(target) if place.vni in vnis]


def of_address(
    target: Target, text: str, vnis: Collection[int], prefixes: Mapping[str, str]
) -> list[Place]:
    """Return the V-Nets and VPCs that have an address.

    `vnis` are those in which FRR knows the address, `prefixes` each VRF's longest route to it. A
    default route counts only if nothing else has the address.
    """
    address = ip_address(text)
    places = [place for place in vnets(target) if place.vni in vnis or place.has(address)]
    covered = {place.vrf for place in places}
    routing = [
        place for place in vrfs(target) if place.vrf in prefixes and place.vrf not in covered
    ]
    places += [place for place in routing if ip_network(prefixes[place.vrf]).prefixlen]
    return places or routing


def vnet_named(target: Target, text: str) -> Place:
    """Return the V-Net that a person names, by its VNI or its name. Raises `Refused`."""
    known = vnets(target)
    for place in known:
        if text == str(place.vni) or (place.name and label(text) == place.name):
            return place
    hint = did_you_mean(text, [place.name for place in known])
    raise Refused(Problem("--vnet", printable(text), "is no V-Net of this host", hint))


def vpc_named(target: Target, text: str) -> Place:
    """Return the VPC that a person names, by its id or its name. Raises `Refused`."""
    known = vrfs(target)
    for place in known:
        if text == str(place.vpc) or (place.vpc_name and label(text) == place.vpc_name):
            return place
    hint = did_you_mean(text, [place.vpc_name for place in known])
    raise Refused(Problem("--vpc", printable(text), "has no VRF on this host", hint))
