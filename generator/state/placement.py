"""Where the hook has put the management address: its memory, and what `status` shows of it.

/run/evpn-host/failover.json     gone after a reboot, like the addresses that it is about
"""

from pathlib import Path
from typing import Literal

import msgspec

from generator.state import stored

Place = Literal["nic", "bridge"]
FILE = Path("run/evpn-host/failover.json")


Key = tuple[int, int, str, int, int]
"""Family, table, prefix, TOS and metric: what the kernel tells routes apart by."""


class Route(msgspec.Struct, frozen=True):
    """A route of the operator's, as ip-route(8) reads it."""

    family: int
    table: int
    prefix: str  # "default", "::/0", or with its length
    tos: int
    metric: int
    gateway: str  # "": what it leads to is on the link
    device: str
    text: str  # the rest: protocol, source, metrics, scope
    obstacle: str = ""  # what it has that we can't write down

    @property
    def key(self) -> Key:
        """What the kernel tells routes apart by when it replaces one."""
        return self.family, self.table, self.prefix, self.tos, self.metric

    @property
    def source(self) -> str:
        """The source address that it prefers, "" if it prefers none."""
        words = self.text.split()
        return words[words.index("src") + 1] if "src" in words else ""

    def words(self, device: str) -> str:
        """Return the route on a device, without its attributes."""
        tos = f" tos {self.tos:#x}" if self.tos else ""
        via = f" via {self.gateway}" if self.gateway else ""
        metric = f" metric {self.metric}" if self.metric else ""
        return f"{self.prefix}{tos}{via} dev {device} table {self.table}{metric}"

    def __str__(self) -> str:
        return self.words(self.device).replace(" table 254", "")


class Original(msgspec.Struct):
    """What the operator has on the NIC, to be put back there one day.

    An address or a gateway that is not a key was never there. A gateway without routes has none.
    """

    addresses: dict[str, str] = {}  # each with what ip-address(8) adds to it
    routes: dict[str, list[str]] = {}  # gateway to its default routes
    further: list[Route] = []  # other routes that move with the address
    given: list[str] = []  # addresses that nobody had put there when the hook first looked
    companions: dict[str, str] = {}  # other addresses that do, like `addresses`
    ahead: list[str] = []  # those of them that are primary to the management address


class Names(msgspec.Struct, frozen=True):
    """What systemd-resolved asks by a link, in the words of resolvectl(1); "" and (): not set."""

    servers: tuple[str, ...] = ()  # with port and name: 10.12.0.5:853#dns.example
    domains: tuple[str, ...] = ()  # those for routing alone begin with ~
    default_route: str = ""
    over_tls: str = ""
    dnssec: str = ""
    anchors: tuple[str, ...] = ()  # negative ones, of DNSSEC
    llmnr: str = ""
    mdns: str = ""


class HiddenNames(msgspec.Struct, frozen=True):
    """What the NIC's link has, while its servers are asked by the bridge alone."""

    names: Names
    by_hand: bool  # nobody sets it again when it is reverted
    returning: bool = False  # it is on its way back, `names` is all of it


class Placement(msgspec.Struct):
    """Where the address is and why. A restart of the hook goes on from here."""

    place: Place | None = None  # None: not known yet
    device: str = ""
    since: float = 0.0  # seconds since the epoch
    reason: str = "not looked yet"
    moves: int = 0
    repairs: int = 0  # how often somebody else had put it elsewhere
    index: int = 0  # of the NIC, which may be renamed
    stuck: list[str] = []  # routes that the kernel did not take in their new place
    hidden_names: HiddenNames | None = None
    names_problem: str = ""  # why the DNS servers could not move with the address
    original: Original = msgspec.field(default_factory=Original, name="own")


def read(root: Path) -> Placement | None:
    """Return what the hook last wrote, None if it wrote nothing."""
    try:
        return stored.read(root, FILE, Placement)
    except (OSError, msgspec.DecodeError):
        return None


def companions() -> list[str]:
    """Return the operator's addresses on this machine that go with the management address."""
    placed = read(Path("/"))
    return list(placed.original.companions) if placed else []
