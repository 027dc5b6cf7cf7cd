"""A review as one HTML page that opens from a file: the fabric as a picture, VPCs, hosts, files.

The page contains all its data as JSON, and shows it as text, never as HTML. It fetches nothing.
"""

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from generator.activation.backends import NAMES
from generator.desired import lines, written
from generator.desired.model import Bridge, Host, leaf
from generator.desired.payload import Payload
from generator.desired.render import environment
from generator.errors import printable
from generator.secrets import mask, mask_frr
from generator.state import files
from generator.verbs import fleet_status, sides
from generator.verbs.parameters import STALE
from generator.verbs.review import Entry, Review
from generator.verbs.review_text import unchanged
from generator.verbs.sides import Tree
from generator.verbs.workers import spread

TEMPLATE = "review/page.html.j2"
_ROOM = 1_500_000  # characters of all differences: a page of 1,000 hosts stays below 3 MB
_LONGEST_LINE = 300  # characters of a line of a file

Side = Payload | Tree
Item = TypeVar("Item")
VNet = tuple[int, str, int, int, tuple[str, ...]]
"""VNI, name, id of its VPC (0: none), MTU, gateways."""


class _Node(msgspec.Struct, frozen=True):
    """A host in the picture. Numbers are places in the page's lists."""

    name: str
    state: str  # same, changed, added, removed
    asn: int
    loopback: str
    links: list[tuple[str, int, str]]  # NIC or peer's address, leaf, same, added or removed
    set: int  # the place of its V-Nets in the page's sets


class _Change(msgspec.Struct, frozen=True):
    text: str
    risks: tuple[str, ...]
    hosts: list[int]


class _Difference(msgspec.Struct, frozen=True):
    """A difference of a file, and the hosts that have it."""

    path: str
    lines: list[str]  # of a unified diff
    hosts: list[int]


class _Report(msgspec.Struct, frozen=True):
    """The report of a host, or that it has never reported."""

    name: str
    host: int | None  # None: on no side of the review
    needed: bool  # whether the host needs a person
    health: str
    generation: int | None
    contact: str
    why: str


class _Fleet(msgspec.Struct, frozen=True):
    """The state of the fleet now."""

    summary: str
    read: str  # when the reports were read
    hosts: list[_Report]  # those that need a person come first
    damaged: list[tuple[str, str]]  # files that are no reports, and why


class _Page(msgspec.Struct, frozen=True):
    """All that the page shows."""

    old: str
    new: str
    summary: str
    leaves: list[str]
    vpcs: list[tuple[int, str, int]]  # id, name, L3VNI (0: none)
    vnets: list[VNet]
    sets: list[list[int]]  # sets of V-Nets, because many hosts have the same ones
    hosts: list[_Node]
    changes: list[_Change]
    files: list[_Difference]
    left_out: int  # differences of files for which there was no room
    fleet: _Fleet | None  # None: no reports were given


class _Places(Generic[Item]):
    """A list without repetitions, and the place of each item in it."""

    def __init__(self) -> None:
        self._places: dict[Item, int] = {}

    def index(self, item: Item) -> int:
        """Return the place of an item. A new item is added."""
        return self._places.setdefault(item, len(self._places))

    @property
    def items(self) -> list[Item]:
        return list(self._places)


def write(
    review: Review,
    both: tuple[Side, Side],
    sources: tuple[str, str],
    path: Path,
    reports: Path | None = None,
) -> None:
    """Write the page; with a folder of reports, also the state of the fleet now.

    Raises `Refused` or `OSError`.
    """
    page = _page(review, *both, sources)
    if reports:
        fleet = _fleet(reports, both[0], {node.name: n for n, node in enumerate(page.hosts)})
        page = msgspec.structs.replace(page, fleet=fleet)
    data = msgspec.json.encode(page).decode()
    # Inside a script element the browser only looks for its end tag, which begins with "<".
    data = data.replace("<", "\\u003c")
    text = environment().get_template(TEMPLATE).render(data=data)
    files.write_plain(path.absolute().parent, path.name, text.encode(), 0o644)


def _page(review: Review, old: Side, new: Side, sources: tuple[str, str]) -> _Page:
    hosts = review.hosts
    states = dict.fromkeys(hosts.changed, "changed")
    states |= dict.fromkeys(hosts.added, "added") | dict.fromkeys(hosts.removed, "removed")
    names = list(dict.fromkeys([*new.names, *hosts.removed]))
    place = {name: number for number, name in enumerate(names)}
    leaves, vpcs = _Places[str](), _Places[tuple[int, str, int]]()
    vnets, sets = _Places[VNet](), _Places[tuple[int, ...]]()
    nodes = []
    for name, (host, links) in zip(names, _hosts(names, states, old, new), strict=True):
        own = []
        if host:
            vpc_ids = _vpcs(host, vpcs)
            own = [
                vnets.index(_vnet(bridge, vpc_ids)) for bridge in host.bridges if not bridge.l3vni
            ]
        nodes.append(
            _Node(
                name=name,
                state=states.get(name, "same"),
                asn=host.asn if host else 0,
                loopback=host.loopback if host else "",
                links=[(nic, leaves.index(leaf_), state) for nic, leaf_, state in links],
                set=sets.index(tuple(own)),
            )
        )
    differences, left_out = _differences(list(states), place, old, new)
    return _Page(
        old=mask(printable(sources[0])),
        new=mask(printable(sources[1])),
        summary=unchanged(review),
        leaves=leaves.items,
        vpcs=vpcs.items,
        vnets=vnets.items,
        sets=list(map(list, sets.items)),
        hosts=nodes,
        changes=[_change(each, place) for each in review.answer.changes],
        files=differences,
        left_out=left_out,
        fleet=None,
    )


def _fleet(folder: Path, old: Side, place: dict[str, int]) -> _Fleet:
    """Return the state of the hosts from their reports, compared with OLD."""
    payload = old if isinstance(old, Payload) else None
    status = fleet_status.look(folder, payload, STALE * 60)
    return _Fleet(
        summary=fleet_status.summary(status),
        read=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        hosts=[
            _Report(
                name=row.host,
                host=place.get(row.host),
                needed=bool(row.attention),
                health=row.health or "-",
                generation=row.generation,
                contact=row.last_contact or "never",
                why=mask("; ".join(fleet_status.why(row))),
            )
            for row in status.hosts
        ],
        damaged=[(each.report, each.reason) for each in status.damaged],
    )


def _change(entry: Entry, place: dict[str, int]) -> _Change:
    return _Change(entry.text, entry.risks, [place[name] for name in entry.hosts])


Link = tuple[str, str, str]
"""NIC or peer's address, leaf, and the state of the link: same, added or removed."""


def _hosts(
    names: list[str], states: dict[str, str], old: Side, new: Side
) -> Iterator[tuple[Host | None, list[Link]]]:
    """Yield each host in its new state, a removed one in its old state, with the links of both.

    None: the host can't be read back from its files.
    """

    def read(name: str) -> tuple[Host | None, list[Link]]:
        state = states.get(name, "same")
        was = _host(old, name) if state in {"changed", "removed"} else None
        host = was if state == "removed" else _host(new, name)
        if host is None:
            return None, []
        before, after = _links(was) if was else _links(host), _links(host)
        links = [(*pair, "same" if pair in before else "added") for pair in after]
        return host, [*links, *((*pair, "removed") for pair in before if pair not in after)]

    for part in spread(read, names):
        yield from part


def _host(side: Side, name: str) -> Host | None:
    if isinstance(side, Payload):
        return side.host(name)
    readable = written.read(side.files(name), NAMES)
    return readable.host if readable else None


def _links(host: Host) -> list[tuple[str, str]]:
    return [(uplink.neighbor, leaf(uplink)) for uplink in host.uplinks]


def _vpcs(host: Host, vpcs: _Places[tuple[int, str, int]]) -> dict[str, int]:
    """Return the id of the VPC of each bridge that is in one, and add the VPCs."""
    for vrf in host.vrfs:
        vpcs.index((vrf.id, vrf.label, vrf.vni or 0))
    return {bridge: vrf.id for vrf in host.vrfs for bridge in vrf.bridges}


def _vnet(bridge: Bridge, vpc_ids: dict[str, int]) -> VNet:
    vpc = vpc_ids.get(bridge.name, 0)
    return bridge.port.vni, bridge.label, vpc, bridge.mtu, tuple(bridge.addresses)


def _differences(
    names: list[str], place: dict[str, int], old: Side, new: Side
) -> tuple[list[_Difference], int]:
    """Return each difference once, those of most hosts first, and the number of omitted ones."""
    hosts: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    pending = iter(names)
    for part in spread(_diff(sides.rendered(old, new), sides.rendered(new, old)), names):
        for own in part:
            number = place[next(pending)]
            for each in own:
                hosts.setdefault(each, []).append(number)
    room, shown = _ROOM, []
    for (path, text), numbers in sorted(hosts.items(), key=lambda item: -len(item[1])):
        room -= sum(map(len, text)) + 4 * (len(text) + len(numbers)) + len(path)
        if room < 0:
            break
        shown.append(_Difference(path, list(text), numbers))
    return shown, len(hosts) - len(shown)


def _diff(old: Tree, new: Tree) -> Callable[[str], list[tuple[str, tuple[str, ...]]]]:
    before, after = set(old.names), set(new.names)

    def diff(name: str) -> list[tuple[str, tuple[str, ...]]]:
        was = old.files(name) if name in before else {}
        becomes = new.files(name) if name in after else {}
        paths = sorted(was.keys() | becomes.keys())
        return [
            (f"/{path}", tuple(_lines(was.get(path, ""), becomes.get(path, ""))))
            for path in paths
            if was.get(path) != becomes.get(path)
        ]

    return diff


def _lines(was: str, becomes: str) -> Iterator[str]:
    for line in lines.difference(*(mask_frr(text).splitlines() for text in (was, becomes))):
        yield printable(line, _LONGEST_LINE)
