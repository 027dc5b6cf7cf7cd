"""Guests that have sent nothing, or nothing for long, are reached; so is one that moved.

V-Nets 40 and 41 have gateways of both families on K8S01, on K8S02 and on every leaf. Whoever asks
for a guest of V-Net 40 is in V-Net 41, and so reaches the guest by a gateway.
"""

from __future__ import annotations

import base64
import io
import itertools
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest

from lab.build import built, debootstrap
from lab.fabric import Host, Lab, Node, Router, eventually
from tests.lab import second_host
from tests.lab.evpn import VTEP, prefixes
from tests.lab.k8s01 import DUAL, DUAL_2, bring_up, payload
from tests.lab.systems import SYSTEMS

BRIDGE, LEAF = "nbr-40", "ns-leaf-2"
GATEWAYS = {4: "10.188.4.254", 6: "fd00:188:4::254"}
GATEWAYS_41 = {4: "10.188.5.254", 6: "fd00:188:5::254"}
FAMILIES = (4, 6)
ASKERS = ("same-host", "other-host", "bare-metal")
each_family = pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
each_asker = pytest.mark.parametrize("asker", range(len(ASKERS)), ids=ASKERS)
_numbers = itertools.count(30)


class Askers(NamedTuple):
    """Members of V-Net 41 at each place, and the second host."""

    nodes: tuple[Node, Node, Node]
    second: Router


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """K8S01 as a VTEP, with two V-Nets of both families."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")  # the hook heeds the announcements of guests
    bring_up(lab, payload(DUAL, DUAL_2))
    return lab


@pytest.fixture(scope="module")
def askers(lab: Lab) -> Askers:
    """A guest of V-Net 41 here and on K8S02, and a server of it behind the third leaf."""
    second = second_host.start(lab, payload(DUAL, DUAL_2))
    near, other = (
        lab.host.pod(
            name, "nbr-41", f"10.188.5.{number}/24", GATEWAYS_41[4],
            f"fd00:188:5::{number}/64", GATEWAYS_41[6],
        )
        for name, number in (("here", 11), ("there", 12))
    )  # fmt: skip
    plug(other, lab.host, second, "nbr-41")
    server = lab.fabric.server(
        "metal", vni=41, ipv4="10.188.5.13/24", gateway=GATEWAYS_41[4],
        ipv6="fd00:188:5::13/64", gateway6=GATEWAYS_41[6],
    )  # fmt: skip
    for node, family in itertools.product((near, other, server), FAMILIES):
        eventually(partial(node.ping, GATEWAYS_41[family], count=1, family=family))
    return Askers((near, other, server), second)


def plug(guest: Node, source: Node, target: Host | Router, bridge: str = BRIDGE) -> None:
    """Move a guest's cable from one host to a bridge of another.

    It carries nothing before zebra knows its port (docs/operations.md, Limits).
    """
    port = f"veth-{guest.name}"
    source.run(["ip", "link", "set", port, "down"])
    source.run(["ip", "link", "set", port, "netns", target.name or "1"])
    target.run(["ip", "link", "set", port, "master", bridge])
    eventually(lambda: "Master interface" in target.show(f"show interface {port}"))
    target.run(["ip", "link", "set", port, "up"])


def add(guest: Node, address: str) -> None:
    """Give a guest an address, without an announcement of it."""
    length, options = (64, ["nodad"]) if ":" in address else (24, [])
    guest.run(["ip", "address", "add", f"{address}/{length}", "dev", "eth0", *options])


def address_of(guest: Node, family: int) -> str:
    """Return a guest's address of a family."""
    return guest.ipv6 if family == 6 else guest.ipv4


def silent(host: Host) -> Node:
    """Add a guest to V-Net 40 that has sent nothing with its addresses."""
    number = next(_numbers)
    name = f"guest{number}"
    host.pod(name, BRIDGE)
    guest = Node(host.machine, name, f"10.188.4.{number}", f"fd00:188:4::{number}")
    for family in FAMILIES:
        add(guest, address_of(guest, family))
        guest.run(["ip", "route", "add", "default", "via", GATEWAYS[family]])
        assert address_of(guest, family) not in neighbours(host)
    return guest


def speaking(host: Host) -> Node:
    """Add a guest that has reached its gateways, and is known to the fabric."""
    guest = silent(host)
    for family in FAMILIES:
        eventually(partial(guest.ping, GATEWAYS[family], count=1, family=family))
    return guest


def neighbours(host: Node) -> dict[str, str]:
    """Return the neighbours on the V-Net's bridge: state by address."""
    shown = host.run(["ip", "-json", "neighbour", "show", "dev", BRIDGE]).json
    return {each["dst"]: each["state"][0] for each in shown}


def announced(lab: Lab, address: str, vtep: str = VTEP) -> bool:
    """Return whether the third leaf has a route to an address by a VTEP (type 2)."""
    known = prefixes(lab.fabric.leaf(LEAF), "macip", vtep)
    return any(each.endswith(f":[{address}]") for each in known)


@contextmanager
def short_ageing(host: Host) -> Iterator[None]:
    """Have forwarding entries of the V-Net's bridge age out after a second."""
    argv = ["ip", "link", "set", BRIDGE, "type", "bridge", "ageing_time"]
    host.run([*argv, "100"])
    try:
        yield
    finally:
        host.run([*argv, "30000"])


def check_reached(asker: Node, address: str, family: int) -> None:
    """Ping until the first answer; fail if a packet is lost after it."""
    seconds = eventually(lambda: asker.ping(address, count=1, family=family))
    print(f"first answer after {seconds:.1f} s")
    ping = asker.ping(address, count=10, family=family)
    assert ping.received == ping.sent, ping


@each_family
@each_asker
@pytest.mark.claim(
    "8.3",
    "A guest that has sent nothing is reached from its host, another host and a leaf",
)
def test_a_guest_that_never_spoke(host: Host, askers: Askers, asker: int, family: int) -> None:
    """Each asker reaches a guest that has never sent a packet."""
    check_reached(askers.nodes[asker], address_of(silent(host), family), family)


@each_family
@each_asker
@pytest.mark.parametrize("known", [True, False], ids=["kernel-knows", "kernel-forgot"])
@pytest.mark.claim(
    "8.4", "A guest whose forwarding entry aged out is reached too, without any refresh"
)
def test_a_guest_that_was_silent_for_long(
    lab: Lab, host: Host, askers: Askers, asker: int, family: int, *, known: bool
) -> None:
    """A guest that EVPN has forgotten is reached, with or without the kernel's neighbour entry."""
    guest = speaking(host)
    address = address_of(guest, family)
    eventually(lambda: announced(lab, address))
    [link] = guest.run(["ip", "-json", "link", "show", "eth0"]).json
    with short_ageing(host):
        fdb = ["bridge", "fdb", "show", "br", BRIDGE]
        eventually(lambda: link["address"] not in host.run(fdb).out)
        eventually(lambda: not announced(lab, address))
    if not known:
        host.run(["ip", "neighbour", "delete", address, "dev", BRIDGE])
    check_reached(askers.nodes[asker], address, family)


@each_family
@each_asker
@pytest.mark.claim(
    "8.5", "A second address of a guest that has only used its first address is reached too"
)
def test_a_second_address(host: Host, askers: Askers, asker: int, family: int) -> None:
    """A second address is reached, although EVPN knows the guest only by its first one."""
    guest = speaking(host)
    second = f"10.188.4.{next(_numbers)}" if family == 4 else f"fd00:188:4::{next(_numbers)}"
    add(guest, second)
    check_reached(askers.nodes[asker], second, family)


@each_family
@pytest.mark.claim(
    "8.6", "A guest that arrives from another host and only announces itself is reached too"
)
def test_a_guest_that_was_migrated(host: Host, askers: Askers, family: int) -> None:
    """A guest is reached after it moved, there and back, with its old neighbour cache."""
    guest = speaking(host)
    address = address_of(guest, family)
    check_reached(askers.nodes[2], address, family)
    moves: list[tuple[Host | Router, Host | Router]] = [
        (host, askers.second),
        (askers.second, host),
    ]
    for source, target in moves:
        plug(guest, source, target)
        [bridge] = target.run(["ip", "-json", "link", "show", BRIDGE]).json
        for gateway in GATEWAYS.values():
            entry = ["lladdr", bridge["address"], "dev", "eth0", "nud", "permanent"]
            guest.run(["ip", "neighbour", "replace", gateway, *entry])
            guest.run(["ip", "route", "replace", "default", "via", gateway])
        announce(guest, address)
        for asker in askers.nodes:
            check_reached(asker, address, family)


# Announces an address from a device, with that device's MAC, twice.
ADVERTISE = """
import socket, struct, sys
mac = bytes.fromhex(open(f"/sys/class/net/{sys.argv[2]}/address").read().strip().replace(":", ""))
target = socket.inet_pton(socket.AF_INET6, sys.argv[1])
sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
sock.bind((sys.argv[1], 0))
message = struct.pack("!BBHI", 136, 0, 0, 1 << 29) + target + b"\\x02\\x01" + mac  # RFC 4861, 4.4
for _ in range(2):
    sock.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex(sys.argv[2])))
"""


def announce(guest: Node, address: str, device: str = "eth0") -> None:
    """Have a guest announce an address twice: a gratuitous ARP, or an unsolicited advertisement."""
    if ":" in address:
        script = ["python3", "-c", ADVERTISE, address, device]
        guest.machine.run(["ip", "netns", "exec", guest.name, *script])
    else:
        guest.run(["arping", "-U", "-c", "2", "-I", device, address], check=False)


FLOATING = {4: "10.188.4.200", 6: "fd00:188:4::200"}
VIRTUAL_MAC = {4: "00:00:5e:00:01:28", 6: "00:00:5e:00:02:28"}  # RFC 5798, 7.3


@each_family
@pytest.mark.parametrize("virtual", [False, True], ids=["own-mac", "virtual-mac"])
@pytest.mark.claim(
    "8.7", "A floating address (VRRP) that moves between two guests on different hosts is reached"
)
def test_a_floating_address(host: Host, askers: Askers, family: int, *, virtual: bool) -> None:
    """The address moves three times, as keepalived moves it; both guests stay.

    No host finds out by itself that its guest does not answer for the address any more.
    """
    near, far = speaking(host), silent(host)
    plug(far, host, askers.second)
    far.run(["ip", "route", "replace", "default", "via", GATEWAYS[family], "dev", "eth0"])
    eventually(partial(far.ping, GATEWAYS[family], count=1, family=family))
    address = FLOATING[family]
    device = "vrrp" if virtual else "eth0"
    if virtual:
        for guest in (near, far):
            add_virtual(guest, VIRTUAL_MAC[family])
    owners = itertools.cycle([(near, far), (far, near)])
    with ever_asking(host, askers.second):
        for owner, other in itertools.islice(owners, 4):
            take(other, address, device, away=True)
            take(owner, address, device, away=False)
            announce(owner, address, device)
            for name, asker in zip(ASKERS, askers.nodes, strict=True):
                print(f"from {name}: ", end="")
                check_reached(asker, address, family)
    host.run(["ip", "netns", "delete", near.name])
    host.run(["ip", "netns", "delete", far.name])


KEEPALIVED = """
vrrp_instance four {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 40
    priority {priority}
    virtual_ipaddress {{ {four}/32 }}
}}
vrrp_instance six {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 41
    priority {priority}
    virtual_ipaddress {{ {six}/128 }}
}}
"""


@pytest.mark.claim(
    "8.9", "When a guest's keepalived ends, its floating address is reached at the other guest"
)
def test_keepalived(lab: Lab, request: pytest.FixtureRequest, host: Host, askers: Askers) -> None:
    """Debian's keepalived moves an address between guests of two hosts."""
    suite = request.node.callspec.params["lab"][0]
    install_keepalived(lab, suite)
    near, other = speaking(host), speaking(host)
    plug(other, host, askers.second)
    processes = []
    for guest, priority in ((near, 150), (other, 100)):
        text = KEEPALIVED.format(priority=priority, four=FLOATING[4], six=FLOATING[6])
        host.machine.write(f"/root/{guest.name}.conf", text)
        files = [f"-f/root/{guest.name}.conf", f"-p/run/{guest.name}", f"-r/run/{guest.name}.vrrp"]
        library = "LD_LIBRARY_PATH=/opt/keepalived"
        argv = ["env", library, "/opt/keepalived/keepalived", "-nlP", *files]
        inside = ["ip", "netns", "exec", guest.name, *argv]
        processes.append(host.machine.start(inside))
        eventually(partial(has_both, guest if guest is near else near))
    for family, asker in itertools.product(FAMILIES, askers.nodes):
        check_reached(asker, FLOATING[family], family)
    with ever_asking(host, askers.second):
        processes[0].stop()
        eventually(partial(has_both, other))
        for family, asker in itertools.product(FAMILIES, askers.nodes):
            check_reached(asker, FLOATING[family], family)
    processes[1].stop()
    for guest in (near, other):
        host.run(["ip", "netns", "delete", guest.name])


def has_both(guest: Node) -> bool:
    """Return whether a guest has the floating address of each family."""
    [shown] = guest.run(["ip", "-json", "address", "show", "eth0"]).json
    return {*FLOATING.values()} <= {each["local"] for each in shown["addr_info"]}


def install_keepalived(lab: Lab, suite: str) -> None:
    """Put the suite's keepalived into the machine, with the library that nobody else there needs.

    It is no package of the image: one test alone has it.
    """
    extract = ["--variant=extract", "--include=keepalived"]
    tree = built(
        f"keepalived-{suite}", extract, lambda folder: debootstrap(suite, folder, *extract)
    )
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.add(tree / "usr/sbin/keepalived", "keepalived")
        for pattern in ("lib/*/libnl-genl-3.so*", "usr/lib/*/libnl-genl-3.so*", "etc/*/*opts"):
            for path in tree.glob(pattern):
                archive.add(path, path.name)
    lab.machine.write("/root/keepalived", base64.b64encode(data.getvalue()).decode())
    unpack = """
    mkdir -p /opt/keepalived /etc/keepalived
    base64 -d /root/keepalived | tar xz -C /opt/keepalived
    # From 2.3 on it ends without the file of its options (Debian 13).
    if ls /opt/keepalived/*opts; then cp /opt/keepalived/*opts /etc/keepalived; fi
    """
    lab.machine.run(["sh", "-ec", unpack])


@contextmanager
def ever_asking(*hosts: Node) -> Iterator[None]:
    """Have hosts ask a neighbour that does not answer for hours before they give it up."""
    keys = [f"net.{family}.neigh.{BRIDGE}.ucast_solicit" for family in ("ipv4", "ipv6")]
    for host in hosts:
        host.run(["sysctl", "-qw", *(f"{key}=100000" for key in keys)])
    try:
        yield
    finally:
        for host in hosts:
            host.run(["sysctl", "-qw", *(f"{key}=3" for key in keys)])


def add_virtual(guest: Node, mac: str) -> None:
    """Give a guest a device with a virtual MAC, as keepalived does with `use_vmac`."""
    guest.run(f"ip link add vrrp link eth0 address {mac} type macvlan mode bridge".split())
    # Only the device that has an address answers for it.
    settings = ["eth0.arp_ignore=1", "vrrp.arp_ignore=1", "vrrp.rp_filter=0", "all.rp_filter=0"]
    keys = [f"net.ipv4.conf.{each}" for each in settings]
    inside = ["ip", "netns", "exec", guest.name, "sysctl", "-qw"]
    guest.machine.run([*inside, *keys, "net.ipv6.conf.vrrp.autoconf=0"])


def take(guest: Node, address: str, device: str, *, away: bool) -> None:
    """Give a guest the floating address and its virtual MAC, or take both away."""
    length, nodad = (128, ["nodad"]) if ":" in address else (32, [])
    if device != "eth0" and not away:
        guest.run(["ip", "link", "set", device, "up"])
    verb = ["delete"] if away else ["add"]
    argv = ["ip", "address", *verb, f"{address}/{length}", "dev", device]
    guest.run([*argv, *([] if away else nodad)], check=not away)
    if device != "eth0" and away:
        guest.run(["ip", "link", "set", device, "down"])
