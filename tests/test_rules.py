"""Where the rules of VRFs and of table local belong, beside rules of others."""

import socket

import pytest

from generator.observed import devices, routing_rules
from generator.observed.devices import RulePlaces
from generator.observed.routing_rules import Rule

LOCAL, MAIN, DEFAULT = 255, 254, 253


def rule(priority: int, table: int, *, plain: bool = True) -> Rule:
    return Rule(socket.AF_INET, priority, table, l3mdev=False, plain=plain)


VRFS = Rule(socket.AF_INET, 1000, 0, l3mdev=True)
KERNEL = [rule(32766, MAIN), rule(32767, DEFAULT)]
OURS = [VRFS, rule(32765, LOCAL), *KERNEL]

# Rules in the order of the kernel, the places of ours among them, and the lines of status.
CASES = {
    "the kernel's own": (
        [rule(0, LOCAL), VRFS, *KERNEL],
        RulePlaces(1000, 32765),
        "table local (priority 0) stands before the VRFs' (1000)",
    ),
    "ours": (OURS, RulePlaces(1000, 32765), ""),
    "of some packets": (
        [rule(100, 5000, plain=False), *OURS],
        RulePlaces(1000, 32765),
        "",
    ),
    "Cilium": (
        [rule(9, 2004, plain=False), rule(100, LOCAL), *OURS],
        RulePlaces(99, 32765),
        "table local (priority 100) stands before the VRFs' (1000)",
    ),
    "NetBird": (
        [rule(100, MAIN), rule(110, 7120, plain=False), *OURS],
        RulePlaces(98, 99),
        "table main (priority 100) stands before the VRFs' (1000)",
    ),
    "a refusal": (
        [VRFS, Rule(socket.AF_INET, 2000, 0, l3mdev=False, refusal="prohibit"), *OURS[1:]],
        RulePlaces(1000, 1999),
        "prohibit (priority 2000) stands before table local (32765)",
    ),
    "wg-quick": (
        [VRFS, rule(32763, MAIN), rule(32764, 51820, plain=False), *OURS[1:]],
        RulePlaces(1000, 32762),
        "table main (priority 32763) stands before table local (32765)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_our_rules_find_their_place_beside_rules_of_others(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """With the rules at their places nothing differs any more, whoever else has some."""
    rules, places, texts = CASES[case]
    monkeypatch.setattr(routing_rules, "read", lambda: rules)
    monkeypatch.setattr(devices, "_FAMILIES", (socket.AF_INET,))
    assert [each.text for each in devices.misordered_rules()] == ([texts] if texts else [])
    assert devices.rule_places(socket.AF_INET) == places
    new = [rule(places.local, LOCAL), Rule(socket.AF_INET, places.vrf, 0, l3mdev=True)]
    others = [each for each in rules if each.priority or each.table != LOCAL]
    ordered = sorted([*others, *new], key=lambda each: each.priority)
    monkeypatch.setattr(routing_rules, "read", lambda: ordered)
    assert not list(devices.misordered_rules())
    assert devices.is_local_moved(socket.AF_INET) == (case == "Cilium")
