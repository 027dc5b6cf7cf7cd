"""Waits for changes in the kernel. A filter in the kernel drops all other events."""

import contextlib
import ctypes
import select
import socket
import struct
import time
from collections.abc import Collection, Iterator

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links, addresses and routes of both families
_SO_ATTACH_FILTER = 26
_PAUSE = 0.03  # seconds between two checks, however many events there are
_NEWROUTE, _DELROUTE, _NEWLINK, _MAIN = 24, 25, 16, 254
_OPERATORS = (3, 4, 16)  # RTPROT_BOOT, STATIC, DHCP (linux/rtnetlink.h)

# Classic BPF (linux/filter.h): (code, jump if true, jump if false, value). It reads numbers as
# big-endian. Netlink's are in the host's order, hence `htonl` and `htons`.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_NEW = 0xFFFFFFFF  # ifi_change of a device that was just created


Instruction = tuple[int, int, int, int]


def _filter(indexes: Collection[int]) -> list[Instruction]:
    """Build a filter: an operator's routes, these devices' events, and new devices pass.

    Default routes of table main pass too, whatever program sets them. Tenants' events and FRR's
    routes to the loopbacks of the fabric do not pass, so they do not wake the hook.
    """
    count = len(indexes)
    devices = [(_EQUAL, count + 3 - n, 0, socket.htonl(i)) for n, i in enumerate(indexes)]
    return [
        (_LOAD_HALF, 0, 0, 4),  # nlmsghdr.nlmsg_type
        (_EQUAL, 1, 0, socket.htons(_NEWROUTE)),
        (_EQUAL, 0, 8, socket.htons(_DELROUTE)),
        (_LOAD_BYTE, 0, 0, 16 + 5),  # rtmsg.rtm_protocol
        *((_EQUAL, count + 11 - n, 0, protocol) for n, protocol in enumerate(_OPERATORS)),
        (_LOAD_BYTE, 0, 0, 16 + 1),  # rtmsg.rtm_dst_len
        (_EQUAL, 0, count + 8, 0),
        (_LOAD_BYTE, 0, 0, 16 + 4),  # rtmsg.rtm_table
        (_EQUAL, count + 5, count + 6, _MAIN),
        (_LOAD_WORD, 0, 0, 16 + 4),  # ifinfomsg.ifi_index, and ifaddrmsg.ifa_index
        *devices,
        (_LOAD_HALF, 0, 0, 4),
        (_EQUAL, 0, 3, socket.htons(_NEWLINK)),
        (_LOAD_WORD, 0, 0, 16 + 12),  # ifinfomsg.ifi_change
        (_EQUAL, 0, 1, _NEW),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    ]


@contextlib.contextmanager
def listen() -> Iterator[socket.socket]:
    """Open a socket that becomes readable when a device is new or a default route changes."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as sock:
        watch(sock, ())
        sock.bind((0, _GROUPS))
        yield sock


def watch(sock: socket.socket, indexes: Collection[int]) -> None:
    """Have the socket also become readable when a link or an address of these devices changes."""
    attach(sock, _filter(indexes))


def attach(sock: socket.socket, steps: list[Instruction]) -> None:
    """Have the kernel give the socket only messages that pass a filter."""
    buffer = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("HL", len(steps), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def wait(
    sock: socket.socket, timeout: float, last: float = 0.0, other: socket.socket | None = None
) -> bool:
    """Sleep until an event comes, `other` is readable or time is up; return if an event came.

    The first event wakes at once. If the last check, at the time `last` (monotonic), was just now,
    there is a pause first, and all events in it count as one.
    """
    if sock not in select.select([sock, *([other] if other else [])], [], [], timeout)[0]:
        return False
    time.sleep(max(0.0, min(_PAUSE, last + _PAUSE - time.monotonic())))
    with contextlib.suppress(OSError):  # ENOBUFS: too many to keep; EAGAIN: all are read
        while sock.recv(1 << 16):
            pass
    return True
