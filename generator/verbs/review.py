"""`evpn-host review`: what changes between two payloads or two trees, for all hosts of a fleet."""

from collections import Counter
from collections.abc import Callable

import msgspec

from generator.activation.backends import NAMES
from generator.desired import comparison, written
from generator.desired.change import ADDED, Change
from generator.desired.grouped import Group, grouped, natural
from generator.desired.payload import Payload
from generator.errors import Refused
from generator.secrets import mask
from generator.verbs import context, sides
from generator.verbs.progress import counted
from generator.verbs.sides import Tree
from generator.verbs.workers import spread

FORMAT = 1
Side = Payload | Tree
Changes = dict[str, list[Change]]  # by host
_LOWER = "NEW has generation {}, OLD {}: a host that has OLD refuses NEW, unless it is forced"
_TWICE = "standard input can be read once: give another OLD or NEW"


class Hosts(msgspec.Struct, frozen=True):
    """The hosts of both sides. A host that is new or gone is no changed one."""

    total: int
    unchanged: int
    changed: list[str]
    added: list[str]
    removed: list[str]


class Entry(msgspec.Struct, frozen=True):
    """A change and the hosts that have it."""

    sign: str  # + added, ~ changed, - removed
    subject: str
    detail: str
    text: str  # all of it on one line, without the risks
    risks: tuple[str, ...]
    hosts: list[str]
    diff: str  # of a file that could not be said in words


class Answer(msgspec.Struct, frozen=True):
    """All that `review --json` says."""

    format: int  # of this answer; a field more does not raise it
    hosts: Hosts
    risk: bool
    changes: list[Entry]


class Review(msgspec.Struct, frozen=True):
    """What changes, for a person and for a script."""

    hosts: Hosts
    groups: list[Group]

    @property
    def differs(self) -> bool:
        """Whether any host changes."""
        return bool(self.groups)

    @property
    def risk(self) -> bool:
        """Whether a change is marked."""
        return any(group.change.risks for group in self.groups)

    @property
    def answer(self) -> Answer:
        """Return it for a script."""
        return Answer(FORMAT, self.hosts, self.risk, list(map(_entry, self.groups)))


def _entry(group: Group) -> Entry:
    change = group.change
    return Entry(
        sign=change.sign,
        subject=mask(change.subject),
        detail=mask(change.detail),
        text=mask(change.text),
        risks=tuple(map(mask, change.risks)),
        hosts=group.hosts,
        diff=mask(change.diff),
    )


def read(old_source: str, new_source: str) -> tuple[Side, Side]:
    """Return the two sides of a review. Raises `Refused`."""
    if old_source == new_source == "-":
        raise Refused(_TWICE)
    with context.progress(verbose=False) as log:
        log("# OLD is read")
        old = sides.read(old_source)
        log("# NEW is read")
        return old, sides.read(new_source)


def review(old: Side, new: Side) -> Review:
    """Compare what two sides say of all their hosts. Raises `Refused`."""
    names = sorted({*old.names, *new.names}, key=natural)
    if isinstance(old, Payload) and isinstance(new, Payload):
        # All hosts of a payload have the same gateway and MAC of a V-Net.
        changes = _compare(names, _of_payloads(old, new))
        if new.generation < old.generation:
            context.say(f"warning: {_LOWER.format(new.generation, old.generation)}")
    else:
        trees = sides.rendered(old, new), sides.rendered(new, old)
        changes = _compare(names, _of_trees(*trees))
        changes = _with_disagreements(changes, trees[1])
    return Review(_hosts(names, old, new, changes), grouped(changes))


def _hosts(names: list[str], old: Side, new: Side, changes: Changes) -> Hosts:
    before, after = set(old.names), set(new.names)
    return Hosts(
        total=len(names),
        unchanged=len(names) - len(changes),
        changed=[name for name in names if name in changes and name in before & after],
        added=[name for name in names if name in after - before],
        removed=[name for name in names if name in before - after],
    )


def _compare(names: list[str], compare: Callable[[str], list[Change]]) -> Changes:
    """Return the changes of each host that has some."""
    changes: Changes = {}
    pending = iter(names)
    with counted(len(names), "the hosts are compared") as advance:
        for part in spread(compare, names):
            for found in part:
                name = next(pending)
                if found:
                    changes[name] = found
            advance(len(part))
    return changes


def _of_payloads(old: Payload, new: Payload) -> Callable[[str], list[Change]]:
    def compare(name: str) -> list[Change]:
        pair = (each.host(name) if name in each.entries else None for each in (old, new))
        return comparison.host_changes(*pair)

    return compare


def _of_trees(old: Tree, new: Tree) -> Callable[[str], list[Change]]:
    before, after = set(old.names), set(new.names)

    def compare(name: str) -> list[Change]:
        if name in before and name in after and old.same(name, new):
            return []
        was = old.files(name) if name in before else None
        becomes = new.files(name) if name in after else None
        return comparison.file_changes(was, becomes, NAMES)

    return compare


def _with_disagreements(changes: Changes, new: Tree) -> Changes:
    """Return the changes with a mark where other hosts keep another gateway or MAC of a V-Net."""
    vnis = {each.vni for found in changes.values() for each in found if each.vni}
    added = [name for name, found in changes.items() if any(map(_is_new, found))]
    vnis |= {vni for name in added for vni in _gateways(new, name)}
    if not vnis:
        return changes

    def gateways(name: str) -> dict[int, str]:
        return {vni: each for vni, each in _gateways(new, name).items() if vni in vnis}

    of_hosts = [each for part in spread(gateways, new.names) for each in part]
    counts: dict[int, Counter[str]] = {}
    for found in of_hosts:
        for vni, value in found.items():
            counts.setdefault(vni, Counter())[value] += 1
    by_name = dict(zip(new.names, of_hosts, strict=True))
    return {
        name: [_marked(each, by_name.get(name, {}), counts) for each in found]
        for name, found in changes.items()
    }


def _gateways(tree: Tree, name: str) -> dict[int, str]:
    return written.gateways(tree.files(name, written.MAIN_FILES))


def _is_new(change: Change) -> bool:
    return (change.sign, change.subject) == (ADDED, comparison.HOST)


def _marked(change: Change, own: dict[int, str], counts: dict[int, Counter[str]]) -> Change:
    risks = []
    for vni in own if _is_new(change) else (each for each in own if each == change.vni):
        others = [(value, count) for value, count in counts[vni].items() if value != own[vni]]
        whose = f"V-Net {vni}: " if _is_new(change) else ""
        risks += [whose + _keeps(value, count) for value, count in sorted(others)]
    return msgspec.structs.replace(change, risks=(*change.risks, *risks))


def _keeps(value: str, count: int) -> str:
    return f"{count} other host{'s have' if count > 1 else ' has'} {value}"
