"""Checks over netlink whether the kernel has our packet filter (linux/nfnetlink.h)."""

import os
import shutil
import struct
from pathlib import Path

from generator.desired.target import Target
from generator.observed import netlink
from generator.state import unfiltered
from generator.state.unfiltered import Unfiltered

TABLE = "evpn-host"
NFT_MSG_GETRULE = 10 << 8 | 7  # NFNL_SUBSYS_NFTABLES
_NETLINK_NETFILTER, _NFTA_RULE_TABLE = 12, 1
_FAMILIES = (1, 7)  # NFPROTO_INET, NFPROTO_BRIDGE


def rules() -> int | None:
    """Return how many rules our tables have, 0 without tables; None if we may not read them."""
    name = TABLE.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), _NFTA_RULE_TABLE) + name
    attribute += b"\0" * (-len(attribute) % 4)
    # Asked for all families, the kernel stops after the first table of that name.
    bodies = [struct.pack("=BBH", family, 0, 0) + attribute for family in _FAMILIES]
    try:
        return sum(
            1 for body in bodies for _ in netlink.dump(NFT_MSG_GETRULE, body, _NETLINK_NETFILTER)
        )
    except OSError:
        return None


def differences(target: Target, root: Path) -> list[str]:
    """Return the difference between the packet filter that a host should have and the kernel's."""
    if not target.filter_rules or limits(root):
        return []
    present = rules()
    if present is None or present == target.filter_rules:
        return []
    if not present:
        return [f"nftables: table inet {TABLE} is not there"]
    return [f"nftables: the tables {TABLE} have {present} rules, not {target.filter_rules}"]


def limits(root: Path) -> str:
    """Return why this host can't have a packet filter, "" if it can or nobody has tried."""
    known = unfiltered.read(root)
    return known.reason if known and known == refusal(known.reason) else ""


def warning(root: Path) -> str:
    """Return a warning if this host can't have a packet filter, else ""."""
    reason = limits(root)
    return f"no packet filter, so anybody may send into a V-Net: {reason}" if reason else ""


def refusal(reason: str) -> Unfiltered:
    """Return the record that this kernel, with these tools, refuses the packet filter."""
    # Not nft's path: cron, systemd and a shell have different search paths.
    nft = "nft" if shutil.which("nft") else ""
    return Unfiltered(kernel=os.uname().release, nft=nft, reason=reason)
