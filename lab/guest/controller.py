"""Commands that act as the fabric's controller: `carry FILE` and `underlay LEAF on|off`.

A person runs them in the machine, with the Python that the product has there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from generator.errors import Refused
from lab.guest import fabric
from lab.guest.agent import write
from lab.leaves import of_payload, with_frr

USAGE = {"carry": "carry FILE", "underlay": "underlay LEAF on|off"}


def carry(payload: dict[str, Any]) -> None:
    """Provision the V-Nets and VPCs of a payload on the leaves, and remove all others."""
    change(**of_payload(payload))


def underlay(leaf: str, on: bool) -> None:
    """Make the leaf's port to this server a routed port with eBGP, or one of Management again."""
    others = [name for name in fabric.state()["underlay"] if name != leaf]
    change(underlay=[*others, leaf] if on else others)


def change(**parts: Any) -> None:
    """Replace parts of the fabric's desired state; if that fails, bring back the previous state."""
    previous = fabric.state()
    try:
        converge(previous | parts)
    except BaseException:
        converge(previous)
        raise


def converge(state: dict[str, Any]) -> None:
    """Bring the fabric to a state, which it keeps after a reboot."""
    write(str(fabric.STATE), json.dumps(with_frr(state)), "644")
    fabric.converge()


def main(verb: str, *words: str) -> None:
    """Run a command, or exit with a line that says what is wrong."""
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
            except (
                LookupError,
                TypeError,
                ValueError,
                AttributeError,
                Refused,
                SystemExit,
            ) as error:
                sys.exit(f"carry: {file}: the leaves can't carry it: {error!r}")
        case "underlay", leaf, "on" | "off" as switch:
            leaves = [router.name for router in fabric.LEAVES if router.nic]
            if leaf not in leaves:
                sys.exit(f"underlay: {leaf}: is not one of {', '.join(leaves)}")
            underlay(leaf, switch == "on")
        case _:
            print(f"usage: {USAGE[verb]}", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
