"""`evpn-host check`: every problem of a payload, and its warnings."""

import re
from collections.abc import Sequence

import msgspec

from generator.desired import payload
from generator.desired.payload import Payload
from generator.desired.payload.document import ROLE
from generator.errors import Problem, Refused
from generator.secrets import mask

_HOST = re.compile(r"hosts\[\d+\]\.")


class Notice(msgspec.Struct, frozen=True):
    """A problem or a warning, part by part."""

    place: str
    value: str
    rule: str
    hint: str


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
    """Return a payload's warnings as a person reads them: like ones of many hosts are one line."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for warning in checked.warnings:
        host = _HOST.match(warning.place)
        place = warning.place[host.end() :] if host else warning.place
        alike.setdefault((place, *warning[1:]), []).append(host[0] if host else "")
    left_out = ", ".join(f"{each.name} ({each.role})" for each in checked.left_out)
    first = [f"hosts left out, because they are not {ROLE}: {left_out}"] if left_out else []
    return first + [_line(Problem(*key), hosts) for key, hosts in alike.items()]


def _line(warning: Problem, hosts: list[str]) -> str:
    if len(hosts) == 1:
        return str(warning._replace(place=hosts[0] + warning.place))
    return f"{len(hosts)} hosts: {warning}"
