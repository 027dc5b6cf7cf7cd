"""The routes that FRR announces to the fabric and learns from it, and its sessions' settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.fabric import Host, Lab, Leaf, Node, Router, eventually
from tests.lab.evpn import VTEP, prefixes, routes
from tests.lab.k8s01 import (
    DUAL,
    DUAL_2,
    LEAVES,
    Payload,
    bring_up,
    change,
    established,
    no_reload_pending,
    payload,
    resets,
    vnet,
)
from tests.lab.systems import SYSTEMS

UPLINKS = {"ens4", "ens5"}
WITHIN = 60.0  # seconds for which a condition is waited for
LEAF_ONLY = vnet(95, 33, "10.188.95.254/24", "fd00:188:95::254/64")
VTYSH = "/usr/bin/vtysh"
SLOW_VTYSH = f"""\
#!/bin/sh
[ "$1" = -b ] && sleep 25
exec {VTYSH}.real "$@"
"""
UNIT = Path(__file__).parents[2] / "packaging/systemd/evpn-host.service"
SECRET = "not-to-be-read-aloud"  # noqa: S105 - of the lab


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP of two V-Nets with both address families."""
    lab: Lab = fresh_lab(*request.param)
    bring_up(lab, payload(DUAL, DUAL_2))
    return lab


@pytest.fixture
def far(lab: Lab) -> Leaf:
    """The leaf to which the host has no cable."""
    return lab.fabric.leaf("ns-leaf-2")


@contextmanager
def back_again(lab: Lab, sessions: bool = False) -> Iterator[None]:
    """Restore the host and the fabric after the block to the state of the fixture `lab`.

    `sessions`: also reset the BGP sessions, as a running session keeps the settings with which it
    was opened.
    """
    servers = lab.fabric.state["servers"]
    try:
        yield
    finally:
        document = payload(DUAL, DUAL_2)
        parts = {part: document[part] for part in ("vpcs", "vnets")}
        lab.fabric.change(**parts, servers=servers)
        lab.host.apply(document)
        if sessions:
            lab.host.run(["vtysh", "-c", "clear bgp *"])
        eventually(lambda: established(lab.host) == UPLINKS, WITHIN)


@contextmanager
def bgp_lines(leaf: Leaf, *lines: str, undo: tuple[str, ...]) -> Iterator[None]:
    """Configure lines in a leaf's BGP for the block; afterwards configure `undo`."""
    try:
        leaf.configure(f"router bgp {leaf.asn}", *lines)
        yield
    finally:
        leaf.configure(f"router bgp {leaf.asn}", *undo)


def greet(node: Node, ipv4: str = "", ipv6: str = "") -> None:
    """Let a node ping its gateways until they answer, as a booting server does."""
    if ipv4:
        eventually(lambda: node.ping(ipv4, count=1))
    if ipv6:
        eventually(lambda: node.ping(ipv6, count=1, family=6))


def mac_of(node: Node) -> str:
    [link] = node.run(["ip", "-json", "link", "show", "eth0"]).json
    return str(link["address"])


# --- Routes ---


@pytest.mark.claim("11.3", "A guest's MAC, IPv4 and IPv6 are announced (type 2), and withdrawn")
def test_a_guest_is_announced_and_withdrawn(host: Host, far: Leaf) -> None:
    """A leaf behind the spine has three routes to the guest's VTEP while the guest is connected."""
    try:
        guest = host.pod(
            "announced", "nbr-40", "10.188.4.10/24", "10.188.4.254",
            "fd00:188:4::10/64", "fd00:188:4::254",
        )  # fmt: skip
        greet(guest, "10.188.4.254", "fd00:188:4::254")
        mac = f"[2]:[0]:[48]:[{mac_of(guest)}]"
        expected = {mac, f"{mac}:[32]:[10.188.4.10]", f"{mac}:[128]:[fd00:188:4::10]"}
        eventually(lambda: expected <= prefixes(far, "macip"), WITHIN)
        [route] = [each for each in routes(far, "macip") if each.prefix == mac]
        assert route.as_path[-1] == 4200000001
        assert any(each.endswith(":40") for each in route.communities), route
        host.run(["ip", "link", "set", "veth-announced", "down"])
        eventually(lambda: not any(mac in prefix for prefix in prefixes(far, "macip")), WITHIN)
    finally:
        host.run(["ip", "netns", "delete", "announced"], check=False)


@pytest.mark.claim("11.4", "A remote MAC and its addresses are learnt (type 2), and forgotten")
def test_a_remote_server_is_learnt_and_forgotten(lab: Lab, far: Leaf) -> None:
    """From FRR alone the kernel gets the server's MAC, its VTEP (the leaf) and both addresses."""
    host = lab.host
    servers = lab.fabric.state["servers"]
    try:
        server = lab.fabric.server(
            "remote", vni=40, ipv4="10.188.4.20/24", gateway="10.188.4.254",
            ipv6="fd00:188:4::20/64", gateway6="fd00:188:4::254",
        )  # fmt: skip
        greet(server, "10.188.4.254", "fd00:188:4::254")
        mac, addresses = mac_of(server), {"10.188.4.20", "fd00:188:4::20"}
        eventually(lambda: _behind(host, "vxlan40", mac) == {"10.2.0.3"}, WITHIN)
        eventually(lambda: addresses <= _neighbours(host, "nbr-40", mac), WITHIN)
        far.run(["ip", "link", "delete", "vx-40"])  # the server's leaf leaves the V-Net
        eventually(lambda: not _behind(host, "vxlan40", mac), WITHIN)
        eventually(lambda: not _neighbours(host, "nbr-40", mac), WITHIN)
    finally:
        lab.fabric.change(servers=servers)  # gives the leaf its V-Net again


def _behind(host: Host, vxlan: str, mac: str) -> set[str]:
    """Return the VTEPs to which the kernel sends packets for a MAC."""
    entries = host.run(["bridge", "-json", "fdb", "show", "dev", vxlan]).json
    return {each["dst"] for each in entries if each["mac"] == mac and "dst" in each}


def _neighbours(host: Host, bridge: str, mac: str) -> set[str]:
    """Return the addresses that the kernel knows for a MAC on a bridge."""
    entries = host.run(["ip", "-json", "neighbour", "show", "dev", bridge]).json
    return {each["dst"] for each in entries if each.get("lladdr") == mac}


@pytest.mark.claim("11.5", "A VPC's prefixes are announced and learnt (type 5), and withdrawn")
def test_prefixes_of_a_vpc_come_and_go(lab: Lab, far: Leaf) -> None:
    """Prefixes of both families reach the leaf's table, and the leaf's reach the kernel's VRF."""
    host = lab.host
    host_prefixes = {"[5]:[0]:[24]:[10.188.4.0]", "[5]:[0]:[64]:[fd00:188:4::]"}
    eventually(lambda: host_prefixes <= prefixes(far, "prefix"))
    for route in routes(far, "prefix"):
        assert any(each.startswith("Rmac:") for each in route.communities), route
    leaf_prefixes = ("10.188.95.0/24", "fd00:188:95::/64")
    with back_again(lab):
        lab.fabric.carry(payload(DUAL, DUAL_2, LEAF_ONLY))
        for prefix in leaf_prefixes:
            eventually(partial(_leads_to, host, prefix, "l3br-1033"), WITHIN)
        change(lab, payload(DUAL_2))
        eventually(lambda: not host_prefixes & prefixes(far, "prefix"), WITHIN)
        for prefix in leaf_prefixes:
            eventually(partial(_leads_nowhere, host, prefix), WITHIN)
    eventually(lambda: host_prefixes <= prefixes(far, "prefix"), WITHIN)


def _leads_nowhere(host: Host, prefix: str) -> bool:
    return not _leads_to(host, prefix, "l3br-1033")


def _leads_to(host: Host, prefix: str, device: str) -> bool:
    """Return whether the kernel's VRF has a route to a prefix over a device."""
    family = "-6" if ":" in prefix else "-4"
    routes_in_vrf = host.run(["ip", family, "-json", "route", "show", "vrf", "Vrf_33", prefix]).json
    hops = [hop for route in routes_in_vrf for hop in route.get("nexthops", [route])]
    return any(hop["dev"] == device for hop in hops)


@pytest.mark.claim("11.6", "Loopbacks are known everywhere, and answer each other")
def test_loopbacks_are_known_everywhere(lab: Lab) -> None:
    """Every switch has a route to the host's loopback, and the host has one to each leaf's."""
    fabric, host = lab.fabric, lab.host
    for router in (*fabric.leaves.values(), fabric.spine):
        eventually(partial(_has_route, router, f"{VTEP}/32"))
    for leaf in fabric.leaves.values():
        eventually(partial(_has_route, host, f"{leaf.ipv4}/32"))
        assert leaf.run(["ping", "-c1", "-W2", "-I", leaf.ipv4, VTEP], check=False).code == 0
        assert host.run(["ping", "-c1", "-W2", "-I", VTEP, leaf.ipv4], check=False).code == 0


def _has_route(router: Router | Host, prefix: str) -> bool:
    return prefix in router.show("show ip route json")


# --- Sessions ---


def payload_with_bgp(**bgp: Any) -> Payload:
    """Return the payload of the fixture `lab`, with these settings of the BGP sessions."""
    document = payload(DUAL, DUAL_2)
    document["server"]["bgp"] = bgp
    return document


def peer(router: Host | Leaf, name: str) -> Payload:
    """Return FRR's state of a session."""
    state: Payload = router.show(f"show bgp neighbors {name} json")[name]
    return state


@pytest.mark.claim("12.2", "Both ends of a session run with the negotiated keepalive and hold time")
def test_timers_are_negotiated(lab: Lab) -> None:
    """The leaf has 3 s and 9 s; a session runs with the smaller hold time (RFC 4271, 4.2).

    The same apply adds a tenant: FRR 8.4's own reload would not apply both correctly.
    """
    host, document = lab.host, payload_with_bgp(keepalive=1, holdtime=5)
    document["vpcs"].append({"id": 60, "name": "more", "vni": 1060})
    document["vnets"].append(vnet(81, 60, "10.60.0.254/24"))
    with back_again(lab, sessions=True):
        host.apply(document)
        host.run(["vtysh", "-c", "clear bgp *"])  # a running session keeps its old timers
        for router, name in ((host, "ens4"), (lab.fabric.leaf("ns-leaf-0"), "swp9s1")):
            eventually(partial(_has_timers, router, name), WITHIN)
        eventually(lambda: established(host) == UPLINKS, WITHIN)
        assert no_reload_pending(host)


def _has_timers(router: Host | Leaf, name: str) -> bool:
    state = peer(router, name)
    timers = state["bgpTimerHoldTimeMsecs"], state["bgpTimerKeepAliveIntervalMsecs"]
    return state["bgpState"] == "Established" and timers == (5000, 1000)


@pytest.mark.claim(
    "12.3", "A session with a password comes up only if both ends have the same one (TCP MD5)"
)
def test_a_password_is_what_the_session_needs(lab: Lab) -> None:
    """The session is Established only while the leaf has the same password."""
    host, leaf = lab.host, lab.fabric.leaf("ns-leaf-0")
    none = ("no neighbor swp9s1 password",)
    with back_again(lab):
        host.apply(payload_with_bgp(password=SECRET), "--no-guard")
        eventually(lambda: not established(host), WITHIN)
        with bgp_lines(leaf, f"neighbor swp9s1 password {SECRET}", undo=none):
            eventually(lambda: "ens4" in established(host), WITHIN)
            leaf.configure(f"router bgp {leaf.asn}", "neighbor swp9s1 password another")
            eventually(lambda: "ens4" not in established(host), WITHIN)
        assert "ens5" not in established(host)


@pytest.mark.claim("12.4", "With BFD a silent uplink is noticed before the hold time is over")
def test_bfd_is_up_and_ends_a_session(lab: Lab) -> None:
    """BFD is up at both ends. When all packets get lost the session ends, and BFD is the reason."""
    host, leaf = lab.host, lab.fabric.leaf("ns-leaf-0")
    with back_again(lab, sessions=True), _bfd_on_leaves(lab):
        host.apply(payload_with_bgp(bfd=True, keepalive=20, holdtime=60))
        host.run(["vtysh", "-c", "clear bgp *"])
        for router, name in ((host, "ens4"), (host, "ens5"), (leaf, "swp9s1")):
            eventually(partial(_bfd_up, router, name), WITHIN)
        leaf.run("tc qdisc add dev swp9s1 root netem loss 100%".split())
        try:
            took = eventually(lambda: "ens4" not in established(host), WITHIN)
            print(f"session down {took:.1f} s after the uplink fell silent; hold time 60 s")
            why = {key: text for key, text in peer(host, "ens4").items() if key.startswith("last")}
            assert "BFD" in str(why), why
        finally:
            leaf.run("tc qdisc delete dev swp9s1 root".split())
        eventually(lambda: established(host) == UPLINKS, WITHIN)


@contextmanager
def _bfd_on_leaves(lab: Lab) -> Iterator[None]:
    """Configure BFD on both leaves for the block.

    On one leaf alone BFD would be down for want of a peer on the other. FRR 10 leaves a session
    alone while its BFD is down.
    """
    lines = ("neighbor swp9s1 bfd", "neighbor swp9s1 timers 20 60")
    undo = ("no neighbor swp9s1 bfd", "neighbor swp9s1 timers 3 9")
    first, second = (lab.fabric.leaf(name) for name in LEAVES)
    with bgp_lines(first, *lines, undo=undo), bgp_lines(second, *lines, undo=undo):
        yield


def _bfd_up(router: Host | Leaf, name: str) -> bool:
    """Return whether BFD is up on an interface and its session Established."""
    up = {
        each.get("interface")
        for each in router.show("show bfd peers json")
        if each["status"] == "up"
    }
    return name in up and peer(router, name)["bgpState"] == "Established"


@pytest.mark.claim(
    "12.5", "A numbered session runs between the addresses of its link, and its routes work"
)
def test_a_numbered_session(lab: Lab) -> None:
    """The NIC gets the local address and IPv4 next hops use it; then unnumbered works again."""
    host, leaf = lab.host, lab.fabric.leaf("ns-leaf-1")
    document = payload(DUAL, DUAL_2)
    document["links"][1]["local"]["ipv4"] = "10.9.9.2/29"
    document["links"][1]["remote"]["ipv4"] = "10.9.9.1/29"
    session = "neighbor 10.9.9.2"
    lines = (
        f"{session} remote-as 4200000001",
        f"{session} peer-group HOSTS",
        "address-family ipv4 unicast",
        f"{session} route-map ANY in",
    )
    with back_again(lab), bgp_lines(leaf, *lines, undo=(f"no {session}",)):
        leaf.run("ip address add 10.9.9.1/29 dev swp9s1".split())
        try:
            host.apply(document)
            eventually(lambda: established(host) == {"ens4", "10.9.9.1"}, WITHIN)
            state = peer(host, "10.9.9.1")
            assert (state["hostLocal"], state["hostForeign"]) == ("10.9.9.2", "10.9.9.1")
            assert state["remoteAs"] == leaf.asn
            eventually(lambda: ("10.9.9.1", "ens5") in _hops(host, "10.2.0.3/32"), WITHIN)
            assert no_reload_pending(host)
        finally:
            leaf.run("ip address delete 10.9.9.1/29 dev swp9s1".split())
    assert no_reload_pending(host)
    assert "10.9.9" not in host.run(["ip", "address", "show", "dev", "ens5"]).out


def _hops(host: Host, prefix: str) -> set[tuple[str, str]]:
    """Return gateway and device of each next hop of the kernel's route to a prefix."""
    [route] = host.run(["ip", "-json", "route", "show", prefix]).json
    # From 10.6 on an unnumbered session's next hop is `via` the leaf's IPv6 address.
    return {
        (hop.get("gateway") or hop["via"]["host"], hop["dev"])
        for hop in route.get("nexthops", [route])
    }


@pytest.mark.claim(
    "12.6", "Explicit route targets are on exported routes, and decide which routes are imported"
)
def test_explicit_route_targets(lab: Lab, far: Leaf) -> None:
    """The host exports its own target only, and takes no leaf's route while it imports another."""
    host, leaf_prefix = lab.host, "10.188.95.0/24"

    def targeted(imports: str, *more: Payload) -> Payload:
        document = payload(DUAL, DUAL_2, *more)
        [vpc] = [each for each in document["vpcs"] if each["id"] == 33]
        vpc["routeTargets"] = {"import": [imports], "export": ["65000:33"]}
        return document

    with back_again(lab):
        lab.fabric.carry(targeted("65000:33", LEAF_ONLY))
        host.apply(targeted("65000:33"))
        eventually(lambda: _targets(far, "[5]:[0]:[24]:[10.188.4.0]") == {"RT:65000:33"}, WITHIN)
        eventually(lambda: _leads_to(host, leaf_prefix, "l3br-1033"), WITHIN)
        host.apply(targeted("65000:99"))
        eventually(lambda: not _leads_to(host, leaf_prefix, "l3br-1033"), WITHIN)
        assert _targets(far, "[5]:[0]:[24]:[10.188.4.0]") == {"RT:65000:33"}


def _targets(leaf: Leaf, prefix: str) -> set[str]:
    """Return the route targets of the host's routes to a prefix on a leaf."""
    paths = [route for route in routes(leaf, "prefix") if route.prefix == prefix]
    return {each for route in paths for each in route.communities if each.startswith("RT:")}


# --- FRR and its file ---


@pytest.mark.claim(
    "17.11", "If FRR takes half a minute to read its file, apply waits until it is done"
)
def test_frr_reads_its_file_slowly(host: Host) -> None:
    """apply waits as the service does at boot; FRR 8.4's watchfrr would stop it after 20 s."""
    host.run(["mv", VTYSH, f"{VTYSH}.real"])
    try:
        host.machine.write(VTYSH, SLOW_VTYSH)
        host.run(["chmod", "755", VTYSH])
        host.machine.write("/run/slow.json", json.dumps(payload(DUAL, DUAL_2)))
        host.run(["systemctl", "restart", "frr"])
        apply = ["evpn-host", "apply", "-p", "/run/slow.json"]
        result = host.run(["systemd-run", "--pipe", "--wait", *_sandbox(), *apply], timeout=180)
    finally:
        host.run(["mv", f"{VTYSH}.real", VTYSH])
    assert "again" not in result.err
    assert no_reload_pending(host)
    eventually(lambda: established(host) == UPLINKS, WITHIN)


def _sandbox() -> list[str]:
    """Return the sandbox settings of evpn-host.service, as options of systemd-run."""
    _, _, settings = UNIT.read_text().partition("KillMode=process\n")
    lines = settings.partition("[Install]")[0].splitlines()
    assert "ProtectProc=invisible" in lines
    return [f"--property={line}" for line in lines if "=" in line and not line.startswith("#")]


@pytest.mark.claim(
    "17.12", "If lines are removed from FRR by hand, status names them and apply restores them"
)
def test_lines_taken_out_of_frr(host: Host) -> None:
    """apply brings a removed session and VNI back, and never resets the other session."""
    document, before = payload(DUAL, DUAL_2), resets(host)["ens5"]
    host.apply(document)
    commands = ("router bgp 4200000001", "no neighbor ens4", "exit", "vrf Vrf_33", "no vni 1033")
    words = [word for line in ("configure terminal", *commands) for word in ("-c", line)]
    try:
        host.run(["vtysh", *words])
        differences = host.evpn_host("status", "--json", check=False).json["differences"]
        assert "FRR: no session ens4" in differences
        assert any("VNI 1033" in each for each in differences)
    finally:
        host.apply(document)
    assert no_reload_pending(host)
    eventually(lambda: established(host) == UPLINKS, WITHIN)
    assert resets(host)["ens5"] == before
