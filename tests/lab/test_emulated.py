"""The host's own firewall, as on a node of Kubernetes: what it drops, and the rules of the pages.

QEMU boots Debian's own kernel for it, because that of User-Mode Linux has no nf_tables for IP.
There is no fabric, which would take minutes to boot there: all guests are on the host. The machine
starts as it does on a computer where User-Mode Linux does not start.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr
from typing import Any, NamedTuple

import pytest

from lab import machine
from lab.fabric import Host, Node, eventually
from lab.machine import Machine
from lab.qemu import QEMU
from tests import documents
from tests.debs import REPOSITORY
from tests.lab import figures
from tests.lab.claims import runs_on
from tests.lab.evpn import VTEP
from tests.lab.systems import SYSTEMS
from tests.lab.test_isolation import DOCUMENT, GATEWAYS
from tests.lab.test_machine import BROKEN

FAMILIES = (4, 6)
# Asks a TCP service from a guest: it prints the answer, or nothing after so many seconds.
CONNECT = """
import socket, sys
for address in sys.argv[2:]:
    try:
        socket.create_connection((address, 179), float(sys.argv[1])).close()
        print("open")
    except TimeoutError:
        print("silent")
    except ConnectionRefusedError:
        print("refused")
"""
SEND_BFD = """
import socket, sys
for _ in range(10):
    socket.socket(type=socket.SOCK_DGRAM).sendto(bytes(24), (sys.argv[1], 3784))
"""
# Counts frames of one kind until one of another kind comes.
COUNT_FRAMES = """
import socket
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("ready", flush=True)
count = 0
while (kind := listener.recv(2000)[12:14]) != b"\\x88\\xb6":
    count += kind == b"\\x88\\xb5"
print(count)
"""
SEND_FRAMES = """
import socket, struct, sys
source, target, kind, count = sys.argv[1:]
sender = socket.socket(type=socket.SOCK_DGRAM)
sender.bind((source, 0))
frame = bytes.fromhex("ffffffffffff0200000000ee" + kind) + bytes(46)
for _ in range(int(count)):
    sender.sendto(struct.pack("!II", 8 << 24, 60 << 8) + frame, (target, 4789))
"""
# Counts VXLAN packets with a frame of one kind until one of another kind comes.
COUNT_VXLAN = """
import socket, sys
listener = socket.socket(type=socket.SOCK_DGRAM)
listener.bind((sys.argv[1], 4789))
print("ready", flush=True)
count = 0
while b"\\x88\\xb5" in listener.recv(2000):
    count += 1
print(count)
"""
LEAF = "10.2.0.1"
FAR, THIRD = "10.2.0.9", "10.2.0.8"  # VTEPs of other hosts; the first is behind the leaf
GONE = "nftables: table inet evpn-host is not there"


class Guests(NamedTuple):
    """Two guests of tenant A in one V-Net, and two of tenant B in two V-Nets of one VPC."""

    a: tuple[Node, Node]
    b: tuple[Node, Node]


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Make K8S01 a VTEP of two tenants, with a whole kernel. Its cables lead nowhere."""
    suite, backend = request.param
    runs_on(request.node, suite, backend)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.delenv("EVPN_HOST_LAB_MACHINE", raising=False)
        patch.setattr(machine, "KERNELS", [BROKEN, QEMU])
        patch.setattr(machine, "notes", [])
        with redirect_stderr(io.StringIO()) as errors:
            # FRR is slow there, so it does not start before apply starts it.
            booted = stack.enter_context(Machine(suite, parameters=["systemd.unit=basic.target"]))
        assert errors.getvalue().count("qemu takes the place of uml") == 1
        host = Host(booted)
        cable(host)
        if backend == "ifupdown":
            booted.run(["sh", "/opt/repo/lab/guest/operator", backend])
            booted.run(["systemctl", "stop", "systemd-networkd.socket", "systemd-networkd.service"])
        booted.write("/etc/evpn-host/config.yaml", f"backend: {backend}\n")
        host.apply(DOCUMENT)
        yield host


def cable(host: Host) -> None:
    """Connect each NIC to something."""
    for nic in ("ens4", "ens5"):
        host.run(f"ip link add {nic} type veth peer name far-{nic}".split())
        host.run(["ip", "link", "set", f"far-{nic}", "up"])


@pytest.fixture
def host(lab: Host) -> Host:
    """Return the host as a VTEP. After a power cut its firewall is open again."""
    if lab.run(["ip", "link", "show", "ens4"], check=False).code:
        cable(lab)
        lab.run(["systemctl", "start", "frr"], timeout=300)
        lab.apply(later(), "--full")
    return lab


@pytest.fixture
def guests(host: Host) -> Guests:
    """Return all guests, once they reach each other: nothing is filtered yet."""
    host.run(["nft", "flush", "ruleset"])
    names = host.run(["ip", "netns", "list"]).out.split()
    v4, v6 = GATEWAYS
    if "a" in names:
        first = [Node(host.machine, name, "172.20.0.10", "fd00:20::10") for name in ("a", "b")]
        two = Node(host.machine, "two", "172.20.0.20", "fd00:20::20")
        existing = Guests((first[0], two), (first[1], Node(host.machine, "other", "172.20.9.20")))
        eventually(lambda: all(bridged(existing)) and routed(existing))
        return existing
    two = host.pod("two", "nbr-60", "172.20.0.20/24", v4, "fd00:20::20/64", v6)
    other = host.pod("other", "nbr-62", "172.20.9.20/24", "172.20.9.254")
    first = [
        host.pod(name, f"nbr-{vni}", "172.20.0.10/24", v4, "fd00:20::10/64", v6)
        for name, vni in (("a", 60), ("b", 61))
    ]
    new = Guests((first[0], two), (first[1], other))
    eventually(lambda: all(bridged(new)) and routed(new))
    return new


def bridged(guests: Guests) -> list[bool]:
    """Return whether the guests of one V-Net reach each other, for each family."""
    one, two = guests.a
    return [bool(one.ping(two, count=1, family=family)) for family in FAMILIES]


def routed(guests: Guests) -> bool:
    """Return whether the guests of two V-Nets of a VPC reach each other."""
    one, other = guests.b
    return bool(one.ping(other, count=1))


def page(host: Host, *programs: str) -> None:
    """Run the commands of docs/isolation.md that start one of these programs."""
    run = [
        command
        for block in documents.blocks()
        if (block.page, block.language) == ("docs/isolation.md", "sh")
        for command in documents.commands(block)
        if command.partition(" ")[0] in programs
    ]
    assert run
    for command in run:
        host.run(["bash", "-c", command])


def count_received(host: Host, guest: Node, least: int) -> int:
    """Send ten BFD packets to the guest's gateway; return how many a program of the host receives.

    It waits until `least` have come, and some seconds more for any that must not come.
    """

    def datagrams() -> int:
        lines = [line.split() for line in host.run(["cat", "/proc/net/snmp"]).out.splitlines()]
        names, values = (line for line in lines if line[0] == "Udp:")
        return int(values[names.index("InDatagrams")])

    before = datagrams()
    guest.run(["python3", "-c", SEND_BFD, GATEWAYS[0]])
    time.sleep(3)
    eventually(lambda: datagrams() - before >= least)
    return datagrams() - before


_later = itertools.count(DOCUMENT["generation"] + 1)


def later() -> dict[str, Any]:
    """Return the payload with a later generation, so that apply looks at the firewall."""
    return {**DOCUMENT, "generation": next(_later)}


def test_qemu_takes_over(host: Host) -> None:
    """If User-Mode Linux does not start, QEMU boots the same disk, and the lab says so once."""
    [note] = machine.notes
    assert note.startswith("qemu takes the place of uml")
    assert "this computer is too strange" in note
    assert machine.kernels() == [QEMU]
    assert machine.patience() > 1
    [vxlan] = host.run(["ip", "-json", "-detail", "link", "show", "vxlan60"]).json
    assert (vxlan["master"], vxlan["linkinfo"]["info_data"]["id"]) == ("nbr-60", 60)


@pytest.mark.claim(
    "13.8", "If a firewall drops forwarded packets, the documented rules let guests through"
)
def test_a_firewall_drops_what_is_forwarded(host: Host, guests: Guests) -> None:
    """With `br_netfilter` bridged and routed frames are dropped. With the rules they pass again."""
    host.run(["modprobe", "br_netfilter"])
    for each in ("iptables", "ip6tables"):
        host.run([each, "-P", "FORWARD", "DROP"])
    assert bridged(guests) == [False, False]
    assert not routed(guests)
    warned = host.apply(later()).err
    assert all(f"{each} drops what is forwarded" in warned for each in ("iptables", "ip6tables"))
    page(host, "iptables", "ip6tables")
    assert "drops what is forwarded" not in host.apply(later()).err
    eventually(lambda: all(bridged(guests)) and routed(guests))
    assert not guests.a[0].ping(guests.b[1], count=1)  # tenants are isolated as before


@pytest.mark.claim("13.9", "BGP and BFD are closed to guests, and only to guests")
def test_bgp_and_bfd_are_closed_to_guests(host: Host, guests: Guests) -> None:
    """The host answers no guest's connection to its gateway, and answers its own connections.

    Somebody flushes all tables: `status` says so, and `apply` closes the ports again.
    """
    knock = ["python3", "-c", CONNECT]
    assert f"differs: {GONE}" in host.evpn_host("status", check=False).out
    answers = guests.a[0].run([*knock, "60", *GATEWAYS], timeout=180).out.split()
    # FRR 10.7's bgpd and bfdd do not listen in a VRF in which they have no neighbor.
    assert answers in (["open", "open"], ["refused", "refused"])
    packets = 10 if answers == ["open", "open"] else 0
    assert count_received(host, guests.a[0], packets) == packets
    host.apply(later())
    assert GONE not in host.evpn_host("status", check=False).out
    assert guests.a[0].run([*knock, "5", *GATEWAYS]).out.split() == ["silent", "silent"]
    assert count_received(host, guests.a[0], 0) == 0
    eventually(lambda: guests.a[0].ping(GATEWAYS[0], count=1))
    own = [*knock, "60", "127.0.0.1", "::1"]
    assert host.run(own, timeout=180).out.split() == ["open", "open"]
    settings = host.machine.read("/etc/evpn-host/config.yaml")
    host.machine.write("/etc/evpn-host/config.yaml", f"{settings}guest_bgp: true\n")
    try:
        host.apply(later())
        assert guests.a[0].run([*knock, "60", *GATEWAYS], timeout=180).out.split() == answers
    finally:
        host.machine.write("/etc/evpn-host/config.yaml", settings)
        host.apply(later())


# Docker's rule for addresses; here its network has the prefix of tenant A's V-Net.
DOCKER = "-s 172.20.0.0/16 ! -o docker0 -j MASQUERADE"
# Docker's rules for forwarded packets, which it drops by default.
DOCKER_FORWARDS = (
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "-P FORWARD DROP",
)
HEAR = """
import socket
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 7777))
print("ready", flush=True)
print(sock.recvfrom(100)[1][0], flush=True)
"""
SAY = """
import socket, sys
socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", (sys.argv[1], 7777))
"""


def arrives_from(sender: Node, receiver: Node) -> str:
    """Return the address from which a datagram of one guest comes to another."""
    listener = receiver.start(["python3", "-c", HEAR])
    eventually(lambda: "ready" in listener.output)
    sender.run(["python3", "-c", SAY, receiver.ipv4])
    eventually(lambda: not listener.running)
    return listener.output.split()[-1]


@pytest.mark.claim(
    "19.6", "Docker translates no guest's address if the operator sets `guest_nat: false`"
)
def test_docker_translates_no_guest(host: Host, guests: Guests) -> None:
    """apply names Docker's rule; `guest_nat: false` keeps guests' addresses, not containers'."""
    one, other = guests.b
    assert arrives_from(one, other) == one.ipv4
    host.run(f"iptables -t nat -A POSTROUTING {DOCKER}".split())
    assert arrives_from(one, other) != one.ipv4  # the fault
    output = host.apply(later()).err
    assert "a rule translates addresses of 172.20.0.0/24" in output
    assert "guest_nat: false in /etc/evpn-host/config.yaml" in output
    settings = host.machine.read("/etc/evpn-host/config.yaml")
    host.machine.write("/etc/evpn-host/config.yaml", f"{settings}guest_nat: false\n")
    try:
        assert "translates" not in host.apply(later()).err
        assert arrives_from(one, other) == one.ipv4
        assert "nftables" not in host.evpn_host("status", check=False).out
        for line in (
            "link add docker0 type bridge",
            "address add 172.20.128.1/24 dev docker0",
            "link set docker0 up",
            "address add 10.99.0.1/24 dev nbr-14",
        ):
            host.run(["ip", *line.split()])
        container = host.pod("container", "docker0", "172.20.128.2/24", "172.20.128.1")
        member = host.pod("behind", "nbr-14", "10.99.0.51/24")
        # A container still leaves by the management bridge, with the host's address.
        assert arrives_from(container, member) == "10.99.0.1"
    finally:
        host.machine.write("/etc/evpn-host/config.yaml", settings)
        host.run("ip address del 10.99.0.1/24 dev nbr-14".split(), check=False)
        host.apply(later())


def test_preflight_beside_docker(host: Host, guests: Guests) -> None:
    """docs/operations.md has the output of preflight beside Docker."""
    del guests
    host.run(f"iptables -t nat -A POSTROUTING {DOCKER}".split())
    for words in DOCKER_FORWARDS:
        host.run(["iptables", *words.split()])
    host.machine.write("/root/later.json", json.dumps(later()))
    output = host.evpn_host("preflight", "-p", "/root/later.json").out
    # The iptables of Debian 12 writes the two conditions of the rule the other way round.
    device, source = 'oifname != "docker0"', "ip saddr 172.20.0.0/16"
    figures.shown("Docker", output.replace(f"{device} {source}", f"{source} {device}"))


INPUT = """
table inet filter {
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iif lo accept
    meta l4proto { icmp, ipv6-icmp } accept
    tcp dport 22 accept
  }
}
"""


@pytest.mark.claim(
    "19.7", "A firewall that drops BGP, BFD and VXLAN is named, with the rules to add"
)
def test_a_firewall_that_lets_in_what_was_asked_for(host: Host, guests: Guests) -> None:
    """`preflight` and `apply` name it, and are silent once the rule of the message is in place."""
    del guests
    host.machine.write("/root/input.nft", INPUT)
    host.run(["nft", "-f", "/root/input.nft"])
    host.machine.write("/root/later.json", json.dumps(later()))
    report = host.evpn_host("preflight", "-p", "/root/later.json", "--json", check=False).json
    [finding] = [each for each in report if "the firewall drops" in each["what"]]
    assert finding["what"] == "the firewall drops BGP, BFD, VXLAN that comes in"
    assert "udp port 4789" in finding["remedy"]
    assert finding["what"] in host.apply(later()).err
    for match in ("tcp dport 179", "udp dport { 3784, 4789 }"):
        rule = f'insert rule inet filter input iifname {{ "ens4", "ens5" }} {match} accept'
        host.run(["nft", rule])
    assert "the firewall drops" not in host.apply(later()).err
    host.run(["nft", "delete", "table", "inet", "filter"])


@pytest.fixture
def outside(host: Host) -> dict[str, tuple[Node, str, str]]:
    """Return the senders of VXLAN from outside: node, source and destination.

    The last one is a leaf, whose frames have to arrive.
    """
    names = host.run(["ip", "netns", "list"]).out.split()
    office, leaf = Node(host.machine, "office"), Node(host.machine, "leaf")
    if "office" not in names:
        _cable_outside(host, leaf)
    management = (
        Node(host.machine, "member")
        if "member" in names
        else host.pod("member", "nbr-14", "10.12.0.50/16", "10.12.0.101")
    )
    return {
        "office": (office, "192.0.2.1", "192.0.2.10"),
        "office, to the VTEP's address": (office, "192.0.2.1", VTEP),
        "office, from a VTEP's address": (office, LEAF, VTEP),
        "management V-Net": (management, "10.12.0.50", "10.12.0.101"),
        "uplink, from an address that is no VTEP's": (leaf, "198.51.100.7", VTEP),
        "leaf": (leaf, LEAF, VTEP),
    }


def _cable_outside(host: Host, leaf: Node) -> None:
    """Connect an office to ens6, and a leaf to ens4, whose loopback the host has a route to."""
    for lines in (
        "netns add office\nlink add ens6 type veth peer name eth0 netns office",
        "netns add leaf\nlink set far-ens4 netns leaf",
    ):
        host.run(["ip", "-batch", "-"], input=lines)
    host.run(["ip", "link", "set", "ens6", "up"])
    host.run("ip address replace 192.0.2.10/24 dev ens6".split())
    host.run("ip address replace 10.12.0.101/16 dev nbr-14".split())
    # The default route is not by an uplink, as while the fabric carries the management address.
    host.run("ip route replace default via 192.0.2.1 dev ens6".split())
    host.run(["ip", "route", "replace", LEAF, "dev", "ens4"])
    [nic] = host.run("ip -json link show dev ens4".split()).json
    host.run(["ip", "route", "replace", FAR, "via", LEAF, "dev", "ens4", "onlink"])
    setup = f"ip address add {LEAF}/32 dev lo; ip address add 198.51.100.7/32 dev lo"
    setup += f"; ip address add {FAR}/32 dev lo"
    setup += f"; ip link set lo up; ip link set far-ens4 up; ip route add {VTEP} dev far-ens4"
    setup += f"; ip neighbour add {VTEP} lladdr {nic['address']} dev far-ens4"
    leaf.run(["sh", "-ec", setup])
    inside = f"ip link set lo up; ip link set eth0 up; ip address add {LEAF}/32 dev lo"
    inside += f"; ip address add {THIRD}/32 dev lo; ip address add 192.0.2.1/24 dev eth0"
    inside += f"; ip route add {VTEP} via 192.0.2.10; ip route add {FAR} via 192.0.2.10"
    Node(host.machine, "office").run(["sh", "-ec", inside])
    host.run(["sysctl", "-qw", "net.ipv4.conf.ens6.rp_filter=0", "net.ipv4.conf.all.rp_filter=0"])


def arriving(guest: Node, leaf: Node, sender: Node, source: str, target: str) -> int:
    """Return how many of five frames in V-Net 60 come from a sender to a guest.

    A frame of another kind, from the leaf, ends the wait: it comes after them.
    """
    listener = guest.start(["python3", "-c", COUNT_FRAMES])
    eventually(lambda: "ready" in listener.output)
    sender.run(["python3", "-c", SEND_FRAMES, source, target, "88b5", "5"])
    leaf.run(["python3", "-c", SEND_FRAMES, LEAF, VTEP, "88b6", "1"])
    eventually(lambda: not listener.running)
    return int(listener.output.split()[-1])


@pytest.mark.claim("13.10", "VXLAN from outside the fabric enters no V-Net")
def test_vxlan_comes_from_the_fabric_alone(
    host: Host, guests: Guests, outside: dict[str, tuple[Node, str, str]]
) -> None:
    """VXLAN from an office, the management V-Net or a stranger on an uplink is dropped."""
    leaf = outside["leaf"][0]
    open_ = {name: arriving(guests.a[0], leaf, *way) for name, way in outside.items()}
    assert open_ == dict.fromkeys(outside, 5)  # `guests` has flushed the table
    host.apply(later())
    closed = {name: arriving(guests.a[0], leaf, *way) for name, way in outside.items()}
    assert closed == dict.fromkeys(outside, 0) | {"leaf": 5}


@pytest.mark.claim("13.12", "Nobody sends VXLAN through the host into V-Nets of other hosts")
def test_vxlan_is_not_forwarded(
    host: Host, guests: Guests, outside: dict[str, tuple[Node, str, str]]
) -> None:
    """Neither from an address of the office's own nor from a VTEP's; the host's own goes out."""
    del guests  # has flushed the table
    (office, _, _), (leaf, _, _) = outside["office"], outside["leaf"]

    def through(source: str) -> int:
        listener = leaf.start(["python3", "-c", COUNT_VXLAN, FAR])
        eventually(lambda: "ready" in listener.output)
        office.run(["python3", "-c", SEND_FRAMES, source, FAR, "88b5", "5"])
        host.run(["python3", "-c", SEND_FRAMES, VTEP, FAR, "88b6", "1"])
        eventually(lambda: not listener.running)
        return int(listener.output.split()[-1])

    assert [through("192.0.2.1"), through(THIRD)] == [5, 5]
    host.apply(later())
    assert [through("192.0.2.1"), through(THIRD)] == [0, 0]


@pytest.mark.claim(
    "9.10", "`apply` loads the filter of router advertisements, and `status` says if it is missing"
)
def test_advertisements_are_filtered(host: Host, guests: Guests) -> None:
    """The table for frames comes with the V-Net's advertisements, and goes with them."""
    del guests
    document = copy.deepcopy(DOCUMENT)
    [vnet] = [each for each in document["vnets"] if each["vxlanID"] == 60]
    vnet["ipv6NeighborDiscovery"] = {"mode": "enabled"}
    host.apply(document | {"generation": later()["generation"]})
    frames = "nft list table bridge evpn-host".split()
    assert host.run(frames).out.count("nd-router-advert drop") == 2
    assert "nftables" not in host.evpn_host("status", check=False).out
    host.run("nft delete table bridge evpn-host".split())
    assert "nftables: the tables evpn-host have" in host.evpn_host("status", check=False).out
    host.apply(document | {"generation": later()["generation"]})
    assert host.run(frames).out.count("nd-router-advert drop") == 2
    host.apply(later())
    assert host.run(frames, check=False).code
    assert "nftables" not in host.evpn_host("status", check=False).out


@pytest.mark.claim("17.33", "trace says what the host's firewall drops, and real packets agree")
def test_trace_says_what_is_dropped(host: Host, guests: Guests) -> None:
    """trace names rules of nftables and a policy of iptables, bridged and routed."""
    two, other = guests.a[1], guests.b[1]
    drop = "nft add rule inet mine c"
    forward = "'{ type filter hook forward priority 0; }'"
    host.run(["nft", "-f", "/etc/nftables.d/evpn-host.nft"])  # ours drops nothing of a guest
    host.run(["bash", "-c", f"nft add table inet mine; nft add chain inet mine c {forward}"])
    assert firewall(host, other.ipv4)["ok"]
    host.run(["bash", "-c", f"{drop} tcp dport 80 ip daddr 172.20.9.0/24 drop"])
    assert firewall(host, other.ipv4)["ok"] is None  # the rule drops only a part
    assert routed(guests)
    host.run(["bash", "-c", f"{drop} iifname 'Vrf_*' ip daddr 172.20.9.0/24 counter drop"])
    step = firewall(host, other.ipv4)
    assert not step["ok"]
    assert "what is routed to it: table inet mine, chain c: iifname Vrf_* ip daddr" in step["text"]
    assert not routed(guests)
    host.run(["nft", "flush", "ruleset"])
    host.run(["modprobe", "br_netfilter"])
    for each in ("iptables", "ip6tables"):
        host.run([each, "-P", "FORWARD", "DROP"])
        host.run([each, "-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT"])
    assert bridged(guests) == [False, False]
    for address in (two.ipv4, two.ipv6):
        step = firewall(host, address, "--vnet", "60")
        assert "what is bridged to it: table ip" in step["text"]
        assert step["text"].endswith("chain FORWARD: policy drop")
    page(host, "iptables", "ip6tables")
    eventually(lambda: all(bridged(guests)))
    for address in (two.ipv4, two.ipv6):
        assert firewall(host, address, "--vnet", "60")["ok"]


@pytest.mark.parametrize("tool", ["iptables", "iptables-legacy"])
@pytest.mark.claim(
    "17.34", "trace names an iptables policy that drops VXLAN, also one of iptables-legacy"
)
def test_trace_names_what_drops_vxlan(
    host: Host, guests: Guests, outside: dict[str, tuple[Node, str, str]], tool: str
) -> None:
    """trace names a server's firewall that lets in answers only, and so drops frames of a leaf."""
    leaf, source, target = outside["leaf"]
    two = guests.a[1]
    eventually(lambda: two.ping(GATEWAYS[0], count=1))  # the host knows its port
    assert firewall(host, two.ipv4, "--vnet", "60")["ok"]
    answers = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    for words in (answers, "-A INPUT -i lo -j ACCEPT", "-P INPUT DROP"):
        host.run([tool, *words.split()])
    try:
        step = firewall(host, two.ipv4, "--vnet", "60")
        by, table = ("nftables", "filter") if tool == "iptables" else (tool, f"filter ({tool})")
        place = f"table ip {table}, chain INPUT: policy drop"
        assert (step["ok"], step["text"]) == (False, f"{by} drops VXLAN from ens4: {place}")
        listener = two.start(["python3", "-c", COUNT_FRAMES])
        eventually(lambda: "ready" in listener.output)
        leaf.run(["python3", "-c", SEND_FRAMES, source, target, "88b5", "5"])
        host.run([tool, *"-I INPUT -p udp -m udp --dport 4789 -j ACCEPT".split()])
        assert firewall(host, two.ipv4, "--vnet", "60")["ok"]
        leaf.run(["python3", "-c", SEND_FRAMES, source, target, "88b6", "1"])
        eventually(lambda: not listener.running)
        assert listener.output.split()[-1] == "0"
    finally:
        host.run([tool, "-P", "INPUT", "ACCEPT"])
        host.run([tool, "-F", "INPUT"])


def firewall(host: Host, *arguments: str) -> dict[str, Any]:
    """Return the last step of `trace`."""
    answer = host.evpn_host("trace", "--json", *arguments, check=False).json
    step: dict[str, Any] = answer["steps"][-1]
    assert step["name"] == "firewall"
    return step


# Other modules that this machine needs: its operator lists them.
HARDWARE = "lsmod | awk 'NR > 1 && $1 !~ /^(nf|nft|xt|br|vxlan|vrf)/ {print $1}'"
OUR_TABLE = "nft list table inet evpn-host".split()
MODULES, LOCKED = "/etc/modules-load.d/lab.conf", "/etc/sysctl.d/99-locked.conf"


@pytest.mark.claim(
    "13.11",
    "After a power cut the packet filter is loaded again, also on a host that locks modules",
)
def test_after_a_power_cut(host: Host) -> None:
    """A unit loads the filter before module loading ends, and no command of evpn-host runs.

    The machine's disk outlives the power cut: a synced file is there, and one in memory is not.
    """
    host.evpn_host("install-units")
    hardware = host.run(["sh", "-ec", HARDWARE]).out
    assert "veth" in hardware
    assert "nf" not in hardware
    host.run(["nft", "flush", "ruleset"])  # so that apply loads it and enables the unit
    host.apply(later())
    text = "".join(f"{number}\n" for number in range(100_000))
    host.machine.write("/root/folder/file", text)
    host.machine.write("/run/file", text)
    host.machine.write(MODULES, hardware)
    host.machine.write(LOCKED, "kernel.modules_disabled = 1\n")
    host.run(["sync"])
    host.machine.reboot(hard=True)
    try:
        assert host.machine.read("/root/folder/file") == text
        assert host.run(["test", "-e", "/run/file"], check=False).code == 1
        eventually(lambda: host.run("sysctl -n kernel.modules_disabled".split()).out == "1\n")
        eventually(lambda: "th,96,24" in host.run(OUR_TABLE, check=False).out)
        assert not host.run(["systemctl", "--failed", "--plain", "--no-legend"]).out
    finally:
        host.run(["rm", MODULES, LOCKED])
        host.run(["sync"])
        host.machine.reboot(hard=True)


def test_beside_apparmor(lab: Host) -> None:
    """Debian's profiles are in force, and deny networkd, FRR and us nothing."""
    lab.run(["sh", "-c", REPOSITORY], timeout=900)
    quietly = "DEBIAN_FRONTEND=noninteractive apt-get install --yes apparmor apparmor-profiles"
    lab.run(["sh", "-c", quietly], timeout=3600)
    lab.evpn_host("install-units")
    lab.run(["sync"])
    lab.machine.reboot(hard=True)
    cable(lab)
    lab.run(["systemctl", "restart", "frr"], timeout=300)
    lab.apply(later(), "--full")
    profiles = lab.machine.read("/sys/kernel/security/apparmor/profiles")
    # Debian's testing release has no dhclient any more.
    assert "dhclient (enforce)" in profiles or lab.run(["which", "dhclient"], check=False).code
    confined = lab.run(["sh", "-c", "cat /proc/[0-9]*/attr/apparmor/current | sort -u"]).out
    assert confined.split() == ["unconfined"], confined
    assert 'apparmor="DENIED"' not in lab.run(["dmesg"]).out
    assert "nftables" not in lab.evpn_host("status", check=False).out
