"""What a host should be, in a form that can be checked and recorded.

A plan has the text of each file; a target has only its digest.
"""

import msgspec

from generator.desired.model import UPLINK_PEERS, Bridge, Device, Host, Management


class Vni(msgspec.Struct, frozen=True):
    """A VNI as FRR should know it."""

    vni: int
    type: str  # "L2" or "L3"
    vrf: str  # the tenant's, or "default"


class Nic(msgspec.Struct, frozen=True):
    """What our files set on a device that is not ours: the loopback, or an uplink."""

    name: str
    addresses: tuple[str, ...]  # with length
    mtu: int | None = None
    # Addresses with their peers, which FRR's start script adds: templates/frr/etc/frr/daemons.j2.
    peers: tuple[tuple[str, str], ...] = ()


class Link(msgspec.Struct, frozen=True):
    """An uplink and the session on it."""

    name: str  # of the NIC
    neighbor: str  # how FRR names the session
    port: str = ""  # of the switch, such as `swp9s1@ns-leaf-0`
    remote_as: str = ""
    address: str | None = None  # ours on a numbered link, with length
    mtu: int | None = None  # None: the NIC's own


class Sessions(msgspec.Struct, frozen=True):
    """What all sessions share; the times are in seconds."""

    bfd: bool
    keepalive: int
    holdtime: int


class FormerAddress(msgspec.Struct, frozen=True):
    """An earlier management address. The operator's own file may still set it on the NIC."""

    ifname: str
    address: str
    gateway: str | None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The state to which an apply brings a host."""

    host: str
    generation: int
    backend: str
    asn: int
    files: dict[str, str]  # path to SHA-256 of its content
    devices: list[Device]
    management: Management | None
    sessions: list[str]  # neighbors on which a session is attempted
    vnis: list[Vni]
    uplinks: list[str] | None = None  # their NICs; None: an older version did not record them
    numbered: list[tuple[str, str]] = []  # NICs with our address on a numbered link
    network_files: dict[str, str] = {}  # networkd files that configure uplinks, by NIC
    nics: list[Nic] = []
    names: dict[int, str] = {}  # of V-Nets, by VNI
    filter_rules: int = 0  # of the packet filter; 0: an older version had none
    vpcs: dict[int, str] = {}  # their names, by id
    leaves: dict[str, str] = {}  # the switch at the other end, by neighbor
    advertised: list[int] = []  # VNIs of V-Nets whose gateway sends router advertisements
    # For a summary of changes. None: an older version did not record it.
    links: list[Link] | None = None
    bgp: Sessions | None = None
    imports: dict[str, list[str]] | None = None  # route targets by VRF, [] where FRR derives them
    exports: dict[str, list[str]] | None = None

    @property
    def moving_addresses(self) -> list[str]:
        """The management addresses, which the hook moves between the NIC and a bridge."""
        return [address for address, _ in self.management.pairs] if self.management else []

    @property
    def loopbacks(self) -> frozenset[str]:
        """The VTEP addresses."""
        return loopbacks(self.devices)


def loopbacks(devices: list[Device]) -> frozenset[str]:
    """Return the VTEP addresses that devices send from."""
    return frozenset(device.local for device in devices if device.local)


def nics_of(host: Host) -> list[Nic]:
    """Return what a host's files set on its loopback and its uplinks."""
    peers = tuple((host.loopback, peer) for peer in UPLINK_PEERS)
    return [
        Nic("lo", (f"{host.loopback}/32",)),
        *(
            Nic(each.ifname, (each.address,) if each.address else (), each.mtu, peers)
            for each in host.uplinks
        ),
    ]


def links_of(host: Host) -> list[Link]:
    """Return a host's uplinks as a summary of changes shows them."""
    return [
        Link(each.ifname, each.neighbor, each.label, each.remote_as, each.address, each.mtu)
        for each in host.uplinks
    ]


def vni_of(bridge: Bridge) -> Vni:
    """Return what FRR should show for a bridge's VNI."""
    return Vni(bridge.port.vni, "L3" if bridge.l3vni else "L2", bridge.vrf or "default")
