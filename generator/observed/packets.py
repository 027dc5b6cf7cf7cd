"""The packets to and from a guest, as the hooks of netfilter see them. Pure."""

from collections.abc import Iterator

from generator.observed.guest import Facts
from generator.observed.netfilter import Packet

_VXLAN = {"l4proto": "udp", "ip protocol": "udp", "udp dport": "4789"}
_NEW, _ANSWER = {"ct state": "new"}, {"ct state": "established"}
_BACK = "fib saddr oifname"  # the route to the VTEP leads out of an uplink
_FORWARD = frozenset({"forward"})
_IN, _OUT = frozenset({"prerouting", "input"}), frozenset({"output", "postrouting"})


def packets(facts: Facts, uplinks: list[str], loopback: str) -> list[Packet]:
    """Return the packets: VXLAN through the uplinks, bridged in the V-Net, routed in the VPC."""
    return [*_vxlan(facts, uplinks, loopback), *_bridged(facts), *_routed(facts)]


def _vxlan(facts: Facts, uplinks: list[str], loopback: str) -> Iterator[Packet]:
    local = {"ip daddr": loopback}
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
