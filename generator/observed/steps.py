"""Judges the facts about a guest, in the order in which a packet passes them: pure."""

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
    """A step of the packet's way: whether it works, and what was seen."""

    name: str
    ok: bool | None  # None: it does not matter here, or is not known
    text: str


class Judgement(msgspec.Struct, frozen=True):
    """The judgement about a step, without the step's name."""

    ok: bool | None
    text: str


def judge(facts: Facts, firewall: Judgement) -> list[Step]:
    """Return the steps from the V-Net to the firewall."""
    if facts.own:
        return [_step("vnet", _vnet(facts)), _step("local", _own(facts))]
    routed = {"route": _routes, "vtep": _vteps, "path": _path}
    if facts.place.vni is None:
        order = {"vpc": _vnet, **routed}
    else:
        order = {"vnet": _vnet, "local": _local, "kernel": _kernel, "frr": _frr, **routed}
    steps = [_step(name, judge_step(facts)) for name, judge_step in order.items()]
    return [*steps, _step("firewall", firewall)]


def nowhere(subject: str) -> list[Step]:
    """Return the only step for an address or MAC that no V-Net and no VPC of this host has."""
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


def _step(name: str, judgement: Judgement) -> Step:
    return Step(name, judgement.ok, judgement.text)


def _vnet(facts: Facts) -> Judgement:
    place = facts.place
    if facts.differences:
        return Judgement(False, f"{'; '.join(facts.differences)}; it is {place}")
    devices = [each for each in (place.bridge, place.port, place.vrf, place.l3vni) if each]
    return Judgement(True, f"{place}: {', '.join(devices)} are as they should be")


def _own(facts: Facts) -> Judgement:
    return Judgement(True, f"{facts.subject} is this host itself, on {facts.own}")


def _local(facts: Facts) -> Judgement:
    if not facts.ports:
        where = f"behind {_vtep(facts)}" if facts.remote else "on no port of this host"
        return Judgement(None, f"{_guest(facts)} is {where}")
    down = [port for port in facts.ports if not (port.up and port.carrier)]
    if down:
        what = "is down" if not down[0].up else "has no carrier"
        return Judgement(False, f"port {down[0].name} of {facts.place.bridge} {what}")
    on = ", ".join(map(_port, facts.ports))
    if len(facts.ports) > 1:
        return Judgement(False, f"{facts.mac} is on several ports of {facts.place.bridge}: {on}")
    return Judgement(True, f"{_guest(facts)} is on this host, on port {on} of {facts.place.bridge}")


def _port(port: Port) -> str:
    return f"{port.name} (VLAN {port.vlan})" if port.vlan else port.name


def _guest(facts: Facts) -> str:
    same = facts.mac in {"", facts.subject}
    return facts.subject if same else f"{facts.subject} ({facts.mac})"


def _vtep(facts: Facts) -> str:
    known = next((vtep for vtep in facts.vteps if vtep.address == facts.remote), None)
    return _named(known) if known else facts.remote


def _named(vtep: Vtep) -> str:
    """Return a VTEP's address with its AS number, if that is known."""
    return f"{vtep.address} (AS {vtep.origin})" if vtep.origin else vtep.address


def _kernel(facts: Facts) -> Judgement:
    """Judge the forwarding entry and the neighbour entry."""
    neighbour = facts.neighbour
    state = _STATES.get(neighbour.state, hex(neighbour.state)) if neighbour else ""
    if neighbour and neighbour.state in _UNANSWERED and not facts.remote:
        return Judgement(False, f"{facts.address} does not answer on {facts.place.bridge}: {state}")
    if facts.ports and facts.remote:
        text = f"the kernel has {facts.mac} on {facts.ports[0].name}, FRR behind {_vtep(facts)}"
        return Judgement(None if _frozen(facts) else False, text)  # the cause is FRR's
    if facts.remote:
        return _kernel_remote(facts, state)
    if not facts.ports and neighbour:
        text = f"neighbour {facts.address} is {neighbour.mac} ({state})"
        return Judgement(None, f"{facts.place.bridge} has no forwarding entry for it; {text}")
    if not facts.ports:
        return Judgement(None, f"the kernel knows nothing of {facts.subject}")
    text = f"{facts.place.bridge} sends {facts.mac} to {facts.ports[0].name}"
    if neighbour:
        text += f"; neighbour {facts.address} is {neighbour.mac} ({state})"
    return Judgement(True, text)


def _kernel_remote(facts: Facts, state: str) -> Judgement:
    place, vtep, neighbour = facts.place, _vtep(facts), facts.neighbour
    behind = f"FRR has {facts.mac} behind {vtep}"
    if not facts.kernel_remote:
        return Judgement(False, f"{place.bridge} has no forwarding entry for {facts.mac}; {behind}")
    if not facts.kernel_vtep:
        return Judgement(False, f"{place.port} has no forwarding entry for {facts.mac}; {behind}")
    if facts.kernel_vtep != facts.remote:
        text = f"{place.port} sends {facts.mac} to {facts.kernel_vtep}; {behind}"
        return Judgement(False, text)
    text = f"{place.port} sends {facts.mac} to {facts.kernel_vtep}"
    usable = neighbour and neighbour.mac == facts.mac and neighbour.state not in _UNANSWERED
    if facts.bgp.address is not None and place.vrf and not usable:
        entry = f"{place.bridge} has {state} for it" if neighbour else f"{place.bridge} has none"
        return Judgement(False, f"no neighbour entry for {facts.address}: {entry}; {text}")
    return Judgement(True, f"{text}; neighbour {state}" if neighbour else text)


def _frr(facts: Facts) -> Judgement:
    """Judge what FRR knows, and whether duplicate address detection has frozen it."""
    bgp = facts.bgp
    if bgp.silent:
        return Judgement(False, bgp.silent)
    if bgp.address is None and bgp.mac is None:
        return _unknown(facts)
    if duplicate := _duplicates(facts):
        return _duplicate(facts, max(each.detection_count for each in duplicate))
    if not facts.remote:
        return _announced(facts)
    behind = f"{_guest(facts)} is behind {_vtep(facts)}"
    if bgp.paths or not facts.address:  # FRR 10 lists no routes of MACs that have no address
        return Judgement(True, f"{behind}, by type 2" if bgp.paths else behind)
    return Judgement(False, f"{behind}, but bgpd has no type-2 route for it")


def _announced(facts: Facts) -> Judgement:
    """Judge whether a guest of this host is announced to others."""
    bgp = facts.bgp
    if bgp.address and bgp.address.state != "active":
        return Judgement(False, f"{facts.address} is inactive: it has stopped answering")
    if any(not path.origin for path in bgp.paths):
        return Judgement(True, f"{_guest(facts)} is this host's own, announced as type 2")
    if not facts.address:  # FRR 10 lists no routes of MACs that have no address
        return Judgement(
            None, f"{_guest(facts)} is this host's own; FRR does not tell if it is announced"
        )
    return Judgement(False, f"{_guest(facts)} is known to zebra, but bgpd does not announce it")


def _duplicates(facts: Facts) -> list[Guest]:
    """Return what duplicate address detection has marked: the MAC, the address, or both."""
    known = (facts.bgp.mac, facts.bgp.address)
    return [each for each in known if each and each.is_duplicate]


def _frozen(facts: Facts) -> bool:
    return bool(_duplicates(facts)) and facts.bgp.freezes


def _duplicate(facts: Facts, count: int) -> Judgement:
    moved = f"duplicate address detection has counted {count} moves of {_guest(facts)}"
    if not _frozen(facts):
        return Judgement(None, f"{moved}; it only warns about that")
    return Judgement(False, f"{facts.subject} is frozen: {moved}")


def _unknown(facts: Facts) -> Judgement:
    """Judge why FRR does not know the guest: it is silent, or FRR has missed it."""
    place, routed = facts.place, facts.routers
    if facts.ports or facts.remote:
        return Judgement(False, f"FRR knows nothing of {_guest(facts)}, so nobody else does")
    if not any(session.established for session in facts.sessions):
        text = "no EVPN session is Established, so this host hears of no guest elsewhere"
        return Judgement(False, "; ".join([text, *_states(facts)]))
    if routed:
        return Judgement(None, f"FRR knows no guest {facts.subject}, only a route to its subnet")
    if facts.address and not place.vrf:
        text = f"nobody announces {facts.subject} in {place.vnet}, whose gateway is not here"
        return Judgement(False, f"{text}; leaves do not announce their gateways; try a guest's MAC")
    text = f"no host and no leaf knows {facts.subject} in {place.vnet}"
    return Judgement(False, f"{text}: it has sent nothing yet, is off, or is not there")


def _routes(facts: Facts) -> Judgement:
    """Judge the route that guests of the VPC's other V-Nets use."""
    place = facts.place
    if not place.vrf:
        return Judgement(None, "not in a VPC on this host: nothing is routed to it here")
    if not facts.address:
        return Judgement(None, "a MAC is not routed")
    if facts.route is None:
        return Judgement(False, f"{place.vrf} has no route to {facts.address}")
    lost = next((router for router in facts.routers if not router.sends), None)
    if lost:
        which = f"{lost.mac} of {lost.vtep}" if lost.mac else f"of {lost.vtep}"
        return Judgement(False, f"{place.l3vni} does not know where router MAC {which} is")
    prefix = facts.route.prefix
    if facts.routers:
        via = ", ".join(f"{router.vtep} (router MAC {router.mac})" for router in facts.routers)
        text = f"{place.vrf} routes {prefix} through {place.l3vni} to {via}"
        return Judgement(True, f"{text}, by {_type(facts, prefix)}")
    return Judgement(True, f"{place.vrf} has {prefix} on {place.bridge or 'this host'}")


def _type(facts: Facts, prefix: str) -> str:
    """Return the type of EVPN route from which a route in a VPC comes, if FRR says it."""
    known = facts.bgp.prefix
    vnis = {path.vni for path in known.paths if known.prefix == prefix} - {""}
    of_guest = prefix.endswith(("/32", "/128")) and bool(facts.bgp.paths)
    if of_guest or any("/" in vni for vni in vnis):
        return "type 2"
    return "type 5" if vnis else "EVPN"  # FRR 8 does not say it


def _vteps(facts: Facts) -> Judgement:
    """Judge the underlay's way to each VTEP; for a guest here, whether it is announced."""
    if not facts.vteps:
        up = [session.neighbor for session in facts.sessions if session.established]
        if facts.ports and up:
            return Judgement(
                True, f"none is needed; others hear of it by EVPN with {', '.join(up)}"
            )
        if facts.ports:
            return Judgement(False, "no EVPN session is Established, so nobody else hears of it")
        return Judgement(None, "not known")
    texts = []
    for vtep in facts.vteps:
        wrong = next(_wrong_ways(vtep, facts), "")
        if wrong:
            return Judgement(False, wrong)
        ways = ", ".join(f"{hop} to {hop.mac}" for hop in vtep.hops)
        bfd = {hop.bfd for hop in vtep.hops} - {""}
        texts.append(f"{_named(vtep)} by {ways}{', BFD up' if bfd else ''}")
    return Judgement(True, "; ".join(texts))


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


def _path(facts: Facts) -> Judgement:
    """Judge whether full-size packets of the V-Net reach the VTEP."""
    if not facts.vteps:
        return Judgement(None, "on this host" if facts.ports else "not known")
    if facts.probe_error:
        return Judgement(None, f"not looked at: {facts.probe_error}")
    if not facts.answers:
        return Judgement(None, "not looked at: no way leads there")
    unanswered = [(probe, answer) for probe, answer in facts.answers.items() if not answer.received]
    if not unanswered:
        return Judgement(True, f"packets of {facts.size} bytes ({_mtu(facts)}) pass")
    # An uplink with a small MTU also loses answers to probes through others. So a probe for which
    # somebody reports a limit comes first.
    first = min(unanswered, key=lambda each: (each[0].size != SMALL, not each[1].reporter))
    return Judgement(False, _unanswered(facts, *first))


def _mtu(facts: Facts) -> str:
    return f"MTU {facts.place.mtu} and {facts.size - facts.place.mtu} of VXLAN"


def _unanswered(facts: Facts, probe: Probe, answer: Answer) -> str:
    leaves = {hop.device: str(hop) for vtep in facts.vteps for hop in vtep.hops}
    way = f"{probe.vtep} through {leaves.get(probe.device, probe.device)}"
    if probe.size == SMALL:
        return f"{way} does not answer: {answer.error or 'no echo comes back'}"
    text = f"packets of {facts.size} bytes ({_mtu(facts)}) to {way} are not answered"
    return f"{text}: {answer.reporter} lets {answer.limit} pass" if answer.reporter else text


def firewall(drops: list[Drop], *, unread: bool) -> Judgement:
    """Judge the rules that drop packets to the guest or from it.

    `unread`: iptables-legacy has rules that could not be read.
    """
    for drop in sorted(drops, key=lambda drop: not drop.surely):
        if drop.surely:
            return Judgement(False, f"{drop.by} drops {drop.packet}: {drop.rule}")
        return Judgement(None, f"{drop.by} may drop {drop.packet}: {drop.rule}")
    if unread:
        return Judgement(
            None, "no rule of nftables drops it; iptables-legacy has rules, not looked at"
        )
    return Judgement(True, "no rule of nftables drops it")
