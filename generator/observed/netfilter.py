"""What an nftables ruleset does with a packet: pure, from the text of `nft --json list ruleset`.

This includes the rules of iptables-nft; those of iptables-legacy are added. A rule is followed as
far as it is understood: addresses, devices, protocols, ports, the state of a connection, jumps.
What is not understood may or may not match.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Literal

import msgspec

from generator.observed.iptables import LEGACY, Saved, items

Json = object  # each kind of expression has other fields
Outcome = Literal["accept", "drop", "maybe", "unsure"]
_DEEPEST = 16  # jumps, NFT_JUMP_STACK_SIZE (net/netfilter/nf_tables.h)
_SEES = {"ip": {"ip", "inet"}, "ip6": {"ip6", "inet"}, "bridge": {"bridge"}}  # by kind of packet
_OURS = ("bridge", "evpn-host")  # drops router advertisements, and nothing that a guest is sent
_NEUTRAL = {"counter", "log", "comment", "notrack", "mangle", "meta", "ct"}


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A packet as a hook sees it; a field that is missing may have any value."""

    what: str  # for a person
    kind: Literal["ip", "ip6", "bridge"]
    hooks: frozenset[str]
    fields: Mapping[str, str]  # `ip daddr`, `iifname`, `ct state`, `fib saddr oifname`


class Drop(msgspec.Struct, frozen=True):
    """Why a packet is dropped, or may be."""

    packet: str
    rule: str
    surely: bool
    by: str = "nftables"


class _Chain(msgspec.Struct, frozen=True):
    family: str
    table: str
    name: str
    hook: str = ""  # "" for a chain that is reached only by jumps
    policy: str = "accept"


class _Set(msgspec.Struct, frozen=True):
    family: str
    table: str
    name: str
    elem: list[Json] = []


class _Rule(msgspec.Struct, frozen=True):
    family: str
    table: str
    chain: str
    expr: list[dict[str, Json]] = []


class _Item(msgspec.Struct, frozen=True):
    chain: _Chain | None = None
    rule: _Rule | None = None
    set: _Set | None = None
    map: _Set | None = None


class _Listing(msgspec.Struct, frozen=True):
    nftables: list[_Item]


class Ruleset:
    """The chains of a ruleset with their rules."""

    def __init__(self, text: str, saved: Iterable[Saved] = ()) -> None:
        """Take the text. Chains that iptables has saved replace the same chains in it.

        Raises `msgspec.DecodeError`.
        """
        listed = msgspec.json.decode(text, type=_Listing).nftables
        added = msgspec.convert([i for each in saved for i in items(each)], list[_Item])
        replaced = {_key(i.chain, i.chain.name) for i in added if i.chain}
        listed = [i for i in listed if not (i.rule and _key(i.rule, i.rule.chain) in replaced)]
        both = listed + added
        self._chains = {_key(i.chain, i.chain.name): i.chain for i in both if i.chain}
        sets = (each for i in both for each in (i.set, i.map) if each)
        self._sets = {_key(each, each.name): each.elem for each in sets}
        self._rules: dict[tuple[str, str, str], list[_Rule]] = {}
        for rule in (item.rule for item in both if item.rule):
            self._rules.setdefault(_key(rule, rule.chain), []).append(rule)

    def drops(self, packets: Iterable[Packet]) -> Iterator[Drop]:
        """Yield the rules and policies that drop packets, or may drop them."""
        for packet in packets:
            for chain in self._chains.values():
                if (chain.family, chain.table) == _OURS:
                    continue
                if chain.hook in packet.hooks and chain.family in _SEES[packet.kind]:
                    by = LEGACY if chain.table.endswith(f"({LEGACY})") else "nftables"
                    for drop in self._base(chain, packet):
                        yield msgspec.structs.replace(drop, by=by)

    def _base(self, chain: _Chain, packet: Packet) -> Iterator[Drop]:
        place = f"table {chain.family} {chain.table}, chain {chain.name}"
        possible: list[Drop] = []
        surely = True
        for outcome, text in self._walk(chain, chain.name, packet, 0):
            if outcome == "accept":
                break
            if outcome == "unsure":
                surely = False
            elif outcome == "drop":
                yield Drop(packet.what, f"{place}: {text}", surely)
                return
            else:
                possible.append(Drop(packet.what, f"{place}: {text}", False))
        else:
            if chain.policy == "drop":
                yield Drop(packet.what, f"{place}: policy drop", surely)
                return
        yield from possible

    def _walk(
        self, base: _Chain, name: str, packet: Packet, depth: int
    ) -> Iterator[tuple[Outcome, str]]:
        """Yield what happens to a packet, each with the rule: in the end `accept` or `drop`.

        Before that, `maybe` for a rule that may drop it, `unsure` for one that may accept it.
        """
        sure = True  # whether the packet gets this far
        for rule in self._rules.get(_key(base, name), []) if depth < _DEEPEST else []:
            matches = self._matches(rule, packet)
            if matches is False:
                continue
            for verb, target, this in self._verdicts(rule, packet):
                certain = sure and bool(matches) and this
                for outcome, text in self._outcomes(base, verb, target, packet, depth):
                    yield outcome if certain else _UNCERTAIN[outcome], text or _text(rule)
                if verb in {"return", "goto"}:
                    if matches and this:
                        return
                    sure = False

    def _outcomes(
        self, base: _Chain, verb: str, target: str, packet: Packet, depth: int
    ) -> Iterator[tuple[Outcome, str]]:
        """Yield what a verdict leads to, and the rule that decides, "" for that of the verdict."""
        if verb in {"drop", "reject"}:
            yield "drop", ""
        elif verb == "accept":
            yield "accept", ""
        elif verb in {"jump", "goto"}:
            yield from self._walk(base, target, packet, depth + 1)

    def _verdicts(self, rule: _Rule, packet: Packet) -> Iterator[tuple[str, str, bool]]:
        """Yield the verdicts that a rule may have: verb, target, and whether it surely has it."""
        for expression in rule.expr:
            for kind, value in expression.items():
                if kind in _VERDICTS:
                    yield *_verdict(kind, value), True
                elif kind == "vmap" and isinstance(value, dict):
                    yield from self._mapped(rule, value, packet)

    def _mapped(
        self, rule: _Rule, value: dict[str, Json], packet: Packet
    ) -> Iterator[tuple[str, str, bool]]:
        """Yield the verdicts of a verdict map: that of the packet's own value, or all of them."""
        own = _own(_field(value.get("key")), packet)
        data = value.get("data")
        if isinstance(data, dict):
            data = data.get("set")
        if isinstance(data, str) and data.startswith("@"):
            data = self._sets.get(_key(rule, data[1:]))
        for pair in data if isinstance(data, list) else []:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict)):
                continue
            inside = None if own is None else self._inside(rule, pair[0], own)
            for kind, target in pair[1].items() if inside is not False else ():
                yield *_verdict(kind, target), bool(inside)
            if inside:
                return

    def _matches(self, rule: _Rule, packet: Packet) -> bool | None:
        """Whether a rule matches a packet; None: perhaps."""
        result: bool | None = True
        for expression in rule.expr:
            [(kind, value)] = list(expression.items())[:1]
            if kind == "match" and isinstance(value, dict):
                one = self._match(rule, value, packet)
            elif kind in _NEUTRAL or kind in _VERDICTS or kind == "vmap":
                one = True
            else:
                one = None  # a limit, or a match of iptables
            if one is False:
                return False
            result = result if one else None
        return result

    def _match(self, rule: _Rule, match: dict[str, Json], packet: Packet) -> bool | None:
        field = _field(match.get("left"))
        if _foreign(field, packet):
            return False
        own = _own(field, packet)
        if own is None:
            return None
        inside = self._inside(rule, match.get("right"), own)
        return (not inside) if match.get("op") == "!=" and inside is not None else inside

    def _inside(self, rule: _Rule, right: Json, own: str) -> bool | None:
        """Whether a value is among those that a rule names; None: not understood."""
        if isinstance(right, str) and right.startswith("@"):
            right = self._sets.get(_key(rule, right[1:]), right)
        if isinstance(right, dict):
            if "set" in right:
                right = right["set"]
            elif "elem" in right and isinstance(right["elem"], dict):
                return self._inside(rule, right["elem"].get("val"), own)
        if isinstance(right, list):
            results = [self._inside(rule, each, own) for each in right]
            return True if True in results else None if None in results else False
        if isinstance(right, dict):
            return _in_prefix(right, own)
        if isinstance(right, str) and right.endswith("*"):
            return own.startswith(right[:-1])
        return _PROTOCOLS.get(right, str(right)) == own if isinstance(right, str | int) else None


# What an outcome becomes after a jump that may not be taken.
_UNCERTAIN: dict[Outcome, Outcome] = {
    "accept": "unsure", "unsure": "unsure", "drop": "maybe", "maybe": "maybe",
}  # fmt: skip
_PROTOCOLS: dict[object, str] = {"ipv6-icmp": "icmpv6"}  # nft 1.0 and 1.1 print both
_VERDICTS = {"accept", "drop", "reject", "jump", "goto", "return", "continue"}


def _key(each: _Chain | _Rule | _Set, name: str) -> tuple[str, str, str]:
    return each.family, each.table, name


def _verdict(kind: str, value: Json) -> tuple[str, str]:
    """Return what is done, and with which chain, "" for none."""
    return kind, str(value.get("target")) if isinstance(value, dict) else ""


def _own(field: str, packet: Packet) -> str | None:
    """Return what a packet has in a field, None: nobody knows."""
    if field == "nfproto" and packet.kind != "bridge":
        return {"ip": "ipv4", "ip6": "ipv6"}[packet.kind]
    if field == "th dport":  # of whatever protocol
        field = f"{packet.fields.get('l4proto', '')} dport"
    return packet.fields.get(field)


def _field(left: Json) -> str:
    """Return the field that a rule compares: `ip daddr`, `iifname`, `ct state`."""
    if not isinstance(left, dict):
        return ""
    if isinstance(payload := left.get("payload"), dict):
        return f"{payload.get('protocol', '')} {payload.get('field', '')}".strip()
    if isinstance(meta := left.get("meta"), dict):
        key = str(meta.get("key", ""))
        return {"iif": "iifname", "oif": "oifname"}.get(key, key)
    if isinstance(ct := left.get("ct"), dict):
        return f"ct {ct.get('key', '')}"
    if isinstance(fib := left.get("fib"), dict):
        flags = fib.get("flags", [])
        words = flags if isinstance(flags, list) else [flags]
        return " ".join(["fib", *map(str, words), str(fib.get("result", ""))])
    return ""


def _foreign(field: str, packet: Packet) -> bool:
    """Whether a field belongs to a protocol that a packet does not have."""
    protocol = field.partition(" ")[0]
    family = {"ip": "ip", "ip6": "ip6"}.get(protocol)
    if family and packet.kind != "bridge":
        return family != packet.kind
    own = packet.fields.get("l4proto")
    return own is not None and protocol in {"tcp", "udp", "icmp", "icmpv6", "sctp"} - {own}


def _in_prefix(right: Mapping[str, Json], own: str) -> bool | None:
    try:
        if isinstance(prefix := right.get("prefix"), dict):
            return ip_address(own) in ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
        if isinstance(ends := right.get("range"), list):
            first, last = map(str, ends)
            if own.isdigit():
                return int(first) <= int(own) <= int(last)
            low, high, value = ip_address(first), ip_address(last), ip_address(own)
            return low.packed <= value.packed <= high.packed
    except (ValueError, KeyError):
        return None
    return None


def _text(rule: _Rule) -> str:
    """Return a rule nearly as nft prints it."""
    words = []
    for expression in rule.expr:
        for kind, value in expression.items():
            if kind == "match" and isinstance(value, dict):
                op = value.get("op", "==")
                words += [_field(value.get("left")), *([] if op in {"==", "in"} else [str(op)])]
                words.append(_value(value.get("right")))
            elif kind in _VERDICTS:
                words.append(kind)
    return " ".join(filter(None, words))


def _value(right: Json) -> str:
    if isinstance(right, dict):
        if isinstance(prefix := right.get("prefix"), dict):
            return f"{prefix.get('addr')}/{prefix.get('len')}"
        right = right.get("set", right.get("range", right))
    if isinstance(right, list):
        return f"{{ {', '.join(map(_value, right))} }}"
    return str(right)
