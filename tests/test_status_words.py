"""`status` names guests that move too often, and no more lines than a person reads."""

import msgspec

from generator.observed.evpn import Duplicate
from generator.reporting.status import NOTHING_APPLIED
from generator.verbs import status as verb

WELL = msgspec.structs.replace(NOTHING_APPLIED, host="srv1", ok=True, detail="")


def marked(number: int, *, frozen: bool) -> Duplicate:
    mac = f"02:00:00:00:00:{number:02x}"
    return Duplicate(vni=40, mac=mac, addresses=["10.4.0.1"], moves=31, frozen=frozen)


def test_a_guest_that_moves_too_often_is_named() -> None:
    """`status` warns of a guest that moves too often, with the command that clears the mark."""
    twins = [marked(1, frozen=False), marked(2, frozen=True)]
    lines = verb.text(msgspec.structs.replace(WELL, duplicates=twins)).splitlines()
    first, second = lines[-3:-1]
    assert first.startswith("warning: 02:00:00:00:00:01 (10.4.0.1) in VNI 40 has moved 31 times")
    assert first.endswith("vtysh -c 'clear evpn dup-addr vni 40 mac 02:00:00:00:00:01'")
    assert second.startswith("frozen: 02:00:00:00:00:02 (10.4.0.1)")


def test_only_a_few_guests_are_named() -> None:
    """A few guests are named, and the rest is counted: a guest may make up MACs."""
    many = [marked(number, frozen=False) for number in range(250)]
    text = verb.text(msgspec.structs.replace(WELL, duplicates=many))
    assert text.count("has moved") == 10
    assert "warning: 240 more move too often: status --json names them" in text
