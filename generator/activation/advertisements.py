"""Finds the configuration lines for bridges' router advertisements that FRR's reload can't apply.

frr-reload.py sends `no interface` for a removed stanza, and FRR refuses that while the kernel has
the interface (FRRouting/frr#13644). FRR also refuses a new interval above the old lifetime, and a
new lifetime below the old interval, whichever of the two comes first.
"""

from collections.abc import Iterator

HEAD = "interface nbr-"


def changes(running: str, conf: str) -> list[str]:
    """Return the lines that give a running configuration's bridges the lines of frr.conf."""
    before, after = _stanzas(running), _stanzas(conf)
    return [
        line
        for head in sorted(before.keys() | after.keys())
        for line in _change(head, before.get(head, []), after.get(head, []))
    ]


def _change(head: str, old: list[str], new: list[str]) -> Iterator[str]:
    if set(old) == set(new):
        return
    yield head
    yield "no ipv6 nd ra-lifetime"  # without one, FRR takes any interval
    yield from (_negated(line) for line in old if line not in new)
    yield from new
    yield "exit"


def _negated(line: str) -> str:
    return line.removeprefix("no ") if line.startswith("no ") else f"no {line}"


def _stanzas(text: str) -> dict[str, list[str]]:
    """Return the lines about advertisements of each bridge."""
    stanzas: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith(" "):
            lines = stanzas.setdefault(line.strip(), []) if line.startswith(HEAD) else []
        elif " nd " in line:
            lines.append(line.strip())
    return stanzas
