"""Reads the kernel's tables over rtnetlink (rtnetlink(7), linux/rtnetlink.h, linux/if_link.h).

It reads only the attributes that are compared. No library is used, because they decode every
attribute of every message: pyroute2 0.9 took 1.3 s for 2,000 links and 0.2 s for its import, in a
command that runs every minute and mostly finds nothing to do.
"""

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

import msgspec

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH, RTM_GETRULE = 18, 22, 26, 30, 34
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_RT_SCOPE_LINK, _RTPROT_RA = 253, 9
_ATTEMPTS = 5  # a dump that changes under the reader is read again
# Seconds and microseconds until a read gives up. The kernel keeps this time-out: Python's own
# needs a system call more for each read, and the hook reads very often.
_PATIENCE = struct.pack("ll", 10, 0)

# IFLA_VXLAN_… with which a device gets a socket that ours can not share (VXLAN_F_RCV_FLAGS):
# UDP_ZERO_CSUM6_RX, REMCSUM_RX, GBP, COLLECT_METADATA (Open vSwitch), GPE, VNIFILTER.
_ALONE = (20, 22, 23, 25, 27, 30)
# IFLA_BRPORT_UNICAST_FLOOD, _MCAST_FLOOD, _BCAST_FLOOD; then _ISOLATED, _LOCKED.
_FLOODS, _CLOSED = (9, 27, 30), (33, 39)
Attributes = dict[int, bytes]


class Link(msgspec.Struct):
    """A network device."""

    index: int
    name: str
    up: bool
    mtu: int
    mac: str
    master: int  # index, 0 without
    kind: str
    vni: int | None = None
    local: str | None = None
    port: int | None = None
    alone: bool = False  # whether a VXLAN device can't share its port with ours
    learning: bool | None = None  # of a VXLAN device itself
    bound: bool = False  # whether a VXLAN device floods to an address of its own, or by one NIC
    table: int | None = None
    vlan: int | None = None  # of a VLAN device
    port_learning: bool | None = None  # as a port of a bridge
    port_suppress: bool | None = None
    port_open: bool | None = None  # whether all frames pass it
    vlans: bool = False  # whether a bridge filters VLANs
    arp: bool = True  # whether it uses ARP and neighbour discovery
    stp: bool | None = None
    forward_delay: int | None = None  # of a bridge, hundredths of a second
    carrier: bool = True
    max_mtu: int = 0  # 0: the driver names none
    altnames: tuple[str, ...] = ()
    permanent_mac: str = ""
    families: bytes = b""  # IFLA_AF_SPEC, see `settings_of`


class Route(msgspec.Struct, frozen=True):
    """A route with its next hops, each (address or "", device index)."""

    family: int
    table: int
    prefix: str
    type: int
    protocol: int
    metric: int
    hops: tuple[tuple[str, int], ...]
    next_hop_object: int = 0  # its id, 0 without


class Neighbour(msgspec.Struct, frozen=True):
    """A neighbour entry."""

    index: int
    address: str
    mac: str
    state: int


class Entry(msgspec.Struct, frozen=True):
    """An entry of a forwarding table: a bridge's, or a VXLAN port's own."""

    index: int  # the port
    mac: str
    bridge: int  # index of the bridge whose table has it, 0: the port's own table has it
    vtep: str  # the VTEP to which the port sends, "" in a bridge's table
    own: bool  # whether it is permanent, such as for the MAC of the bridge or the port itself


def attributes_of(data: bytes, offset: int, last: int = -1) -> Attributes:
    """Return the attributes up to type `last` by type, without the flag bits of nested types."""
    attributes: Attributes = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        kind &= 0x3FFF
        attributes[kind] = data[offset + 4 : offset + length]
        if kind == last:
            break
        offset += (length + 3) & ~3
    return attributes


def dump(message: int, body: bytes, protocol: int = 0) -> Iterator[bytes]:
    """Yield the payloads of a dump's answers. A dump that changed meanwhile is read again.

    `protocol` is a netlink family, rtnetlink by default.

    Raises OSError with the kernel's error number.
    """
    for attempt in range(_ATTEMPTS):
        payloads, interrupted = _dump_once(message, body, protocol)
        if not interrupted or attempt == _ATTEMPTS - 1:
            yield from payloads
            return


def _dump_once(message: int, body: bytes, protocol: int) -> tuple[list[bytes], bool]:
    payloads: list[bytes] = []
    interrupted = False
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
        sock.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        size = _HEADER.size + len(body)
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        sock.send(_HEADER.pack(size, message, flags, 1, 0) + body)
        while True:
            data = sock.recv(1 << 16)  # netlink_dump of af_netlink.c fills 32 KiB
            offset = 0
            while offset < len(data):
                length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                content = data[offset + 16 : offset + length]
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    error = -int.from_bytes(content[:4], "little", signed=True)
                    if error:
                        raise OSError(error, f"netlink dump {message} failed")
                    return payloads, interrupted
                payloads.append(content)
                offset += (length + 3) & ~3


def attribute(kind: int, data: bytes) -> bytes:
    """Return an attribute for a request."""
    return _ATTRIBUTE.pack(4 + len(data), kind) + data + bytes(-len(data) % 4)


def get(message: int, body: bytes) -> bytes | None:
    """Return the payload of the only answer to a request, None if the kernel has none."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        sock.send(_HEADER.pack(_HEADER.size + len(body), message, _NLM_F_REQUEST, 1, 0) + body)
        data = sock.recv(1 << 16)
    length, kind, _, _, _ = _HEADER.unpack_from(data)
    return None if kind == _NLMSG_ERROR else data[_HEADER.size : length]


def _int(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "little")


def _mac(data: bytes) -> str:
    return data.hex(":")


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def links() -> dict[str, Link]:
    """Return every device of this network namespace by name."""
    by_name = {}
    for message in dump(RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
        _, _, index, flags, _ = struct.unpack_from("=BxHiII", message)
        attributes = attributes_of(message, 16)
        link = Link(
            index=index,
            name=_text(attributes[3]),  # IFLA_IFNAME
            up=bool(flags & 1),
            arp=not flags & 0x80,  # IFF_NOARP
            mtu=_int(attributes.get(4)),
            mac=_mac(attributes.get(1, b"")),
            master=_int(attributes.get(10)),
            kind="",
            carrier=bool(_int(attributes.get(33))),  # IFLA_CARRIER
            max_mtu=_int(attributes.get(51)),  # IFLA_MAX_MTU
            permanent_mac=_mac(attributes.get(54, b"")),  # IFLA_PERM_ADDRESS
            families=attributes.get(26, b""),
        )
        if 52 in attributes:  # IFLA_PROP_LIST of IFLA_ALT_IFNAME
            link.altnames = tuple(_strings(attributes[52]))
        if 18 in attributes:  # IFLA_LINKINFO
            _read_kind(link, attributes_of(attributes[18], 0))
        by_name[link.name] = link
    return by_name


def _strings(data: bytes) -> Iterator[str]:
    """Yield the texts of a list of attributes of the same type."""
    offset = 0
    while offset + 4 <= len(data):
        length, _ = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield _text(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3


def _read_kind(link: Link, info: Attributes) -> None:
    link.kind = info.get(1, b"").rstrip(b"\0").decode()
    # A bridge has forty attributes, of which the first seven are read (br_fill_info).
    data = attributes_of(info.get(2, b""), 0, last=7 if link.kind == "bridge" else -1)
    if link.kind == "vxlan":
        link.vni = _int(data.get(1))
        link.local = str(ip_address(data[4])) if 4 in data else None
        link.learning = bool(_int(data.get(7)))
        link.bound = 2 in data or bool(_int(data.get(3)))  # IFLA_VXLAN_GROUP, IFLA_VXLAN_LINK
        link.port = int.from_bytes(data.get(15, b""), "big")
        link.alone = any(data.get(each, b"\0") != b"\0" for each in _ALONE)
    elif link.kind == "vrf":
        link.table = _int(data.get(1))
    elif link.kind == "vlan":
        link.vlan = _int(data.get(1))
    elif link.kind == "bridge":
        link.stp = bool(_int(data.get(5)))
        link.forward_delay = _int(data.get(1))
        link.vlans = bool(_int(data.get(7)))
    if info.get(4, b"").rstrip(b"\0") == b"bridge":
        port = attributes_of(info.get(5, b""), 0)
        link.port_learning = bool(_int(port.get(8)))
        link.port_suppress = bool(_int(port.get(32)))
        floods = all(_int(port.get(each)) for each in _FLOODS)
        closed = any(_int(port.get(each)) for each in _CLOSED)
        link.port_open = _int(port.get(1)) == 3 and floods and not closed  # BR_STATE_FORWARDING


def settings_of(link: Link) -> dict[str, Sequence[int]]:
    """Return a device's settings by family (`ipv4`, `ipv6`), in the order of linux/ip.h and ipv6.h.

    The kernel has sent them with the device: below /proc/sys they are thousands of files.
    """
    families = attributes_of(link.families, 0)
    ipv4 = attributes_of(families.get(socket.AF_INET, b""), 0).get(1, b"")  # IFLA_INET_CONF
    ipv6 = attributes_of(families.get(socket.AF_INET6, b""), 0).get(2, b"")  # IFLA_INET6_CONF
    return {"ipv4": memoryview(ipv4).cast("i"), "ipv6": memoryview(ipv6).cast("i")}


def addresses() -> dict[int, set[str]]:
    """Return addresses with lengths by device index, without IPv6 link-local ones."""
    by_index: dict[int, set[str]] = {}
    for message in dump(RTM_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, 0)):
        _, length, _, scope, index = struct.unpack_from("=BBBBi", message)
        if scope == _RT_SCOPE_LINK:
            continue
        attributes = attributes_of(message, 8)
        raw = attributes.get(2, attributes.get(1, b""))  # IFA_LOCAL, else IFA_ADDRESS
        by_index.setdefault(index, set()).add(f"{ip_address(raw)}/{length}")
    return by_index


def peers(device: int = 0) -> Iterator[tuple[int, str, str]]:
    """Yield IPv4 addresses with a peer: device index, address, peer. Device 0 stands for all."""
    for message in dump(RTM_GETADDR, struct.pack("=BBBBi", socket.AF_INET, 0, 0, 0, device)):
        (index,) = struct.unpack_from("=i", message, 4)
        attributes = attributes_of(message, 8)
        local, peer = attributes.get(2), attributes.get(1)  # IFA_LOCAL, IFA_ADDRESS
        if local and peer and local != peer:
            yield index, str(ip_address(local)), str(ip_address(peer))


def has_link_local(device: int) -> bool:
    """Whether a device (index) has an IPv6 link-local address."""
    messages = dump(RTM_GETADDR, struct.pack("=BBBBi", socket.AF_INET6, 0, 0, 0, device))
    return any(message[3] == _RT_SCOPE_LINK for message in messages)


def routes(family: int, protocol: int = 0) -> Iterator[Route]:
    """Yield routes of every table but `local`, for AF_INET or AF_INET6; of one protocol or all."""
    request = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, protocol, 0, 0, 0)
    for message in dump(RTM_GETROUTE, request):
        _, length, _, _, table, origin, _, type_, _ = struct.unpack_from("=BBBBBBBBI", message)
        attributes = attributes_of(message, 12)
        table = _int(attributes.get(15)) or table
        if table == 255:
            continue
        zero = bytes(4 if family == socket.AF_INET else 16)
        hops = tuple(sorted(hops_of(attributes)))
        prefix = f"{ip_address(attributes.get(1, zero))}/{length}"
        metric = _int(attributes.get(6))
        next_hop_object = _int(attributes.get(30))  # RTA_NH_ID
        yield Route(family, table, prefix, type_, origin, metric, hops, next_hop_object)


def advertised_routes() -> Iterator[Route]:
    """Yield the routes that come from IPv6 router advertisements."""
    return routes(socket.AF_INET6, _RTPROT_RA)


def hops_of(attributes: Attributes) -> Iterable[tuple[str, int]]:
    """Yield a route's next hops, each (address or "", device index)."""
    if 9 not in attributes:  # RTA_MULTIPATH
        yield _via(attributes), _int(attributes.get(4))
        return
    data, offset = attributes[9], 0
    while offset + 8 <= len(data):
        length, _, _, index = struct.unpack_from("=HBBi", data, offset)
        yield _via(attributes_of(data[offset + 8 : offset + length], 0)), index
        offset += (length + 3) & ~3


def _via(attributes: Attributes) -> str:
    if 5 in attributes:  # RTA_GATEWAY
        return str(ip_address(attributes[5]))
    if 18 in attributes:  # RTA_VIA: a next hop of the other family
        return str(ip_address(attributes[18][2:]))
    return ""


def neighbours(family: int) -> Iterator[Neighbour]:
    """Yield the neighbour entries of a family, permanent ones included."""
    for message in dump(RTM_GETNEIGH, struct.pack("=BxHiHBB", family, 0, 0, 0, 0, 0)):
        _, _, index, state, _, _ = struct.unpack_from("=BxHiHBB", message)
        attributes = attributes_of(message, 12)
        if 1 in attributes:
            address = str(ip_address(attributes[1]))
            yield Neighbour(index, address, _mac(attributes.get(2, b"")), state)


def forwarding() -> Iterator[Entry]:
    """Yield the forwarding entries of all bridges and VXLAN ports, but none that has a VLAN."""
    for message in dump(RTM_GETNEIGH, struct.pack("=BxHiHBB", socket.AF_BRIDGE, 0, 0, 0, 0, 0)):
        _, _, index, state, _, _ = struct.unpack_from("=BxHiHBB", message)
        attributes = attributes_of(message, 12)
        if {5, 9} <= attributes.keys():  # NDA_VLAN, NDA_MASTER: our bridges ignore VLANs, and a
            continue  # copy of FRR's entry stays there when the guest moves to this host
        vtep = str(ip_address(attributes[1])) if 1 in attributes else ""
        own = bool(state & 0x80)  # NUD_PERMANENT, linux/neighbour.h
        yield Entry(index, _mac(attributes.get(2, b"")), _int(attributes.get(9)), vtep, own)
