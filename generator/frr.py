"""FRR asked over its daemons' vty sockets: what vtysh does, without starting a process.

A request is a line of text ended by NUL; the answer ends with three NULs and a status byte
(FRR's vtysh/vtysh.c, lib/vty.c).
"""

import socket
from pathlib import Path
from typing import Any

import msgspec

_END = b"\0\0\0"
TIMEOUT = 5.0  # seconds until a daemon that does not answer counts as hung


class Silent(Exception):
    """A daemon of FRR is not there or does not answer in time."""


def ask(daemon: str, command: str, root: Path = Path("/"), timeout: float = TIMEOUT) -> str:
    """The text that `command` prints in `zebra`, `bgpd` or another daemon. Raises `Silent`."""
    path = root / "run/frr" / f"{daemon}.vty"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(str(path))
            for line in ("enable", command):
                sock.sendall(line.encode() + b"\0")
                answer = _answer(sock)
    except OSError as error:
        reason = error.strerror or "no answer in time"
        raise Silent(f"FRR's {daemon} does not answer: {path}: {reason}") from None
    return answer.decode(errors="replace")


def _answer(sock: socket.socket) -> bytes:
    data = bytearray()
    while len(data) < 4 or data[-4:-1] != _END:
        more = sock.recv(1 << 16)
        if not more:
            raise ConnectionResetError(None, "closed the connection")
        data += more
    return bytes(data[:-4])


def show(daemon: str, command: str, root: Path = Path("/"), timeout: float = TIMEOUT) -> Any:
    """What a `show … json` command gives, decoded. Raises `Silent`."""
    try:
        return msgspec.json.decode(ask(daemon, command, root, timeout) or "{}")
    except msgspec.DecodeError as error:
        raise Silent(f"FRR's {daemon} does not answer {command} in JSON: {error}") from None


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
    summary = show("bgpd", "show bgp summary json", root, timeout)
    ipv4 = _states(summary.get("ipv4Unicast", {}))
    evpn = _states(summary.get("l2VpnEvpn", {}))
    return {
        name: Session(name, ipv4.get(name, "absent"), evpn.get(name, "absent"))
        for name in sorted(ipv4 | evpn)
    }


def local_as(root: Path = Path("/")) -> int | None:
    """The AS number with which bgpd runs, None when it has no instance. Raises `Silent`."""
    summary = show("bgpd", "show bgp summary json", root)
    found: int | None = summary.get("ipv4Unicast", {}).get("as")
    return found


def _states(summary: dict[str, Any]) -> dict[str, str]:
    return {name: peer.get("state", "absent") for name, peer in summary.get("peers", {}).items()}
