"""What differs between two targets, in a network engineer's terms: pure.

Older versions recorded less in a target. What a target does not record is no difference.
"""

from collections.abc import Iterator, Mapping

from generator.desired.change import ADDED, CHANGED, REMOVED, Change, arrow
from generator.desired.segments import (
    Segment,
    both_mtus,
    lack,
    mtu_risks,
    segments,
    uplink_mtus,
    vnet_changes,
    vpc_name,
)
from generator.desired.target import Link, Target


def summary(old: Target | None, new: Target) -> list[str]:
    """Return a line for each change of a host, without risks.

    Without an old target everything is added.
    """
    return [each.text for each in changes(old, new)]


def changes(old: Target | None, new: Target) -> list[Change]:
    """Return what differs: V-Nets, VPCs, uplinks, the management address, the host's numbers.

    Without an old target everything is added, and nothing is a risk.
    """
    return [
        *_vnets(old, new),
        *_vpcs(old, new),
        *_uplinks(old, new),
        *_management(old, new),
        *_host(old, new),
    ]


def _vnets(old: Target | None, new: Target) -> Iterator[Change]:
    before, after = segments(old), segments(new)
    moved = _moved(before, after)
    uplinks = both_mtus(old, new, before.values())
    for vni in sorted(before.keys() | after.keys()):
        was, becomes = before.get(vni), after.get(moved.get(vni, vni))
        if was and becomes:
            if change := vnet_changes(was, becomes, uplinks):
                yield change
        elif was:
            yield Change(REMOVED, was.subject, was.detail)
        elif becomes and vni not in moved.values():
            risks = tuple(mtu_risks(becomes, uplinks))
            yield Change(ADDED, becomes.subject, becomes.detail, risks, becomes.routed_vni)


def _moved(before: Mapping[int, Segment], after: Mapping[int, Segment]) -> dict[int, int]:
    """Return the new VNI of each V-Net that keeps its name and gets another VNI, by the old one."""
    added = {each.name: vni for vni, each in after.items() if vni not in before and each.name}
    removed = {vni: each.name for vni, each in before.items() if vni not in after}
    return {vni: added[name] for vni, name in removed.items() if name in added}


def _vpcs(old: Target | None, new: Target) -> Iterator[Change]:
    before, after = _vrfs(old), _vrfs(new)
    renumbered = _renumbered(old, new)
    for vrf in sorted((before.keys() | after.keys()) - set(renumbered.values())):
        if vrf in renumbered:
            risk = ("its VRF is recreated",)
            name = vpc_name(new, renumbered[vrf])
            yield Change(CHANGED, f"VPC {name}", f"VRF {arrow(vrf, renumbered[vrf])}", risk)
        elif vrf not in before:
            yield Change(ADDED, f"VPC {vpc_name(new, vrf)}", _vrf_detail(vrf, after[vrf]))
        elif old and vrf not in after:
            yield Change(REMOVED, f"VPC {vpc_name(old, vrf)}", _vrf_detail(vrf, before[vrf]))
        elif old and (details := list(_vpc_details(vrf, old, new, before[vrf], after[vrf]))):
            renumbers = before[vrf] != after[vrf] and before[vrf] and after[vrf]
            risks = ("the devices of its L3VNI are recreated",) if renumbers else ()
            yield Change(CHANGED, f"VPC {vpc_name(new, vrf)}", ", ".join(details), risks)


def _renumbered(old: Target | None, new: Target) -> dict[str, str]:
    """Return the new VRF of each VPC that keeps its name and gets another id, by the old one."""
    before, after = ({vrf: vpc_name(t, vrf) for vrf in _vrfs(t)} if t else {} for t in (old, new))
    added = {name: vrf for vrf, name in after.items() if vrf not in before}
    removed = {vrf: name for vrf, name in before.items() if vrf not in after}
    return {vrf: added[name] for vrf, name in removed.items() if name in added}


def _vpc_details(
    vrf: str, old: Target, new: Target, was: int | None, becomes: int | None
) -> Iterator[str]:
    """Yield how a VPC changes; `was` and `becomes` are its L3VNI."""
    names = [vpc_name(each, vrf) for each in (old, new)]
    if vrf not in names and names[0] != names[1]:
        yield f"name {arrow(*names)}"
    if was != becomes:
        yield f"L3VNI {arrow(was, becomes)}"
    for what, before, after in (
        ("import", old.imports, new.imports),
        ("export", old.exports, new.exports),
    ):
        if before is not None and after is not None and before.get(vrf) != after.get(vrf):
            pair = (" ".join(each.get(vrf, [])) or "automatic" for each in (before, after))
            yield f"route targets ({what}) {arrow(*pair)}"


def _vrfs(target: Target | None) -> dict[str, int | None]:
    """Return the L3VNI of each VRF, None for a VRF without one."""
    if target is None:
        return {}
    l3vnis = {each.vrf: each.vni for each in target.vnis if each.type == "L3"}
    return {d.name: l3vnis.get(d.name) for d in target.devices if d.kind == "vrf"}


def _vrf_detail(vrf: str, l3vni: int | None) -> str:
    return f"{vrf}, L3VNI {l3vni}" if l3vni else vrf


def _uplinks(old: Target | None, new: Target) -> Iterator[Change]:
    before, after = _links(old), _links(new)
    known = old is not None and old.links is not None and new.links is not None
    left = {0: "leaves no session", 1: "leaves one session"}.get(len(after), "")
    risks = (left,) if left and len(after) < len(before) else ()
    for name in sorted(before.keys() | after.keys()):
        was, becomes = before.get(name), after.get(name)
        if was is None and becomes:
            yield Change(ADDED, f"uplink {name}", becomes.port, _mtu_risk(name, old, new))
        elif was and becomes is None:
            yield Change(REMOVED, f"uplink {name}", was.port, risks)
        elif was and becomes and (details := list(_link_details(was, becomes, known=known))):
            risk = _mtu_risk(name, old, new) if was.mtu != becomes.mtu else ()
            yield Change(CHANGED, f"uplink {name}", ", ".join(details), risk)


def _links(target: Target | None) -> dict[str, Link]:
    """Return the uplinks by the name of their NIC. Of an older target only the leaf is known."""
    if target is None:
        return {}
    if target.links is not None:
        return {each.name: each for each in target.links}
    names = target.uplinks if target.uplinks is not None else target.sessions
    pairs = zip(names, target.sessions, strict=False)
    return {name: Link(name, peer, target.leaves.get(peer, "")) for name, peer in pairs}


def _link_details(was: Link, becomes: Link, *, known: bool) -> Iterator[str]:
    if was.neighbor != becomes.neighbor:
        yield f"session with {arrow(was.neighbor, becomes.neighbor)}"
    if not known:
        return
    if was.port != becomes.port:
        yield f"port {arrow(was.port, becomes.port)}"
    if was.remote_as != becomes.remote_as:
        yield f"AS of the leaf {arrow(was.remote_as, becomes.remote_as)}"
    if was.address != becomes.address:
        yield f"address {arrow(was.address, becomes.address)}"
    if was.mtu != becomes.mtu:
        yield f"MTU {arrow(*(each.mtu or 'of the NIC' for each in (was, becomes)))}"


def _mtu_risk(name: str, old: Target | None, new: Target) -> tuple[str, ...]:
    """Return a risk if an uplink's MTU lacks more bytes for the V-Nets than before."""
    before, after = uplink_mtus(old), uplink_mtus(new)
    largest = [max((s.mtu for s in segments(t).values()), default=0) for t in (old, new)]
    if old is None or name not in after:
        return ()
    was = lack(largest[0], before[name]) if name in before else 0
    if lack(largest[1], after[name]) <= was:
        return ()
    return (f"MTU too small for V-Nets of MTU {largest[1]}",)


def _management(old: Target | None, new: Target) -> Iterator[Change]:
    before, after = (each.management if each else None for each in (old, new))
    if before == after:
        return
    was, becomes = (_addresses(each.pairs if each else []) for each in (before, after))
    for family in sorted(was.keys() | becomes.keys()):
        (address, gateway) = was.get(family, (None, None))
        (new_address, new_gateway) = becomes.get(family, (None, None))
        what = "management address"
        if address is None:
            yield Change(ADDED, f"{what} {new_address}")
        elif new_address is None:
            yield Change(REMOVED, f"{what} {address}", "", ("the host loses this address",))
        elif address != new_address:
            risk = ("the host is reached at another address",)
            yield Change(CHANGED, what, arrow(address, new_address), risk)
        if address and new_address and gateway != new_gateway:
            risk = ("the default route changes",)
            yield Change(CHANGED, f"{what}'s gateway", arrow(gateway, new_gateway), risk)
    if before and after:
        if before.ifname != after.ifname:
            yield Change(CHANGED, "management NIC", arrow(before.ifname, after.ifname))
        if before.bridge != after.bridge:
            yield Change(CHANGED, "management bridge", arrow(before.bridge, after.bridge))


def _addresses(pairs: list[tuple[str, str | None]]) -> dict[int, tuple[str, str | None]]:
    """Return each management address with its gateway, by family."""
    return {6 if ":" in address else 4: (address, gateway) for address, gateway in pairs}


def _host(old: Target | None, new: Target) -> Iterator[Change]:
    loopback = ", ".join(sorted(new.loopbacks)) or "none"
    if old is None:
        yield Change(ADDED, f"AS {new.asn}, loopback {loopback}")
        return
    if old.asn != new.asn:
        yield Change(CHANGED, "AS number", arrow(old.asn, new.asn), ("all sessions end",))
    if old.loopbacks and new.loopbacks and old.loopbacks != new.loopbacks:
        was = ", ".join(sorted(old.loopbacks))
        risk = ("all VXLAN ports are recreated",)
        yield Change(CHANGED, "loopback", arrow(was, loopback), risk)
    if old.bgp and new.bgp and old.bgp != new.bgp:
        yield Change(CHANGED, "BGP", ", ".join(_bgp_details(old, new)))
    if old.backend != new.backend:
        yield Change(CHANGED, "backend", arrow(old.backend, new.backend))


def _bgp_details(old: Target, new: Target) -> Iterator[str]:
    if not (old.bgp and new.bgp):
        return
    if old.bgp.bfd != new.bgp.bfd:
        yield f"BFD {arrow(*('on' if each.bfd else 'off' for each in (old.bgp, new.bgp)))}"
    if old.bgp.keepalive != new.bgp.keepalive:
        yield f"keepalive {arrow(old.bgp.keepalive, new.bgp.keepalive)} s"
    if old.bgp.holdtime != new.bgp.holdtime:
        yield f"holdtime {arrow(old.bgp.holdtime, new.bgp.holdtime)} s"
