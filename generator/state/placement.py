"""Where the hook has put the management address: the hook's memory, which `status` reads too.

/run/evpn-host/failover.json     lost in a reboot, as are the addresses on the devices
"""

from pathlib import Path
from typing import Literal

import msgspec

from generator.state import stored

Place = Literal["nic", "bridge"]
FILE = Path("run/evpn-host/failover.json")


Key = tuple[int, int, str, int, int]
"""Family, table, prefix, TOS and metric: by these the kernel tells routes apart."""


class Route(msgspec.Struct, frozen=True):
    """A route of the operator, in the words of ip-route(8)."""

    family: int
    table: int
    prefix: str  # "default", "::/0", or with its length
    tos: int
    metric: int
    gateway: str  # "": its destinations are on the link
    device: str
    text: str  # the rest: protocol, source, metrics, scope
    obstacle: str = ""  # an attribute that keeps us from adding the route to another device

    @property
    def key(self) -> Key:
        """What identifies the route when the kernel replaces it."""
        return self.family, self.table, self.prefix, self.tos, self.metric

    @property
    def source(self) -> str:
        """Its preferred source address, "" without one."""
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
    """What the operator has on the NIC, so that the hook can put it back there.

    An address or a gateway that is not a key was never on the NIC. A gateway whose list is empty
    has no default route.
    """

    addresses: dict[str, str] = {}  # each with its attributes, in the words of ip-address(8)
    routes: dict[str, list[str]] = {}  # gateway to its default routes
    further: list[Route] = []  # other routes that move with the address
    # Addresses that were on no device when the hook first looked: the hook put them on the NIC.
    added: list[str] = msgspec.field(default_factory=list, name="given")
    companions: dict[str, str] = {}  # other addresses that move with it, like `addresses`
    ahead: list[str] = []  # companions that are primary, so that the management address is not


class Names(msgspec.Struct, frozen=True):
    """The DNS settings of a link, in the words of resolvectl(1); "" and (): not set."""

    servers: tuple[str, ...] = ()  # with port and name: 10.12.0.5:853#dns.example
    domains: tuple[str, ...] = ()  # routing-only domains begin with ~
    default_route: str = ""
    over_tls: str = ""
    dnssec: str = ""
    anchors: tuple[str, ...] = ()  # DNSSEC's negative trust anchors
    llmnr: str = ""
    mdns: str = ""


class HiddenNames(msgspec.Struct, frozen=True):
    """The DNS settings of the NIC, while only the bridge has them."""

    names: Names
    by_hand: bool  # a revert would lose them, because networkd does not set them
    returning: bool = False  # they are being put back, and only `names` has all of them


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
    """Return the operator's addresses on this machine that move with the management address."""
    placed = read(Path("/"))
    return list(placed.original.companions) if placed else []
