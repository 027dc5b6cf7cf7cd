"""The payload's objects, field by field as a controller writes them.

Field names are those of the Netris API where it has one. The docstring of an object says what each
field means; the JSON Schema and docs/payload.md are made from it.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from generator.desired.payload.advertisements import Ipv6NeighborDiscovery
from generator.desired.payload.element import Element
from generator.desired.payload.values import (
    Address4,
    Address6,
    Asn,
    GatewayPrefix,
    Generation,
    HostName,
    Interface4,
    Interface6,
    InterfaceName,
    Mac,
    Mtu,
    Password,
    RouteTarget,
    Seconds,
    Text,
    Vni,
    VpcId,
)

ROLE = "EVPN-VTEP"


class Mgmt(Element, frozen=True, kw_only=True):
    """Where the management address lives before the fabric carries it, and in which V-Net.

    vnet: The name of the management V-Net. The port of the link of `ifname` is untagged in it.
    ifname: The NIC that has the management address until the fabric carries it. One of the links
        has it as `local.ifname`.
    ipv4: The management address with the length of its subnet, such as `10.12.0.101/16`.
    gateway: The next hop of the host's IPv4 default route. It is in the subnet of `ipv4`.
    ipv6: An IPv6 management address with the length of its subnet. `gateway6` needs it.
    gateway6: The next hop of the host's IPv6 default route. It is in the subnet of `ipv6`.
    """

    vnet: Text
    ifname: InterfaceName
    ipv4: Interface4
    gateway: Address4
    ipv6: Interface6 | UnsetType = UNSET
    gateway6: Address6 | UnsetType = UNSET


class BgpSettings(Element, frozen=True, kw_only=True):
    """Settings of every session of the host.

    bfd: Whether BFD watches the sessions. It notices a dead path sooner than BGP's own timers.
    keepalive: The seconds between two keepalive messages of a session.
    holdtime: The seconds without a message after which a session ends. They are at least three
        times `keepalive`.
    password: The password of every session (TCP MD5, RFC 2385): printable ASCII characters without
        spaces.
    """

    bfd: bool = False
    keepalive: Seconds = 3
    holdtime: Seconds = 9
    password: Password | UnsetType = UNSET


class Server(Element, frozen=True, kw_only=True):
    """The host itself.

    name: The host's name: 1–63 letters of either case, digits and inner hyphens (RFC 1123).
    srvRole: The host's role. Any other role is refused in a Host. A Fleet leaves hosts of other
        roles out and says so.
    asn: The host's AS number. No leaf has the same, because sessions are eBGP.
    mainAddress: The address of the host's loopback. It is the VTEP's address, and FRR's router ID.
    mgmt: The host's management address. It is required when the host has a link.
    bgp: Settings that all BGP sessions of the host share.
    """

    name: HostName
    srv_role: Literal["EVPN-VTEP"]
    asn: Asn
    main_address: Address4
    mgmt: Mgmt | UnsetType = UNSET
    bgp: BgpSettings = BgpSettings()


class LocalPort(Element, frozen=True, kw_only=True):
    """The host's end of a link.

    name: The port's name at the controller, such as `eth9@K8S01`.
    ifname: The NIC's name on the host, such as `ens4`.
    ipv4: The address of the NIC with its length, for a numbered session. It needs `remote.ipv4`.
        Without both the session is unnumbered.
    """

    name: Text
    ifname: InterfaceName
    ipv4: Interface4 | UnsetType = UNSET


class RemotePort(Element, frozen=True, kw_only=True):
    """The leaf's end of a link.

    name: The name of the switch port, such as `swp9s1@ns-leaf-0`. A V-Net that has this port
        belongs on the host.
    asn: The leaf's AS number. Without it the session takes any AS but the host's own (`remote-as
        external`).
    ipv4: The leaf's address with its length, for a numbered session. It is in the subnet of
        `local.ipv4`, which it needs.
    """

    name: Text
    asn: Asn | UnsetType = UNSET
    ipv4: Interface4 | UnsetType = UNSET


class Link(Element, frozen=True, kw_only=True):
    """A NIC port to a leaf.

    local: The host's end of the link.
    remote: The leaf's end of the link.
    underlay: `enabled`: a BGP session is attempted on the link. It is attempted in any case where
        the port is untagged in the management V-Net. Any other link is left alone.
    mtu: The MTU that the NIC gets. Without it the NIC keeps its own.
    """

    local: LocalPort
    remote: RemotePort
    underlay: Literal["enabled", "disabled"] = "disabled"
    mtu: Mtu | UnsetType = UNSET


class RouteTargets(Element, frozen=True, kw_only=True):
    """Explicit route targets of a VPC's type-5 routes.

    import: The route targets of the routes that the VPC takes, each `ASN:n` or `IPv4:n`. If there
        are none, FRR derives them.
    export: The route targets that the VPC's routes carry, each `ASN:n` or `IPv4:n`. If there are
        none, FRR derives them.
    """

    import_: list[RouteTarget] = msgspec.field(default_factory=list, name="import")
    export: list[RouteTarget] = []


class Vpc(Element, frozen=True, kw_only=True):
    """A tenant's routing domain.

    id: The VPC's number. The VRF is called `Vrf_<id>`, and its routing table is 1000 + id. The
        highest table is 4294967294, because netplan takes 4294967295 for none.
    name: The VPC's name. No other VPC of the payload has the same.
    vni: The L3VNI, through which the fabric routes the VPC. No V-Net and no other VPC has the same.
        Without it the VPC is routed on this host only.
    routeTargets: The VPC's explicit route targets. Without it FRR derives them.
    """

    id: VpcId
    name: Text
    vni: Vni | UnsetType = UNSET
    route_targets: RouteTargets = RouteTargets()


class VpcReference(Element, frozen=True, kw_only=True):
    """The VPC of a V-Net.

    id: The `id` of a VPC of this payload.
    """

    id: VpcId
    name: Any = None


class VnetGateway(Element, frozen=True, kw_only=True):
    """An anycast gateway of a V-Net.

    prefix: The gateway's address with the length of its subnet, such as `10.188.0.254/24`: /30 at
        most, in IPv6 /126. Subnets of one VPC do not overlap.
    """

    prefix: GatewayPrefix
    dhcp_enabled: Any = None
    dhcp: Any = None


class VnetPort(Element, frozen=True, kw_only=True):
    """A switch port in a V-Net.

    name: The name of the switch port. A link has it as `remote.name`.
    untagged: Where the gateways are: on the switch if `true`, on the host's bridge if `false`. It
        is the same on all of a host's ports in the V-Net.
    """

    name: Text
    untagged: bool = False


class Vnet(Element, frozen=True, kw_only=True):
    """An L2 segment of a VPC.

    name: The V-Net's name. No other active V-Net of the payload has the same.
    vxlanID: The V-Net's VNI. Its devices on a host are called `nbr-<VNI>` and `vxlan<VNI>`.
    vpc: The VPC that the V-Net belongs to.
    mtu: The MTU of the V-Net's bridge and VXLAN port. VXLAN adds 50 bytes on the links.
    state: `disabled`: the V-Net is treated as if it were not there.
    gateways: The V-Net's gateways, the same on every host and leaf. The first of a family is its
        primary address. A V-Net without gateways is pure L2.
    macAddress: The MAC of the gateways, the same on every host and leaf. This or `customAnycastMac`
        is required when a gateway is on a host.
    customAnycastMac: A MAC for the gateways that wins over `macAddress`.
    ports: The switch ports in the V-Net. A host has the V-Net when one of them is at the other end
        of its links.
    l2only: Whether the V-Net has no gateways. `true` is refused together with gateways.
    ipv6NeighborDiscovery: What the gateways advertise to guests. Without it they advertise nothing.
    l3vpn: `true` is refused: a host does not support it.
    vlanAware: `true` is refused: a host does not support it.
    """

    name: Text
    vxlan_id: Vni = msgspec.field(name="vxlanID")
    vpc: VpcReference
    mtu: Mtu = 1500
    state: Literal["active", "disabled"] = "active"
    gateways: list[VnetGateway] = []
    mac_address: Mac | UnsetType = UNSET
    custom_anycast_mac: Mac | UnsetType = UNSET
    ports: list[VnetPort] = []
    l2only: bool = False
    ipv6_neighbor_discovery: Ipv6NeighborDiscovery | UnsetType = UNSET
    l3vpn: bool = False
    vlan_aware: bool = False

    @property
    def anycast_mac(self) -> Mac | UnsetType:
        """The MAC of the V-Net's gateways, on every host and leaf."""
        return self.custom_anycast_mac or self.mac_address


class HostDocument(Element, frozen=True, kw_only=True, tag_field="kind", tag="Host"):
    """A payload for one host.

    apiVersion: The version of this format.
    generation: A number that the controller raises with each change. No rendered file depends on
        it; the host's record has it.
    server: The host's name, numbers and addresses.
    links: The host's NIC ports that lead to leaves.
    vpcs: The VPCs that the V-Nets belong to.
    vnets: The V-Nets. The host gets those that have a port at the other end of one of its links.
    """

    api_version: Literal["evpn-host/v1"]
    generation: Generation = 0
    server: Server
    links: list[Link] = []
    vpcs: list[Vpc] = []
    vnets: list[Vnet] = []
