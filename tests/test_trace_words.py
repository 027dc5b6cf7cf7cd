"""`trace` turns facts into steps and a verdict, chooses a V-Net, and reads firewalls."""

from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from generator.cli import evpn_host
from generator.desired import payload, plan
from generator.desired.target import Target
from generator.errors import Refused
from generator.observed import evpn, frr, packets, places, probe, steps
from generator.observed.evpn import Duplicate, EvpnPath, Guest, Prefix
from generator.observed.frr import NextHop, Session
from generator.observed.guest import Bgp, Facts, Hop, Port, Router, Vtep
from generator.observed.iptables import Saved
from generator.observed.netfilter import Drop, Packet, Ruleset
from generator.observed.netlink import Neighbour, Route
from generator.observed.places import Place
from generator.observed.probe import SMALL, Answer, Probe
from generator.observed.steps import Judgement, Step
from generator.observed.tables import Kernel
from generator.verbs import trace as verb

REPO = Path(__file__).parents[1]
PLACE = Place(
    vni=40, name="blue", bridge="nbr-40", port="vxlan40", gateways=("10.4.0.254/24",),
    vpc=33, vpc_name="coke", vrf="Vrf_33", l3vni="l3br-1033",
)  # fmt: skip
MAC, VTEP, RMAC = "02:00:00:00:40:20", "10.2.0.3", "02:1e:af:03:04:09"
NOARP, STALE, FAILED = 0x40, 0x04, 0x20
UP = Session("ens4", "Established", "Established")
HOP = Hop(
    device="ens4", gateway="169.254.0.1", leaf="ns-leaf-0", mac="32:78:68:06:cb:b6", up=True,
    session="Established", bfd="up",
)  # fmt: skip
BIG, LITTLE = Probe(VTEP, "ens4", 9216, 1550), Probe(VTEP, "ens4", 9216, SMALL)
PATH = EvpnPath(nexthops=[NextHop(ip=VTEP)], vni="40/1033")
REMOTE = Guest(type="remote", mac=MAC, remote_vtep=VTEP)
LOCAL = Guest(type="local", mac=MAC)
FAR = Facts(
    subject="10.4.0.20",
    address="10.4.0.20",
    mac=MAC,
    place=PLACE,
    kernel_remote=True,
    kernel_vtep=VTEP,
    neighbour=Neighbour(7, "10.4.0.20", MAC, NOARP),
    bgp=Bgp(address=REMOTE, mac=REMOTE, paths=[PATH], prefix=Prefix("10.4.0.20/32", [PATH])),
    route=Route(2, 1033, "10.4.0.20/32", 1, 186, 20, ((VTEP, 9),)),
    routers=(Router(VTEP, RMAC, True),),
    vteps=(Vtep(VTEP, "4200300003", "10.2.0.3/32", (HOP,)),),
    sessions=(UP,),
    bfd={"ens4": "up"},
    answers={LITTLE: Answer(received=True), BIG: Answer(received=True)},
)
NEAR = Facts(
    subject="10.4.0.20",
    address="10.4.0.20",
    mac=MAC,
    place=PLACE,
    ports=(Port("veth-a", True, True, None),),
    neighbour=Neighbour(7, "10.4.0.20", MAC, STALE),
    bgp=Bgp(address=LOCAL, mac=LOCAL, paths=[EvpnPath()]),
    route=Route(2, 1033, "10.4.0.0/24", 1, 2, 0, (("", 7),)),
    sessions=(UP,),
)
SILENT = Facts(
    subject="10.4.0.9", address="10.4.0.9", place=PLACE, route=NEAR.route, sessions=(UP,)
)
FINE = Judgement(True, "no rule of nftables drops it")


def but(facts: Facts, **changes: Any) -> Facts:
    return msgspec.structs.replace(facts, **changes)


def hop(**changes: Any) -> tuple[Vtep, ...]:
    return (Vtep(VTEP, "", "10.2.0.3/32", (msgspec.structs.replace(HOP, **changes),)),)


def lines(facts: Facts, firewall: Judgement = FINE) -> list[str]:
    judged = steps.judge(facts, firewall)
    marks = {True: "+", False: "!", None: "-"}
    return [f"{marks[step.ok]} {step.name}: {step.text}" for step in judged]


def verdict(facts: Facts, firewall: Judgement = FINE) -> str:
    return steps.verdict(facts.subject, steps.judge(facts, firewall))


# --- Words ---


def test_a_guest_behind_a_vtep_is_reached() -> None:
    """A guest behind a VTEP is reached: each step says what it found."""
    assert lines(FAR) == [
        (
            "+ vnet: V-Net blue (VNI 40) of VPC coke (33):"
            " nbr-40, vxlan40, Vrf_33, l3br-1033 are as they should be"
        ),
        f"- local: 10.4.0.20 ({MAC}) is behind 10.2.0.3 (AS 4200300003)",
        f"+ kernel: vxlan40 sends {MAC} to 10.2.0.3; neighbour NOARP",
        f"+ frr: 10.4.0.20 ({MAC}) is behind 10.2.0.3 (AS 4200300003), by type 2",
        (
            "+ route: Vrf_33 routes 10.4.0.20/32 through l3br-1033 to 10.2.0.3"
            f" (router MAC {RMAC}), by type 2"
        ),
        "+ vtep: 10.2.0.3 (AS 4200300003) by ens4 (ns-leaf-0) to 32:78:68:06:cb:b6, BFD up",
        "+ path: packets of 1550 bytes (MTU 1500 and 50 of VXLAN) pass",
        "+ firewall: no rule of nftables drops it",
    ]
    assert verdict(FAR) == "nothing is wrong with 10.4.0.20 as far as this host can see"


def test_a_guest_of_this_host_needs_no_vtep() -> None:
    """A guest of this host needs no VTEP, but others must hear of it."""
    assert lines(NEAR)[1:7] == [
        f"+ local: 10.4.0.20 ({MAC}) is on this host, on port veth-a of nbr-40",
        f"+ kernel: nbr-40 sends {MAC} to veth-a; neighbour 10.4.0.20 is {MAC} (STALE)",
        f"+ frr: 10.4.0.20 ({MAC}) is this host's own, announced as type 2",
        "+ route: Vrf_33 has 10.4.0.0/24 on nbr-40",
        "+ vtep: none is needed; others hear of it by EVPN with ens4",
        "- path: on this host",
    ]
    tagged = but(NEAR, ports=(Port("ens6.7", True, True, 7),))
    assert "on port ens6.7 (VLAN 7) of nbr-40" in lines(tagged)[1]


def test_a_silent_guest_gets_a_plain_answer() -> None:
    """An address of the V-Net's subnet that nobody knows gets a plain answer."""
    assert verdict(SILENT) == (
        "wrong: frr: no host and no leaf knows 10.4.0.9 in V-Net blue (VNI 40):"
        " it has sent nothing yet, is off, or is not there"
    )
    without = but(SILENT, place=msgspec.structs.replace(PLACE, gateways=(), vrf="", vpc=None))
    assert verdict(without) == (
        "wrong: frr: nobody announces 10.4.0.9 in V-Net blue (VNI 40), whose gateway is not here"
    )


_GUEST, _AT = f"10.4.0.20 ({MAC})", "10.2.0.3 (AS 4200300003)"
_WAY = "10.2.0.3 through ens4 (ns-leaf-0)"
_FULL = "packets of 1550 bytes (MTU 1500 and 50 of VXLAN) to"
_DOWN = Session("ens4", "Active", "Active")
_MOVED = msgspec.structs.replace(REMOTE, is_duplicate=True, detection_count=5)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (but(FAR, differences=("vxlan40: up is off, not on",)), "vnet: vxlan40: up is off, not on"),
        (
            but(NEAR, ports=(Port("veth-a", False, False, None),)),
            "local: port veth-a of nbr-40 is down",
        ),
        (
            but(NEAR, ports=(Port("veth-a", True, False, None),)),
            "local: port veth-a of nbr-40 has no carrier",
        ),
        (
            but(NEAR, ports=(*NEAR.ports, Port("veth-b", True, True, None))),
            f"local: {MAC} is on several ports of nbr-40: veth-a, veth-b",
        ),
        (
            but(NEAR, neighbour=Neighbour(7, "10.4.0.20", "", FAILED)),
            "kernel: 10.4.0.20 does not answer on nbr-40: FAILED",
        ),
        (but(FAR, kernel_remote=False), f"kernel: nbr-40 has no forwarding entry for {MAC}"),
        (but(FAR, kernel_vtep=""), f"kernel: vxlan40 has no forwarding entry for {MAC}"),
        (but(FAR, kernel_vtep="10.2.0.1"), f"kernel: vxlan40 sends {MAC} to 10.2.0.1"),
        (but(FAR, neighbour=None), "kernel: no neighbour entry for 10.4.0.20: nbr-40 has none"),
        (but(FAR, ports=NEAR.ports), f"kernel: the kernel has {MAC} on veth-a, FRR behind {_AT}"),
        (
            but(FAR, bgp=Bgp(silent="FRR's zebra does not answer")),
            "frr: FRR's zebra does not answer",
        ),
        (
            but(FAR, bgp=Bgp(address=REMOTE, mac=REMOTE)),
            f"frr: {_GUEST} is behind {_AT}, but bgpd has no type-2 route for it",
        ),
        (
            but(FAR, bgp=Bgp(address=_MOVED, mac=REMOTE, freezes=True)),
            (
                "frr: 10.4.0.20 is frozen:"
                f" duplicate address detection has counted 5 moves of {_GUEST}"
            ),
        ),
        (but(NEAR, bgp=Bgp()), f"frr: FRR knows nothing of {_GUEST}, so nobody else does"),
        (
            but(NEAR, bgp=Bgp(address=LOCAL, mac=LOCAL)),
            f"frr: {_GUEST} is known to zebra, but bgpd does not announce it",
        ),
        (but(FAR, route=None), "route: Vrf_33 has no route to 10.4.0.20"),
        (
            but(FAR, routers=(Router(VTEP, "", False),)),
            "route: l3br-1033 does not know where router MAC of 10.2.0.3 is",
        ),
        (
            but(FAR, routers=(Router(VTEP, RMAC, False),)),
            f"route: l3br-1033 does not know where router MAC {RMAC} of 10.2.0.3 is",
        ),
        (
            but(FAR, vteps=(Vtep(VTEP, "", "", ()),), sessions=(_DOWN,), bfd={"ens4": "down"}),
            "vtep: no route leads to 10.2.0.3",
        ),
        (
            but(FAR, vteps=hop(mac="")),
            "vtep: the MAC of next hop 169.254.0.1 on ens4 (ns-leaf-0) is not known",
        ),
        (but(FAR, vteps=hop(up=False)), "vtep: uplink ens4 (ns-leaf-0) is down"),
        (but(FAR, vteps=hop(bfd="down")), "vtep: BFD on ens4 (ns-leaf-0) is down"),
        (but(FAR, vteps=hop(session="Active")), "vtep: EVPN on ens4 (ns-leaf-0) is Active"),
        (
            but(NEAR, sessions=(_DOWN,)),
            "vtep: no EVPN session is Established, so nobody else hears of it",
        ),
        (
            but(FAR, answers={LITTLE: Answer(), BIG: Answer()}),
            f"path: {_WAY} does not answer: no echo comes back",
        ),
        (
            but(FAR, answers={LITTLE: Answer(received=True), BIG: Answer()}),
            f"path: {_FULL} {_WAY} are not answered",
        ),
        (
            but(
                FAR,
                answers={
                    LITTLE: Answer(received=True),
                    BIG: Answer(limit=1500, reporter="10.2.0.100"),
                },
            ),
            f"path: {_FULL} {_WAY} are not answered: 10.2.0.100 lets 1500 pass",
        ),
    ],
)
def test_each_broken_link_is_named(facts: Facts, words: str) -> None:
    """The verdict names the first link that does not hold, and the steps before it hold."""
    assert verdict(facts) == f"wrong: {words}"


def test_the_first_is_named() -> None:
    """The verdict names the broken link that a packet meets first."""
    both = but(FAR, kernel_vtep="10.2.0.1", vteps=hop(mac=""))
    assert verdict(both, Judgement(False, "dropped")).startswith("wrong: kernel: ")
    assert (
        verdict(FAR, Judgement(False, "nftables drops it")) == "wrong: firewall: nftables drops it"
    )


def test_who_is_named_comes_first() -> None:
    """A narrow uplink loses the answers to packets through another one too."""
    through = msgspec.structs.replace(BIG, device="ens5")
    answers = {
        LITTLE: Answer(received=True),
        BIG: Answer(),
        through: Answer(limit=1500, reporter="ens5"),
    }
    assert verdict(but(FAR, answers=answers)).endswith(": ens5 lets 1500 pass")


def test_a_mac_without_an_address() -> None:
    """A MAC without an address is not wrong, although FRR 10 shows no route of it."""
    near = but(NEAR, subject=MAC, address="", bgp=Bgp(mac=LOCAL))
    assert f"- frr: {MAC} is this host's own; FRR does not tell if it is announced" in lines(near)
    far = but(FAR, subject=MAC, address="", bgp=Bgp(mac=REMOTE))
    assert f"+ frr: {MAC} is behind {_AT}" in lines(far)
    assert verdict(near).startswith("nothing is wrong")


def test_vnis_give_the_type_of_a_route() -> None:
    """The type of a route follows from the VNIs of its paths, which FRR 8 does not show."""
    for vni, kind in (("40/1033", "type 2"), ("1033", "type 5"), ("", "EVPN")):
        path = EvpnPath(nexthops=[NextHop(ip=VTEP)], vni=vni)
        bgp = Bgp(prefix=Prefix("10.4.0.20/32", [path]))
        assert lines(but(FAR, bgp=bgp))[4].endswith(f", by {kind}")
    tells_nothing = Bgp(paths=[EvpnPath()], prefix=Prefix("10.4.0.20/32", [EvpnPath()]))
    assert lines(but(FAR, bgp=tells_nothing))[4].endswith(", by type 2")


def test_why_no_route_leads_there() -> None:
    """The step has the states of sessions and BFD; the verdict has the fact alone."""
    lost = but(FAR, vteps=(Vtep(VTEP, "", "", ()),), sessions=(_DOWN,), bfd={"ens4": "down"})
    text = "! vtep: no route leads to 10.2.0.3; EVPN with ens4 is Active; BFD on ens4 is down"
    assert text in lines(lost)


def test_no_guest_is_silent_without_a_session() -> None:
    """Without a session trace does not call a guest silent: nobody can know."""
    deaf = but(SILENT, sessions=(_DOWN,), bfd={"ens4": "down"})
    text = "no EVPN session is Established, so this host hears of no guest elsewhere"
    assert verdict(deaf) == f"wrong: frr: {text}"
    assert f"! frr: {text}; EVPN with ens4 is Active; BFD on ens4 is down" in lines(deaf)


def test_a_warning_freezes_nothing() -> None:
    """A warning freezes nothing: FRR may only warn of an address that moves too often."""
    warned = but(FAR, bgp=Bgp(address=_MOVED, mac=REMOTE, paths=[PATH], freezes=False))
    assert verdict(warned).startswith("nothing is wrong")
    assert "it only warns about that" in lines(warned)[3]


def test_what_is_not_known_is_not_wrong() -> None:
    """An unsent probe or an unread firewall is unknown, and not wrong."""
    facts = but(FAR, answers={}, probe_error="Operation not permitted")
    assert "- path: not looked at: Operation not permitted" in lines(facts)
    assert verdict(facts, Judgement(None, "not looked at")).startswith("nothing is wrong")


def test_the_text_ends_with_the_verdict() -> None:
    """Each step is a line with its name and its mark."""
    steps_ = [Step("vnet", True, "well"), Step("kernel", False, "lost"), Step("path", None, "-")]
    answer = verb.Trace("10.4.0.20", "", "", "", [], False, steps.verdict("", steps_), steps_)
    assert verb.text(answer).splitlines() == [
        "vnet    ok     well",
        "kernel  wrong  lost",
        "path    -      -",
        "wrong: kernel: lost",
    ]


# --- The choice of a V-Net ---


@pytest.fixture
def target() -> Target:
    """The target of the published example, and of two tenants with the same subnet."""
    document = msgspec.json.decode((REPO / "examples/k8s01.json").read_bytes())
    ports = document["vnets"][1]["ports"]
    for id_, name in ((50, "tenant-a"), (51, "tenant-b")):
        document["vpcs"].append({"id": id_, "name": name, "vni": 1000 + id_})
        document["vnets"].append(
            {
                "name": f"web of {name}",
                "vxlanID": id_ + 10,
                "vpc": {"id": id_},
                "macAddress": f"44:38:39:ff:00:{id_:02x}",
                "gateways": [{"prefix": "10.60.0.254/24"}, {"prefix": "fd00:60::254/64"}],
                "ports": ports,
            }
        )
    [host] = payload.load(msgspec.json.encode(document)).hosts
    return plan.target(plan.make(host, "netplan"))


def options(places_: list[Place]) -> list[str]:
    return [place.option for place in places_]


def test_vnets_have_the_names_of_the_record(target: Target) -> None:
    """The V-Nets of a host have the names of the record, their VPCs and L3VNIs."""
    assert [str(place) for place in places.vnets(target)] == [
        "V-Net Management (VNI 14)",
        "V-Net coke-North-South-in-band (VNI 26) of VPC coke (33)",
        "V-Net coke-2 (VNI 31) of VPC coke (33)",
        "V-Net web of tenant-a (VNI 60) of VPC tenant-a (50)",
        "V-Net web of tenant-b (VNI 61) of VPC tenant-b (51)",
    ]
    assert [place.l3vni for place in places.vrfs(target)] == ["l3br-1033", "l3br-1050", "l3br-1051"]


def test_vnets_of_an_address_are_found(target: Target) -> None:
    """V-Nets have an address by subnet, by FRR's entries, or by a route; a default one last."""
    assert options(places.of_address(target, "10.188.0.9", set(), {})) == ["--vnet 26"]
    assert options(places.of_address(target, "10.12.3.4", set(), {})) == ["--vnet 14"]
    assert options(places.of_address(target, "fd00:60::9", set(), {})) == ["--vnet 60", "--vnet 61"]
    assert options(places.of_address(target, "192.0.2.1", {31}, {})) == ["--vnet 31"]
    assert places.of_address(target, "192.0.2.1", set(), {}) == []
    routes = {"Vrf_33": "192.0.2.0/24", "Vrf_50": "0.0.0.0/0"}
    assert options(places.of_address(target, "192.0.2.1", set(), routes)) == ["--vpc 33"]
    routes = {"Vrf_33": "0.0.0.0/0", "Vrf_50": "0.0.0.0/0"}
    assert options(places.of_address(target, "192.0.2.1", set(), routes)) == [
        "--vpc 33",
        "--vpc 50",
    ]
    # The V-Net of the VPC is meant, not the VPC once more.
    routes = {"Vrf_33": "10.188.0.0/24"}
    assert options(places.of_address(target, "10.188.0.9", set(), routes)) == ["--vnet 26"]


def test_a_person_names_a_vnet_by_number_or_name(target: Target) -> None:
    """A person names a V-Net by number or name; a name that is nearly right gets a hint."""
    assert places.vnet_named(target, "26") == places.vnet_named(target, "coke-North-South-in-band")
    assert places.vpc_named(target, "33") == places.vpc_named(target, "coke")
    with pytest.raises(
        Refused, match=r"--vnet: coke-3 is no V-Net of this host \(did you mean coke-2"
    ):
        places.vnet_named(target, "coke-3")
    with pytest.raises(Refused, match="--vpc: 34 has no VRF on this host"):
        places.vpc_named(target, "34")


def test_several_vnets_of_an_address_are_named(target: Target) -> None:
    """If several V-Nets have an address, all are named, and the person chooses."""
    places_ = places.of_address(target, "10.60.0.9", set(), {})
    with pytest.raises(click.UsageError) as raised:
        verb.only("10.60.0.9", places_)
    assert raised.value.message == (
        "10.60.0.9 is in several: V-Net web of tenant-a (VNI 60) of VPC tenant-a (50) (--vnet 60),"
        " V-Net web of tenant-b (VNI 61) of VPC tenant-b (51) (--vnet 61)"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["10.0.0.300"], "10.0.0.300 is no IP address and no MAC"),
        (["02:00:00:00:00"], "02:00:00:00:00 is no IP address and no MAC"),
        (["\x1b[31m"], r"\x1b[31m is no IP address and no MAC"),
        (["10.0.0.3", "--vnet", "1", "--vpc", "2"], "--vnet and --vpc: give one of them"),
        (["10.0.0.3", "--vnet", ""], "is empty"),
        ([], "Missing argument 'ADDRESS|MAC'"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    """The exit code is 2, and a sentence says what is wrong."""
    result = CliRunner().invoke(evpn_host, ["trace", *arguments])
    assert result.exit_code == 2
    assert words in result.output


# --- Firewalls ---

ROUTED = Packet(
    what="what is routed to it",
    kind="ip",
    hooks=frozenset({"forward"}),
    fields={
        "iifname": "Vrf_33",
        "oifname": "nbr-40",
        "ip daddr": "10.4.0.20",
        "ct state": "new",
    },
)
VXLAN = Packet(
    what="VXLAN from 10.2.0.3",
    kind="ip",
    hooks=frozenset({"prerouting", "input"}),
    fields={"iifname": "ens4", "l4proto": "udp", "udp dport": "4789", "ct state": "new"},
)


def match(left: str, right: Any, op: str = "==") -> dict[str, Any]:
    """Return a match as nft prints it: `ip daddr` of a packet, `iifname` of its way, `ct state`."""
    kind, _, field = left.partition(" ")
    if kind == "ct":
        shown: dict[str, Any] = {"ct": {"key": field}}
    elif field:
        shown = {"payload": {"protocol": kind, "field": field}}
    else:
        shown = {"meta": {"key": kind}}
    return {"match": {"op": op, "left": shown, "right": right}}


def ruleset(
    *rules: list[dict[str, Any]],
    policy: str = "accept",
    hook: str = "forward",
    family: str = "inet",
    table: str = "guard",
    others: tuple[dict[str, Any], ...] = (),
) -> Ruleset:
    """Return a ruleset of one base chain, in the JSON of nft 1.1."""
    where = {"family": family, "table": table}
    base = {**where, "name": "main", "handle": 1, "type": "filter", "hook": hook, "prio": 0}
    items: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.1.3", "json_schema_version": 1}},
        {"table": {"family": family, "name": table, "handle": 1}},
        {"chain": {**base, "policy": policy}},
        *others,
        *({"rule": {**where, "chain": "main", "handle": 2, "expr": rule}} for rule in rules),
    ]
    return Ruleset(msgspec.json.encode({"nftables": items}).decode())


DROP, ACCEPT = {"drop": None}, {"accept": None}
IN_MAIN = "table inet guard, chain main"


def dropped(rules: Ruleset, packet: Packet = ROUTED) -> list[tuple[str, bool]]:
    return [(drop.rule, drop.surely) for drop in rules.drops([packet])]


@pytest.mark.parametrize(
    ("right", "own"),
    [
        ("10.4.0.20", True),
        ("10.4.0.21", False),
        ({"prefix": {"addr": "10.4.0.16", "len": 28}}, True),
        ({"prefix": {"addr": "10.4.1.0", "len": 24}}, False),
        ({"set": ["10.4.0.1", "10.4.0.20"]}, True),
        ({"set": ["10.4.0.1", {"range": ["10.4.0.2", "10.4.0.9"]}]}, False),
        ({"range": ["10.4.0.2", "10.4.0.99"]}, True),
        ({"set": [{"elem": {"val": "10.4.0.20", "comment": "bad"}}]}, True),
        ("@bad", True),
    ],
)
def test_a_rule_that_names_the_guest(right: Any, own: bool) -> None:
    """A rule names the guest by address, prefix, range or set, also negated."""
    bad = {
        "set": {
            "family": "inet",
            "table": "guard",
            "name": "bad",
            "type": "ipv4_addr",
            "elem": [{"prefix": {"addr": "10.4.0.0", "len": 24}}],
        }
    }
    drops = dropped(ruleset([match("ip daddr", right), {"counter": {}}, DROP], others=(bad,)))
    assert bool(drops) == own
    opposite = dropped(ruleset([match("ip daddr", right, "!="), DROP], others=(bad,)))
    assert bool(opposite) != own


def test_the_rule_is_quoted() -> None:
    """The rule is quoted with its table and chain, so that the operator finds it."""
    rule = [match("iifname", "Vrf_*"), match("ip daddr", "10.4.0.20"), {"reject": {}}]
    assert dropped(ruleset(rule)) == [(f"{IN_MAIN}: iifname Vrf_* ip daddr 10.4.0.20 reject", True)]


def test_the_first_verdict_counts() -> None:
    """The first verdict counts; a rule for another protocol does not."""
    daddr = match("ip daddr", "10.4.0.20")
    assert not dropped(ruleset([daddr, ACCEPT], [daddr, DROP]))
    assert not dropped(ruleset([match("ip6 daddr", "fd00::1", "!="), DROP]))
    assert not dropped(ruleset([match("oifname", {"set": ["docker0", "virbr0"]}), DROP]))
    assert not dropped(ruleset([daddr, DROP], hook="input"))
    assert not dropped(ruleset([daddr, DROP], family="ip6"))
    assert not dropped(ruleset([match("tcp dport", 4789), DROP], hook="input"), VXLAN)
    assert dropped(ruleset([match("udp dport", 4789), DROP], hook="input"), VXLAN)


def test_a_policy_drops_what_no_rule_accepts() -> None:
    """A policy drops packets that no rule accepts; a rule for answers alone does not help."""
    answers = [match("ct state", ["established", "related"], "in"), ACCEPT]
    assert dropped(ruleset(answers, policy="drop")) == [(f"{IN_MAIN}: policy drop", True)]
    let_through = [match("iifname", "Vrf_*"), match("oifname", "nbr-*"), ACCEPT]
    assert not dropped(ruleset(answers, let_through, policy="drop"))


def test_an_unknown_match_may_drop() -> None:
    """With a limit or a match of iptables a packet may pass or be dropped."""
    limit = {"limit": {"rate": 5, "per": "second"}}
    assert dropped(ruleset([limit, ACCEPT], policy="drop")) == [(f"{IN_MAIN}: policy drop", False)]
    assert dropped(ruleset([{"xt": {"type": "match", "name": "set"}}, DROP])) == [
        (f"{IN_MAIN}: drop", False)
    ]
    narrow = [match("ip daddr", "10.4.0.20"), match("tcp dport", 80), DROP]
    assert dropped(ruleset(narrow)) == [(f"{IN_MAIN}: ip daddr 10.4.0.20 tcp dport 80 drop", False)]


def test_the_chain_of_a_jump_counts() -> None:
    """The target chain of a jump may drop, accept, or return."""
    where = {"family": "inet", "table": "guard"}

    def late(*rules: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
        chain = {"chain": {**where, "name": "late", "handle": 3}}
        return chain, *({"rule": {**where, "chain": "late", "expr": rule}} for rule in rules)

    jump = [match("oifname", "nbr-*"), {"jump": {"target": "late"}}]
    daddr = match("ip daddr", "10.4.0.20")
    assert dropped(ruleset(jump, others=late([daddr, DROP]))) == [
        (f"{IN_MAIN}: ip daddr 10.4.0.20 drop", True)
    ]
    assert not dropped(ruleset(jump, policy="drop", others=late([daddr, ACCEPT])))
    back = late([{"return": None}], [DROP])
    assert dropped(ruleset(jump, policy="drop", others=back)) == [(f"{IN_MAIN}: policy drop", True)]
    loop = [{"jump": {"target": "main"}}]
    assert not dropped(ruleset(loop))


def test_our_filter_drops_no_packet_of_a_vtep() -> None:
    """Our filter drops VXLAN from elsewhere than an uplink, and so none of a VTEP."""
    fib = {"fib": {"result": "oifname", "flags": ["saddr"]}}
    way = {"match": {"op": "!=", "left": fib, "right": {"set": ["ens4", "ens5"]}}}
    rules = ruleset([match("udp dport", 4789), way, DROP], hook="prerouting")
    packets_ = packets.packets(FAR, ["ens4", "ens5"], "10.2.0.101")
    assert not list(rules.drops(packets_))
    elsewhere = {"match": {"op": "!=", "left": fib, "right": {"set": ["ens9"]}}}
    rules = ruleset([match("udp dport", 4789), elsewhere, DROP], hook="prerouting")
    assert [drop.packet for drop in rules.drops(packets_)] == ["VXLAN from 10.2.0.3"]


def test_each_packet_of_the_way_is_checked() -> None:
    """trace checks VXLAN on uplinks both ways, bridged packets, and those routed from the VRF."""
    far = {(each.what, each.kind) for each in packets.packets(FAR, ["ens4"], "10.2.0.101")}
    assert far == {
        ("VXLAN to 10.2.0.3", "ip"),
        ("VXLAN from 10.2.0.3", "ip"),
        ("what is bridged to it", "bridge"),
        ("what it sends", "bridge"),
        ("what is routed to it", "ip"),
        ("what it sends to other V-Nets", "ip"),
    }
    near = packets.packets(but(NEAR, bridged_hooks=True), ["ens4"], "10.2.0.101")
    assert ("VXLAN from ens4", "ip") in {(each.what, each.kind) for each in near}
    # With br_netfilter the rules of IP see what is bridged, from the bridge to the bridge.
    [bridged] = [each for each in near if each.what == "what it sends" and each.kind == "ip"]
    assert bridged.fields["iifname"] == bridged.fields["oifname"] == "nbr-40"
    [routed] = [each for each in near if each.what == "what is routed to it"]
    assert (routed.fields["iifname"], routed.fields["oifname"]) == ("Vrf_33", "nbr-40")


def test_the_step_of_the_firewall() -> None:
    """A rule that certainly drops comes first; one that may drop is not called wrong."""
    possible, certain = Drop("a", "x: limit drop", False), Drop("b", "x: policy drop", True)
    assert steps.firewall([possible, certain], unread=False) == Judgement(
        False, "nftables drops b: x: policy drop"
    )
    assert steps.firewall([possible], unread=False).ok is None
    assert steps.firewall([], unread=True).ok is None
    assert steps.firewall([], unread=False).ok


# What `iptables-save` of iptables 1.8.9 and 1.8.11 prints, of legacy and of nft.
SAVED = """
*nat
:POSTROUTING DROP [0:0]
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:mine - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -m comment --comment "let me in" -j ACCEPT
-A INPUT ! -s 10.0.0.0/8 -j mine
-A FORWARD -d 172.17.0.2/32 -i docker+ ! -o docker0 -m state --state NEW -j DROP
-A mine -p udp -m multiport --dports 53,4000:4700 -j RETURN
-A mine -j LOG --log-prefix "a b "
-A mine -p icmp -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""
# What nft 1.1.3 shows of the first rule; 1.0.6 is the same.
BY_NFT = """
{"nftables": [{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter",
"hook": "input", "prio": 0, "policy": "drop"}}, {"rule": {"family": "ip", "table": "filter",
"chain": "INPUT", "expr": [{"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}]}}]}
"""
NO_RULES = '{"nftables": []}'


def from_vtep(*lines: str, legacy: bool = True, before: str = "") -> list[tuple[str, bool, str]]:
    """Return the drops of VXLAN from a VTEP, with these rules in the chain INPUT."""
    text = SAVED.replace("-A INPUT -i lo", "\n".join([*lines, "-A INPUT -i lo"]))
    rules = Ruleset(before or NO_RULES, [Saved("ip", legacy, text)])
    [vxlan] = [
        each
        for each in packets.packets(FAR, ["ens4"], "10.2.0.101")
        if each.what == "VXLAN from 10.2.0.3"
    ]
    return [(drop.rule, drop.surely, drop.by) for drop in rules.drops([vxlan])]


def test_a_policy_of_iptables_legacy_is_found() -> None:
    """nft does not show a policy of legacy; only a rule that lets VXLAN in helps."""
    place = "table ip filter (iptables-legacy), chain INPUT"
    assert from_vtep() == [(f"{place}: policy drop", True, "iptables-legacy")]
    assert not from_vtep("-A INPUT -i ens+ -p udp -m udp --dport 4789 -j ACCEPT")
    assert not from_vtep("-A INPUT -p udp -m multiport --dports 53,4000:4800 -j ACCEPT")
    assert not from_vtep("-A INPUT -s 10.2.0.0/24 -d 10.2.0.101/32 -j ACCEPT")
    assert from_vtep("-A INPUT ! -i ens4 -p udp -m udp --dport 4789 -j ACCEPT")
    assert from_vtep("-A INPUT -p udp -m udp --dport 4790 -j ACCEPT")
    assert from_vtep("-A INPUT -p tcp -m tcp --dport 4789 -j ACCEPT")
    assert from_vtep("-A INPUT ! -s 10.2.0.3/32 -j ACCEPT")
    rule = "-A INPUT -p udp -m udp --dport 4789 -j REJECT --reject-with icmp-port-unreachable"
    assert from_vtep(rule) == [
        (f"{place}: l4proto udp udp dport {{ 4789 }} reject", True, "iptables-legacy")
    ]


def test_a_match_of_iptables_that_is_not_understood() -> None:
    """A match of iptables that is not understood may let VXLAN in."""
    limit = "-A INPUT -p udp -m udp --dport 4789 -m limit --limit 5/sec -j ACCEPT"
    assert [certain for _, certain, _ in from_vtep(limit)] == [False]
    broken = '-A INPUT -m comment --comment "open -j ACCEPT'
    assert [certain for _, certain, _ in from_vtep(broken)] == [True]


def test_chains_of_iptables_are_followed() -> None:
    """Chains of iptables: a jump, a chain that returns, a target without a verdict."""
    jump = "-A INPUT -i ens4 -j mine"
    assert [certain for _, certain, _ in from_vtep(jump)] == [True]
    through = ("-A INPUT -i ens4 -j mine", "-A mine -p udp -m udp --dport 4789 -j ACCEPT")
    assert not from_vtep(*through)


def test_a_packet_that_perhaps_leaves_a_chain() -> None:
    """What comes after a return that is not understood is not certain either."""
    jump = "-A INPUT -i ens4 -j own"
    maybe = "-A own -m limit --limit 5/sec -j RETURN"
    accept = "-A INPUT -p udp -m udp --dport 4789 -j ACCEPT"
    assert not [
        surely for _, surely, _ in from_vtep(jump, maybe, "-A own -j DROP", accept) if surely
    ]
    assert [surely for _, surely, _ in from_vtep(jump, "-A own -j DROP", accept)] == [True]


def verdict_map(own: str, *pairs: tuple[str, str]) -> list[dict[str, Any]]:
    key = {"payload": {"protocol": "ip", "field": own}}
    return [{"vmap": {"key": key, "data": {"set": [[k, {v: None}] for k, v in pairs]}}}]


def test_a_verdict_map() -> None:
    """The value of the packet decides; one that is not known may be any of them."""
    pairs = ("10.4.0.9", "drop"), ("10.4.0.20", "accept")
    assert not dropped(ruleset(verdict_map("daddr", *pairs), policy="drop"))
    assert dropped(ruleset(verdict_map("daddr", ("10.4.0.20", "drop"))))[0][1]
    assert not dropped(ruleset(verdict_map("daddr", ("10.4.0.9", "drop"))))
    assert [surely for _, surely in dropped(ruleset(verdict_map("ttl", *pairs)))] == [False]


def test_what_nft_shows_of_iptables_rules_is_read_from_iptables() -> None:
    """nft shows no details of a match of iptables, so iptables itself is read."""
    assert dropped(Ruleset(BY_NFT), VXLAN) == [("table ip filter, chain INPUT: policy drop", False)]
    assert from_vtep(legacy=False, before=BY_NFT) == [
        ("table ip filter, chain INPUT: policy drop", True, "nftables")
    ]


def test_our_own_table_drops_nothing_of_a_guest() -> None:
    """Our table for frames drops router advertisements alone; another one may drop more."""
    rule = [match("icmpv6", "type", "nd-router-advert"), DROP]
    bridged = Packet(what="x", kind="bridge", hooks=frozenset({"forward"}), fields={})
    assert dropped(ruleset(rule, family="bridge"), bridged)
    assert not dropped(ruleset(rule, family="bridge", table="evpn-host"), bridged)


# --- What is read ---


# Answers of FRR 8.4.4 and 10.3 in the lab, cut short.
TYPE_2 = """
{"[2]:[0]:[48]:[02:00:00:00:40:20]:[32]:[10.4.0.20]":{"prefixLen":352,"paths":[[{"valid":true,
"mac":"02:00:00:00:40:20","ipLen":32,"ip":"10.4.0.20","path":"4200300001 4200300100 4200300003",
"nexthops":[{"ip":"10.2.0.3","hostname":"ns-leaf-0","afi":"ipv4","used":true}]}]]},
"[2]:[0]:[48]:[02:00:00:00:40:10]":{"paths":[[{"mac":"02:00:00:00:40:10","path":""}]]},
"[3]:[0]:[32]:[10.2.0.3]":{"paths":[[{"path":"4200300003"}]]},"numPrefix":3,"numPaths":3}
"""
ADDRESS = """
{"uptime":"00:00:04","ip":"10.4.0.20","type":"remote","state":"active","mac":"02:00:00:00:40:20",
"remoteVtep":"10.2.0.3","localSequence":0,"remoteSequence":0,"detectionCount":0,
"isDuplicate":false}
"""
ALL = """
{"40":{"numArpNd":1,"10.4.0.20":{"type":"remote","mac":"02:00:00:00:40:20"}},"31":{"numArpNd":0}}
"""
EVPN = """
Duplicate address detection: Enable
  Detection max-moves 30, time 180
"""
MARKED_MACS = """
{"40":{"numMacs":1,"macs":{"02:00:00:00:40:20":{"type":"local","intf":"veth-twin",
"localSequence":2,"remoteSequence":3,"detectionCount":30,"isDuplicate":true}}},
"41":{"macs":{"02:00:00:00:40:20":{"type":"remote","detectionCount":31,"isDuplicate":true}}},
"31":{}}
"""
MARKED = """
{"40":{"numArpNd":1,"10.4.0.20":{"type":"local","mac":"02:00:00:00:40:20","detectionCount":2,
"isDuplicate":true}},"31":{"numArpNd":0}}
"""
ROOT = Path("/")


def test_answers_of_frr_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """FRR answers in JSON; an empty answer or a sentence means that it knows nothing."""
    answers = {
        "show bgp l2vpn evpn route vni 40 json": TYPE_2,
        "show bgp l2vpn evpn route vni 41 json": "VNI not found",
        "show evpn arp-cache vni 40 ip 10.4.0.20 json": ADDRESS,
        "show evpn arp-cache vni 40 ip 10.4.0.21 json": "",
        "show evpn arp-cache vni 41 ip 10.4.0.20 json": "% VNI 41 does not exist",
        "show evpn arp-cache vni all json": ALL,
        "show evpn": EVPN,
        "show evpn mac vni all duplicate json": MARKED_MACS,
        "show evpn arp-cache vni all duplicate json": MARKED,
    }
    monkeypatch.setattr(frr, "ask", lambda _daemon, command, _root: answers[command])
    [path] = evpn.type2(40, MAC, "10.4.0.20", ROOT)
    assert (path.origin, [hop.ip for hop in path.nexthops]) == ("4200300003", [VTEP])
    assert evpn.type2(40, MAC, "10.4.0.21", ROOT) == []
    [own] = evpn.type2(40, "02:00:00:00:40:10", "", ROOT)
    assert own.origin == ""
    known = evpn.address(40, "10.4.0.20", ROOT)
    assert known == Guest(type="remote", mac=MAC, remote_vtep=VTEP)
    assert evpn.address(40, "10.4.0.21", ROOT) is evpn.address(41, "10.4.0.20", ROOT) is None
    assert evpn.vnis_of_address("10.4.0.20", ROOT) == {40}
    assert not evpn.freezes(ROOT)
    twins = [
        Duplicate(vni=40, mac=MAC, addresses=["10.4.0.20"], moves=30, frozen=False),
        Duplicate(vni=41, mac=MAC, addresses=[], moves=31, frozen=False),
    ]
    assert evpn.duplicates(ROOT) == twins
    answers["show evpn"] += "  Detection freeze permanent\n"
    assert evpn.freezes(ROOT)
    assert evpn.duplicates(ROOT) == [msgspec.structs.replace(each, frozen=True) for each in twins]
    with pytest.raises(frr.Silent, match="can't be read"):
        evpn.type2(41, MAC, "", ROOT)


@pytest.mark.usefixtures("root_user")  # only root may send echo requests by itself
def test_probes_are_answered() -> None:
    """Probes to this computer are answered, whatever their size; others are not."""
    sent = [Probe("127.0.0.1", "lo", 65536, size) for size in (SMALL, 1550, 1551)]
    nobody = Probe("127.0.0.1", "no-such-nic", 1500, SMALL)
    answers = probe.send("127.0.0.1", [*sent, nobody])
    assert [answers[each].received for each in sent] == [True, True, True]
    assert (answers[nobody].received, bool(answers[nobody].error)) == (False, True)


def test_the_longest_route_counts() -> None:
    """The longest route counts; of two of the same length, the one with the lower metric."""
    routes = [
        Route(2, 1033, "0.0.0.0/0", 7, 4, 4278198272, ()),
        Route(2, 1033, "10.4.0.0/24", 1, 2, 0, ()),
        Route(2, 1033, "10.4.0.20/32", 1, 186, 20, ()),
        Route(2, 1033, "10.4.0.20/32", 7, 186, 1, ()),
        Route(10, 1033, "::/0", 7, 4, 4278198272, ()),
    ]
    kernel = Kernel({}, [], [], {1033: routes})
    assert kernel.longest(1033, "10.4.0.20") == routes[3]
    assert kernel.longest(1033, "10.4.0.21") == routes[1]
    assert kernel.longest(1033, "fd00::1") == routes[4]
    assert kernel.longest(254, "10.4.0.20") is None
