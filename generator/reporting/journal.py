"""Sends messages with fields to systemd's journal by its native protocol, one datagram each.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

import contextlib
import os
import socket

SOCKET = "/run/systemd/journal/socket"
CRITICAL, ERROR, WARNING, NOTICE, DEBUG = 2, 3, 4, 5, 7  # syslog(3)
_LIMIT = 1 << 15  # bytes of a field; a datagram takes about 200 kB


def send(message: str, priority: int, fields: dict[str, object]) -> None:
    """Send a message. Without a journal, do nothing."""
    known = {"MESSAGE": message, "PRIORITY": priority, "SYSLOG_IDENTIFIER": "evpn-host"}
    datagram = b"".join(_field(name, value) for name, value in (known | fields).items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(datagram, SOCKET)


def is_stderr() -> bool:
    """Whether standard error goes to the journal (systemd.exec(5))."""
    try:
        info = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


def _field(name: str, value: object) -> bytes:
    """Return a field with its length before it, because the value may have line ends."""
    data = str(value).encode(errors="backslashreplace")[:_LIMIT]
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
