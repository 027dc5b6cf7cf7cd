"""`evpn-host check`: every problem of a payload, and its warnings."""

import re
from collections.abc import Sequence

import msgspec

from generator.desired import payload
from generator.desired.payload import Payload
from generator.desired.payload.document import ROLE
from generator.errors import Problem, Refused
from generator.secrets import mask

_HOST = re.compile(r"hosts\[\d+\]\.?")
_MOST_NAMES = 3  # in a line; the others are counted
_MOST_ALIKE = 10  # lines with the same rule before the others are counted


class Notice(msgspec.Struct, frozen=True):
    """A problem or a warning in its parts."""

    place: str
    value: str
    rule: str
    hint: str
    whose: str


class Report(msgspec.Struct, frozen=True):
    """All that `check --json` says."""

    problems: list[Notice]
    warnings: list[Notice]


def report(data: bytes, host: str | None) -> Report:
    """Check a payload, and that it has a host if one is named."""
    try:
        checked = payload.load(data)
        if host is not None:
            checked.host(host)
    except Refused as refused:
        return Report(_notices(refused.problems), [])
    return Report([], _notices([*(each.warning for each in checked.left_out), *checked.warnings]))


def _notices(problems: Sequence[Problem]) -> list[Notice]:
    return [Notice(*map(mask, problem)) for problem in problems]


def lines(checked: Payload) -> list[str]:
    """Return a payload's warnings for a person. Similar ones about many hosts are one line."""
    alike: dict[Problem, list[Problem]] = {}
    for warning in checked.warnings:
        host = _HOST.match(warning.place)
        key = warning._replace(place=warning.place[host.end() :], whose="") if host else warning
        alike.setdefault(key, []).append(warning)
    shown: dict[str, list[str]] = {}
    for key, group in alike.items():
        shown.setdefault(key.rule, []).append(_line(key, group))
    left_out = ", ".join(f"{each.name} ({each.role})" for each in checked.left_out)
    first = [f"hosts left out, because they are not {ROLE}: {left_out}"] if left_out else []
    return first + [line for rule, group in shown.items() for line in _shortened(group, rule)]


def _line(key: Problem, group: list[Problem]) -> str:
    if len(group) == 1:
        return str(group[0])
    names = [warning.whose.removeprefix("host ") for warning in group if warning.whose]
    more = len(names) - _MOST_NAMES
    listed = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"{len(group)} hosts: {key._replace(whose=listed)}"


def _shortened(group: list[str], rule: str) -> list[str]:
    """Return the lines of one rule: all of them, or the first ones and a count of the rest."""
    more = len(group) - _MOST_ALIKE
    return group if more <= 0 else [*group[:_MOST_ALIKE], f"{more} more of this kind: … {rule}"]
