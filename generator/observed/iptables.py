"""Converts the text of `iptables-save` into the JSON that nft prints: pure.

nft shows neither the rules of iptables-legacy nor the conditions of an iptables match (`xt`). A
match that is not understood stays in the rule, which then may or may not be for a packet.
"""

import contextlib
import shlex
from collections.abc import Iterator
from typing import Literal, NamedTuple

Json = object
Item = dict[str, dict[str, Json]]
LEGACY = "iptables-legacy"

_HOOKS = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}
_DEVICES = {"-i": "iifname", "-o": "oifname"}
_ADDRESSES = {"-s": "saddr", "-d": "daddr"}
_PORTS = {"--dport": "dport", "--sport": "sport", "--dports": "dport", "--sports": "sport"}
_LISTS: dict[str, Json] = {
    "--ctstate": {"ct": {"key": "state"}},
    "--state": {"ct": {"key": "state"}},
    "--dst-type": {"fib": {"result": "type", "flags": ["daddr"]}},
}
_KNOWN = {"tcp", "udp", "sctp", "conntrack", "state", "multiport", "comment", "addrtype"}  # -m
_NOT_UNDERSTOOD: dict[str, Json] = {"xt": {"type": "match"}}


class Saved(NamedTuple):
    """What `iptables-save` or `ip6tables-save` prints."""

    family: Literal["ip", "ip6"]
    legacy: bool
    text: str


def items(saved: Saved) -> Iterator[Item]:
    """Yield chains and rules, as `nft --json` prints them. A table `nat` drops nothing."""
    table = ""
    for line in saved.text.splitlines():
        where = {"family": saved.family, "table": f"{table} ({LEGACY})" if saved.legacy else table}
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":") and table != "nat":
            name, policy = line[1:].split()[:2]
            hook = name.lower() if name in _HOOKS else ""
            yield {"chain": {**where, "name": name, "hook": hook, "policy": policy.lower()}}
        elif line.startswith("-A ") and table != "nat":
            with contextlib.suppress(ValueError):  # a quotation mark is missing
                _, chain, *words = shlex.split(line)
                expressions = list(_expressions(words, saved.family))
                yield {"rule": {**where, "chain": chain, "expr": expressions}}


def _expressions(words: list[str], family: str) -> Iterator[dict[str, Json]]:
    """Yield what a rule matches, then what it does. `iptables-save` prints that last."""
    protocol, op = "", "=="
    rest = iter(words)
    for word in rest:
        if word == "!":
            op = "!="
            continue
        value = next(rest, "") if word.startswith("-") else ""
        if word in {"-j", "-g"}:
            yield _verdict(word, value)
            return
        if word == "-p":
            protocol = {"ipv6-icmp": "icmpv6"}.get(value, value)
            yield _match({"meta": {"key": "l4proto"}}, op, protocol)
        elif word in _DEVICES:
            name = f"{value[:-1]}*" if value.endswith("+") else value
            yield _match({"meta": {"key": _DEVICES[word]}}, op, name)
        elif word in _ADDRESSES:
            address, _, length = value.partition("/")
            prefix = {"prefix": {"addr": address, "len": length}} if length else address
            yield _match({"payload": {"protocol": family, "field": _ADDRESSES[word]}}, op, prefix)
        elif word in _PORTS:
            ports = [_port(each) for each in value.split(",")]
            yield _match({"payload": {"protocol": protocol, "field": _PORTS[word]}}, op, ports)
        elif word in _LISTS:
            yield _match(_LISTS[word], op, value.lower().split(","))
        elif word != "--comment" and (word != "-m" or value not in _KNOWN):
            yield _NOT_UNDERSTOOD
        op = "=="


def _verdict(word: str, target: str) -> dict[str, Json]:
    """Return what a rule does. A jump to a target that is no chain, such as LOG, has no effect."""
    if target in _VERDICTS:
        return {_VERDICTS[target]: None}
    return {"goto" if word == "-g" else "jump": {"target": target}}


def _match(left: Json, op: str, right: Json) -> dict[str, Json]:
    return {"match": {"op": op, "left": left, "right": right}}


def _port(text: str) -> Json:
    first, colon, last = text.partition(":")
    return {"range": [first, last]} if colon else text
