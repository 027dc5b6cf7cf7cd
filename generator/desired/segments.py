"""V-Nets of a target, and what differs between one before and after: pure."""

from collections.abc import Iterable, Iterator

import msgspec

from generator.desired.change import CHANGED, Change, arrow
from generator.desired.model import VXLAN_OVERHEAD
from generator.desired.target import Target

_USUAL_MTU = 1500


class Segment(msgspec.Struct, frozen=True):
    """A V-Net as a host has it."""

    vni: int
    name: str  # "" in a target of a version that did not record it
    gateways: tuple[str, ...]
    mac: str
    mtu: int
    vrf: str | None  # None for a V-Net whose gateway is not on the host
    vpc: str  # the name of that VRF's VPC
    advertises: bool

    @property
    def subject(self) -> str:
        """How a person calls it."""
        return f"V-Net {self.name or self.vni}"

    @property
    def detail(self) -> str:
        """What a person wants to know of it when it comes or goes."""
        parts = [f"VNI {self.vni}", *(self.gateways or ("no gateway here",))]
        if self.vpc:
            parts.append(f"VPC {self.vpc}")
        if self.mtu != _USUAL_MTU:
            parts.append(f"MTU {self.mtu}")
        return ", ".join(parts)

    @property
    def routed_vni(self) -> int | None:
        """The VNI if the gateway is on the host, so that others have to have the same."""
        return self.vni if self.gateways else None


def segments(target: Target | None) -> dict[int, Segment]:
    """Return the V-Nets of a target by VNI."""
    if target is None:
        return {}
    devices = {device.name: device for device in target.devices}
    found = {}
    for port in target.devices:
        if not (port.vni and port.suppress):
            continue
        bridge = devices[port.master or ""]
        found[port.vni] = Segment(
            vni=port.vni,
            name=target.names.get(port.vni, ""),
            gateways=bridge.addresses,
            mac=bridge.mac or "",
            mtu=bridge.mtu or 0,
            vrf=bridge.master,
            vpc=vpc_name(target, bridge.master) if bridge.master else "",
            advertises=port.vni in target.advertised,
        )
    return found


def vpc_name(target: Target, vrf: str) -> str:
    """Return the name of a VRF's VPC, the VRF's own in a target that does not know it."""
    _, _, number = vrf.rpartition("_")
    return (target.vpcs.get(int(number)) if number.isdecimal() else None) or vrf


class Widths(msgspec.Struct, frozen=True):
    """How wide the uplinks of a host are, and how wide they had to be before."""

    largest: int  # MTU of its V-Nets before, 0 without one
    before: dict[str, int]  # by uplink, as `widths` returns it
    after: dict[str, int]


def widths_of(old: Target | None, new: Target, before: Iterable[Segment]) -> Widths:
    """Return the widths of two targets' uplinks; `before` are the V-Nets of the old one."""
    return Widths(max((each.mtu for each in before), default=0), widths(old), widths(new))


def vnet_changes(was: Segment, becomes: Segment, uplinks: Widths) -> Change | None:
    """Return what differs of a V-Net, None if it is the same."""
    gateways = list(_gateways(was.gateways, becomes.gateways))
    details = [*_names(was, becomes), *gateways]
    risks = []
    if was.vni != becomes.vni:
        details.insert(0, f"VNI {arrow(was.vni, becomes.vni)}")
        risks.append("its devices are made anew")
    if was.mtu != becomes.mtu:
        details.append(f"MTU {arrow(was.mtu, becomes.mtu)}")
        risks += mtu_risks(becomes, uplinks)
    mac = bool(was.gateways and becomes.gateways and was.mac != becomes.mac)
    if mac:  # without a gateway a host has a MAC of its own there
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


def mtu_risks(becomes: Segment, uplinks: Widths) -> list[str]:
    """Return the uplinks that were wide enough for the host's V-Nets, and are not for this one."""
    before = uplinks.before
    return [
        f"MTU {becomes.mtu} + {VXLAN_OVERHEAD} does not fit uplink {name} ({mtu})"
        for name, mtu in uplinks.after.items()
        if name in before and lack(becomes.mtu, mtu) > lack(uplinks.largest, before[name])
    ]


def lack(mtu: int, width: int) -> int:
    """Return how many bytes an uplink is too narrow for a V-Net of an MTU, 0 if it fits."""
    return max(0, mtu + VXLAN_OVERHEAD - width)


def widths(target: Target | None) -> dict[str, int]:
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
        gone = [each for each in was if each not in becomes and (":" in each) == is_v6]
        new = [each for each in becomes if each not in was and (":" in each) == is_v6]
        if len(gone) == len(new) == 1:
            yield f"gateway {arrow(gone[0], new[0])}"
            continue
        yield from (f"+ gateway {each}" for each in new)
        yield from (f"- gateway {each}" for each in gone)
