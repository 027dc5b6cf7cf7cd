"""What the fabric's controller does, for a person in the machine: `carry FILE`, `underlay LEAF on`.

Standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lab.guest import fabric
from lab.guest.agent import write

USAGE = {"carry": "carry FILE", "underlay": "underlay LEAF on|off"}


def carry(payload: dict[str, Any]) -> None:
    """Have the leaves carry the V-Nets and VPCs of a payload, and no others."""
    change(vpcs=payload.get("vpcs", []), vnets=payload.get("vnets", []))


def underlay(leaf: str, on: bool) -> None:
    """Make the leaf's port to this server a routed one with eBGP, or one of Management again."""
    others = [name for name in fabric.state()["underlay"] if name != leaf]
    change(underlay=[*others, leaf] if on else others)


def change(**parts: Any) -> None:
    """Replace parts of what the fabric should be; where it can't follow, it goes back."""
    before = fabric.state()
    try:
        become(before | parts)
    except BaseException:
        become(before)
        raise


def become(state: dict[str, Any]) -> None:
    """Have the fabric be something, also after a reboot."""
    write(str(fabric.STATE), json.dumps(state), "644")
    fabric.converge()


def main(verb: str, *words: str) -> None:
    """Do it, or exit with a line that says what is wrong."""
    match verb, *words:
        case "carry", file:
            try:
                payload = json.loads(Path(file).read_text())
            except (OSError, ValueError) as error:
                sys.exit(f"carry: {file}: {getattr(error, 'strerror', None) or error}")
            if not isinstance(payload, dict):
                sys.exit(f"carry: {file}: is not a payload")
            try:
                carry(payload)
            except (LookupError, TypeError, ValueError, AttributeError, SystemExit) as error:
                sys.exit(f"carry: {file}: the leaves can't carry it: {error!r}")
        case "underlay", leaf, "on" | "off" as wanted:
            leaves = [router.name for router in fabric.LEAVES if router.nic]
            if leaf not in leaves:
                sys.exit(f"underlay: {leaf}: is not one of {', '.join(leaves)}")
            underlay(leaf, wanted == "on")
        case _:
            print(f"usage: {USAGE[verb]}", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
