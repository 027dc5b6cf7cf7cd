"""The health of a host, by its sessions since the last apply."""

import pytest

from generator.observed.frr import Session
from generator.observed.health import GOOD, health

APPLIED = "2026-11-28T10:00:00+00:00"
AT = 1795860000.0  # the same time in seconds since the epoch
UP = Session("ens4", "Established", "Established")
NEVER = Session("ens5", "Active", "Active")
LOST = Session("ens5", "Idle", "Idle", AT + 60)
LOST_BEFORE = Session("ens5", "Idle", "Idle", AT - 60)


@pytest.mark.parametrize(
    ("sessions", "failed", "word", "text"),
    [
        ([UP, NEVER], "", "ok", ""),
        ([UP, LOST_BEFORE], "", "ok", ""),
        ([UP, LOST], "", "degraded", "ens5"),
        ([LOST], "", "down", "ens5"),
        ([NEVER], "", "waiting", "underlay"),
        ([], "", "ok", ""),
        ([UP], "guard: session ens5 is not Established\nmore", "failed", "guard: session ens5"),
        ([Session("theirs", "Idle", "Idle", AT + 60), UP], "", "ok", ""),
    ],
)
def test_sessions_decide_the_health(
    sessions: list[Session], failed: str, word: str, text: str
) -> None:
    """The word is the contract's; the reason names the session."""
    known = {session.neighbor: session for session in sessions}
    judged = health(["ens4", "ens5"], known, APPLIED, failed=failed)
    assert judged.word == word
    assert text in judged.reason
    assert "\n" not in judged.reason
    assert (judged.word in GOOD) == (word in ("ok", "waiting"))


@pytest.mark.parametrize(
    ("sessions", "word", "texts"),
    [
        ([UP], "degraded", ["02:00 is frozen"]),
        ([NEVER], "degraded", ["02:00 is frozen"]),
        ([UP, LOST], "degraded", ["ens5", "02:00 is frozen"]),
        ([LOST], "down", ["ens5"]),
    ],
)
def test_a_frozen_guest_degrades_the_health(
    sessions: list[Session], word: str, texts: list[str]
) -> None:
    """A host whose guest is out of reach is degraded, or worse by its sessions."""
    known = {session.neighbor: session for session in sessions}
    judged = health(["ens4", "ens5"], known, APPLIED, failed="", frozen="02:00 is frozen")
    assert judged.word == word
    assert all(text in judged.reason for text in texts)
