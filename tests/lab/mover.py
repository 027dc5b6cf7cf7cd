"""A guest that moves between hosts and leaves as a VM does in a live migration.

The guest's cable ends in a namespace of its own, whose bridge connects it to one place at a time.
So the guest keeps its carrier, its addresses and its neighbours, as a VM does. Its port at the next
place is there before it arrives, and its port at the last place goes down after it has left.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

from lab.fabric import Host, Lab, Node, Router, eventually
from tests.lab.evpn import all_routes

Announcement = Literal["rarp", "garp"]
NAME, WIRE, PORT = "mover", "wire", "port-mover"
MAC, IPV4, IPV6 = "02:00:00:00:40:99", "10.188.4.99", "fd00:188:4::99"
VNI = 40

# What is sent after a migration: by QEMU (net/announce.c) a RARP request; by the guest's kernel, if
# QEMU asks it to (NETDEV_NOTIFY_PEERS), a gratuitous ARP and an unsolicited advertisement. Both are
# sent five times, with pauses of 50, 150, 250 and 350 ms.
ANNOUNCE = """
import socket, struct, sys, time
what, ipv4, ipv6 = sys.argv[1:]
mac = bytes.fromhex(open("/sys/class/net/eth0/address").read().strip().replace(":", ""))
ether = b"\\xff" * 6 + mac
packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
packet.bind(("eth0", 0))
icmp = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
icmp.bind((ipv6, 0))
own4, own6 = socket.inet_pton(socket.AF_INET, ipv4), socket.inet_pton(socket.AF_INET6, ipv6)
rarp = ether + struct.pack("!HHHBBH", 0x8035, 1, 0x0800, 6, 4, 3) + (mac + bytes(4)) * 2
garp = ether + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + mac + own4 + bytes(6) + own4
advertisement = struct.pack("!BBHI", 136, 0, 0, 1 << 29) + own6 + b"\\x02\\x01" + mac
group = ("ff02::1", 0, 0, socket.if_nametoindex("eth0"))
for pause in (0, 0.05, 0.15, 0.25, 0.35):
    time.sleep(pause)
    if what == "rarp":
        packet.send(rarp)
    else:
        packet.send(garp)
        icmp.sendto(advertisement, group)
"""


class Place(NamedTuple):
    """A VTEP where the guest can be."""

    router: Host | Router
    bridge: str
    vxlan: str
    vtep: str


class Mover:
    """The guest, and the places between which it moves; it begins at the first one."""

    def __init__(self, lab: Lab, places: Sequence[Place], gateways: Sequence[str]) -> None:
        """Make the guest, and a port for it at each place."""
        self.places = places
        self.at = 0
        self.moves = 0
        self._machine = lab.machine
        lines = [
            f"netns add {NAME}",
            f"netns add {WIRE}",
            f"link add eth0 address {MAC} netns {NAME} type veth peer name guest netns {WIRE}",
        ]
        for number, place in enumerate(places):
            end = f"name {PORT} netns {place.router.name or 1}"
            lines.append(f"link add to{number} netns {WIRE} type veth peer {end}")
        lab.host.run(["ip", "-batch", "-"], input="\n".join(lines))
        # It sends nothing of its own: this bridge stands for the tap between QEMU and the guest.
        lab.host.run(
            ["ip", "netns", "exec", WIRE, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]
        )
        self._wire("link add sw type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        self._wire("link set sw up", "link set guest master sw up")
        self._wire(*(f"link set to{number} up" for number in range(len(places))))
        for place in places:
            place.router.run(["ip", "link", "set", PORT, "master", place.bridge])
            eventually(partial(_known, place.router))
        self.node = Node(lab.machine, NAME, IPV4, IPV6)
        addresses = (f"{IPV4}/24", f"{IPV6}/64")
        self.node.run(["ip", "link", "set", "eth0", "up"])
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            self.node.run(["ip", "address", "add", address, "dev", "eth0", *nodad])
        for gateway in gateways:
            self.node.run(["ip", "route", "add", "default", "via", gateway])
        self._wire("link set to0 master sw")
        self.place.router.run(["ip", "link", "set", PORT, "up"])

    @property
    def place(self) -> Place:
        """The place of the guest."""
        return self.places[self.at]

    def move(self, number: int, announcement: Announcement) -> None:
        """Move the guest to another place, and have it announced there."""
        before, self.at = self.place, number
        self.place.router.run(["ip", "link", "set", PORT, "up"])
        leave = f"link set to{self.places.index(before)} nomaster"
        self._wire(leave, f"link set to{number} master sw")
        script = ["python3", "-c", ANNOUNCE, announcement, IPV4, IPV6]
        self._machine.run(["ip", "netns", "exec", NAME, *script])
        before.router.run(["ip", "link", "set", PORT, "down"])
        self.moves += 1

    def travel(self, moves: int, interval: float, announcement: Announcement) -> None:
        """Move so often, with so many seconds from one move to the next, and never back at once."""
        orders = (1, 2)  # to the next place for a while, then the other way round
        for number in range(moves):
            start = time.monotonic()
            self.move((self.at + orders[number // 6 % 2]) % len(self.places), announcement)
            time.sleep(max(0.0, interval - (time.monotonic() - start)))

    def _wire(self, *lines: str) -> None:
        self._machine.run(["ip", "-n", WIRE, "-batch", "-"], input="\n".join(lines))


def _known(router: Host | Router) -> bool:
    """Return whether zebra knows that the guest's port is in a bridge."""
    return "Master" in router.show(f"show interface {PORT}")


def wrong_entries(mover: Mover, place: Place) -> list[str]:
    """Return the entries of a VTEP that lead to a wrong place of the guest."""
    router, here = place.router, place is mover.place
    wrong = []
    entries = router.run(["bridge", "-json", "fdb", "show", "br", place.bridge]).json
    # Copies in VLAN 1 do not count, nor the VXLAN port's own entry while the guest is here.
    ours = [each for each in entries if each["mac"] == MAC and "vlan" not in each]
    ports = {each["ifname"] for each in ours if "master" in each}
    vteps = {each["dst"] for each in ours if "dst" in each}
    right = ports == {PORT} if here else (ports, vteps) == ({place.vxlan}, {mover.place.vtep})
    if not right:
        wrong.append(f"forwarding entries: {ours}")
    known = router.show(f"show evpn mac vni {VNI} mac {MAC} json").get(MAC, {})
    wrong += _wrong("MAC", known, mover, here=here)
    for address in (IPV4, IPV6):
        [neighbour] = router.run(
            ["ip", "-json", "neigh", "show", address, "dev", place.bridge]
        ).json or [{}]
        learned = "extern_learn" in neighbour
        if neighbour.get("lladdr") != MAC or learned == here:
            wrong.append(f"neighbour {address}: {neighbour}")
        cached = router.show(f"show evpn arp-cache vni {VNI} ip {address} json")
        if cached.get("mac") != MAC:
            wrong.append(f"address {address}: {cached}")
        wrong += _wrong(address, cached, mover, here=here)
    return wrong


def _wrong(entry: str, known: dict[str, object], mover: Mover, *, here: bool) -> list[str]:
    """Return where FRR believes the guest to be, if that is wrong."""
    if here:
        right = known.get("type") == "local" and "remoteVtep" not in known
    else:
        right = known.get("type") == "remote" and known.get("remoteVtep") == mover.place.vtep
    return [] if right else [f"{entry}: {known}"]


def announcing_vteps(router: Router | Host) -> dict[str, set[tuple[str, int]]]:
    """Return for each address the VTEPs that announce it to a router, with sequence numbers."""
    routes = [each for each in all_routes(router, "macip") if MAC in each.prefix]
    return {
        address: {(each.vtep, each.sequence) for each in routes if f"[{address}]" in each.prefix}
        for address in (IPV4, IPV6)
    }
