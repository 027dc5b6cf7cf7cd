"""What would stop an apply on this machine, or surprise its operator: pure, from what was read."""

import difflib
from collections.abc import Iterator, Mapping, Set

import msgspec

from generator.desired.model import Device, Host, leaf
from generator.observed.machine import MODULES, PROGRAMS, Machine

BGP, VXLAN = 179, 4789  # ports: TCP (RFC 4271), UDP (RFC 7348)
_LEAST_SPACE = 8 << 20  # bytes
_FIRST_YEAR = 2025  # no clock that is right shows one before


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something about a machine that its operator should know before an apply."""

    what: str
    why: str
    remedy: str
    stops: bool = False  # whether an apply is refused

    def __str__(self) -> str:
        return f"{self.what}: {self.why} ({self.remedy})"


def findings(
    host: Host,
    devices: list[Device],
    machine: Machine,
    *,
    first: bool,
    ours: Set[str] = frozenset(),
) -> list[Finding]:
    """Return what a machine is not ready for, what stops an apply first.

    `first`: nothing of ours was ever active here, so devices with our names are somebody else's.
    `ours` are the devices that may be there because of the apply before.
    """
    listed = [
        *_nics(host, machine),
        *_management(host, machine, ours),
        *(_owners(devices, machine) if first else ()),
        *_frr(machine, first=first),
        *_kernel(machine),
        *_managers(host, machine),
        *_leaves(host, machine),
        *_system(machine),
    ]
    return sorted(listed, key=lambda finding: not finding.stops)


def _nics(host: Host, machine: Machine) -> Iterator[Finding]:
    for uplink in host.uplinks:
        link = machine.links.get(uplink.ifname)
        if link is None:
            yield Finding(
                what=f"{uplink.ifname} is not there{_near(uplink.ifname, machine)}",
                why="the payload has a link on it, and no session can come up",
                remedy="correct local.ifname of the link",
                stops=True,
            )
            continue
        master = next((m for m in machine.links.values() if m.index == link.master), None)
        if master and link.master:
            yield Finding(
                what=f"{uplink.ifname} is a port of {master.name}",
                why="an uplink is a routed interface of its own",
                remedy=f"take it out of {master.name} in the operator's own files",
                stops=True,
            )
        if link.max_mtu and uplink.mtu and uplink.mtu > link.max_mtu:
            yield Finding(
                what=f"{uplink.ifname} takes an MTU of {link.max_mtu} at most",
                why=f"the payload says {uplink.mtu}",
                remedy="lower the link's mtu, or use another NIC",
                stops=True,
            )
        if link.up and not link.carrier:
            yield Finding(
                what=f"{uplink.ifname} has no carrier",
                why="its session can't come up",
                remedy="look at the cable and at the switch port",
            )


def _near(name: str, machine: Machine) -> str:
    """Return which NIC was perhaps meant by a name, as the end of a sentence."""
    for link in machine.links.values():
        if name in link.altnames:
            return f" by this name; it is an alternative name of {link.name}"
    others = {"bridge", "vxlan", "vrf"}
    nics = [n for n, link in machine.links.items() if link.kind not in others and n != "lo"]
    near = difflib.get_close_matches(name, nics, n=1)
    return f"; {near[0]} is" if near else f"; there are {', '.join(sorted(nics)) or 'none'}"


def _management(host: Host, machine: Machine, ours: Set[str]) -> Iterator[Finding]:
    if host.management is None or host.management.ifname not in machine.links:
        return  # of a NIC that is not there there is a finding already
    for address, _ in host.management.pairs:
        owners = {
            link.name
            for link in machine.links.values()
            if address in machine.addresses.get(link.index, ())
        }
        places = {host.management.ifname, host.management.bridge, *ours}
        if owners and not owners & places:
            yield Finding(
                what=f"the management address {address} is on {', '.join(sorted(owners))}",
                why=f"the payload says {host.management.ifname}, and the host would lose it",
                remedy="correct mgmt.ifname, or the operator's own file",
                stops=True,
            )
        elif not owners:
            yield Finding(
                what=f"the management address {address} is on no device",
                why="it has to be on the NIC while the fabric can't be reached",
                remedy=f"put it on {host.management.ifname} in the operator's own file",
            )


def _owners(devices: list[Device], machine: Machine) -> Iterator[Finding]:
    """Find what somebody else has that is to be ours."""
    names = {device.name for device in devices}
    tables = {device.table: device.name for device in devices if device.table}
    vnis = {device.vni: device.name for device in devices if device.vni}
    for link in machine.links.values():
        if link.name in names:
            what, why = f"{link.name} is there already", "evpn-host makes a device of this name"
        elif link.kind == "vrf" and link.table in tables:
            what = f"table {link.table} is the one of {link.name}"
            why = f"{tables[link.table]} needs it"
        elif link.kind == "vxlan" and link.vni in vnis and link.port == VXLAN:
            what, why = f"VNI {link.vni} is the one of {link.name}", f"{vnis[link.vni]} needs it"
        else:
            continue
        remedy = "remove the other one, or choose another id in the payload"
        yield Finding(what=what, why=why, remedy=remedy, stops=True)
    if VXLAN in machine.udp_ports:
        yield Finding(
            what=f"a program uses UDP port {VXLAN}",
            why="the kernel's VXLAN devices need it",
            remedy=f"end it; ss -ulpn 'sport = {VXLAN}' names it",
            stops=True,
        )


def _frr(machine: Machine, *, first: bool) -> Iterator[Finding]:
    missing = [name for name in PROGRAMS if name not in machine.frr_programs]
    if missing:
        yield Finding(
            what=f"FRR's {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed",
            why="FRR carries the routes, and its reload script changes them without a break",
            remedy="apt install frr frr-pythontools",
            stops=True,
        )
    if first and BGP in machine.tcp_listeners and not machine.bgp_runs:
        yield Finding(
            what=f"a program listens on TCP port {BGP}",
            why="FRR's bgpd needs it",
            remedy=f"end it; ss -tlpn 'sport = {BGP}' names it",
            stops=True,
        )


def _kernel(machine: Machine) -> Iterator[Finding]:
    for name in MODULES:
        if machine.modules.get(name) is False:
            yield Finding(
                what=f"this kernel has no {name}",
                why="V-Nets and VPCs are devices of it",
                remedy="use a kernel with the module, such as the distribution's full one",
                stops=True,
            )


def _managers(host: Host, machine: Machine) -> Iterator[Finding]:
    for uplink in host.uplinks:
        if uplink.ifname in machine.network_manager:
            yield Finding(
                what=f"NetworkManager manages {uplink.ifname}",
                why="it takes away what it did not put there",
                remedy=f"nmcli device set {uplink.ifname} managed no; unmanaged-devices= for good",
            )
    if machine.cloud_init:
        yield Finding(
            what=f"cloud-init writes /{machine.cloud_init}",
            why="a new instance id makes it write the file anew, without your changes",
            remedy="/etc/cloud/cloud.cfg.d/99-network.cfg: network: {config: disabled}",
        )


def _leaves(host: Host, machine: Machine) -> Iterator[Finding]:
    expected = {uplink.neighbor: leaf(uplink) for uplink in host.uplinks}
    # LLDP also knows a switch with which there is no session. What a session says counts more.
    switches = {
        uplink.neighbor: machine.switches[uplink.ifname]
        for uplink in host.uplinks
        if uplink.ifname in machine.switches
    }
    for neighbor, name in wrong_leaves(expected, switches | machine.leaves):
        yield Finding(
            what=f"{neighbor} is connected to {name}",
            why=f"the payload says {expected[neighbor]}",
            remedy="correct the cabling or the payload",
        )


def wrong_leaves(
    expected: Mapping[str, str], actual: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield neighbors with the name of the switch that is there, where another one should be."""
    for neighbor, name in expected.items():
        there = actual.get(neighbor)
        if there and name and _same(there) != _same(name):
            yield neighbor, there


def _same(name: str) -> str:
    """Return the part of a switch's name that is the same in all of its spellings."""
    return name.split(".", maxsplit=1)[0].lower()


def _system(machine: Machine) -> Iterator[Finding]:
    for folder, free in machine.free.items():
        if free < _LEAST_SPACE:
            yield Finding(
                what=f"/{folder} has {free >> 10} KiB left",
                why="files of evpn-host and of the native tools go there",
                remedy="make room",
                stops=True,
            )
    if machine.time.year < _FIRST_YEAR:
        yield Finding(
            what=f"the clock says {machine.time:%Y-%m-%d}",
            why="certificates of a controller are not valid then",
            remedy="have it set, for example by systemd-timesyncd",
        )
