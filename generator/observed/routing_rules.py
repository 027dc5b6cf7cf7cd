"""Reads the routing policy rules, and finds those that divert packets for the host.

With VRFs the rule for table local comes after the VRFs' rule. So a rule that came after table local
may then come before it.
"""

import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from ipaddress import ip_address, ip_network

import msgspec

from generator.observed import netlink

TABLES = {253: "default", 254: "main", 255: "local"}  # rt_tables
LOCAL = 255
# FRA_… (linux/fib_rules.h): FWMARK, TUN_ID, OIFNAME, UID_RANGE, IP_PROTO, SPORT_RANGE, DPORT_RANGE.
_SELECTORS = {10, 12, 17, 20, 22, 23, 24}
_TO, _FROM, _INCOMING, _PRIORITY, _SUPPRESS, _TABLE, _OUTGOING, _L3MDEV = 1, 2, 3, 6, 14, 15, 17, 19
_INVERT = 2  # FIB_RULE_INVERT
_REFUSALS = {6: "blackhole", 7: "unreachable", 8: "prohibit"}  # FR_ACT_…


class Rule(msgspec.Struct, frozen=True):
    """A routing policy rule."""

    family: int
    priority: int
    table: int
    l3mdev: bool
    plain: bool = True  # it matches every packet, whatever its addresses, devices or marks
    source: str = ""  # the source prefix that it matches, "" for all
    destination: str = ""  # likewise
    incoming: str = ""  # the device through which a packet comes in, "" for all
    outgoing: str = ""  # the device through which a socket sends
    selective: bool = False  # it matches a mark, a port, a protocol, a user or a TOS
    inverted: bool = False  # it matches all other packets
    refusal: str = ""  # how it drops packets, "" if it does not
    suppressed: int = -1  # it ignores routes with prefixes of at most this length

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that it matches."""
        return tuple(name for name in (self.incoming, self.outgoing) if name)

    def __str__(self) -> str:
        words = ["not"] if self.inverted else []
        words += [f"from {self.source or 'all'}"]
        words += [f"to {self.destination}"] if self.destination else []
        words += [f"iif {self.incoming}"] if self.incoming else []
        words += [f"oif {self.outgoing}"] if self.outgoing else []
        words += [self.refusal or f"lookup {TABLES.get(self.table, self.table)}"]
        words += [f"suppress_prefixlength {self.suppressed}"] if self.suppressed >= 0 else []
        return f"{self.priority} ({' '.join(words)})"


def read() -> list[Rule]:
    """Return the rules of both families, in the order in which the kernel tries them."""
    return [
        _rule(family, message)
        for family in (socket.AF_INET, socket.AF_INET6)
        for message in netlink.dump(
            netlink.RTM_GETRULE, struct.pack("=BBBBBBBBI", family, *[0] * 8)
        )
    ]


def _rule(family: int, message: bytes) -> Rule:
    attributes = netlink.attributes_of(message, 12)
    selective = bool(message[3] or _SELECTORS & attributes.keys())  # the TOS

    def prefix(kind: int, length: int) -> str:
        return f"{ip_address(attributes[kind])}/{length}" if kind in attributes else ""

    def name(kind: int) -> str:
        return attributes.get(kind, b"").rstrip(bytes(1)).decode(errors="replace")

    def number(kind: int) -> int:
        return int.from_bytes(attributes.get(kind, b"")[:4], "little")

    suppressed = int.from_bytes(attributes.get(_SUPPRESS, b"\xff")[:4], "little", signed=True)
    return Rule(
        family=family,
        priority=number(_PRIORITY),
        table=number(_TABLE) or message[4],
        l3mdev=bool(number(_L3MDEV)),
        plain=not any(message[1:3]) and not selective and _INCOMING not in attributes,
        source=prefix(_FROM, message[2]),
        destination=prefix(_TO, message[1]),
        incoming=name(_INCOMING),
        outgoing=name(_OUTGOING),
        selective=selective,
        inverted=bool(message[8] & _INVERT),
        refusal=_REFUSALS.get(message[7], ""),
        suppressed=suppressed,
    )


class Own(msgspec.Struct, frozen=True):
    """What packets for the host itself look like."""

    addresses: Collection[str]  # of the host, without lengths
    devices: Set[str]  # through which they come in
    senders: Collection[str]  # prefixes from which they come


def diverting(
    rules: Iterable[Rule], routes: Iterable[netlink.Route], own: Own, local: Mapping[int, int]
) -> Iterator[tuple[Rule, str]]:
    """Yield rules that forward or drop packets for the host, each with an address of the host.

    `local` has the present or future priority of table local, by family. Rules for every packet are
    left out: table local goes before them. So are rules for a mark or a port, because somebody
    meant just these packets, and rules for a table without a route to the host. `routes` are not
    read if no rule matters.
    """
    candidates = [
        rule for rule in rules if _matters(rule) and rule.priority <= local.get(rule.family, -1)
    ]
    prefixes: dict[int, list[str]] = {}
    for route in routes if candidates else ():
        prefixes.setdefault(route.table, []).append(route.prefix)
    for rule in candidates:
        for address in own.addresses:
            if _is_for(rule, address, own) and (
                rule.refusal
                or any(
                    _overlap(address, each) and ip_network(each).prefixlen > rule.suppressed
                    for each in prefixes.get(rule.table, ())
                )
            ):
                yield rule, address
                break


def _matters(rule: Rule) -> bool:
    """Whether a rule matches packets by addresses or devices, and looks up a table or refuses."""
    if (rule.plain and not rule.inverted) or rule.l3mdev or rule.selective:
        return False
    return bool(rule.refusal) or rule.table not in {0, LOCAL}


def _is_for(rule: Rule, address: str, own: Own) -> bool:
    """Whether a rule may match packets that others send to an address of the host."""
    version = ip_network(address).version
    if (version == 4) != (rule.family == socket.AF_INET):
        return False
    if rule.inverted:
        senders = [each for each in own.senders if ip_network(each).version == version]
        return not (
            (not rule.incoming or own.devices == {rule.incoming})
            and (not rule.source or all(_within(each, rule.source) for each in senders))
            and (not rule.destination or _within(address, rule.destination))
        )
    if rule.incoming and rule.incoming not in own.devices:
        return False
    if rule.destination and not _overlap(address, rule.destination):
        return False
    source = rule.source
    return not source or (
        not any(_overlap(each, source) and _is_one(source) for each in own.addresses)
        and any(_overlap(source, sender) for sender in own.senders)
    )


def _is_one(prefix: str) -> bool:
    return ip_network(prefix).num_addresses == 1


def _within(inner: str, outer: str) -> bool:
    """Whether `outer` has all addresses of `inner`."""
    return _overlap(inner, outer) and ip_network(inner).prefixlen >= ip_network(outer).prefixlen


def _overlap(one: str, other: str) -> bool:
    first, second = ip_network(one), ip_network(other)
    return first.version == second.version and (
        first.network_address in second or second.network_address in first
    )
