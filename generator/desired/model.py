"""The model of one host: what it should be, checked, with every derived name.

Addresses are canonical text (`10.188.0.254/24`, `fd00::1/64`), MACs lower-case with colons, MTUs
in bytes, timers in seconds. Collections are sorted by identity: the order of a payload's lists does
not matter, except that a V-Net's first gateway of a family is its primary address.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Literal

import msgspec

VXLAN_OVERHEAD = 50  # bytes over IPv4: 14 Ethernet + 20 IP + 8 UDP + 8 VXLAN (RFC 7348, section 5)
NEIGHBOURS_PER_VNET = 128
# Peers of the loopback's address on uplinks, see templates/frr/etc/frr/daemons.j2.
UPLINK_PEERS = ("169.254.0.1", "254.128.0.0")
_MEANINGFUL = re.compile(r"[^A-Za-z0-9 ._@:/+-]")  # to some program that reads a rendered file


# The metric of the unreachable default route in each VRF (kernel documentation, vrf.rst).
UNREACHABLE_METRIC = 4278198272


class Model(msgspec.Struct, frozen=True, dict=True):
    """Base of the model: immutable, with room for cached properties."""


def label(text: str) -> str:
    """Return a name that is safe in a comment of any rendered file.

    ifupdown2 runs mako over its files and joins lines at a backslash, comments included, so only
    characters without a meaning remain.
    """
    # FRR refuses a description that has only spaces, and drops spaces at both ends.
    return _MEANINGFUL.sub("_", text).strip() or "_"


class Gateway(Model, frozen=True):
    """An anycast gateway address: the same on every host and leaf of its V-Net."""

    address: str
    family: Literal[4, 6]


class Vxlan(Model, frozen=True):
    """A VXLAN port: carries one VNI into one bridge."""

    name: str
    vni: int
    bridge: str
    local: str
    mtu: int
    suppress: bool  # answer ARP and ND from EVPN's type-2 routes instead of flooding


class Advertisements(Model, frozen=True):
    """What a bridge's gateway advertises to guests; lifetimes in seconds. None: FRR's default."""

    interval: int | None  # seconds
    lifetime: int | None  # of the default router
    managed: bool
    other: bool
    prefixes: tuple[str, ...]
    valid: str | None  # lifetimes of the prefixes, both or neither
    preferred: str | None
    autoconfig: bool
    servers: tuple[str, ...]  # for DNS
    servers_lifetime: str | None


class Bridge(Model, frozen=True):
    """A bridge of ours, with its one VXLAN port and the addresses that live on it."""

    name: str
    label: str
    port: Vxlan
    mtu: int
    mac: str
    vrf: str | None
    gateways: tuple[Gateway, ...]
    ipv6: bool  # whether the kernel speaks IPv6 here: in a VRF, or for a management address
    advertisements: Advertisements | None = None

    @cached_property
    def l3vni(self) -> bool:
        """Whether it carries a VPC's routed packets rather than a V-Net's frames."""
        return not self.port.suppress

    @cached_property
    def addresses(self) -> list[str]:
        return [gateway.address for gateway in self.gateways]

    @cached_property
    def gateways4(self) -> list[str]:
        return [gateway.address for gateway in self.gateways if gateway.family == 4]

    @cached_property
    def gateways6(self) -> list[str]:
        return [gateway.address for gateway in self.gateways if gateway.family == 6]


class Vrf(Model, frozen=True):
    """The VRF of a VPC; with a `vni` it reaches across the fabric (symmetric IRB, RFC 9136)."""

    id: int
    label: str
    vni: int | None
    bridges: tuple[str, ...]
    import_targets: tuple[str, ...]
    export_targets: tuple[str, ...]

    @cached_property
    def name(self) -> str:
        return f"Vrf_{self.id}"

    @cached_property
    def table(self) -> int:
        return 1000 + self.id


class Uplink(Model, frozen=True):
    """A NIC port to a leaf on which a BGP session is attempted."""

    ifname: str
    label: str
    remote_as: str  # a number, or "external"
    mtu: int | None
    address: str | None  # ours on a numbered link, with length
    peer: str | None  # the leaf's on a numbered link, without length

    @cached_property
    def name(self) -> str:
        return self.ifname

    @cached_property
    def neighbor(self) -> str:
        """How FRR names the session: by address when numbered, else by interface (RFC 5549)."""
        return self.peer or self.ifname


def leaf(uplink: Uplink) -> str:
    """Return the switch of an uplink, from a label `port@switch`; "" without one."""
    return uplink.label.rpartition("@")[2] if "@" in uplink.label else ""


class Management(Model, frozen=True):
    """The management address, and the two places between which the hook moves it."""

    ifname: str
    bridge: str
    ipv4: str
    gateway: str
    ipv6: str | None
    gateway6: str | None

    @property
    def pairs(self) -> list[tuple[str, str | None]]:
        """Each management address with its gateway."""
        pairs: list[tuple[str, str | None]] = [(self.ipv4, self.gateway)]
        return [*pairs, (self.ipv6, self.gateway6)] if self.ipv6 else pairs


class NetworkFile(Model, frozen=True):
    """A .network file of networkd that configures uplinks."""

    name: str
    uplinks: tuple[Uplink, ...]
    required: bool  # whether the host is online only with them

    @cached_property
    def mtu(self) -> int | None:
        return self.uplinks[0].mtu

    @cached_property
    def addresses(self) -> list[str]:
        return [uplink.address for uplink in self.uplinks if uplink.address]


class Lease(Model, frozen=True):
    """The netplan section with the management NIC's DHCP; "" for a networkd file."""

    kind: str = ""  # ethernets, bonds, …
    id: str = ""


class Bgp(Model, frozen=True):
    """Settings that all sessions of a host share."""

    bfd: bool
    keepalive: int
    holdtime: int
    password: str | None


class Host(Model, frozen=True):
    """One server of the fabric, as it should be."""

    name: str
    asn: int
    loopback: str
    bgp: Bgp
    management: Management | None
    uplinks: tuple[Uplink, ...]
    vrfs: tuple[Vrf, ...]
    bridges: tuple[Bridge, ...]
    # The networkd file that configures a NIC or lo, by its name, where netplan does not write that
    # file for a section with the same name.
    foreign_files: dict[str, str] = {}
    optional_vrfs: bool = False  # whether this machine's netplan lets a boot not wait for VRFs
    lease: Lease | None = None  # where the management NIC's DHCP is set

    @cached_property
    def loopback_file(self) -> NetworkFile:
        """The networkd file that configures lo."""
        return NetworkFile(_network_file("lo", self.foreign_files), (), required=True)

    @cached_property
    def network_files(self) -> list[NetworkFile]:
        """The networkd files that configure uplinks."""
        by_file: dict[str, list[Uplink]] = {}
        for uplink in self.uplinks:
            by_file.setdefault(_network_file(uplink.ifname, self.foreign_files), []).append(uplink)
        return [
            NetworkFile(name, tuple(uplinks), required=any(map(self._is_awaited, uplinks)))
            for name, uplinks in by_file.items()
        ]

    @cached_property
    def netplan_uplinks(self) -> list[Uplink]:
        """Uplinks whose networkd file netplan writes."""
        return [uplink for uplink in self.uplinks if uplink.ifname not in self.foreign_files]

    @cached_property
    def optional_uplinks(self) -> list[Uplink]:
        """Those of `netplan_uplinks` that a boot does not wait for."""
        return [uplink for uplink in self.netplan_uplinks if not self._is_awaited(uplink)]

    def _is_awaited(self, uplink: Uplink) -> bool:
        """Whether a boot waits for a NIC. It must not wait for a lease: the fabric gives none."""
        return self.lease is None and uplink.ifname == getattr(self.management, "ifname", None)

    @cached_property
    def foreign_lease(self) -> bool:
        """Whether the netplan section with the DHCP has another id than the NIC's name."""
        nic = self.management.ifname if self.management else ""
        return bool(self.lease and self.lease.kind and nic in self.foreign_files)

    @cached_property
    def vxlans(self) -> list[Vxlan]:
        return [bridge.port for bridge in self.bridges]

    @cached_property
    def l3vnis(self) -> list[Vrf]:
        return [vrf for vrf in self.vrfs if vrf.vni is not None]

    @cached_property
    def neighbour_limit(self) -> int:
        """Hard limit of the kernel's neighbour tables (entries), a power of two."""
        least = max(8192, NEIGHBOURS_PER_VNET * len(self.bridges))
        return 1 << (least - 1).bit_length()

    @property
    def neighbour_limits(self) -> tuple[int, int, int]:
        """The three thresholds of a neighbour table (`gc_thresh1` to 3), the hard one last."""
        return self.neighbour_limit // 4, self.neighbour_limit // 2, self.neighbour_limit


class Port(Model, frozen=True):
    """A port of a leaf, to a host of the fleet or to another server."""

    name: str
    label: str  # what is at the other end
    bridge: str | None  # of the access port's V-Net; None: a routed port
    mtu: int | None
    # Only for a routed port, where a host has a session:
    address: str | None = None  # the leaf's on a numbered link, with length
    neighbor: str = ""  # how FRR names the session
    remote_as: int = 0
    loopback: str = ""  # the host's; the host announces nothing else
    bgp: Bgp | None = None


class Leaf(Model, frozen=True):
    """What a leaf needs for the hosts and servers at its ports."""

    name: str
    asn: str  # a number, or a placeholder
    loopback: str  # an address, or a placeholder
    uplinks: tuple[str, ...]  # ports to the spines
    ports: tuple[Port, ...]
    vrfs: tuple[Vrf, ...]
    bridges: tuple[Bridge, ...]

    @cached_property
    def routed(self) -> list[Port]:
        return [port for port in self.ports if port.bridge is None]

    @cached_property
    def vxlans(self) -> list[Vxlan]:
        return [bridge.port for bridge in self.bridges]

    @cached_property
    def l3vnis(self) -> list[Vrf]:
        return [vrf for vrf in self.vrfs if vrf.vni is not None]


def _network_file(name: str, foreign: dict[str, str]) -> str:
    return foreign.get(name, f"10-netplan-{name}.network")


class Device(Model, frozen=True):
    """A network device as the kernel should show it, whatever the backend."""

    name: str
    kind: Literal["bridge", "vxlan", "vrf"]
    mtu: int | None = None
    mac: str | None = None
    master: str | None = None
    vni: int | None = None
    local: str | None = None
    suppress: bool | None = None
    table: int | None = None
    addresses: tuple[str, ...] = ()


def devices(host: Host) -> Iterable[Device]:
    """Yield every device of ours that a host should have, VRFs first."""
    for vrf in host.vrfs:
        yield Device(name=vrf.name, kind="vrf", table=vrf.table)
    for bridge in host.bridges:
        yield Device(
            name=bridge.name,
            kind="bridge",
            mtu=bridge.mtu,
            mac=bridge.mac,
            master=bridge.vrf,
            addresses=tuple(bridge.addresses),
        )
        port = bridge.port
        yield Device(
            name=port.name,
            kind="vxlan",
            mtu=port.mtu,
            master=bridge.name,
            vni=port.vni,
            local=port.local,
            suppress=port.suppress,
        )
