"""The objects that only a Fleet has, field by field as a person or a controller writes them.

Labels and Server Clusters say in which V-Nets a server is. `membership` resolves them to ports.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from generator.desired.payload.document import (
    ROLE,
    Link,
    Server,
    Vnet,
    VnetGateway,
    Vpc,
    VpcReference,
)
from generator.desired.payload.element import Element
from generator.desired.payload.values import (
    Generation,
    Mac,
    Mtu,
    NicLabel,
    TemplateGateway4,
    TemplateGateway6,
    Text,
    Vni,
)

L2VPN = "l2vpn"


class FleetServer(Server, frozen=True, kw_only=True):
    """The host itself.

    labels: Labels of the host's NICs, each `iface.<nic> = <value>`. `<nic>` is the part of
        `local.name` before the `@`. The port of such a NIC is in each V-Net with that label.
    """

    labels: list[NicLabel] = []


class FleetHost(Element, frozen=True, kw_only=True):
    """One host of a Fleet.

    server: The host's name, numbers and addresses.
    links: The host's NIC ports that lead to leaves.
    """

    server: FleetServer
    links: list[Link] = []


class Open(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An object of which only some fields matter here, and the others may be anything."""


class OtherPort(Open, frozen=True, kw_only=True):
    """An end of a bare-metal server's link.

    name: The name of the port: `eth9@gpu-node-10`, or `swp7@ns-leaf-2` on the switch.
    """

    name: Text


class OtherLink(Open, frozen=True, kw_only=True):
    """A NIC port of a bare-metal server, to a leaf.

    local: The server's end of the link.
    remote: The leaf's end of the link. No other host has the same port.
    """

    local: OtherPort
    remote: OtherPort


class OtherServer(Open, frozen=True, kw_only=True):
    """A bare-metal server. Fields that are not listed may be anything.

    name: The server's name, by which a Server Cluster names it.
    srvRole: Any other role than `EVPN-VTEP`.
    labels: Labels of the server's NICs, as those of a host.
    """

    name: Text | UnsetType = UNSET
    srv_role: Annotated[str, Meta(extra_json_schema={"not": {"const": ROLE}})]
    labels: list[NicLabel] = []


class OtherHost(Open, frozen=True, kw_only=True):
    """A host of another role, such as a bare-metal server. V-Nets have its ports; it gets no files.

    server: The server's name, role and labels.
    links: The server's NIC ports that lead to leaves.
    """

    server: OtherServer
    links: list[OtherLink] = []


class VnetLabel(Element, frozen=True, kw_only=True):
    """A label whose NICs are in a V-Net.

    value: The value of the label, such as `storage` of `iface.eth9 = storage`.
    untagged: Whether the ports of these NICs are untagged in the V-Net. A NIC is untagged in one
        V-Net only.
    """

    value: Text
    untagged: bool = False


class FleetVnet(Vnet, frozen=True, kw_only=True):
    """An L2 segment of a VPC.

    labels: The labels whose NICs are in the V-Net. A port that `ports` has too is as `ports` says.
    """

    labels: list[VnetLabel] = []


class TemplateVnet(Element, frozen=True, kw_only=True):
    """A V-Net that each Server Cluster of a template has.

    postfix: The end of the V-Net's name: `<cluster>-<postfix>`.
    type: `l2vpn`. A V-Net of another type concerns no host that is shared: it is left out.
    serverNics: The NICs whose ports are in the V-Net, by the part of `local.name` before the `@`.
    vlan: `untagged`, as the ports of dedicated servers are. Those of Shared Endpoints are tagged.
    ipv4Gateway: The V-Net's IPv4 gateway, or `specify`: each Server Cluster names its own.
    ipv6Gateway: The V-Net's IPv6 gateway, or `specify`: each Server Cluster names its own.
    """

    postfix: Text
    type: Literal["l2vpn", "l3vpn", "netris-ufm", "netris-nvlink"]
    server_nics: list[Text] = []
    vlan: Literal["untagged"] = "untagged"
    ipv4_gateway: TemplateGateway4 | UnsetType = msgspec.field(default=UNSET, name="ipv4Gateway")
    ipv6_gateway: TemplateGateway6 | UnsetType = msgspec.field(default=UNSET, name="ipv6Gateway")
    vlan_id: Any = msgspec.field(default=None, name="vlanID")
    ipv4_dhcp_enabled: Any = msgspec.field(default=None, name="ipv4DhcpEnabled")
    ufm: Any = None
    pkey: Any = None
    partition: Any = None


class ServerClusterTemplate(Element, frozen=True, kw_only=True):
    """What Server Clusters have in common: their V-Nets, and the NICs that are in these.

    name: The template's name.
    vnets: The V-Nets that each Server Cluster of the template has.
    """

    name: Text
    vnets: list[TemplateVnet] = []


class ClusterVnet(Element, frozen=True, kw_only=True):
    """What a Server Cluster says of one of its V-Nets.

    vxlanID: The V-Net's VNI. It is required for a V-Net of type `l2vpn`.
    macAddress: The MAC of the V-Net's gateways, the same on every host and leaf.
    mtu: The MTU of the V-Net's bridge and VXLAN port.
    gateways: The V-Net's gateways, of each family for which the template says `specify`.
    """

    vxlan_id: Vni | UnsetType = msgspec.field(default=UNSET, name="vxlanID")
    mac_address: Mac | UnsetType = UNSET
    mtu: Mtu = 1500
    gateways: list[VnetGateway] = []


class ServerCluster(Element, frozen=True, kw_only=True):
    """Servers of a tenant, and the V-Nets that a template gives them.

    name: The Server Cluster's name. Its V-Nets are called `<name>-<postfix>`.
    vpc: The VPC that its V-Nets belong to.
    template: The name of its template.
    servers: The dedicated servers, by name: their ports are untagged. A server is dedicated to one
        Server Cluster.
    sharedEndpoints: The shared servers, by name: their ports are tagged.
    vnets: What the template leaves open, by the postfix of the V-Net.
    """

    name: Text
    vpc: VpcReference
    template: Text
    servers: list[Text] = []
    shared_endpoints: list[Text] = []
    vnets: dict[str, ClusterVnet] = {}


class FleetDocument(Element, frozen=True, kw_only=True, tag_field="kind", tag="Fleet"):
    """One payload for many hosts: VPCs and V-Nets once, and the hosts.

    apiVersion: The version of this format.
    generation: A number that the controller raises with each change. No rendered file depends on
        it; the host's record has it.
    vpcs: The VPCs that the V-Nets belong to, for all hosts.
    vnets: The V-Nets of all hosts. A host gets those that have a port at the other end of one of
        its links.
    serverClusterTemplates: What Server Clusters have in common.
    serverClusters: Servers of tenants. Their V-Nets are V-Nets of the Fleet, too.
    hosts: The hosts. They differ in name, AS number, `mainAddress` and switch ports.
    """

    api_version: Literal["evpn-host/v1"]
    generation: Generation = 0
    vpcs: list[Vpc] = []
    vnets: list[FleetVnet] = []
    server_cluster_templates: list[ServerClusterTemplate] = []
    server_clusters: list[ServerCluster] = []
    hosts: list[FleetHost]
