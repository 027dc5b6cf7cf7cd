"""Tenants are isolated from each other and from the host: the tests send packets and count them.

Tenants A and B use the same prefixes, addresses and MACs. V-Net 63 has no gateway.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest

from lab.fabric import Host, Lab, Node, eventually
from tests.lab.evpn import VTEP, routes
from tests.lab.k8s01 import bring_up, established, payload, resets, vnet
from tests.lab.systems import SYSTEMS

GATEWAYS = ("172.20.0.254", "fd00:20::254")
PREFIXES = ("172.20.0.254/24", "fd00:20::254/64")
MAC_A = "44:38:39:ff:00:3c"  # of the gateway in V-Net 60
GUEST_MAC, SERVER_MAC = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
DOCUMENT = payload(
    vnet(60, 50, *PREFIXES),
    vnet(61, 51, *PREFIXES),
    vnet(62, 51, "172.20.9.254/24"),
    vnet(63, 51),
    vpcs=({"id": 50, "name": "A", "vni": 1050}, {"id": 51, "name": "B", "vni": 1051}),
)


class Tenant(NamedTuple):
    """A tenant's guest on the host, and its server behind the third leaf."""

    guest: Node
    server: Node


class Tenants(NamedTuple):
    """Two tenants, and a server in a network that only B has."""

    a: Tenant
    b: Tenant
    only_b: Node


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP of two tenants."""
    lab: Lab = fresh_lab(*request.param)
    bring_up(lab, DOCUMENT)
    return lab


@pytest.fixture(scope="module")
def tenants(lab: Lab) -> Tenants:
    """Tenants that differ only in their VPC."""
    return settle(lab)


def settle(lab: Lab) -> Tenants:
    """Create the tenants' guests and servers, and wait until they reach each other."""
    a, b = (_tenant(lab, name, vni) for name, vni in (("a", 60), ("b", 61)))
    only_b = lab.fabric.server("only-b", vni=62, ipv4="172.20.9.20/24", gateway="172.20.9.254")
    greet(only_b)
    eventually(lambda: b.guest.ping(only_b, count=1))
    return Tenants(a, b, only_b)


def greet(only_b: Node) -> None:
    """Let the server ping its gateway: a leaf does not announce a server that is silent."""
    eventually(lambda: only_b.ping("172.20.9.254", count=1))


def _tenant(lab: Lab, name: str, vni: int) -> Tenant:
    """Create a tenant's guest and server, and wait until they reach each other."""
    v4, v6 = GATEWAYS
    server = lab.fabric.server(
        f"{name}-server", vni=vni, mac=SERVER_MAC,
        ipv4="172.20.0.20/24", gateway=v4, ipv6="fd00:20::20/64", gateway6=v6,
    )  # fmt: skip
    pod = lab.host.pod(
        f"{name}-guest", f"nbr-{vni}", "172.20.0.10/24", v4, "fd00:20::10/64", v6, mac=GUEST_MAC
    )
    for node in (server, pod):
        eventually(partial(node.ping, v4, count=1))
        eventually(partial(node.ping, v6, count=1, family=6))
    eventually(lambda: pod.ping(server, count=1) and pod.ping(server, count=1, family=6))
    return Tenant(pod, server)


def echoes(node: Node) -> int:
    """Count the echo requests of both families that a node has accepted."""
    lines = [line.split() for line in node.run(["cat", "/proc/net/snmp"]).out.splitlines()]
    names, values = (line for line in lines if line[0] == "Icmp:")
    icmp6 = dict(line.split() for line in node.run(["cat", "/proc/net/snmp6"]).out.splitlines())
    return int(values[names.index("InEchos")]) + int(icmp6["Icmp6InEchos"])


@contextmanager
def hears(node: Node, count: int) -> Iterator[None]:
    """Fail unless the node receives exactly so many echo requests during the block."""
    before = echoes(node)
    yield
    received = echoes(node) - before
    assert received == count, (
        f"{node.name or 'the host'} received {received} echo requests, not {count}"
    )


@contextmanager
def guest(host: Host, name: str, vni: int, *addresses: str, mac: str = "") -> Iterator[Node]:
    """Add an attacking guest for the block; afterwards remove it."""
    try:
        pod = host.pod(name, f"nbr-{vni}", "172.20.0.66/24", GATEWAYS[0], mac=mac)
        for address in addresses:
            pod.run(["ip", "address", "add", address, "dev", "eth0", "nodad"])
        yield pod
    finally:
        host.run(["ip", "netns", "delete", name], check=False)


@pytest.mark.claim("13.2", "Two V-Nets may have the same addresses and the same MACs")
def test_same_addresses_and_macs_in_two_vnets(host: Host, tenants: Tenants) -> None:
    """Each guest reaches its own server, bridged, in both families; the other receives nothing."""
    for tenant, other in ((tenants.a, tenants.b), (tenants.b, tenants.a)):
        with hears(tenant.server, 8), hears(other.server, 0), hears(other.guest, 0):
            assert tenant.guest.ping(tenant.server, count=4)
            assert tenant.guest.ping(tenant.server, count=4, family=6)
        with hears(tenant.guest, 8), hears(other.guest, 0):
            assert tenant.server.ping(tenant.guest, count=4)
            assert tenant.server.ping(tenant.guest, count=4, family=6)
    for vni in (60, 61):
        eventually(partial(_knows_server, host, vni))
        entries = host.run(["bridge", "-json", "fdb", "show", "br", f"nbr-{vni}"]).json
        assert GUEST_MAC in {each["mac"] for each in entries}


def _knows_server(host: Host, vni: int) -> bool:
    """Return whether the host knows the server's VTEP (type 2) and where it must flood (type 3)."""
    entries = host.run(["bridge", "-json", "fdb", "show", "dev", f"vxlan{vni}"]).json
    return {each["mac"] for each in entries if each.get("dst") == "10.2.0.3"} > {SERVER_MAC}


@pytest.mark.claim(
    "13.3", "A guest that claims its gateway's address disturbs neither host nor fabric"
)
def test_a_guest_claims_its_gateway(lab: Lab, tenants: Tenants) -> None:
    """A guest uses the gateway's address and MAC: nobody loses the gateway, and no route shows it.

    On its own Ethernet segment a guest can deceive its neighbours, as on any (docs/isolation.md).
    """
    host, far = lab.host, lab.fabric.leaf("ns-leaf-2")
    a = tenants.a
    with (
        guest(host, "mallory", 60, PREFIXES[0], PREFIXES[1], mac=MAC_A) as mallory,
        a.guest.pinging(GATEWAYS[0]) as v4,
        a.guest.pinging(GATEWAYS[1], family=6) as v6,
        a.server.pinging(GATEWAYS[0]) as remote,
        a.guest.pinging(a.server) as bridged,
    ):
        arping = ["arping", "-c", "4", "-w", "4", "-I", "eth0"]
        mallory.run([*arping, "-U", GATEWAYS[0]], check=False)
        mallory.run([*arping, "-A", GATEWAYS[0]], check=False)
        mallory.ping(a.guest, count=3)
        [entry] = [
            each
            for each in host.run(["bridge", "-json", "fdb", "show", "br", "nbr-60"]).json
            if each["mac"] == MAC_A and each.get("vlan", 0) == 0 and "dst" not in each
        ]
        assert entry["state"] == "permanent"
        assert not [each for each in routes(far, "macip") if MAC_A in each.prefix]
    for each in (v4, v6, remote, bridged):
        assert each.result.sent > 100
        assert each.result, each.result


@pytest.mark.claim("13.4", "A guest that takes another tenant's address gets none of its traffic")
def test_a_guest_takes_another_tenants_address(host: Host, tenants: Tenants) -> None:
    """A guest of A claims the address of B's server: B still reaches the server, A never does."""
    address = tenants.only_b.ipv4
    greet(tenants.only_b)
    # FRR forgets a VTEP's router MAC with its last IPv6 route (docs/operations.md, Limits). So let
    # the fabric learn the server's IPv6 address.
    eventually(
        lambda: (
            tenants.b.server.ping(GATEWAYS[1], count=1, family=6)
            and tenants.b.guest.ping(address, count=1)
        )
    )
    with (
        guest(host, "mallory", 60, f"{address}/24") as mallory,
        tenants.b.guest.pinging(address) as b,
    ):
        for options in (["-U"], ["-A"]):
            mallory.run(["arping", "-c", "3", "-I", "eth0", *options, address], check=False)
        with hears(tenants.b.server, 0), hears(tenants.b.guest, 0):
            mallory.run(["ping", "-c", "3", "-W", "1", "-I", address, GATEWAYS[0]], check=False)
            mallory.run(["ping", "-c", "3", "-W", "1", "-I", address, "172.20.9.254"], check=False)
        assert not tenants.a.guest.ping("172.20.9.254", count=2).received
    assert b.result.sent > 100
    assert b.result, b.result


# --- VXLAN from a guest ---

SEND = """
import socket, sys
source, target, text = sys.argv[1:]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((source, 0))
for _ in range(5):
    udp.sendto(bytes.fromhex(text), (target, 4789))
"""


def vxlan(vni: int, target: Node, mac: str) -> str:
    """Return a VXLAN packet (RFC 7348) with an echo request to a node, as hexadecimal digits."""
    data = b"\x08\x00\x00\x00\x00\x01\x00\x01"
    icmp = data[:2] + struct.pack("!H", _checksum(data)) + data[4:]
    source, destination = (bytes(map(int, ip.split("."))) for ip in ("172.20.0.77", target.ipv4))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0) + source + destination
    ip = head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + icmp
    ethernet = bytes.fromhex(mac.replace(":", "")) + b"\x02\x00\x00\x00\x00\x77\x08\x00"
    return (struct.pack("!II", 1 << 27, vni << 8) + ethernet + ip).hex()


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def inject(node: Node, source: str, target: str, packet: str) -> None:
    """Let a node send a VXLAN packet five times to a VTEP's port."""
    node.run(["python3", "-c", SEND, source, target, packet], check=False)


@pytest.mark.claim("13.5", "A guest that sends VXLAN, or takes a VTEP's address, reaches no V-Net")
def test_a_guest_sends_vxlan(lab: Lab, tenants: Tenants) -> None:
    """A guest's VXLAN packets reach no guest of another tenant, whatever their addresses."""
    host, leaf = lab.host, lab.fabric.leaf("ns-leaf-2")
    b = tenants.b.guest
    packet = vxlan(61, b, GUEST_MAC)
    with hears(b, 5):  # the packet is right: from a VTEP of the fabric it arrives
        before = echoes(b)
        inject(leaf, leaf.ipv4, VTEP, packet)
        eventually(lambda: echoes(b) >= before + 5)
    spoofed = ("10.2.0.3/32", f"{VTEP}/32")
    for vni in (60, 63):
        with (
            guest(host, "mallory", vni, *spoofed) as mallory,
            hears(b, 0),
            hears(tenants.b.server, 0),
        ):
            # The guest has the VTEPs' addresses too. Without these changes of its routes a packet
            # to a VTEP would go to the guest itself.
            [bridge] = host.run(["ip", "-json", "link", "show", f"nbr-{vni}"]).json
            targets = (GATEWAYS[0], VTEP, "10.2.0.3", "172.20.0.20")
            for target in targets:
                mallory.run(["ip", "route", "del", "local", target, "table", "local"], check=False)
                mallory.run(["ip", "route", "replace", target, "dev", "eth0"])
                neighbour = ["lladdr", bridge["address"], "dev", "eth0", "nud", "permanent"]
                mallory.run(["ip", "neigh", "replace", target, *neighbour])
                for source in ("172.20.0.66", "10.2.0.3", VTEP):
                    inject(mallory, source, target, packet)
            assert not mallory.ping("10.2.0.1", count=2).received
    assert established(host) == {"ens4", "ens5"}
    assert tenants.a.guest.ping(tenants.a.server)
    assert b.ping(tenants.b.server)


# --- Services of the host ---

LISTEN = """
import socket, threading
tcp = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.bind(("::", 8081))
print("ready", flush=True)
def tell():
    while True:
        print("UDP from", udp.recvfrom(100), flush=True)
threading.Thread(target=tell, daemon=True).start()
while True:
    peer, address = tcp.accept()
    print("TCP from", address, flush=True)
    peer.close()
"""
KNOCK = """
import socket, sys
for address in sys.argv[1:]:
    try:
        family, _, _, _, to = socket.getaddrinfo(address, 8081, type=socket.SOCK_DGRAM)[0]
        socket.socket(family, socket.SOCK_DGRAM).sendto(b"knock", to)
        socket.create_connection((address, 8080), 0.5)
    except OSError:
        pass
"""


@pytest.mark.claim("13.6", "A guest reaches no service of the host, on any of its addresses")
def test_a_guest_knocks_at_the_hosts_services(host: Host, tenants: Tenants) -> None:
    """No service of the host hears a guest, on any address of either family."""
    listener = host.start(["python3", "-u", "-c", LISTEN])
    try:
        eventually(lambda: "ready" in listener.output)
        host.run(["python3", "-c", KNOCK, "127.0.0.1", "::1"])  # proves that the services listen
        eventually(lambda: listener.output.count("TCP") == 2 and listener.output.count("UDP") == 2)
        own = host.run(["ip", "-json", "address"]).json
        v4, v6 = set(), {"ff02::1%eth0", "ff02::2%eth0"}
        for device in own:
            for each in device["addr_info"]:
                if each["family"] == "inet":
                    v4.add(each["local"])
                else:
                    link = each["scope"] == "link"
                    v6.add(f"{each['local']}%eth0" if link else each["local"])
        v4 |= {"172.20.0.255", "255.255.255.255"}
        assert {GATEWAYS[0], VTEP, "10.12.0.101", "192.0.2.10"} <= v4
        assert GATEWAYS[1] in v6
        assert len([each for each in v6 if each.startswith("fe80")]) >= 3
        for node in (tenants.a.guest, tenants.a.server):
            node.run(["python3", "-c", KNOCK, *sorted(v4 | v6)], timeout=120)
        with guest(host, "flat", 63) as flat:
            flat.run(["python3", "-c", KNOCK, *sorted(v4 | v6)], timeout=120)
        assert (listener.output.count("TCP"), listener.output.count("UDP")) == (2, 2), (
            listener.output
        )
        assert tenants.a.guest.ping(GATEWAYS[0])
    finally:
        listener.stop()


BGP = """
import socket, sys
for address in sys.argv[1:] * 20:
    try:
        peer = socket.create_connection((address, 179), 5)
    except ConnectionRefusedError:
        print("refused", flush=True)
        continue
    peer.settimeout(5)
    try:
        peer.sendall(bytes.fromhex("ff" * 16 + "001d01" + "04fa5600b4ac14000a00"))  # RFC 4271, 4.2
        answer = peer.recv(100)
    except ConnectionResetError:
        answer = b""
    print("closed" if answer == b"" else answer, flush=True)
"""


@pytest.mark.claim(
    "13.7", "FRR closes a tenant's BGP connection unanswered, or does not listen in its VRF"
)
def test_a_guest_speaks_bgp_to_its_gateway(host: Host, tenants: Tenants) -> None:
    """A guest's OPEN gets no answer, makes no peer and resets no session (docs/isolation.md)."""
    before = resets(host)
    node = tenants.a.guest
    answers = node.run(["python3", "-u", "-c", BGP, *GATEWAYS]).out.split("\n")
    # From 10.5 on bgpd does not listen in a VRF that has no neighbors.
    assert answers in (["closed"] * 40 + [""], ["refused"] * 40 + [""])
    bfd = b"\x20\x40\x03\x18" + bytes(20)  # RFC 5880, 4.1
    node.run(["python3", "-c", SEND.replace("4789", "3784"), node.ipv4, GATEWAYS[0], bfd.hex()])
    assert resets(host) == before
    assert established(host) == {"ens4", "ens5"}
    assert host.show("show bfd peers json") == []
    assert not host.show("show bgp vrf Vrf_50 summary json").get("ipv4Unicast", {}).get("peers")
