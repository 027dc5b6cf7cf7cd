"""What differs between two targets, in a network engineer's terms: pure."""

from collections.abc import Iterator, Mapping

from generator.desired.model import Device
from generator.desired.target import Target


def summary(old: Target | None, new: Target) -> list[str]:
    """Return a line for each V-Net, VPC, session and address: added (+), changed (~), removed (-).

    Without an old target all is added.
    """
    return [
        *_vnets(old, new),
        *_vpcs(old, new),
        *_sessions(old, new),
        *_management(old, new),
        *_host(old, new),
    ]


def total(lines: list[str]) -> str:
    """Return how many lines of a summary are of each kind."""
    signs = {"+": "added", "~": "changed", "-": "removed"}
    counts = {word: sum(line.startswith(sign) for line in lines) for sign, word in signs.items()}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _vnets(old: Target | None, new: Target) -> Iterator[str]:
    before, after = _bridges(old), _bridges(new)
    names = {**(old.names if old else {}), **new.names}
    for vni in sorted(before.keys() | after.keys()):
        what = f"V-Net {names[vni]} ({vni})" if names.get(vni) else f"V-Net {vni}"
        if vni not in before:
            yield f"+ {what}"
        elif vni not in after:
            yield f"- {what}"
        elif changes := [*_changes(before[vni], after[vni]), *_advertising(vni, old, new)]:
            yield f"~ {what}: {', '.join(changes)}"


def _advertising(vni: int, old: Target | None, new: Target) -> Iterator[str]:
    before, after = bool(old and vni in old.advertised), vni in new.advertised
    if before != after:
        yield f"{'+' if after else '-'} router advertisements"


def _bridges(target: Target | None) -> Mapping[int, Device]:
    """Return the bridges of V-Nets by VNI."""
    if target is None:
        return {}
    devices = {device.name: device for device in target.devices}
    ports = [device for device in target.devices if device.vni and device.suppress]
    return {port.vni or 0: devices[port.master or ""] for port in ports}


def _changes(before: Device, after: Device) -> Iterator[str]:
    for address in sorted(set(after.addresses) - set(before.addresses)):
        yield f"+ gateway {address}"
    for address in sorted(set(before.addresses) - set(after.addresses)):
        yield f"- gateway {address}"
    for what in ("mtu", "mac", "master"):
        is_, was = getattr(after, what), getattr(before, what)
        if is_ != was:
            name = "VPC" if what == "master" else what.upper()
            yield f"{name} {was or 'none'} to {is_ or 'none'}"


def _vpcs(old: Target | None, new: Target) -> Iterator[str]:
    before, after = _vrfs(old), _vrfs(new)
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield f"+ VPC {name}{_l3vni(after[name])}"
        elif name not in after:
            yield f"- VPC {name}{_l3vni(before[name])}"
        elif before[name] != after[name]:
            was, is_ = (str(vni or "none") for vni in (before[name], after[name]))
            yield f"~ VPC {name}: L3VNI {was} to {is_}"


def _vrfs(target: Target | None) -> dict[str, int | None]:
    """Return the L3VNI of each VRF, None for a VRF without one."""
    if target is None:
        return {}
    l3vnis = {each.vrf: each.vni for each in target.vnis if each.type == "L3"}
    return {d.name: l3vnis.get(d.name) for d in target.devices if d.kind == "vrf"}


def _l3vni(vni: int | None) -> str:
    return f" (L3VNI {vni})" if vni else ""


def _sessions(old: Target | None, new: Target) -> Iterator[str]:
    before, after = set(old.sessions if old else ()), set(new.sessions)
    yield from (f"+ session {name}" for name in sorted(after - before))
    yield from (f"- session {name}" for name in sorted(before - after))


def _management(old: Target | None, new: Target) -> Iterator[str]:
    before = old.management if old else None
    if before == new.management:
        return
    was = dict(before.pairs) if before else {}
    is_ = dict(new.management.pairs) if new.management else {}
    for address in sorted(is_.keys() - was.keys()):
        yield f"+ management address {address}"
    for address in sorted(was.keys() - is_.keys()):
        yield f"- management address {address}"
    for address in sorted(was.keys() & is_.keys()):
        if was[address] != is_[address]:
            yield f"~ management address {address}: gateway {was[address]} to {is_[address]}"
    if before and new.management:
        for what, a, b in (
            ("NIC", before.ifname, new.management.ifname),
            ("bridge", before.bridge, new.management.bridge),
        ):
            if a != b:
                yield f"~ management {what} {a} to {b}"


def _host(old: Target | None, new: Target) -> Iterator[str]:
    if old is None:
        yield f"+ AS {new.asn}, loopback {', '.join(sorted(new.loopbacks)) or 'none'}"
        return
    if old.asn != new.asn:
        yield f"~ AS {old.asn} to {new.asn}"
    if old.loopbacks != new.loopbacks:
        was, is_ = (", ".join(sorted(each.loopbacks)) for each in (old, new))
        yield f"~ loopback {was} to {is_}"
    if old.backend != new.backend:
        yield f"~ backend {old.backend} to {new.backend}"
