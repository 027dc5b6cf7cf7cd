"""The V-Nets of a target, and how one of them changes: pure."""

from collections.abc import Iterable, Iterator

import msgspec

from generator.desired.change import CHANGED, Change, arrow
from generator.desired.model import VXLAN_OVERHEAD
from generator.desired.target import Target

_USUAL_MTU = 1500


class Segment(msgspec.Struct, frozen=True):
    """A V-Net as a host has it."""

    vni: int
    name: str  # "" in a target of an older version, which did not record it
    gateways: tuple[str, ...]
    mac: str
    mtu: int
    vrf: str | None  # None for a V-Net whose gateway is not on the host
    vpc: str  # the name of that VRF's VPC
    advertises: bool

    @property
    def subject(self) -> str:
        """Its name for a person."""
        return f"V-Net {self.name or self.vni}"

    @property
    def detail(self) -> str:
        """What a person wants to know when it is added or removed."""
        parts = [f"VNI {self.vni}", *(self.gateways or ("no gateway here",))]
        if self.vpc:
            parts.append(f"VPC {self.vpc}")
        if self.mtu != _USUAL_MTU:
            parts.append(f"MTU {self.mtu}")
        return ", ".join(parts)

    @property
    def routed_vni(self) -> int | None:
        """The VNI if its gateway is on the host: then all hosts need the same gateway and MAC."""
        return self.vni if self.gateways else None


def segments(target: Target | None) -> dict[int, Segment]:
    """Return the V-Nets of a target by VNI."""
    if target is None:
        return {}
    devices = {device.name: device for device in target.devices}
    by_vni = {}
    for port in target.devices:
        if not (port.vni and port.suppress):
            continue
        bridge = devices[port.master or ""]
        by_vni[port.vni] = Segment(
            vni=port.vni,
            name=target.names.get(port.vni, ""),
            gateways=bridge.addresses,
            mac=bridge.mac or "",
            mtu=bridge.mtu or 0,
            vrf=bridge.master,
            vpc=vpc_name(target, bridge.master) if bridge.master else "",
            advertises=port.vni in target.advertised,
        )
    return by_vni


def vpc_name(target: Target, vrf: str) -> str:
    """Return the name of a VRF's VPC; if the target does not record it, the VRF's own name."""
    _, _, number = vrf.rpartition("_")
    return (target.vpcs.get(int(number)) if number.isdecimal() else None) or vrf


class UplinkMtus(msgspec.Struct, frozen=True):
    """The MTUs of a host's uplinks before and after, and of its V-Nets before."""

    largest: int  # MTU of its V-Nets before, 0 without one
    before: dict[str, int]  # by uplink, as `uplink_mtus` returns it
    after: dict[str, int]


def both_mtus(old: Target | None, new: Target, before: Iterable[Segment]) -> UplinkMtus:
    """Return the MTUs of two targets' uplinks; `before` are the V-Nets of the old one."""
    largest = max((each.mtu for each in before), default=0)
    return UplinkMtus(largest, uplink_mtus(old), uplink_mtus(new))


def vnet_changes(was: Segment, becomes: Segment, uplinks: UplinkMtus) -> Change | None:
    """Return how a V-Net changes, None if it does not."""
    gateways = list(_gateways(was.gateways, becomes.gateways))
    details = [*_names(was, becomes), *gateways]
    risks = []
    if was.vni != becomes.vni:
        details.insert(0, f"VNI {arrow(was.vni, becomes.vni)}")
        risks.append("its devices are recreated")
    if was.mtu != becomes.mtu:
        details.append(f"MTU {arrow(was.mtu, becomes.mtu)}")
        risks += mtu_risks(becomes, uplinks)
    mac = bool(was.gateways and becomes.gateways and was.mac != becomes.mac)
    if mac:  # a bridge without a gateway has a different MAC on each host
        details.append(f"MAC {arrow(was.mac, becomes.mac)}")
    if was.vrf != becomes.vrf and was.vpc != becomes.vpc:
        details.append(f"VPC {arrow(was.vpc, becomes.vpc)}")
    elif was.vrf != becomes.vrf:
        details.append(f"VRF {arrow(was.vrf, becomes.vrf)}")
    if was.advertises != becomes.advertises:
        details.append(f"{'+' if becomes.advertises else '-'} router advertisements")
    if not details:
        return None
    vni = becomes.routed_vni if mac or gateways or was.vni != becomes.vni else None
    return Change(CHANGED, becomes.subject, ", ".join(details), tuple(risks), vni)


def mtu_risks(becomes: Segment, uplinks: UplinkMtus) -> list[str]:
    """Return a risk for each uplink whose MTU lacks more for this V-Net than for those before."""
    before = uplinks.before
    return [
        f"MTU {becomes.mtu} + {VXLAN_OVERHEAD} does not fit uplink {name} ({mtu})"
        for name, mtu in uplinks.after.items()
        if name in before and lack(becomes.mtu, mtu) > lack(uplinks.largest, before[name])
    ]


def lack(mtu: int, uplink_mtu: int) -> int:
    """Return how many bytes an uplink's MTU lacks for a V-Net's MTU, 0 if it fits."""
    return max(0, mtu + VXLAN_OVERHEAD - uplink_mtu)


def uplink_mtus(target: Target | None) -> dict[str, int]:
    """Return the MTU of each uplink that the payload sets; a NIC's own is not known."""
    return {each.name: each.mtu for each in (target.nics if target else ()) if each.mtu}


def _names(was: Segment, becomes: Segment) -> Iterator[str]:
    if was.name and was.name != becomes.name:
        yield f"name {arrow(was.name, becomes.name)}"


def _gateways(was: tuple[str, ...], becomes: tuple[str, ...]) -> Iterator[str]:
    if set(was) == set(becomes):
        if was != becomes:
            yield f"first gateway {becomes[0]}"
        return
    for is_v6 in (False, True):
        removed = [each for each in was if each not in becomes and (":" in each) == is_v6]
        added = [each for each in becomes if each not in was and (":" in each) == is_v6]
        if len(removed) == len(added) == 1:
            yield f"gateway {arrow(removed[0], added[0])}"
            continue
        yield from (f"+ gateway {each}" for each in added)
        yield from (f"- gateway {each}" for each in removed)
