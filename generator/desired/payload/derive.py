"""Derives what one host should be from what a controller says about the fabric."""

import hashlib

from generator.desired.model import (
    Advertisements,
    Bgp,
    Bridge,
    Gateway,
    Host,
    Management,
    Uplink,
    Vrf,
    Vxlan,
    label,
)
from generator.desired.payload import advertisements
from generator.desired.payload.checks import Segments
from generator.desired.payload.document import Link, Server, Vnet, Vpc

Gateways = dict[str, tuple[Gateway, ...]]


def derive(server: Server, links: list[Link], segments: Segments, gateways: Gateways) -> Host:
    """Return the host of a checked document.

    `gateways` caches the gateways of each V-Net, by its place, for the next host.
    """
    members = segments.ports.members(links)
    bridges = []
    for place, (vnet, untagged) in members.items():
        if place not in gateways:
            gateways[place] = gateways_of(vnet)
        tagged = not untagged.pop()
        bridges.append(_vnet_bridge(vnet, gateways[place] if tagged else (), server))
    routed: dict[int, list[Bridge]] = {}
    for (vnet, _), bridge in zip(members.values(), bridges, strict=True):
        if bridge.vrf:
            routed.setdefault(vnet.vpc.id, []).append(bridge)
    vrfs = []
    for id_, inside in sorted(routed.items()):
        vpc = segments.vpc_by_id[id_]
        if vpc.vni:
            local = str(server.main_address)
            inside.append(l3_bridge(vpc.vni, vpc, inside, local, local))
            bridges.append(inside[-1])
        vrfs.append(vrf_of(vpc, inside))
    return Host(
        name=server.name,
        asn=int(server.asn),
        loopback=str(server.main_address),
        bgp=Bgp(
            bfd=server.bgp.bfd,
            keepalive=server.bgp.keepalive,
            holdtime=server.bgp.holdtime,
            password=server.bgp.password or None,
        ),
        management=_management(server, segments),
        uplinks=tuple(_uplinks(server, links, segments)),
        vrfs=tuple(vrfs),
        bridges=by_vni(bridges),
    )


def vrf_of(vpc: Vpc, bridges: list[Bridge]) -> Vrf:
    """Return the VRF of a VPC that has these bridges."""
    targets = vpc.route_targets
    return Vrf(
        id=vpc.id,
        label=label(vpc.name),
        vni=vpc.vni or None,
        bridges=tuple(bridge.name for bridge in by_vni(bridges)),
        import_targets=tuple(sorted({str(each) for each in targets.import_})),
        export_targets=tuple(sorted({str(each) for each in targets.export})),
    )


def by_vni(bridges: list[Bridge]) -> tuple[Bridge, ...]:
    """Return bridges sorted by VNI."""
    return tuple(sorted(bridges, key=lambda bridge: bridge.port.vni))


def own_mac(owner: str, bridge: str) -> str:
    """Return a MAC for a bridge without an anycast MAC: stable, and different on every host."""
    digest = hashlib.sha256(f"{owner} {bridge}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))  # locally administered


def _manages_ipv6(server: Server, vnet: Vnet) -> bool:
    return bool(server.mgmt and server.mgmt.vnet == vnet.name and server.mgmt.ipv6)


def gateways_of(vnet: Vnet) -> tuple[Gateway, ...]:
    """Return a V-Net's gateways, IPv4 first. Each family begins with its primary address; the
    others are sorted.
    """
    ordered = []
    for family in (4, 6):
        own = [gateway.prefix for gateway in vnet.gateways if gateway.prefix.version == family]
        ordered += [Gateway(address=str(p), family=family) for p in (*own[:1], *sorted(own[1:]))]
    return tuple(ordered)


def _vnet_bridge(vnet: Vnet, gateways: tuple[Gateway, ...], server: Server) -> Bridge:
    name = f"nbr-{vnet.vxlan_id}"
    return Bridge(
        name=name,
        label=label(vnet.name),
        port=Vxlan(
            name=f"vxlan{vnet.vxlan_id}",
            vni=vnet.vxlan_id,
            bridge=name,
            local=str(server.main_address),
            mtu=vnet.mtu,
            suppress=True,
        ),
        mtu=vnet.mtu,
        mac=str(vnet.anycast_mac) if gateways else own_mac(str(server.main_address), name),
        vrf=f"Vrf_{vnet.vpc.id}" if gateways else None,
        gateways=gateways,
        ipv6=bool(gateways) or _manages_ipv6(server, vnet),
        advertisements=advertisements_of(vnet) if gateways else None,
    )


def advertisements_of(vnet: Vnet) -> Advertisements | None:
    """Return what a V-Net's gateways advertise, None for nothing."""
    prefixes = [g.prefix.cidr for g in vnet.gateways if g.prefix.version == 6]
    return advertisements.derive(vnet.ipv6_neighbor_discovery, prefixes)


def l3_bridge(vni: int, vpc: Vpc, routed: list[Bridge], local: str, owner: str) -> Bridge:
    """Return the bridge of a VPC's L3VNI; its MAC is the router's MAC (RFC 9135).

    `local` is the VTEP's address. The MAC is derived from `owner`.
    """
    name = f"l3br-{vni}"
    mtu = max(bridge.mtu for bridge in routed)
    return Bridge(
        name=name,
        label=label(vpc.name),
        port=Vxlan(
            name=f"l3vx-{vni}",
            vni=vni,
            bridge=name,
            local=local,
            mtu=mtu,
            suppress=False,
        ),
        mtu=mtu,
        mac=own_mac(owner, name),
        vrf=f"Vrf_{vpc.id}",
        gateways=(),
        ipv6=True,
    )


def _uplinks(server: Server, links: list[Link], segments: Segments) -> list[Uplink]:
    """Return the links of the management V-Net, and those that the controller set to underlay.

    The links of the management V-Net get a session before their switch ports become underlay: after
    that, no payload can be fetched over them.
    """
    management = server.mgmt.vnet if server.mgmt else ""
    uplinks = [
        Uplink(
            ifname=link.local.ifname,
            label=label(link.remote.name),
            remote_as=str(int(link.remote.asn)) if link.remote.asn else "external",
            mtu=link.mtu or None,
            address=str(link.local.ipv4) if link.local.ipv4 else None,
            peer=str(link.remote.ipv4.ip) if link.remote.ipv4 else None,
        )
        for link in links
        if segments.is_untagged(management, link.remote.name) or link.underlay == "enabled"
    ]
    return sorted(uplinks, key=lambda uplink: uplink.ifname)


def _management(server: Server, segments: Segments) -> Management | None:
    mgmt = server.mgmt
    if not mgmt:
        return None
    _, vnet = segments.vnet_by_name[mgmt.vnet]
    return Management(
        ifname=mgmt.ifname,
        bridge=f"nbr-{vnet.vxlan_id}",
        ipv4=str(mgmt.ipv4),
        gateway=str(mgmt.gateway),
        ipv6=str(mgmt.ipv6) if mgmt.ipv6 else None,
        gateway6=str(mgmt.gateway6) if mgmt.gateway6 else None,
    )
