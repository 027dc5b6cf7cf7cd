"""Notifies systemd that the hook is ready and alive."""

import contextlib
import os
import socket


def notify(text: str) -> None:
    """Send a notification to systemd (sd_notify(3)), if it wants any."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(text.encode())
