"""Compares FRR's running configuration with its file, line by line.

Each daemon sends its part over its socket, which takes milliseconds; `frr-reload.py --test` takes a
second. Our file has the form in which FRR shows its configuration, so the two have the same lines.
The order of lines does not matter: FRR sorts them, and where order matters a line has a number. An
operator's own lines may be spelled differently. Then `activation.frr` asks frr-reload.py, and
`state.reloaded` keeps its answer.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from generator.desired.plan import digest
from generator.observed import frr
from generator.secrets import mask_frr
from generator.state import changes

CONF = "etc/frr/frr.conf"
_SHOWN = 20  # lines that are shown; the rest is only counted

Line = tuple[str, ...]
"""A line and the lines above it in its stanza: `("router bgp 65000", "neighbor ens4 shutdown")`."""

# Lines that do not change what FRR does, or that differ although nobody has changed them.
_IGNORED = (
    "!",
    "#",
    "end",
    "exit",  # and exit-address-family and the like
    "frr version ",
    "frr defaults ",
    "hostname ",
    "domainname ",
    "service integrated-vtysh-config",
    "no service integrated-vtysh-config",
    "Building configuration",
    "Current configuration",
)
_SHUT = ("shutdown",)
# Stanzas that FRR may show or omit when they are empty.
_MAY_BE_EMPTY = ("vrf ", "interface ", "address-family ")


class Drift(msgspec.Struct, frozen=True):
    """Lines of its file that FRR's running configuration lacks, and lines that only it has."""

    missing: list[Line]
    extra: list[Line]

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra)

    @property
    def digest(self) -> str:
        """What identifies this drift."""
        return digest("missing", *map(str, self.missing), "extra", *map(str, self.extra))

    @property
    def texts(self) -> list[str]:
        """The differences for a person, without passwords."""
        named = [_text(line, "is missing") for line in _outer(self.missing)]
        named += [_text(line, "is not in its file") for line in _outer(self.extra)]
        rest = len(named) - _SHOWN
        return named[:_SHOWN] + ([f"FRR: {rest} more lines differ"] if rest > 0 else [])


def drift(root: Path) -> Drift:
    """Return how FRR's running configuration differs from frr.conf. Raises `frr.Silent`."""
    file = lines_of([changes.read(root, CONF) or ""])
    running = lines_of(_running(root))
    return Drift(sorted(file - running), sorted(running - file))


def shut_down(root: Path) -> set[str]:
    """Return the interfaces that are shut down in FRR; none if FRR does not answer."""
    try:
        lines = lines_of(_running(root))
    except frr.Silent:
        return set()
    return _shut_interfaces(lines)


def _shut_interfaces(lines: Iterable[Line]) -> set[str]:
    return {
        line[0].split()[1] for line in lines if line[0][:10] == "interface " and line[1:] == _SHUT
    }


def shut(root: Path, text: str) -> tuple[set[str], set[str]]:
    """Return the NICs and neighbors that are shut down: in an FRR file, and in the running FRR."""
    try:
        running = lines_of(_running(root))
    except frr.Silent:
        running = set()
    file, now = (
        _shut_interfaces(each) | _shut_neighbors(each) for each in (lines_of([text]), running)
    )
    return file, now


def _shut_neighbors(lines: Iterable[Line]) -> set[str]:
    words = [line[1].split() for line in lines if line[0][:11] == "router bgp " and len(line) == 2]
    return {each[1] for each in words if each[:1] == ["neighbor"] and each[2:3] == ["shutdown"]}


def foreign_neighbors(drift: Drift, root: Path) -> list[tuple[str, str]]:
    """Return running neighbors that FRR's file does not have, each with its `router bgp` line."""
    own = {_neighbor(line) for line in lines_of([changes.read(root, CONF) or ""])}
    return sorted({each for line in drift.extra if (each := _neighbor(line)) and each not in own})


def _neighbor(line: Line) -> tuple[str, str] | None:
    """Return the neighbor that a line is about, with its `router bgp` line."""
    match line:
        case (instance, below) if below.startswith("neighbor "):
            return instance, below.split()[1]
    return None


def _running(root: Path) -> list[str]:
    """Return each daemon's part of the running configuration. Raises `frr.Silent`."""
    names = sorted(path.stem for path in (root / "run/frr").glob("*.vty"))
    return [frr.ask(name, "show running-config", root) for name in names if name != "watchfrr"]


def lines_of(texts: Iterable[str]) -> set[Line]:
    """Return the lines of configurations, each with the lines above it in its stanza."""
    lines: set[Line] = set()
    for text in texts:
        lines.update(_lines(text))
    below = {line[:-1] for line in lines}
    return {each for each in lines if each in below or not each[-1].startswith(_MAY_BE_EMPTY)}


def _lines(text: str) -> Iterator[Line]:
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        words = line.strip()
        if not words or words.startswith(_IGNORED):
            continue
        indent = len(line) - len(line.lstrip())
        while above and above[-1][0] >= indent:
            above.pop()
        above.append((indent, words))
        yield tuple(each for _, each in above)


def _outer(lines: list[Line]) -> Iterator[tuple[Line, int]]:
    """Yield the lines that are below none of the others, with the number of lines below each.

    For a stanza with one line, only that line is shown.
    """
    known = set(lines)
    for line in lines:
        if any(line[:n] in known for n in range(1, len(line))):
            continue
        below = [each for each in lines if each != line and each[: len(line)] == line]
        yield (below[0], 0) if len(below) == 1 else (line, len(below))


def _text(counted: tuple[Line, int], what: str) -> str:
    line, below = counted
    place = f" of {', '.join(line[:-1])}" if line[:-1] else ""
    count = f", and {below} lines below it" if below else ""
    return f"FRR: `{mask_frr(line[-1])}`{place} {what}{count}"
