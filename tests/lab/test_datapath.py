"""How tenants' packets travel: on the wire, over two uplinks, between hosts, at full size."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest

from lab.channel import Process
from lab.fabric import Host, Lab, Leaf, Node, Router, eventually
from tests.lab import second_host
from tests.lab.evpn import VTEP, routes
from tests.lab.k8s01 import LEAVES, Payload, bring_up, established, payload, resets, vnet
from tests.lab.systems import SYSTEMS

UPLINKS = {"ens4", "ens5"}
WITHIN = 60.0  # seconds for which a condition is waited for
V4, V6 = "10.188.4.254", "fd00:188:4::254"
EDGE = vnet(90, 33, "10.188.90.254/24")  # a test removes it from the first two leaves


def roomy(mtu: int = 9216, **bgp: Any) -> Payload:
    """The module's payload: two V-Nets of a VPC in both families, and one at the fabric's edge."""
    document = payload(
        vnet(40, 33, f"{V4}/24", f"{V6}/64"),
        vnet(41, 33, "10.188.5.254/24", "fd00:188:5::254/64"),
        EDGE,
    )
    document["server"]["bgp"] = bgp
    for link in document["links"]:
        link["mtu"] = mtu
    return document


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP; its NICs' MTU lets full-size packets pass."""
    lab: Lab = fresh_lab(*request.param)
    bring_up(lab, roomy())
    return lab


@pytest.fixture(scope="module")
def pod(lab: Lab) -> Node:
    """A guest in V-Net 40."""
    pod = lab.host.pod("pod", "nbr-40", "10.188.4.10/24", V4, "fd00:188:4::10/64", V6)
    _greet(pod)
    return pod


@pytest.fixture(scope="module")
def servers(lab: Lab) -> dict[str, Node]:
    """A bare-metal server in V-Net 40 on each leaf."""
    nodes = {
        leaf: lab.fabric.server(
            f"bm-{leaf}", leaf=leaf, vni=40, ipv4=f"10.188.4.{number}/24", gateway=V4,
            ipv6=f"fd00:188:4::{number}/64", gateway6=V6,
        )
        for number, leaf in enumerate(lab.fabric.leaves, start=20)
    }  # fmt: skip
    for server in nodes.values():
        _greet(server)
    return nodes


@pytest.fixture(scope="module")
def gpu(servers: dict[str, Node]) -> Node:
    """The bare-metal server on the leaf behind the spine."""
    return servers["ns-leaf-2"]


def _greet(node: Node) -> None:
    """Let a node ping its gateways until they answer, so that the fabric learns its addresses."""
    eventually(lambda: node.ping(V4, count=1))
    eventually(lambda: node.ping(V6, count=1, family=6))


@contextmanager
def watched(node: Node, device: str, expression: str, least: int = 0) -> Iterator[list[str]]:
    """List the packets (tcpdump's text with bytes) that pass a device during the block.

    Waits after the block until there are `least` packets.
    """
    argv = ["tcpdump", "-nn", "-l", "-xx", "-i", device, expression]
    process = node.start(argv)
    packets: list[str] = []
    try:
        eventually(lambda: "listening on" in process.errors, WITHIN)
        yield packets
        eventually(lambda: len(_packets(process.output)) >= least, WITHIN)
        time.sleep(0.5)
    finally:
        packets += _packets(process.stop().out)


def _packets(text: str) -> list[str]:
    """Split tcpdump's output into packets."""
    return re.split(r"^(?=\d\d:\d\d:\d\d)", text, flags=re.MULTILINE)[1:]


def _bytes(packet: str) -> str:
    """Return a packet's bytes, without the time and tcpdump's description."""
    return "".join(re.findall(r"^\s+0x\w+:  (.*)$", packet, re.MULTILINE))


# --- On the wire ---


@pytest.mark.claim("5.2", "The original packet arrives unchanged, whichever leaf originates it")
def test_the_packet_arrives_unchanged(host: Host, pod: Node, servers: dict[str, Node]) -> None:
    """Each packet arrives byte for byte, both ways; its outer header has the VTEPs' loopbacks."""
    for name, server in servers.items():
        eventually(partial(pod.ping, server, count=1))
        for source, target in ((pod, server), (server, pod)):
            echo = f"icmp[icmptype] = 8 and src {source.ipv4}"
            with (
                watched(source, "eth0", echo, least=3) as sent,
                watched(target, "eth0", echo, least=3) as received,
                watched(host, "any", "udp port 4789", least=3) as outer,
            ):
                assert source.ping(target, count=3, size=1000)
            assert len(sent) == 3, sent
            assert [_bytes(each) for each in received] == [_bytes(each) for each in sent]
            leaf = f"10.2.0.{LEAF_NUMBERS[name]}"
            ends = (VTEP, leaf) if source is pod else (leaf, VTEP)
            line = re.compile(rf"IP {ends[0]}\.\d+ > {ends[1]}\.4789: VXLAN.* vni 40")
            assert len([each for each in outer if line.search(each)]) >= 3, outer


LEAF_NUMBERS = {"ns-leaf-0": 1, "ns-leaf-1": 2, "ns-leaf-2": 3}


@pytest.mark.claim(
    "7.1", "Leaves and spine that do not know a VNI forward on the outer header alone"
)
def test_switches_that_do_not_know_the_vni(lab: Lab) -> None:
    """Both leaves of the host lose V-Net 90, and its packets still pass them to the third leaf."""
    host, fabric = lab.host, lab.fabric
    servers_before = fabric.state["servers"]
    try:
        server = fabric.server("edge", vni=90, ipv4="10.188.90.20/24", gateway="10.188.90.254")
        guest = host.pod("edge-pod", "nbr-90", "10.188.90.10/24", "10.188.90.254")
        for name in LEAVES:
            for device in ("vx-90", "br-90"):
                fabric.leaf(name).run(["ip", "link", "delete", device])
        for router in (fabric.leaf("ns-leaf-0"), fabric.leaf("ns-leaf-1"), fabric.spine):
            eventually(partial(_does_not_know, router, 90), WITHIN)
        # The second host, if a test has started it, is a member too.
        eventually(lambda: _members(host, 90) - {second_host.VTEP} == {"10.2.0.3"}, WITHIN)
        for node in (server, guest):
            eventually(partial(node.ping, "10.188.90.254", count=1), WITHIN)
        eventually(lambda: guest.ping(server, count=1), WITHIN)
        with (
            watched(fabric.spine, "any", "udp port 4789") as spine,
            watched(fabric.leaf("ns-leaf-0"), "any", "udp port 4789") as first,
            watched(fabric.leaf("ns-leaf-1"), "any", "udp port 4789") as second,
        ):
            assert guest.ping(server)
            assert server.ping(guest)
        assert [each for each in spine if "vni 90" in each]
        assert [each for each in first + second if "vni 90" in each]
    finally:
        host.run(["ip", "netns", "delete", "edge-pod"], check=False)
        fabric.change(servers=servers_before)  # gives the leaves the V-Net again


def _members(host: Host, vni: int) -> set[str]:
    """The VTEPs to which the host floods broadcast, multicast and unknown unicast of a V-Net."""
    flooded = host.run(["bridge", "-json", "fdb", "show", "dev", f"vxlan{vni}"]).json
    return {each["dst"] for each in flooded if each["mac"] == "00:00:00:00:00:00"}


def _does_not_know(router: Router, vni: int) -> bool:
    # Read text, not JSON: FRR 8.4.4 without EVPN gives no JSON at all.
    return not re.search(rf"^{vni}\s", router.show("show evpn vni"), re.MULTILINE)


@pytest.mark.claim(
    "9.1", "Broadcast, multicast and unknown unicast reach members of the V-Net only"
)
def test_what_is_for_all_reaches_members_only(lab: Lab, pod: Node, gpu: Node) -> None:
    """A guest and a server of the V-Net receive such packets; those of another V-Net do not."""
    targets = ("255.255.255.255", "10.188.4.255", "224.0.0.1", "10.188.4.99")
    servers_before = lab.fabric.state["servers"]
    try:
        near = lab.host.pod("near", "nbr-40", "10.188.4.11/24", V4)
        other = lab.host.pod("other", "nbr-41", "10.188.5.10/24", "10.188.5.254")
        far_other = lab.fabric.server(
            "far-other", vni=41, ipv4="10.188.5.20/24", gateway="10.188.5.254"
        )
        eventually(lambda: far_other.ping("10.188.5.254", count=1), WITHIN)
        pod.run("ip neigh replace 10.188.4.99 lladdr 02:00:00:00:99:99 dev eth0".split())
        echoes = "icmp[icmptype] = 8 and src 10.188.4.10"
        with (
            watched(near, "eth0", echoes, least=2 * len(targets)) as near_packets,
            watched(gpu, "eth0", echoes, least=2 * len(targets)) as gpu_packets,
            watched(other, "eth0", echoes) as other_packets,
            watched(far_other, "eth0", echoes) as far_other_packets,
        ):
            for target in targets:
                ping = f"ping -b -c 2 -i 0.2 -W 1 -I eth0 {target}"
                pod.run(ping.split(), check=False)
        for packets in (near_packets, gpu_packets):
            for target in targets:
                assert [each for each in packets if f"> {target}:" in each], (target, packets)
        assert not other_packets + far_other_packets
    finally:
        pod.run("ip neigh delete 10.188.4.99 dev eth0".split(), check=False)
        for name in ("near", "other"):
            lab.host.run(["ip", "netns", "delete", name], check=False)
        lab.fabric.change(servers=servers_before)


@pytest.mark.claim("9.2", "The host answers ARP and neighbour discovery for remote guests")
def test_the_host_answers_for_remote_neighbours(host: Host, pod: Node, gpu: Node) -> None:
    """A guest forgets a remote server and learns its MAC again; no question reaches the server."""
    _greet(gpu)  # the host can only know a server that the server's leaf knows
    show_neighbours = ["ip", "neighbour", "show", "dev", "nbr-40"]
    eventually(lambda: {gpu.ipv4, gpu.ipv6} <= set(host.run(show_neighbours).out.split()), WITHIN)
    [link] = gpu.run(["ip", "-json", "link", "show", "eth0"]).json
    arp, nd = f"arp[6:2] = 1 and arp src host {pod.ipv4}", f"ip6[40] = 135 and src {pod.ipv6}"
    requests = f"({arp}) or (icmp6 and {nd})"
    with watched(gpu, "eth0", requests) as questions:
        pod.run(["ip", "neigh", "flush", "dev", "eth0"])
        assert pod.ping(gpu, count=2)
        assert pod.ping(gpu, count=2, family=6)
        for address in (gpu.ipv4, gpu.ipv6):
            neighbour = pod.run(["ip", "neigh", "show", address]).out
            assert link["address"] in neighbour, neighbour
    assert not questions


# --- Uplinks ---


@pytest.mark.claim(
    "6.3", "An uplink loses carrier or drops everything, with or without BFD: the other takes over"
)
@pytest.mark.parametrize("loss", ["carrier", "silent", "silent-bfd"])
def test_an_uplink_lost_and_back(lab: Lab, pod: Node, gpu: Node, loss: str) -> None:
    """Only the session of the flow's uplink ends; later there are two next hops again."""
    host = lab.host
    with _bfd(lab) if loss.endswith("bfd") else nullcontext():
        eventually(lambda: established(host) == UPLINKS and len(_next_hops(host)) == 2, WITHIN)
        eventually(lambda: pod.ping(gpu, count=1), WITHIN)
        uplink, leaf = _uplink_of(lab, pod, gpu)
        [other] = UPLINKS - {uplink}
        before = resets(host)[other]
        with pod.pinging(gpu, interval=0.02) as running, _uplink_loss(host, uplink, leaf, loss):
            lost = eventually(lambda: established(host) == {other}, WITHIN)
            eventually(lambda: _next_hops(host) == {other}, WITHIN)
            eventually(lambda: pod.ping(gpu, count=5), WITHIN)
        with pod.pinging(gpu, interval=0.02) as returning:
            back = eventually(
                lambda: established(host) == UPLINKS and len(_next_hops(host)) == 2, WITHIN
            )
        eventually(lambda: pod.ping(gpu, count=5), WITHIN)
        print(
            f"{loss}: gap {running.result.longest_gap_s:.2f} s, session gone after {lost:.1f} s;"
            f" back after {back:.1f} s, gap {returning.result.longest_gap_s:.2f} s"
        )
        assert resets(host)[other] == before


@contextmanager
def _uplink_loss(host: Host, uplink: str, leaf: Leaf, how: str) -> Iterator[None]:
    """Take an uplink's carrier, or let it drop every packet, for the duration of the block."""
    ends = ((leaf, "swp9s1"), (host, uplink))
    try:
        if how == "carrier":
            leaf.run(["ip", "link", "set", "swp9s1", "down"])
        else:
            for node, port in ends:
                node.run(f"tc qdisc add dev {port} root netem loss 100%".split())
        yield
    finally:
        if how == "carrier":
            leaf.run(["ip", "link", "set", "swp9s1", "up"])
        else:
            for node, port in ends:
                node.run(f"tc qdisc delete dev {port} root".split(), check=False)


@contextmanager
def _bfd(lab: Lab) -> Iterator[None]:
    """Let BFD watch both sessions; the block begins once BFD is up."""
    host = lab.host
    try:
        host.apply(roomy(bfd=True))
        _on_leaves(lab, "neighbor swp9s1 bfd")
        up = "'status': 'up'"
        eventually(lambda: str(host.show("show bfd peers json")).count(up) == 2, WITHIN)
        yield
    finally:
        _on_leaves(lab, "no neighbor swp9s1 bfd")
        host.apply(roomy())
        eventually(lambda: established(host) == UPLINKS, WITHIN)


def _on_leaves(lab: Lab, line: str) -> None:
    """Configure a line in the BGP of both leaves of the host."""
    for name in LEAVES:
        lab.fabric.leaf(name).configure(f"router bgp {lab.fabric.leaf(name).asn}", line)


def _next_hops(host: Host) -> set[str]:
    """Return the devices over which the host reaches the third leaf's loopback."""
    [route] = host.run(["ip", "-json", "route", "show", "10.2.0.3/32"]).json
    return {hop["dev"] for hop in route.get("nexthops", [route])}


def _uplink_of(lab: Lab, source: Node, target: Node) -> tuple[str, Leaf]:
    """Return the uplink that the flow takes, and the leaf at its other end."""
    path = "/sys/class/net/{}/statistics/tx_packets"
    packets = {nic: -int(lab.machine.read(path.format(nic))) for nic in UPLINKS}
    source.ping(target, count=50, interval=0.01)
    for nic in UPLINKS:
        packets[nic] += int(lab.machine.read(path.format(nic)))
    uplink = max(packets, key=lambda nic: packets[nic])
    return uplink, lab.fabric.leaf({"ens4": "ns-leaf-0", "ens5": "ns-leaf-1"}[uplink])


# --- Between hosts ---

ECHO = """
import socket
server = socket.create_server(("0.0.0.0", 7777))
print("ready", flush=True)
peer, _ = server.accept()
while data := peer.recv(4096):
    peer.sendall(data)
"""
TALK = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], 7777), 10)
peer.settimeout(60)
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for number in range(1 << 40):
    peer.sendall(b"%08d" % number)
    answer = b""
    while len(answer) < 8:
        answer += peer.recv(8 - len(answer))
    assert int(answer) == number
    print(number, flush=True)
    time.sleep(0.05)
"""
MOVER = "02:00:00:00:40:40"


@pytest.fixture(scope="module")
def second(lab: Lab) -> Router:
    """Another VTEP host, which has one cable, to the first leaf."""
    return second_host.start(lab, roomy())


@pytest.mark.claim("8.1", "A guest that moves to another host keeps its gateway and its sessions")
def test_a_guest_moves_between_hosts(lab: Lab, gpu: Node, second: Router) -> None:
    """After each move: same gateway IP and MAC, TCP goes on, type 2 counts the moves."""
    host, far = lab.host, lab.fabric.leaf("ns-leaf-2")
    with ExitStack() as afterwards:
        afterwards.callback(host.run, ["ip", "netns", "delete", "mover"], check=False)
        address = ("10.188.4.40/24", V4, "fd00:188:4::40/64", V6)
        guest = host.pod("mover", "nbr-40", *address, mac=MOVER)
        _greet(guest)
        gateway = _gateway_mac(guest, 0)
        for each in (far, second):
            eventually(partial(_announced_by, each, VTEP, 0), WITHIN)
        eventually(lambda: guest.ping(gpu, count=1), WITHIN)
        echo = gpu.start(["python3", "-c", ECHO])
        afterwards.callback(echo.stop)
        eventually(lambda: "ready" in echo.output, WITHIN)
        talk = guest.start(["python3", "-u", "-c", TALK, gpu.ipv4])
        afterwards.callback(talk.stop)
        eventually(partial(_answers, talk, 5), WITHIN)
        stops = ((second, second_host.VTEP), (host, VTEP))
        for moves, (target, vtep) in enumerate(stops, start=1):
            lines = talk.output.count("\n")
            _move(lab, guest, target, moves)
            took = eventually(partial(_answers, talk, lines + 5), WITHIN)
            print(f"move {moves}: the session goes on {took:.1f} s later")
            eventually(partial(_announced_by, far, vtep, moves), WITHIN)
            eventually(partial(guest.ping, V4), WITHIN)
            eventually(partial(guest.ping, V6, family=6), WITHIN)
            eventually(partial(guest.ping, "10.188.5.254"), WITHIN)
            assert _gateway_mac(guest, moves) == gateway
            port = "vxlan40" if target is second else f"moved{moves}"
            eventually(partial(_is_behind, host, MOVER, port), WITHIN)
            guest.run(["ip", "link", "delete", f"eth{moves - 1}"])


def _answers(talk: Process, lines: int) -> bool:
    """Return whether TALK has received more than so many answers."""
    assert talk.running, talk.errors
    return talk.output.count("\n") > lines


def _gateway_mac(guest: Node, cable: int) -> str:
    """Return the gateway's MAC by the guest's neighbour table, on its cable of that number.

    The table may still have an entry on the old cable.
    """
    argv = ["ip", "-json", "neigh", "show", V4, "dev", f"eth{cable}"]
    [entry] = guest.run(argv).json
    return str(entry["lladdr"])


def _is_behind(host: Host, mac: str, port: str) -> bool:
    """Return whether the host's bridge sends packets for a MAC to a port.

    Entries with `dst`, which the VXLAN port itself may still have, do not matter.
    """
    entries = host.run(["bridge", "-json", "fdb", "show", "br", "nbr-40"]).json
    [entry] = [e for e in entries if e["mac"] == mac and "vlan" not in e and "dst" not in e]
    return bool(entry["ifname"] == port)


def _announced_by(router: Router, vtep: str, moves: int) -> bool:
    """Return whether a router has the moved MAC from a VTEP, after at least so many moves."""
    paths = [each for each in routes(router, "macip", vtep) if each.prefix.endswith(f"[{MOVER}]")]
    return any(each.sequence >= moves for each in paths)


def _move(lab: Lab, guest: Node, target: Node, number: int) -> None:
    """Plug the guest into another host; its old cable stays plugged in and sends nothing."""
    old, new, port = f"eth{number - 1}", f"eth{number}", f"moved{number}"
    near = f"{new} address {MOVER} netns mover type veth peer name {port}"
    lab.machine.run(["ip", "link", "add", *near.split()])
    if target.name:
        lab.machine.run(["ip", "link", "set", port, "netns", target.name])
    target.run(["ip", "link", "set", port, "master", "nbr-40", "up"])
    guest.run(["sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{old}/disable_ipv6"])
    lines = [
        f"link set {old} arp off",  # or the old cable answers for the address
        f"address flush dev {old}",
        f"link set {new} up",
        f"address add 10.188.4.40/24 dev {new}",
        f"address add fd00:188:4::40/64 dev {new} nodad",
        f"route add default via {V4}",
        f"route add default via {V6}",
    ]
    guest.run(["ip", "-batch", "-"], input="".join(f"{line}\n" for line in lines))
    guest.run(["arping", "-U", "-c", "2", "-I", new, "10.188.4.40"], check=False)


@pytest.mark.claim("8.2", "Gateway address and MAC are the same on two hosts and on a leaf")
def test_the_gateway_is_the_same_everywhere(lab: Lab, second: Router) -> None:
    """The kernels of both hosts and of the leaf have the same addresses and MAC."""
    places = ((lab.host, "nbr-40"), (second, "nbr-40"), (lab.fabric.leaf("ns-leaf-2"), "br-40"))
    gateways = []
    for node, device in places:
        [shown] = node.run(["ip", "-json", "address", "show", device]).json
        addresses = {each["local"] for each in shown["addr_info"] if each["scope"] == "global"}
        gateways.append((shown["address"], addresses))
    assert gateways == [("44:38:39:ff:00:28", {V4, V6})] * 3


# --- Size ---


@pytest.mark.claim(
    "10.1", "With 9216 on the links, packets of 1500 bytes pass both ways, in both families"
)
def test_full_size_packets(lab: Lab, pod: Node, gpu: Node) -> None:
    """Full-size packets pass without fragmentation, bridged and routed."""
    routed = lab.fabric.server(
        "routed", vni=41, ipv4="10.188.5.30/24", gateway="10.188.5.254",
        ipv6="fd00:188:5::30/64", gateway6="fd00:188:5::254",
    )  # fmt: skip
    eventually(lambda: routed.ping("10.188.5.254", count=1))
    eventually(lambda: routed.ping("fd00:188:5::254", count=1, family=6))
    for server in (gpu, routed):
        eventually(partial(pod.ping, server, count=1), WITHIN)
        eventually(partial(pod.ping, server, count=1, family=6), WITHIN)
        for source, target in ((pod, server), (server, pod)):
            assert source.ping(target, count=3, size=1472, df=True)
            assert source.ping(target, count=3, size=1452, df=True, family=6)
            assert not source.ping(target, count=1, size=1473, df=True).received


@pytest.mark.claim(
    "10.2", "With 1500 on the links, as published: a warning; 1450 bytes pass, 1500 do not"
)
def test_1500_in_1500(lab: Lab, pod: Node, gpu: Node) -> None:
    """`apply` warns for each link and names the sizes; packets of 1450 bytes pass unfragmented."""
    host = lab.host
    try:
        messages = host.apply(roomy(mtu=1500)).err
        assert messages.count("is too small for V-Nets of MTU 1500") == 2, messages
        eventually(lambda: established(host) == UPLINKS, WITHIN)
        eventually(lambda: pod.ping(gpu, count=1), WITHIN)
        assert pod.ping(gpu, count=3, size=1422, df=True)
        assert not pod.ping(gpu, count=2, size=1472, df=True).received
    finally:
        host.apply(roomy())
        # The host told both nodes the path's MTU. They would keep it for minutes.
        for node in (pod, gpu):
            node.run(["ip", "route", "flush", "cache"])
    [nic] = host.run(["ip", "-json", "link", "show", "ens4"]).json
    assert nic["mtu"] == 9216
    eventually(lambda: pod.ping(gpu, count=3, size=1472, df=True), WITHIN)
    assert json.loads(host.evpn_host("status", "--json").out)["ok"]
