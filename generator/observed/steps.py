"""What the facts about a guest mean, in the order of a packet: pure, facts in and steps out."""

from collections.abc import Callable, Iterator

import msgspec

from generator.observed import places
from generator.observed.evpn import Guest
from generator.observed.guest import Facts, Hop, Port, Vtep
from generator.observed.netfilter import Drop
from generator.observed.probe import SMALL, Answer, Probe

# NUD_… of linux/neighbour.h, as ip-neighbour(8) names them.
_STATES = {
    0x01: "INCOMPLETE", 0x02: "REACHABLE", 0x04: "STALE", 0x08: "DELAY",
    0x10: "PROBE", 0x20: "FAILED", 0x40: "NOARP", 0x80: "PERMANENT",
}  # fmt: skip
_UNANSWERED = {0x01, 0x20}


class Step(msgspec.Struct, frozen=True):
    """A link of the chain: whether it holds, and what was seen."""

    name: str
    ok: bool | None  # None: it does not matter here, or nobody knows
    text: str


class Said(msgspec.Struct, frozen=True):
    """What a step says."""

    ok: bool | None
    text: str


def judge(facts: Facts, firewall: Said) -> list[Step]:
    """Return the steps from the V-Net to the firewall."""
    if facts.own:
        return [Step("vnet", *_said(_vnet(facts))), Step("local", *_said(_own(facts)))]
    routed = {"route": _routes, "vtep": _vteps, "path": _path}
    if facts.place.vni is None:
        order = {"vpc": _vnet, **routed}
    else:
        order = {"vnet": _vnet, "local": _local, "kernel": _kernel, "frr": _frr, **routed}
    steps = [Step(name, *_said(say(facts))) for name, say in order.items()]
    return [*steps, Step("firewall", *_said(firewall))]


def nowhere(subject: str) -> list[Step]:
    """Return what is said of something that no V-Net and no VPC of this host has."""
    if places.is_mac(subject):
        text = f"no V-Net of this host knows {subject}: it has sent nothing yet, or is not there"
    else:
        text = f"no V-Net and no VPC of this host has {subject}"
    return [Step("vnet", False, text)]


def verdict(subject: str, steps: list[Step]) -> str:
    """Return a line that names the first thing that is wrong."""
    for step in steps:
        if step.ok is False:
            return f"wrong: {step.name}: {step.text.partition('; ')[0]}"
    return f"nothing is wrong with {subject} as far as this host can see"


def _said(said: Said) -> tuple[bool | None, str]:
    return said.ok, said.text


def _vnet(facts: Facts) -> Said:
    place = facts.place
    if facts.differences:
        return Said(False, f"{'; '.join(facts.differences)}; it is {place}")
    devices = [each for each in (place.bridge, place.port, place.vrf, place.l3vni) if each]
    return Said(True, f"{place}: {', '.join(devices)} are as they should be")


def _own(facts: Facts) -> Said:
    return Said(True, f"{facts.subject} is this host itself, on {facts.own}")


def _local(facts: Facts) -> Said:
    if not facts.ports:
        where = f"behind {_vtep(facts)}" if facts.remote else "on no port of this host"
        return Said(None, f"{_guest(facts)} is {where}")
    down = [port for port in facts.ports if not (port.up and port.carrier)]
    if down:
        what = "is down" if not down[0].up else "has no carrier"
        return Said(False, f"port {down[0].name} of {facts.place.bridge} {what}")
    on = ", ".join(map(_port, facts.ports))
    if len(facts.ports) > 1:
        return Said(False, f"{facts.mac} is on several ports of {facts.place.bridge}: {on}")
    return Said(True, f"{_guest(facts)} is on this host, on port {on} of {facts.place.bridge}")


def _port(port: Port) -> str:
    return f"{port.name} (VLAN {port.vlan})" if port.vlan else port.name


def _guest(facts: Facts) -> str:
    same = facts.mac in {"", facts.subject}
    return facts.subject if same else f"{facts.subject} ({facts.mac})"


def _vtep(facts: Facts) -> str:
    found = next((vtep for vtep in facts.vteps if vtep.address == facts.remote), None)
    return _named(found) if found else facts.remote


def _named(vtep: Vtep) -> str:
    """Return a VTEP with its AS number, and with its name if it is a leaf of this host."""
    return f"{vtep.address} (AS {vtep.origin})" if vtep.origin else vtep.address


def _kernel(facts: Facts) -> Said:
    """Judge the forwarding entry and the neighbour entry."""
    seen = facts.neighbour
    state = _STATES.get(seen.state, hex(seen.state)) if seen else ""
    if seen and seen.state in _UNANSWERED and not facts.remote:
        return Said(False, f"{facts.address} does not answer on {facts.place.bridge}: {state}")
    if facts.ports and facts.remote:
        text = f"the kernel has {facts.mac} on {facts.ports[0].name}, FRR behind {_vtep(facts)}"
        return Said(None if _frozen(facts) else False, text)  # the cause is FRR's
    if facts.remote:
        return _kernel_remote(facts, state)
    if not facts.ports and seen:
        text = f"neighbour {facts.address} is {seen.mac} ({state})"
        return Said(None, f"{facts.place.bridge} has no forwarding entry for it; {text}")
    if not facts.ports:
        return Said(None, f"the kernel knows nothing of {facts.subject}")
    text = f"{facts.place.bridge} sends {facts.mac} to {facts.ports[0].name}"
    if seen:
        text += f"; neighbour {facts.address} is {seen.mac} ({state})"
    return Said(True, text)


def _kernel_remote(facts: Facts, state: str) -> Said:
    place, vtep, seen = facts.place, _vtep(facts), facts.neighbour
    behind = f"FRR has {facts.mac} behind {vtep}"
    if not facts.kernel_remote:
        return Said(False, f"{place.bridge} has no forwarding entry for {facts.mac}; {behind}")
    if not facts.kernel_vtep:
        return Said(False, f"{place.port} has no forwarding entry for {facts.mac}; {behind}")
    if facts.kernel_vtep != facts.remote:
        text = f"{place.port} sends {facts.mac} to {facts.kernel_vtep}; {behind}"
        return Said(False, text)
    text = f"{place.port} sends {facts.mac} to {facts.kernel_vtep}"
    needs = facts.bgp.address is not None and bool(place.vrf)
    if needs and (seen is None or seen.mac != facts.mac or seen.state in _UNANSWERED):
        was = f"has {state} for it" if seen else "has none"
        return Said(False, f"no neighbour entry for {facts.address}: {place.bridge} {was}; {text}")
    return Said(True, f"{text}; neighbour {state}" if seen else text)


def _frr(facts: Facts) -> Said:
    """Judge what FRR knows, and whether duplicate address detection has frozen it."""
    bgp = facts.bgp
    if bgp.silent:
        return Said(False, bgp.silent)
    if bgp.address is None and bgp.mac is None:
        return _unknown(facts)
    if duplicate := _duplicates(facts):
        return _duplicate(facts, max(each.detection_count for each in duplicate))
    if not facts.remote:
        return _announced(facts)
    behind = f"{_guest(facts)} is behind {_vtep(facts)}"
    if bgp.paths or not facts.address:  # FRR 10 lists no routes of MACs that have no address
        return Said(True, f"{behind}, by type 2" if bgp.paths else behind)
    return Said(False, f"{behind}, but bgpd has no type-2 route for it")


def _announced(facts: Facts) -> Said:
    """Judge whether others hear of a guest of this host."""
    bgp = facts.bgp
    if bgp.address and bgp.address.state != "active":
        return Said(False, f"{facts.address} is inactive: it has stopped answering")
    if any(not path.origin for path in bgp.paths):
        return Said(True, f"{_guest(facts)} is this host's own, announced as type 2")
    if not facts.address:  # FRR 10 lists no routes of MACs that have no address
        return Said(
            None, f"{_guest(facts)} is this host's own; FRR does not tell if it is announced"
        )
    return Said(False, f"{_guest(facts)} is known to zebra, but bgpd does not announce it")


def _duplicates(facts: Facts) -> list[Guest]:
    """Return what duplicate address detection has marked: the MAC, the address, or both."""
    known = (facts.bgp.mac, facts.bgp.address)
    return [each for each in known if each and each.is_duplicate]


def _frozen(facts: Facts) -> bool:
    return bool(_duplicates(facts)) and facts.bgp.freezes


def _duplicate(facts: Facts, count: int) -> Said:
    moved = f"duplicate address detection has counted {count} moves of {_guest(facts)}"
    if not _frozen(facts):
        return Said(None, f"{moved}; it only warns of it")
    return Said(False, f"{facts.subject} is frozen: {moved}")


def _unknown(facts: Facts) -> Said:
    """Say why FRR knows nothing: the guest is silent, or FRR has missed it."""
    place, routed = facts.place, facts.routers
    if facts.ports or facts.remote:
        return Said(False, f"FRR knows nothing of {_guest(facts)}, so nobody else does")
    if not any(session.established for session in facts.sessions):
        text = "no EVPN session is Established, so this host hears of no guest elsewhere"
        return Said(False, "; ".join([text, *_states(facts)]))
    if routed:
        return Said(None, f"FRR knows no guest {facts.subject}, only a route to its subnet")
    if facts.address and not place.vrf:
        text = f"nobody has told of {facts.subject} in {place.vnet}, whose gateway is not here"
        return Said(False, f"{text}; the leaves do not tell of their gateways; try a guest's MAC")
    text = f"no host and no leaf knows {facts.subject} in {place.vnet}"
    return Said(False, f"{text}: it has sent nothing yet, is off, or is not there")


def _routes(facts: Facts) -> Said:
    """Judge how guests of the VPC's other V-Nets get there."""
    place = facts.place
    if not place.vrf:
        return Said(None, "not in a VPC on this host: nothing is routed to it here")
    if not facts.address:
        return Said(None, "a MAC is not routed")
    if facts.route is None:
        return Said(False, f"{place.vrf} has no route to {facts.address}")
    lost = next((router for router in facts.routers if not router.sends), None)
    if lost:
        which = f"{lost.mac} of {lost.vtep}" if lost.mac else f"of {lost.vtep}"
        return Said(False, f"{place.l3vni} does not know where router MAC {which} is")
    prefix = facts.route.prefix
    if facts.routers:
        via = ", ".join(f"{router.vtep} (router MAC {router.mac})" for router in facts.routers)
        text = f"{place.vrf} routes {prefix} through {place.l3vni} to {via}"
        return Said(True, f"{text}, by {_type(facts, prefix)}")
    return Said(True, f"{place.vrf} has {prefix} on {place.bridge or 'this host'}")


def _type(facts: Facts, prefix: str) -> str:
    """Return the type of EVPN route that a route in a VPC was made from, if FRR tells."""
    known = facts.bgp.prefix
    vnis = {path.vni for path in known.paths if known.prefix == prefix} - {""}
    of_guest = prefix.endswith(("/32", "/128")) and bool(facts.bgp.paths)
    if of_guest or any("/" in vni for vni in vnis):
        return "type 2"
    return "type 5" if vnis else "EVPN"  # FRR 8 does not tell


def _vteps(facts: Facts) -> Said:
    """Judge the underlay's way to each VTEP; of a guest here, whether others hear of it."""
    if not facts.vteps:
        up = [session.neighbor for session in facts.sessions if session.established]
        if facts.ports and up:
            return Said(True, f"none is needed; others hear of it by EVPN with {', '.join(up)}")
        if facts.ports:
            return Said(False, "no EVPN session is Established, so nobody else hears of it")
        return Said(None, "not known")
    texts = []
    for vtep in facts.vteps:
        wrong = next(_wrong_ways(vtep, facts), "")
        if wrong:
            return Said(False, wrong)
        ways = ", ".join(f"{hop} to {hop.mac}" for hop in vtep.hops)
        bfd = {hop.bfd for hop in vtep.hops} - {""}
        texts.append(f"{_named(vtep)} by {ways}{', BFD up' if bfd else ''}")
    return Said(True, "; ".join(texts))


def _wrong_ways(vtep: Vtep, facts: Facts) -> Iterator[str]:
    """Yield what is wrong with the way to a VTEP."""
    if not vtep.prefix:
        yield "; ".join([f"no route leads to {_named(vtep)}", *_states(facts)])
    for hop in vtep.hops:
        for wrong, text in _HOP:
            if wrong(hop):
                yield f"{text.format(hop=hop)}; it leads to {_named(vtep)}"


def _states(facts: Facts) -> list[str]:
    """Return the states of EVPN's sessions and of BFD."""
    states = [f"EVPN with {each.neighbor} is {each.evpn}" for each in facts.sessions]
    return states + [f"BFD on {name} is {state}" for name, state in facts.bfd.items()]


_HOP: list[tuple[Callable[[Hop], bool], str]] = [
    (lambda hop: not hop.up, "uplink {hop} is down"),
    (lambda hop: hop.bfd not in {"", "up"}, "BFD on {hop} is {hop.bfd}"),
    (lambda hop: hop.session not in {"", "Established"}, "EVPN on {hop} is {hop.session}"),
    (lambda hop: not hop.mac, "the MAC of next hop {hop.gateway} on {hop} is not known"),
]


def _path(facts: Facts) -> Said:
    """Judge whether full packets of the V-Net reach the VTEP."""
    if not facts.vteps:
        return Said(None, "on this host" if facts.ports else "not known")
    if facts.probe_error:
        return Said(None, f"not looked at: {facts.probe_error}")
    if not facts.answers:
        return Said(None, "not looked at: no way leads there")
    unanswered = [(probe, answer) for probe, answer in facts.answers.items() if not answer.came]
    if not unanswered:
        return Said(True, f"packets of {facts.size} bytes ({_mtu(facts)}) pass")
    # A narrow uplink loses the answers to packets through others too: who is named comes first.
    first = min(unanswered, key=lambda each: (each[0].size != SMALL, not each[1].who))
    return Said(False, _unanswered(facts, *first))


def _mtu(facts: Facts) -> str:
    return f"MTU {facts.place.mtu} and {facts.size - facts.place.mtu} of VXLAN"


def _unanswered(facts: Facts, probe: Probe, answer: Answer) -> str:
    leaves = {hop.device: str(hop) for vtep in facts.vteps for hop in vtep.hops}
    way = f"{probe.vtep} through {leaves.get(probe.device, probe.device)}"
    if probe.size == SMALL:
        return f"{way} does not answer: {answer.error or 'no echo comes back'}"
    text = f"packets of {facts.size} bytes ({_mtu(facts)}) to {way} are not answered"
    return f"{text}: {answer.who} lets {answer.limit} pass" if answer.who else text


def firewall(drops: list[Drop], *, unread: bool) -> Said:
    """Judge the rules that drop what goes to the guest or comes from it.

    `unread`: iptables-legacy has rules that could not be read.
    """
    for drop in sorted(drops, key=lambda drop: not drop.surely):
        if drop.surely:
            return Said(False, f"{drop.by} drops {drop.packet}: {drop.rule}")
        return Said(None, f"{drop.by} may drop {drop.packet}: {drop.rule}")
    if unread:
        return Said(None, "no rule of nftables drops it; iptables-legacy has rules, not looked at")
    return Said(True, "no rule of nftables drops it")
