"""A review as a person reads it: on a terminal, or as the comment of a pull request."""

import html
import re
from collections.abc import Iterator

from generator.desired.change import total
from generator.desired.grouped import Group, folded, short_list
from generator.errors import printable
from generator.secrets import mask
from generator.verbs.review import Review

_WIDTH = 76  # columns of a change before its hosts are no longer aligned
_NAMES = 8  # names and ranges of hosts on a line
_LONGEST = 400  # characters of a change that are shown
LIMIT = 60_000  # characters of a comment; GitHub takes 65,536
_SHORT = 12  # changes that a comment shows unfolded
_DIFF = 6_000  # characters of one difference in a comment


def lines(review: Review) -> Iterator[str]:
    """Yield a line for each change with its hosts and risks, then how many hosts are as before."""
    groups = list(folded(review.groups))
    rows = [(_change(each), _hosts(each.hosts, _NAMES), _risks(each)) for each in groups]
    width = max((len(row[0]) for row in rows if len(row[0]) <= _WIDTH), default=0)
    middle = max((len(row[1]) for row in rows if row[2] and len(row[1]) <= _WIDTH), default=0)
    for change, hosts, risks in rows:
        line = f"{change:{width}}   {hosts:{middle if risks else 0}}"
        yield f"{line}   ! {risks}" if risks else line
    for group in groups:
        if group.change.diff:
            yield from _diff_lines(group)
    yield f"  {unchanged(review)}"
    if groups:
        yield _total(groups)


def _diff_lines(group: Group) -> Iterator[str]:
    yield ""
    yield f"{_change(group)} of {_hosts(group.hosts, _NAMES)}"
    yield from (f"    {line}" for line in _lines_of_diff(group))


def _lines_of_diff(group: Group) -> list[str]:
    return [printable(mask(line), _LONGEST) for line in group.change.diff.splitlines()]


def _total(groups: list[Group]) -> str:
    text = total([each.change.sign for each in groups])
    risky = sum(bool(each.change.risks) for each in groups)
    return f"{text}; {risky} marked with !" if risky else text


def unchanged(review: Review) -> str:
    """Return how many hosts are as they were."""
    return f"{review.hosts.unchanged} of {_count(review.hosts.total)} unchanged"


def _count(hosts: int) -> str:
    return f"{hosts} host{'s' * (hosts != 1)}"


def _change(group: Group) -> str:
    return printable(mask(group.change.text), _LONGEST)


def _hosts(hosts: list[str], most: int) -> str:
    return f"{_count(len(hosts))}: {printable(short_list(hosts, most), _LONGEST)}"


def _risks(group: Group) -> str:
    return printable(mask(", ".join(group.change.risks)), _LONGEST)


def markdown(review: Review) -> str:
    """Return a comment in Markdown. It is cut, with a count, before GitHub would refuse it."""
    groups = list(folded(review.groups))
    risky = [each for each in groups if each.change.risks]
    others = [each for each in groups if not each.change.risks]
    parts = [f"### evpn-host: {_headline(review, groups)}\n"]
    room = LIMIT - 500  # for the ends of folded parts and the counts of what is left out
    for title, members, fold in (
        ("Look at these before you merge", risky, False),
        (f"{len(others)} changes" if risky else "", others, len(others) > _SHORT),
    ):
        if members:
            room -= _add_table(parts, title, members, room, fold=fold)
    for group in groups:
        if group.change.diff:
            room -= _add_diff(parts, group, room)
    return "\n".join(parts)


def _headline(review: Review, groups: list[Group]) -> str:
    if not groups:
        return f"no host changes ({unchanged(review)})"
    return f"{unchanged(review)}; {_total(groups)}"


def _add_table(parts: list[str], title: str, groups: list[Group], room: int, *, fold: bool) -> int:
    """Add a table of changes, as many as there is room for; return what it takes."""
    risky = bool(groups[0].change.risks)
    begin = ["<details>", f"<summary>{title or f'{len(groups)} changes'}</summary>", ""]
    if not fold:
        begin = [f"**{title}**", ""] if title else []
    head = "| change | hosts |" + (" risk |" if risky else "")
    rows = [*begin, head, "| --- | --- |" + (" --- |" if risky else "")]
    taken = sum(len(row) + 1 for row in rows)
    for number, group in enumerate(groups):
        row = _row(group, risky=risky)
        if taken + len(row) + 1 > room:
            rows += ["", f"… and {len(groups) - number} changes more: `evpn-host review` has all."]
            break
        rows.append(row)
        taken += len(row) + 1
    parts += [*rows, "", *(["</details>", ""] if fold else [])]
    return taken


def _row(group: Group, *, risky: bool) -> str:
    hosts = short_list(group.hosts, _NAMES)
    cells = [_code(_change(group)), f"{len(group.hosts)}: {_code(printable(hosts, _LONGEST))}"]
    if risky:
        cells.append(_plain(_risks(group)))
    return f"| {' | '.join(cells)} |"


def _add_diff(parts: list[str], group: Group, room: int) -> int:
    diff = "\n".join(_lines_of_diff(group))
    if len(diff) > _DIFF:
        diff = f"{diff[:_DIFF]}\n… (cut)"
    ticks = max((len(run) for run in re.findall("`+", diff)), default=0)
    fence = "`" * max(3, ticks + 1)
    text = "\n".join(
        [
            "<details>",
            f"<summary>{html.escape(_change(group))}, {_count(len(group.hosts))}</summary>",
            "",
            f"{fence}diff",
            diff,
            fence,
            "",
            "</details>",
            "",
        ]
    )
    if len(text) > room:
        return 0
    parts.append(text)
    return len(text)


def _code(text: str) -> str:
    """Return text as code, in which no Markdown, link or mention means anything.

    A backtick has no escape there, and a cell of a table ends at a bar even in code.
    """
    return f"<code>{_plain(text)}</code>" if "`" in text or "|" in text else f"`{text}`"


def _plain(text: str) -> str:
    """Return text of which no character means anything in Markdown or HTML."""
    return "".join(c if c.isalnum() or c in " ,;:+→–…/()" else f"&#{ord(c)};" for c in text)
