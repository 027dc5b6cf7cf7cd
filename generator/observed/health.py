"""The health of a host in one word: pure, from its record and its sessions."""

import datetime
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from generator.observed.frr import Session

Word = Literal["ok", "waiting", "degraded", "down", "unconfirmed", "failed"]
GOOD: frozenset[str] = frozenset({"ok", "waiting"})  # nobody has to do anything


class Health(NamedTuple):
    """A word for scripts, and the reason for a person."""

    word: Word
    reason: str


def health(  # noqa: PLR0913  # everything that decides about the word
    expected: Iterable[str],
    sessions: Mapping[str, Session],
    applied: str,
    *,
    failed: str,
    unconfirmed: str = "",
    frozen: str = "",
) -> Health:
    """Return a host's health, from the sessions that it should have since an apply (ISO 8601).

    `failed` says why the last apply failed, "" if it did not; `unconfirmed` when the host goes back
    from it, "" if it does not; `frozen` which guests FRR has frozen. A session that was never up
    since FRR started waits for its switch port.
    """
    if failed:
        return Health("failed", failed.partition("\n")[0])
    by_sessions = _of_sessions(expected, sessions, applied)
    if unconfirmed:
        return Health("unconfirmed", "; ".join(filter(None, [unconfirmed, by_sessions.reason])))
    if frozen and by_sessions.word != "down":
        lost = by_sessions.reason if by_sessions.word == "degraded" else ""
        return Health("degraded", "; ".join(filter(None, [lost, frozen])))
    return by_sessions


def _of_sessions(expected: Iterable[str], sessions: Mapping[str, Session], applied: str) -> Health:
    since = datetime.datetime.fromisoformat(applied).timestamp()
    known = {name: sessions[name] for name in expected if name in sessions}
    up = sorted(name for name, session in known.items() if session.established)
    lost = sorted(
        name
        for name, session in known.items()
        if not session.established and session.down_since and session.down_since > since
    )
    if lost and up:
        return Health("degraded", f"the session with {', '.join(lost)} is down")
    if lost:
        return Health("down", f"no session is left; there were sessions with {', '.join(lost)}")
    if not up and known:
        return Health("waiting", "for the switch ports to be set to underlay")
    return Health("ok", "")
