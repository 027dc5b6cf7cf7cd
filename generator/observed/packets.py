"""The packets to and from a guest, as the hooks of netfilter see them. Pure."""

import itertools
from collections.abc import Iterator
from typing import Literal

from generator.desired.model import Host
from generator.observed.guest import Facts
from generator.observed.netfilter import Packet

_VXLAN = {"l4proto": "udp", "ip protocol": "udp", "udp dport": "4789"}
_NEW = {"ct state": "new", "ct status": "none"}  # nobody has translated it
_ANSWER = {"ct state": "established"}
_TO_US = {"fib daddr type": "local"}
_BACK = "fib saddr oifname"  # the route to the VTEP leads out of an uplink
_FORWARD = frozenset({"forward"})
_IN, _OUT = frozenset({"prerouting", "input"}), frozenset({"output", "postrouting"})


def packets(facts: Facts, uplinks: list[str], loopback: str) -> list[Packet]:
    """Return the packets: VXLAN through the uplinks, bridged in the V-Net, routed in the VPC."""
    return [*_vxlan(facts, uplinks, loopback), *_bridged(facts), *_routed(facts)]


def _vxlan(facts: Facts, uplinks: list[str], loopback: str) -> Iterator[Packet]:
    local = {"ip daddr": loopback, **_TO_US}
    if not facts.vteps and facts.ports:
        for device in uplinks:
            fields = {"iifname": device, _BACK: device, **local, **_VXLAN, **_NEW}
            yield Packet(what=f"VXLAN from {device}", kind="ip", hooks=_IN, fields=fields)
    for vtep in facts.vteps:
        for device in (hop.device for hop in vtep.hops):
            fields = {"oifname": device, "ip daddr": vtep.address, "ip saddr": loopback}
            what = f"VXLAN to {vtep.address}"
            yield Packet(what=what, kind="ip", hooks=_OUT, fields={**fields, **_VXLAN, **_NEW})
            fields = {"iifname": device, _BACK: device, "ip saddr": vtep.address, **local}
            what = f"VXLAN from {vtep.address}"
            yield Packet(what=what, kind="ip", hooks=_IN, fields={**fields, **_VXLAN, **_NEW})


def _bridged(facts: Facts) -> Iterator[Packet]:
    """Yield packets that stay in the V-Net; with br_netfilter they pass the IP hooks too."""
    bridge = facts.place.bridge
    if not bridge:
        return
    port = facts.ports[0].name if facts.ports else facts.place.port
    names = {"ibrname": bridge, "obrname": bridge}
    ip = facts.family
    to_guest = {"ether daddr": facts.mac} if facts.mac else {}
    from_guest = {"ether saddr": facts.mac} if facts.mac else {}
    if facts.address:
        to_guest[f"{ip} daddr"] = from_guest[f"{ip} saddr"] = facts.address
    to_guest |= {"oifname": port, **names, **_NEW}
    from_guest |= {"iifname": port, **names, **_ANSWER}
    yield Packet(what="what is bridged to it", kind="bridge", hooks=_FORWARD, fields=to_guest)
    yield Packet(what="what it sends", kind="bridge", hooks=_FORWARD, fields=from_guest)
    if facts.address and facts.bridged_hooks:
        both = {"iifname": bridge, "oifname": bridge}
        for what, side, state in (
            ("what is bridged to it", "daddr", _NEW),
            ("what it sends", "saddr", _ANSWER),
        ):
            fields = {**both, f"{ip} {side}": facts.address, **state}
            yield Packet(what=what, kind=ip, hooks=_FORWARD, fields=fields)


def _routed(facts: Facts) -> Iterator[Packet]:
    place = facts.place
    if not (place.vrf and facts.address):
        return
    out = place.l3vni if facts.routers else place.bridge
    # Forwarded packets come from the VRF, not from the bridge through which they came in.
    fields = {"iifname": place.vrf, "oifname": out, f"{facts.family} daddr": facts.address}
    what = "what is routed to it"
    yield Packet(what=what, kind=facts.family, hooks=_FORWARD, fields={**fields, **_NEW})
    fields = {"iifname": place.vrf, f"{facts.family} saddr": facts.address}
    what = "what it sends to other V-Nets"
    yield Packet(what=what, kind=facts.family, hooks=_FORWARD, fields={**fields, **_ANSWER})


def of_leaves(host: Host) -> Iterator[Packet]:
    """Yield the packets between this host and its leaves that the fabric needs.

    BGP (RFC 4271), BFD (RFC 5881), VXLAN (RFC 7348), neighbour discovery (RFC 4861). Unnumbered
    sessions are IPv6.
    """
    for uplink in host.uplinks:
        sessions: Literal["ip", "ip6"] = "ip" if uplink.peer else "ip6"
        yield from _both_ways("BGP", sessions, uplink.ifname, _to("tcp", 179))
        yield from _both_ways("BFD", sessions, uplink.ifname, _to("udp", 3784))
        yield from _both_ways("VXLAN", "ip", uplink.ifname, _to("udp", 4789), host.loopback)
        if not uplink.peer:
            yield from _both_ways("neighbour discovery", "ip6", uplink.ifname, _SOLICITATION)


# The kernel tracks no neighbour discovery (nf_conntrack_icmpv6_init).
_SOLICITATION = {
    "l4proto": "icmpv6", "ip6 nexthdr": "icmpv6", "icmpv6 type": "nd-neighbor-solicit",
    "ct state": "untracked",
}  # fmt: skip


def _to(protocol: str, port: int) -> dict[str, str]:
    known = {"l4proto": protocol, "ip protocol": protocol, "ip6 nexthdr": protocol}
    return {**known, f"{protocol} dport": str(port), **_NEW}


def _both_ways(
    what: str, kind: Literal["ip", "ip6"], device: str, fields: dict[str, str], address: str = ""
) -> Iterator[Packet]:
    to_us = {"ip daddr": address} if address else {}
    coming = {"iifname": device, _BACK: device, **_TO_US, **to_us, **fields}
    yield Packet(what=what, kind=kind, hooks=_IN, fields=coming)
    by_us = {"ip saddr": address} if address else {}
    yield Packet(what=what, kind=kind, hooks=_OUT, fields={"oifname": device, **by_us, **fields})


_VPCS = 8
_CONNECTION = {"l4proto": "tcp", "ip protocol": "tcp", "ip6 nexthdr": "tcp", **_NEW}


def of_guests(host: Host) -> Iterator[Packet]:
    """Yield packets between guests: routed in a VPC, and bridged as br_netfilter shows them.

    One V-Net for each of the first VPCs is enough, because rules name all our devices by a pattern,
    or none. A host may have thousands of V-Nets.
    """
    vnets = {bridge.vrf: bridge for bridge in reversed(host.bridges) if not bridge.l3vni}
    for bridge in itertools.islice(vnets.values(), _VPCS):
        for kind in ("ip", "ip6"):
            same = {"iifname": bridge.name, "oifname": bridge.name, **_CONNECTION}
            yield Packet(what="bridged", kind=kind, hooks=_FORWARD, fields=same)
            if bridge.vrf:
                routed = {"iifname": bridge.vrf, "oifname": bridge.name, **_CONNECTION}
                yield Packet(what="routed", kind=kind, hooks=_FORWARD, fields=routed)
