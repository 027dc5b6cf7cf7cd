"""Waking on what changes in the kernel, and on nothing else: filtered before we are woken."""

import contextlib
import ctypes
import select
import socket
import struct
import time
from collections.abc import Iterator

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links, addresses and routes of both families
_SO_ATTACH_FILTER = 26
_PAUSE = 0.03  # seconds between two looks, however many events there are
_NEWROUTE, _DELROUTE, _MAIN = 24, 25, 254

# Classic BPF (linux/filter.h): (code, jump if true, jump if false, value).
_LOAD_HALF, _LOAD_BYTE, _EQUAL, _RETURN = 0x28, 0x30, 0x15, 0x06


def _filter() -> list[tuple[int, int, int, int]]:
    """Every event passes but routes of tables other than main: a tenant's churn wakes nobody."""
    return [
        (_LOAD_HALF, 0, 0, 4),  # nlmsghdr.nlmsg_type, which BPF reads as big-endian
        (_EQUAL, 1, 0, socket.htons(_NEWROUTE)),
        (_EQUAL, 0, 2, socket.htons(_DELROUTE)),
        (_LOAD_BYTE, 0, 0, 16 + 4),  # rtmsg.rtm_table
        (_EQUAL, 0, 1, _MAIN),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    ]


@contextlib.contextmanager
def listen() -> Iterator[socket.socket]:
    """A socket that becomes readable when a link, an address or a main route changes."""
    code = b"".join(struct.pack("=HBBI", *step) for step in _filter())
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(_filter()), ctypes.addressof(buffer))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        sock.bind((0, _GROUPS))
        yield sock


def wait(
    sock: socket.socket, timeout: float, last: float = 0.0, other: socket.socket | None = None
) -> bool:
    """Sleep until an event, or `other` can be read, or the time is over; whether it was an event.

    The first one wakes at once. In a burst, which goes on since the look at the time `last`
    (monotonic), there is a pause, and all that came in it is one event.
    """
    if sock not in select.select([sock, *([other] if other else [])], [], [], timeout)[0]:
        return False
    time.sleep(max(0.0, min(_PAUSE, last + _PAUSE - time.monotonic())))
    with contextlib.suppress(OSError):  # ENOBUFS: there were very many; EAGAIN: no more
        while sock.recv(1 << 16):
            pass
    return True
