"""Tests whether packets of a size reach a VTEP, with echo requests that may not be fragmented.

One is sent through each uplink (icmp(7), ip(7), raw(7)). Nothing is changed on this host.
"""

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

import msgspec

SMALL = 64  # bytes of an IP packet that fits every link
_IP_PKTINFO, _IP_MTU_DISCOVER, _IP_RECVERR = 8, 10, 11  # linux/in.h
_DO_NOT_FRAGMENT = 3  # IP_PMTUDISC_PROBE: ignore the path MTU that the kernel has cached
_HEADERS = 28  # bytes: IPv4 20, ICMP 8
_ECHO, _ECHO_REPLY, _FRAGMENTATION_NEEDED = 8, 0, (3, 4)
_ATTEMPTS, _PATIENCE = 2, 1.0  # seconds that an answer may take


class Probe(msgspec.Struct, frozen=True):
    """A packet to a VTEP through an uplink."""

    vtep: str
    device: str
    mtu: int  # of the uplink
    size: int  # bytes of the IP packet


class Answer(msgspec.Struct):
    """The result of a probe."""

    received: bool = False
    # The largest packet that passes, and who reports it: a router, or this host's own NIC.
    limit: int | None = None
    reporter: str = ""
    error: str = ""  # why it could not be sent


def send(source: str, probes: Iterable[Probe]) -> dict[Probe, Answer]:
    """Send probes from an address of this host; return their answers. Raises OSError.

    It takes two seconds at most. Only root may do it.
    """
    numbered = dict(enumerate(probes, start=1))
    answers = {number: Answer() for number in numbered}
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.bind((source, 0))
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DO_NOT_FRAGMENT)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        sock.setblocking(False)
        for _ in range(_ATTEMPTS):
            waiting = [number for number in numbered if _waits(answers[number])]
            for number in waiting:
                _send(sock, number, numbered[number], answers[number])
            _receive(sock, {number: answers[number] for number in waiting})
    return {probe: answers[number] for number, probe in numbered.items()}


def _waits(answer: Answer) -> bool:
    return not (answer.received or answer.reporter or answer.error)


def _send(sock: socket.socket, number: int, probe: Probe, answer: Answer) -> None:
    data = bytes(probe.size - _HEADERS)
    head = struct.pack("!BBHHH", _ECHO, 0, 0, _identifier(), number)
    packet = struct.pack("!BBHHH", _ECHO, 0, _checksum(head + data), _identifier(), number) + data
    try:
        index = socket.if_nametoindex(probe.device)
        through = struct.pack("=iII", index, 0, 0)  # in_pktinfo
        control = [(socket.IPPROTO_IP, _IP_PKTINFO, through)]
        sock.sendmsg([packet], control, 0, (probe.vtep, 0))
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            answer.limit, answer.reporter = probe.mtu, probe.device
        else:
            answer.error = error.strerror or str(error)


def _receive(sock: socket.socket, waiting: dict[int, Answer]) -> None:
    """Store the answers that arrive in time."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    end = time.monotonic() + _PATIENCE
    while any(map(_waits, waiting.values())) and (left := end - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            for number, received, limit, reporter in [*_errors(sock), *_replies(sock)]:
                answer = waiting.get(number, Answer())
                answer.received = answer.received or received
                answer.limit = limit or answer.limit
                answer.reporter = reporter or answer.reporter


Event = tuple[int, bool, int | None, str]


def _replies(sock: socket.socket) -> Iterator[Event]:
    try:
        while True:
            packet = sock.recv(1 << 16)
            icmp = packet[(packet[0] & 15) * 4 :]
            type_, _, _, identifier, number = struct.unpack_from("!BBHHH", icmp)
            if (type_, identifier) == (_ECHO_REPLY, _identifier()):
                yield number, True, None, ""
    except (OSError, struct.error):  # nothing left, or an error that is in the error queue too
        return


def _errors(sock: socket.socket) -> Iterator[Event]:
    """Yield routers' errors about our packets (ip(7), IP_RECVERR)."""
    try:
        while True:
            data, control, _, _ = sock.recvmsg(1 << 16, 1 << 10, socket.MSG_ERRQUEUE)
            for _, kind, content in control:
                if kind != _IP_RECVERR or len(data) < 8:
                    continue
                # sock_extended_err, and then the sender's address
                _, _, type_, code, _, info, _ = struct.unpack_from("=IBBBBII", content)
                _, _, _, identifier, number = struct.unpack_from("!BBHHH", data)
                if (type_, code) == _FRAGMENTATION_NEEDED and identifier == _identifier():
                    yield number, False, info, str(ip_address(content[20:24]))
    except (OSError, struct.error, ValueError):
        return


def _identifier() -> int:
    return os.getpid() & 0xFFFF


def _checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071."""
    even = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(even) // 2}H", even))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
