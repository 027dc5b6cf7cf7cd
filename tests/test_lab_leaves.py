"""The lab types the frr.conf of `leaves` into the FRR of its leaves, and lines that undo it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.guest.fabric import _paths, _text, _undo
from lab.leaves import INITIAL, of_payload, with_frr
from tests.conftest import ACCEPTED, REPO
from tests.strategies import parsed

LEAF = "ns-leaf-0"
HOSTS = [path for path in ACCEPTED if parsed(path).get("kind") == "Host"]


def frr(**parts: Any) -> list[tuple[str, ...]]:
    """Return the lines of a leaf in a state of the fabric."""
    return _paths(with_frr({**INITIAL, **parts})["frr"][LEAF])


def of_file(name: str) -> dict[str, Any]:
    """Return the parts of the fabric's state that a payload of the tests decides."""
    return of_payload(json.loads((REPO / "tests/payloads" / name).read_text()))


@pytest.mark.parametrize("path", HOSTS, ids=lambda path: path.stem)
def test_each_line_of_a_file_is_typed_in_its_place(path: Path) -> None:
    """Each line is typed where it stands in the file; the leaves can carry each host's payload."""
    lines = frr(**of_payload(parsed(path)), underlay=[LEAF])
    assert ("router bgp 4200300001", "neighbor swp9s1 timers 3 9") in lines
    assert _paths(_text(lines)) == lines


def test_a_line_is_typed_below_its_parents() -> None:
    """A line is typed below its parents, and the next one after as many ends as it needs."""
    lines = [("router bgp 1", "address-family ipv4 unicast", "network 10.0.0.0/8"), ("vrf A",)]
    assert _text(lines).splitlines() == [
        "router bgp 1",
        " address-family ipv4 unicast",
        "  network 10.0.0.0/8",
        " exit",
        "exit",
        "vrf A",
    ]


def test_a_removed_session_takes_its_lines_along() -> None:
    """One line removes all lines of a neighbor, and another one its prefix list."""
    before, after = frr(underlay=[LEAF]), frr()
    assert _undo(path for path in before if path not in after) == [
        ("no ip prefix-list swp9s1 seq 5 permit 10.2.0.101/32",),
        ("router bgp 4200300001", "no neighbor swp9s1 interface v6only peer-group HOSTS"),
    ]


def test_a_new_as_number_replaces_the_old_one() -> None:
    """The neighbor stays, and the new AS number takes the place of the old one."""
    before = frr(underlay=[LEAF])
    after = frr(underlay=[LEAF], host=INITIAL["host"] | {"asn": 4200000777})
    assert _undo(path for path in before if path not in after) == []
    assert [path[-1] for path in after if path not in before] == [
        "neighbor swp9s1 remote-as 4200000777"
    ]


def test_ended_advertisements_are_undone_line_by_line() -> None:
    """Each line of the interface is taken back, and the interface's own line is not."""
    before = frr(**of_file("router-advertisements.json"))
    undone = _undo(path for path in before if path[0].startswith("interface "))
    assert ("interface br-40", "ipv6 nd suppress-ra") in undone
    assert all(len(path) == 2 for path in undone)
