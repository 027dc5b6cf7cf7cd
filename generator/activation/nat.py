"""Finds NAT rules of others, such as Docker's, that would translate addresses of guests."""

import contextlib
import re
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.errors import ActivationFailed
from generator.observed.preflight import Finding

_LEGACY = {"iptables": "/proc/net/ip_tables_names", "ip6tables": "/proc/net/ip6_tables_names"}
_NF_TABLES = Path("/sys/module/nf_tables")
KEPT = "type nat hook postrouting"  # of our packet filter, where guests keep their addresses
_COUNTER = re.compile(r"counter packets \d+ bytes \d+ ")
_SHOWN = 5  # V-Nets that a finding names; the rest is only counted
_GUESTS = ("nbr-", "l3br-", "Vrf_")
_CHAIN = re.compile(r"^\tchain .*?^\t\}", re.MULTILINE | re.DOTALL)
# A rule that translates the source, as `nft list ruleset` and as `iptables -S` print it.
_TRANSLATES = re.compile(r"\b(masquerade|snat to)\b|-j (MASQUERADE|SNAT)\b")
_SOURCE = re.compile(r"(?:\bip6? saddr|(?<!! )-s) ([0-9a-f.:]+(?:/\d+)?)")
_DEVICE = re.compile(r'(?:\boifname |(?<!! )-o )"?([\w.+*-]+)')
# A rule that accepts guests' packets before they are translated.
_EXEMPTS = re.compile(r"(nbr-|l3br-).*(\baccept\b|\breturn\b|-j (ACCEPT|RETURN)\b)")


def findings(gateways: Collection[str], log: Log, *, filtered: bool) -> Iterator[Finding]:
    """Yield a finding for each rule that translates addresses of a V-Net.

    `gateways` are addresses with lengths; `filtered` says whether this host has our packet filter.
    The tools run only where the kernel has tables already.
    """
    networks = {ip_interface(each).network for each in gateways}
    for rules in _rules(log):
        if any(map(_EXEMPTS.search, rules.splitlines())):
            continue
        for line in filter(_TRANSLATES.search, rules.splitlines()):
            device = _DEVICE.search(line)
            if device and not device[1].startswith(_GUESTS):
                continue  # no packet of a guest leaves there
            for tool, version in (("iptables", 4), ("ip6tables", 6)):
                concerned = [n for n in networks if n.version == version and _concerns(line, n)]
                if not concerned:
                    continue
                rule = _COUNTER.sub("", line).strip()
                yield Finding(
                    what=f"a rule translates addresses of {_short_list(concerned)}: {rule}",
                    why="guests there would appear with an address of this host",
                    remedy="guest_nat: false in /etc/evpn-host/config.yaml keeps theirs"
                    if filtered
                    else f"{tool} -t nat -I POSTROUTING -o nbr-… -j RETURN for each bridge of"
                    " their VPCs, but not for that of the management",
                )


def _short_list(networks: list[IPv4Network | IPv6Network]) -> str:
    """Return the first networks for a person, and the number of the others."""
    shown = ", ".join(sorted(map(str, networks))[:_SHOWN])
    rest = len(networks) - _SHOWN
    return f"{shown} and {rest} more V-Nets" if rest > 0 else shown


def _concerns(line: str, network: IPv4Network | IPv6Network) -> bool:
    source = _SOURCE.search(line)
    if source is None:
        return "saddr !=" not in line and "! -s" not in line
    with contextlib.suppress(ValueError):
        return ip_network(source[1], strict=False).overlaps(network)
    return False


def _rules(log: Log) -> Iterator[str]:
    """Yield the rules of nftables, which include iptables-nft's, and those of iptables-legacy."""
    reason = "whether guests' addresses are translated"
    if _NF_TABLES.exists():
        with contextlib.suppress(ActivationFailed):
            rules = commands.run(Step(("nft", "list", "ruleset"), reason, timeout=20), log)
            yield "\n".join(chain for chain in _CHAIN.findall(rules) if "hook postrouting" in chain)
    for tool, names in _LEGACY.items():
        with contextlib.suppress(OSError, ActivationFailed):
            if b"nat" in Path(names).read_bytes().split():
                argv = (f"{tool}-legacy", "-t", "nat", "-S", "POSTROUTING")
                yield commands.run(Step(argv, reason, timeout=5), log)
