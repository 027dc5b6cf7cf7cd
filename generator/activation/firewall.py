"""Finds firewalls that drop packets of guests, or of the fabric."""

import contextlib
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.errors import ActivationFailed
from generator.observed.iptables import Saved
from generator.observed.preflight import Finding

# What a leaf sends to this host: RFC 4271, RFC 5881, RFC 7348.
_FABRIC = {"BGP": ("tcp", 179), "BFD": ("udp", 3784), "VXLAN": ("udp", 4789)}
_TOOLS: tuple[tuple[str, Literal["ip", "ip6"]], ...] = (("iptables", "ip"), ("ip6tables", "ip6"))
_OURS = re.compile(r"^table (?:inet|bridge) evpn-host \{.*?^\}", re.MULTILINE | re.DOTALL)
# The tables of iptables-legacy, by family.
_LEGACY = {each: Path(f"/proc/net/{each}_tables_names") for each in ("ip", "ip6")}
_LOADED = (Path("/sys/module/nf_tables"), *_LEGACY.values())


def findings(uplinks: Collection[str], log: Log) -> Iterator[Finding]:
    """Yield a finding for each firewall that drops packets of guests or leaves.

    The tools run only if the kernel has a firewall already: they would load one.
    """
    if shutil.which("nft") is None:
        yield Finding(
            what="nft is not installed",
            why="without a packet filter anybody who knows a VNI may send into its V-Net",
            remedy="apt install nftables",
        )
    if any(map(Path.exists, _LOADED)):
        yield from _input(uplinks, log)
        yield from _forward(log)


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


def _input(uplinks: Collection[str], log: Log) -> Iterator[Finding]:
    """Yield a finding if a firewall drops what no rule names, and no rule names leaves' packets.

    A rule that names an uplink, or a port by its number, counts as a rule that accepts it.
    """
    reason = "whether packets of the leaves are dropped"
    rules = ""
    with contextlib.suppress(ActivationFailed):
        rules = commands.run(Step(("nft", "list", "ruleset"), reason, timeout=5), log)
    rules = _OURS.sub("", rules)  # the operator's rules may drop what ours accept
    if not re.search(r"hook input [^\n]*policy drop", rules):
        return
    words = set(re.findall(r"[\w.-]+", rules))
    dropped = {name: port for name, port in _FABRIC.items() if str(port[1]) not in words}
    if dropped and not words & set(uplinks):
        ports = ", ".join(f"{protocol} port {number}" for protocol, number in dropped.values())
        yield Finding(
            what=f"the firewall drops {', '.join(dropped)} that comes in",
            why="it lets in only what a rule names, and none names these",
            remedy=f"accept {ports} on {', '.join(uplinks)}",
        )


def _forward(log: Log) -> Iterator[Finding]:
    for tool in ("iptables", "ip6tables"):
        reason = "whether forwarded packets are dropped"
        with contextlib.suppress(ActivationFailed):
            rules = commands.run(Step((tool, "-S", "FORWARD"), reason, timeout=5), log)
            if "-P FORWARD DROP" in rules and "nbr-" not in rules:
                yield Finding(
                    what=f"{tool} drops what is forwarded",
                    why="guests' traffic is dropped too",
                    remedy=f"{tool} -I FORWARD -i nbr-+ -o nbr-+ -j ACCEPT,"
                    f" {tool} -I FORWARD -i Vrf_+ -j ACCEPT",
                )
