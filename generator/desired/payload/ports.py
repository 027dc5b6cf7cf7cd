"""Which V-Nets a switch port is in."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from generator.desired.payload.document import Link, Vnet

Members = dict[str, tuple[Vnet, set[bool]]]


class Member(NamedTuple):
    """A V-Net that a port is in."""

    place: str  # of the V-Net in the document
    vnet: Vnet
    untagged: bool
    way: str = ""  # what put the port there, such as `label storage`; "": the V-Net's own `ports`


class Ports:
    """The V-Nets of each switch port."""

    def __init__(self, vnets: Mapping[str, Vnet]) -> None:
        """Take the V-Nets by their places, with the ports that they name themselves."""
        self.vnets = vnets
        self._by_port: dict[str, list[Member]] = defaultdict(list)
        self._untagged: set[tuple[str, str]] = set()
        for place, vnet in vnets.items():
            # All ports of a V-Net share one object: there may be millions of them.
            both = {way: Member(place, vnet, way) for way in (False, True)}
            for port in vnet.ports:
                self.add(port.name, both[port.untagged])

    def add(self, port: str, member: Member) -> None:
        """Put a port into a V-Net."""
        self._by_port[port].append(member)
        if member.untagged:
            self._untagged.add((member.place, port))

    def of(self, port: str) -> list[Member]:
        """Return the V-Nets that a port is in."""
        return self._by_port.get(port, [])

    def named(self) -> Iterable[str]:
        """Return all ports that are in some V-Net."""
        return self._by_port.keys()

    def members(self, links: Iterable[Link]) -> Members:
        """Return the V-Nets of a host's links by place, and whether its ports are untagged there.

        Both True and False are a mistake in the payload.
        """
        members: Members = {}
        # Each port once: a document may name the same port for a million links.
        for port in dict.fromkeys(link.remote.name for link in links):
            for place, vnet, untagged, _ in self.of(port):
                members.setdefault(place, (vnet, set()))[1].add(untagged)
        return members

    def is_untagged(self, place: str, port: str) -> bool:
        """Whether a port is untagged in a V-Net."""
        return (place, port) in self._untagged
