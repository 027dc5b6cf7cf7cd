"""Finds firewalls that drop packets of guests, or of the fabric."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.desired.model import Host
from generator.errors import ActivationFailed, NotInstalled
from generator.observed import packets
from generator.observed.iptables import Saved
from generator.observed.netfilter import Drop, Ruleset
from generator.observed.preflight import Finding

# The packets between this host and its leaves, as a rule names them.
_FABRIC = {
    "BGP": "tcp port 179",
    "BFD": "udp port 3784",
    "VXLAN": "udp port 4789",
    "neighbour discovery": "ICMPv6",
}
_IPTABLES = {
    "table ip filter, chain FORWARD": "iptables",
    "table ip filter (iptables-legacy), chain FORWARD": "iptables-legacy",
    "table ip6 filter, chain FORWARD": "ip6tables",
    "table ip6 filter (iptables-legacy), chain FORWARD": "ip6tables-legacy",
}
_NONE = '{"nftables": []}'
_TOOLS: tuple[tuple[str, Literal["ip", "ip6"]], ...] = (("iptables", "ip"), ("ip6tables", "ip6"))
# The tables of iptables-legacy, by family.
_LEGACY = {each: Path(f"/proc/net/{each}_tables_names") for each in ("ip", "ip6")}
_LOADED = (Path("/sys/module/nf_tables"), *_LEGACY.values())


def findings(host: Host, log: Log) -> Iterator[Finding]:
    """Yield a finding for each firewall that drops packets of guests or leaves.

    The tools run only if the kernel has a firewall already: they would load one.
    """
    if shutil.which("nft") is None:
        yield Finding(
            what="nft is not installed",
            why="without a packet filter anybody who knows a VNI may send into its V-Net",
            remedy="apt install nftables",
        )
    with contextlib.suppress(ActivationFailed, msgspec.DecodeError):
        rules = _rules(log)
        yield from _leaves(host, rules)
        yield from _guests(host, rules)


def ruleset(log: Log) -> str:
    """Return the rules of nftables as JSON, "" if the kernel has none.

    Raises `ActivationFailed`, or `NotInstalled` if nft is missing.
    """
    if not any(map(Path.exists, _LOADED)):
        return ""
    reason = "whether a rule drops what goes to the guest"
    return commands.run(Step(("nft", "--json", "list", "ruleset"), reason, timeout=20), log)


def saved(ruleset: str, log: Log) -> Iterator[Saved]:
    """Yield the rules of iptables that are missing or incomplete in `ruleset`.

    It has the rules of iptables-nft, but not the conditions of iptables matches (`xt`).

    Raises `ActivationFailed` if rules of iptables-legacy can't be read.
    """
    for tool, family in _TOOLS:
        reason = "whether a rule drops what goes to the guest"
        if '"xt"' in ruleset:
            step = Step((f"{tool}-nft-save",), reason, timeout=20)
            with contextlib.suppress(ActivationFailed):
                yield Saved(family, False, commands.run(step, log))
        if _has_rules(_LEGACY[family]):
            step = Step((f"{tool}-legacy-save",), reason, timeout=20)
            yield Saved(family, True, commands.run(step, log))


def _has_rules(names: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(names.read_bytes().strip())
    return False


def _rules(log: Log) -> Ruleset:
    """Return all rules that can be read. A host may have only rules of iptables-legacy."""
    text = _NONE
    with contextlib.suppress(NotInstalled):
        text = ruleset(log) or _NONE
    known: list[Saved] = []
    with contextlib.suppress(ActivationFailed):
        known.extend(saved(text, log))
    return Ruleset(text, known)


def _leaves(host: Host, rules: Ruleset) -> Iterator[Finding]:
    """Yield a finding for each direction in which a firewall drops packets of host and leaves."""
    for hook, way in (("input", "comes in"), ("output", "goes out")):
        packets_ = [each for each in packets.of_leaves(host) if hook in each.hooks]
        drops = [drop for drop in rules.drops(packets_) if _is_theirs(drop)]
        names = dict.fromkeys(drop.packet for drop in drops)
        if names:
            uplinks = ", ".join(uplink.ifname for uplink in host.uplinks)
            yield Finding(
                what=f"the firewall drops {', '.join(names)} that {way}",
                why=f"without it no guest is reached: {drops[0].rule}",
                remedy=f"accept {', '.join(_FABRIC[name] for name in names)} on {uplinks}",
            )


def _guests(host: Host, rules: Ruleset) -> Iterator[Finding]:
    """Yield a finding for each tool whose rules drop packets between guests."""
    tools: set[str] = set()
    for drop in filter(_is_theirs, rules.drops(packets.of_guests(host))):
        tool = next((tool for start, tool in _IPTABLES.items() if drop.rule.startswith(start)), "")
        if (tool or "nftables") in tools:
            continue
        tools.add(tool or "nftables")
        yield Finding(
            what=f"{tool or 'nftables'} drops what is forwarded",
            why="guests' traffic is dropped too" + ("" if tool else f": {drop.rule}"),
            remedy=f"{tool} -I FORWARD -i nbr-+ -o nbr-+ -j ACCEPT,"
            f" {tool} -I FORWARD -i Vrf_+ -j ACCEPT"
            if tool
            else 'accept iifname "nbr-*" oifname "nbr-*", and iifname "Vrf_*", in this chain',
        )


def _is_theirs(drop: Drop) -> bool:
    """Whether the rule is not ours and certainly drops the packet."""
    return drop.surely and not drop.rule.startswith("table inet evpn-host,")
