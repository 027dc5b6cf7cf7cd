"""FRR asked over its daemons' vty sockets: what vtysh does, without starting a process.

A request is a line of text ended by NUL; the answer ends with three NULs and a status byte
(FRR's vtysh/vtysh.c, lib/vty.c). What a daemon logs comes over a socket that it passes along with
its answer to `terminal monitor`, a message each (lib/zlog_live.c).
"""

import contextlib
import os
import select
import socket
from pathlib import Path
from typing import Any

import msgspec

_END = b"\0\0\0"
TIMEOUT = 5.0  # seconds until a daemon that does not answer counts as hung


class Silent(Exception):
    """A daemon of FRR is not there or does not answer in time."""


class Vty:
    """A daemon of FRR, asked over one connection that stays: the cheapest way to ask often."""

    def __init__(self, daemon: str, root: Path = Path("/"), timeout: float = TIMEOUT) -> None:
        self._name = daemon
        self._path = root / "run/frr" / f"{daemon}.vty"
        self._timeout = timeout
        self._sock: socket.socket | None = None
        self._log: socket.socket | None = None

    def ask(self, command: str) -> str:
        """The text that `command` prints. Raises `Silent`."""
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
        """What the daemon logs from now on, to wait for and then to `read`; None: it can't be had.

        It ends with the connection, and so with the daemon.
        """
        if self._sock and not self._log:
            with contextlib.suppress(OSError):
                self._log = self._monitor(self._sock)
        return self._log

    def read(self) -> bytes:
        """What was logged since. When the daemon is gone the connection is closed."""
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
            more, found, *_ = socket.recv_fds(sock, 1 << 12, 1)
            passed += found
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
    """Whether the other side has gone: a daemon that was restarted."""
    return bool(select.select([sock], [], [], 0)[0])


def ask(daemon: str, command: str, root: Path = Path("/"), timeout: float = TIMEOUT) -> str:
    """The text that `command` prints in `zebra`, `bgpd` or another daemon. Raises `Silent`."""
    vty = Vty(daemon, root, timeout)
    try:
        return vty.ask(command)
    finally:
        vty.close()


def show(daemon: str, command: str, root: Path = Path("/"), timeout: float = TIMEOUT) -> Any:
    """What a `show … json` command gives, decoded. Raises `Silent`."""
    return _decode(ask(daemon, command, root, timeout), command)


def _decode(text: str, command: str) -> Any:
    try:
        return msgspec.json.decode(text or "{}")
    except msgspec.DecodeError as error:
        raise Silent(f"FRR does not answer {command} in JSON: {error}") from None


class Session(msgspec.Struct, frozen=True):
    """A BGP session of the underlay, and what it carries."""

    neighbor: str
    ipv4: str  # state, as FRR names it: Established, Active, Idle, …
    evpn: str

    @property
    def established(self) -> bool:
        """Whether the fabric can be reached through it: EVPN routes are exchanged."""
        return self.evpn == "Established"


def sessions(root: Path = Path("/"), timeout: float = TIMEOUT) -> dict[str, Session]:
    """The default VRF's sessions by neighbor. Raises `Silent`."""
    vty = Vty("bgpd", root, timeout)
    try:
        return summary(vty)
    finally:
        vty.close()


def summary(bgpd: Vty) -> dict[str, Session]:
    """The same, over a connection that stays. Raises `Silent`."""
    command = "show bgp summary json"
    summary = _decode(bgpd.ask(command), command)
    ipv4 = _states(summary.get("ipv4Unicast", {}))
    evpn = _states(summary.get("l2VpnEvpn", {}))
    return {
        name: Session(name, ipv4.get(name, "absent"), evpn.get(name, "absent"))
        for name in sorted(ipv4 | evpn)
    }


def next_hop(bgpd: Vty, neighbor: str) -> str:
    """The IPv6 next hop that an unnumbered neighbor is told, "" without a session; or `Silent`."""
    command = f"show bgp neighbors {neighbor} json"
    found: str = _decode(bgpd.ask(command), command).get(neighbor, {}).get("nexthopGlobal", "")
    return found


def _states(summary: dict[str, Any]) -> dict[str, str]:
    return {name: peer.get("state", "absent") for name, peer in summary.get("peers", {}).items()}
