"""Asks FRR's daemons over their vty sockets, as vtysh does, without starting a process.

A request is a line of text ended by NUL; the answer ends with three NULs and a status byte
(FRR's vtysh/vtysh.c, lib/vty.c). A daemon's answer to `terminal monitor` passes a socket, over
which it sends each message that it logs (lib/zlog_live.c).
"""

import contextlib
import os
import select
import socket
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")

_END = b"\0\0\0"
TIMEOUT = 5.0  # seconds until a daemon that does not answer counts as hung


class Silent(Exception):
    """A daemon of FRR does not run, or does not answer in time."""


class Vty:
    """A connection to a daemon of FRR that stays open: the cheapest way to ask often."""

    def __init__(self, daemon: str, root: Path = Path("/"), timeout: float = TIMEOUT) -> None:
        self._name = daemon
        self._path = root / "run/frr" / f"{daemon}.vty"
        self._timeout = timeout
        self._sock: socket.socket | None = None
        self._log: socket.socket | None = None

    def ask(self, command: str) -> str:
        """Return the text that `command` prints. Raises `Silent`."""
        try:
            if self._sock is None or _closed(self._sock):
                self._connect()
            return self._ask(command).decode(errors="replace")
        except OSError as error:
            self.close()
            reason = error.strerror or "no answer in time"
            raise Silent(f"FRR's {self._name} does not answer: {self._path}: {reason}") from None

    def close(self) -> None:
        """End the connection; the next question makes another."""
        for sock in (self._sock, self._log):
            if sock:
                sock.close()
        self._sock = self._log = None

    def log(self) -> socket.socket | None:
        """Return a socket that is readable when the daemon has logged something, None without one.

        It is closed with the connection, and so when the daemon ends.
        """
        if self._sock and not self._log:
            with contextlib.suppress(OSError):
                self._log = self._monitor(self._sock)
        return self._log

    def read(self) -> bytes:
        """Return what was logged since the last call; if the daemon has ended, close all."""
        text = bytearray()
        with contextlib.suppress(BlockingIOError):
            while self._log:
                if message := self._log.recv(1 << 14):
                    text += message
                else:
                    self.close()
        return bytes(text)

    @staticmethod
    def _monitor(sock: socket.socket) -> socket.socket | None:
        sock.sendall(b"terminal monitor\0")
        data, passed = b"", list[int]()
        while len(data) < 4 or data[-4:-1] != _END:
            more, descriptors, *_ = socket.recv_fds(sock, 1 << 12, 1)
            passed += descriptors
            if not more:
                break
            data += more
        if not passed:
            return None
        for descriptor in passed[1:]:
            os.close(descriptor)
        log = socket.socket(fileno=passed[0])
        log.setblocking(False)
        return log

    def _connect(self) -> None:
        self.close()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(self._timeout)
        self._sock.connect(str(self._path))
        self._ask("enable")

    def _ask(self, line: str) -> bytes:
        if self._sock is None:
            raise ConnectionResetError(None, "is not connected")
        self._sock.sendall(line.encode() + b"\0")
        data = bytearray()
        while len(data) < 4 or data[-4:-1] != _END:
            more = self._sock.recv(1 << 16)
            if not more:
                raise ConnectionResetError(None, "closed the connection")
            data += more
        return bytes(data[:-4])


def _closed(sock: socket.socket) -> bool:
    """Whether the daemon has closed the connection, because it was restarted."""
    return bool(select.select([sock], [], [], 0)[0])


def ask(daemon: str, command: str, root: Path = Path("/"), timeout: float = TIMEOUT) -> str:
    """Return the text that `command` prints in `zebra`, `bgpd` or another daemon.

    Raises `Silent`.
    """
    vty = Vty(daemon, root, timeout)
    try:
        return vty.ask(command)
    finally:
        vty.close()


def show(daemon: str, command: str, type_: type[T], root: Path) -> T:
    """Return what a `show … json` command prints, decoded as `type_`. Raises `Silent`."""
    return _decode(ask(daemon, command, root), command, type_)


def _decode(text: str, command: str, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(text or "{}", type=type_)
    except msgspec.DecodeError as error:
        raise Silent(f"FRR's answer to {command} can't be read: {error}") from None


# The parts of FRR's answers that are read here. A field that a version lacks has its default.


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    """Part of an answer of FRR in JSON."""


class _Peer(_Answer, frozen=True):
    """A neighbor of one address family in `show bgp summary json`."""

    state: str = "absent"
    connections_dropped: int = 0  # how often it went down
    # Seconds since the epoch: when it went up, or down if it is down (bgp_stop of bgp_fsm.c).
    peer_uptime_established_epoch: int = 0


class _Peers(_Answer, frozen=True):
    """An address family in `show bgp summary json`."""

    peers: dict[str, _Peer] = {}


class _Summary(_Answer, frozen=True):
    """`show bgp summary json`."""

    ipv4_unicast: _Peers = _Peers()
    l2vpn_evpn: _Peers = msgspec.field(default=_Peers(), name="l2VpnEvpn")


class _Neighbor(_Answer, frozen=True):
    """A neighbor in `show bgp neighbors NAME json`."""

    bgp_state: str = ""
    nexthop_global: str = ""
    remote_router_id: str = ""
    hostname: str = ""  # the name that it sends (draft-walton-bgp-hostname-capability)


class _Instance(_Answer, frozen=True):
    """`show bgp vrf default json`."""

    local_as: int | None = msgspec.field(default=None, name="localAS")


class EvpnVni(_Answer, frozen=True):
    """A VNI in `show evpn vni json`."""

    type: str | None = None  # "L2" or "L3"
    tenant_vrf: str | None = None


class NextHop(_Answer, frozen=True):
    """A next hop in `show ip route bgp json`."""

    ip: str = ""
    interface_name: str = ""
    weight: int = 1
    fib: bool = False  # whether it is in the kernel


class Route(_Answer, frozen=True):
    """A route in `show ip route bgp json`."""

    selected: bool = False
    installed: bool = False
    nexthops: list[NextHop] = []


class Interface(_Answer, frozen=True):
    """An interface in `show interface vrf all brief json`."""

    addresses: list[str] = []


class _Community(_Answer, frozen=True):
    """Extended communities of a path."""

    string: str = ""


class BgpPath(_Answer, frozen=True):
    """A path in `show bgp … PREFIX json`."""

    extended_community: _Community = _Community()
    nexthops: list[NextHop] = []


class _Paths(_Answer, frozen=True):
    """`show bgp … PREFIX json`."""

    paths: list[BgpPath] = []


class _EvpnNextHop(_Answer, frozen=True):
    """A router in `show evpn next-hops vni VNI json`."""

    router_mac: str | None = None


class Session(msgspec.Struct, frozen=True):
    """A BGP session of the underlay, and what it carries."""

    neighbor: str
    ipv4: str  # state, as FRR names it: Established, Active, Idle, …
    evpn: str
    # When a session that was up went down, seconds since the epoch; None: it is up, or never was.
    down_since: float | None = None

    @property
    def established(self) -> bool:
        """Whether the fabric can be reached through it: EVPN routes are exchanged."""
        return self.evpn == "Established"


def sessions(root: Path = Path("/"), timeout: float = TIMEOUT) -> dict[str, Session]:
    """Return the default VRF's sessions by neighbor. Raises `Silent`."""
    vty = Vty("bgpd", root, timeout)
    try:
        return summary(vty)
    finally:
        vty.close()


def summary(bgpd: Vty) -> dict[str, Session]:
    """Return the default VRF's sessions by neighbor, over an open connection. Raises `Silent`."""
    command = "show bgp summary json"
    answer = _decode(bgpd.ask(command), command, _Summary)
    ipv4, evpn = answer.ipv4_unicast.peers, answer.l2vpn_evpn.peers
    absent = _Peer()
    return {
        name: Session(
            name,
            ipv4.get(name, absent).state,
            evpn.get(name, absent).state,
            _down_since(evpn.get(name, absent)),
        )
        for name in sorted({*ipv4, *evpn})
    }


def _down_since(peer: _Peer) -> float | None:
    if peer.state == "Established" or not peer.connections_dropped:
        return None
    return peer.peer_uptime_established_epoch or None


def next_hop(bgpd: Vty, neighbor: str) -> str:
    """Return the IPv6 next hop that bgpd sends to an unnumbered neighbor, "" without a session.

    Raises `Silent`.
    """
    command = f"show bgp neighbors {neighbor} json"
    # Instead of neighbors there may be `"bgpNoSuchNeighbor": true`.
    answer = _decode(bgpd.ask(command), command, dict[str, _Neighbor | bool | str])
    shown = answer.get(neighbor)
    return shown.nexthop_global if isinstance(shown, _Neighbor) else ""


def router_ids(root: Path) -> set[str]:
    """Return the BGP identifiers of the neighbors with a session. Raises `Silent`."""
    answer = show("bgpd", "show bgp neighbors json", dict[str, _Neighbor], root)
    identifiers = {neighbor.remote_router_id for neighbor in answer.values()}
    return identifiers - {"", "0.0.0.0"}  # noqa: S104  # of a neighbor without a session


def hostnames(root: Path) -> dict[str, str]:
    """Return the host names that neighbors with a session send, by neighbor. Raises `Silent`."""
    answer = show("bgpd", "show bgp neighbors json", dict[str, _Neighbor], root)
    unknown = {"", "Unknown"}  # without the capability. bgpd keeps the name of an ended session.
    up = {name: peer for name, peer in answer.items() if peer.bgp_state == "Established"}
    return {name: peer.hostname for name, peer in up.items() if peer.hostname not in unknown}


def local_as(root: Path) -> int | None:
    """Return the AS number with which bgpd runs. Raises `Silent`."""
    return show("bgpd", "show bgp vrf default json", _Instance, root).local_as


def vnis(root: Path) -> dict[int, EvpnVni]:
    """Return the VNIs that zebra knows. Raises `Silent`."""
    return show("zebra", "show evpn vni json", dict[int, EvpnVni], root)


def underlay_routes(family: str, root: Path) -> dict[str, list[Route]]:
    """Return BGP's routes outside VRFs by prefix; `family`: `ip` or `ipv6`. Raises `Silent`."""
    return show("zebra", f"show {family} route bgp json", dict[str, list[Route]], root)


def interfaces(root: Path) -> dict[str, Interface]:
    """Return the interfaces of all VRFs by name. Raises `Silent`."""
    return show("zebra", "show interface vrf all brief json", dict[str, Interface], root)


def paths(vrf: str, prefix: str, root: Path) -> list[BgpPath]:
    """Return BGP's paths to a prefix in a tenant's VRF. Raises `Silent`."""
    family = "ipv6" if ":" in prefix else "ipv4"
    command = f"show bgp vrf {vrf} {family} unicast {prefix} json"
    return show("bgpd", command, _Paths, root).paths


def router_mac(vni: int | None, address: str, root: Path) -> str | None:
    """Return the MAC that zebra knows for a router of an L3VNI. Raises `Silent`."""
    command = f"show evpn next-hops vni {vni} json"
    # The answer also has the number of routers.
    answer = show("zebra", command, dict[str, _EvpnNextHop | int | str], root)
    shown = answer.get(address)
    return shown.router_mac if isinstance(shown, _EvpnNextHop) else None
