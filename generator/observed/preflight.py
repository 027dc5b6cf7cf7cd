"""Finds what would stop an apply on this machine, or surprise its operator: pure."""

import difflib
from collections.abc import Iterator, Mapping, Set

import msgspec

from generator.desired.model import Device, Host, leaf
from generator.observed import netlink
from generator.observed.machine import MODULES, PROGRAMS, Machine
from generator.observed.netlink import Link

BGP, VXLAN = 179, 4789  # ports: TCP (RFC 4271), UDP (RFC 7348)
_FORWARDING, _ACCEPT_RA = 0, 3  # DEVCONF_… of linux/ipv6.h
_LEAST_SPACE = 8 << 20  # bytes
_FIRST_YEAR = 2025  # a clock that shows an earlier year is wrong


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
    """Return the findings about a machine; those that stop an apply come first.

    `first`: nothing of ours was ever active here, so devices with our names are somebody else's.
    `ours` are the devices that may exist because of the apply before.
    """
    listed = [
        *_nics(host, machine),
        *_management(host, machine, ours),
        *collisions(devices, machine, first=first, ours=ours),
        *_frr(machine, first=first),
        *kernel(host, machine),
        *_advertisements(host, machine),
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
    """Return the end of a sentence that names the NIC that is probably meant."""
    for link in machine.links.values():
        if name in link.altnames:
            return f" by this name; it is an alternative name of {link.name}"
    others = {"bridge", "vxlan", "vrf"}
    nics = [n for n, link in machine.links.items() if link.kind not in others and n != "lo"]
    near = difflib.get_close_matches(name, nics, n=1)
    return f"; {near[0]} is" if near else f"; there are {', '.join(sorted(nics)) or 'none'}"


def _management(host: Host, machine: Machine, ours: Set[str]) -> Iterator[Finding]:
    if host.management is None or host.management.ifname not in machine.links:
        return  # `_nics` has a finding for a missing NIC
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


def collisions(
    devices: list[Device], machine: Machine, *, first: bool, ours: Set[str]
) -> Iterator[Finding]:
    """Yield names, VNIs, tables and ports that we need and somebody else uses.

    After an apply whose record is lost it yields nothing: nobody knows what is ours.
    """
    if not first and not ours:
        return
    new = [device for device in devices if device.name not in ours]
    others = [link for link in machine.links.values() if link.name not in ours]
    remedy = "remove the other one, or choose another id in the payload"
    for what, why in (
        *_device_collisions([*new, *_missing(devices, ours, machine)], others, first=first),
        *_table_collisions(new, others, machine),
    ):
        yield Finding(what=what, why=why, remedy=remedy, stops=True)
    if first:
        yield from _ports(machine)


def _missing(devices: list[Device], ours: Set[str], machine: Machine) -> list[Device]:
    """Return devices of ours that do not exist: somebody may have renamed one."""
    return [each for each in devices if each.name in ours - machine.links.keys()]


def _device_collisions(
    new: list[Device], others: list[Link], *, first: bool
) -> Iterator[tuple[str, str]]:
    """Yield names and VNIs that somebody else has, and why that matters.

    On a host of ours a plugin of Kubernetes may have created a bridge before us: it becomes ours.
    """
    kinds = {device.name: device.kind for device in new}
    vnis = {device.vni: device.name for device in new if device.vni}
    for link in others:
        if name := next(iter(kinds.keys() & set(link.altnames)), ""):
            yield f"{link.name} has the alternative name {name}", "evpn-host makes it"
        if link.name in kinds and (first or link.kind != kinds[link.name]):
            yield f"{link.name} is there already", "evpn-host makes a device of this name"
        elif link.kind == "vxlan" and link.port == VXLAN and link.up and link.alone:
            what = f"{link.name} has UDP port {VXLAN} for itself"
            yield what, "the kernel lets no VXLAN device with other options share it"
        elif link.kind == "vxlan" and link.vni in vnis and link.port == VXLAN:
            yield f"VNI {link.vni} belongs to {link.name}", f"{vnis[link.vni]} needs it"


def _table_collisions(
    new: list[Device], others: list[Link], machine: Machine
) -> Iterator[tuple[str, str]]:
    """Yield routing tables that somebody else has, and why that matters."""
    names = {device.name for device in new}
    owners = {link.table: link.name for link in others if link.kind == "vrf"}
    for device in new:
        table = device.table
        if table is None:
            continue
        if table in owners and owners[table] not in names:
            yield f"table {table} belongs to {owners[table]}", f"{device.name} needs it"
        elif table in machine.tables:
            text = f"table {table} has a route to {machine.tables[table]}"
            yield text, f"{device.name} needs it"
        elif table in machine.rules:
            yield f"a rule looks up table {table}", f"{device.name} needs it"


def _ports(machine: Machine) -> Iterator[Finding]:
    """Find programs on the ports that the kernel needs. Its own VXLAN devices share one."""
    kernels = any(each.up and each.port == VXLAN for each in machine.links.values())
    if VXLAN in machine.udp_ports and (machine.udp_ports[VXLAN] or not kernels):
        yield Finding(
            what=f"{machine.udp_ports[VXLAN] or 'a program'} uses UDP port {VXLAN}",
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
    listener = machine.tcp_listeners.get(BGP)
    unknown = not listener and first and not machine.bgp_runs
    if listener is not None and (unknown or listener not in {"", "bgpd"}):
        yield Finding(
            what=f"{listener or 'a program'} listens on TCP port {BGP}",
            why="FRR's bgpd needs it",
            remedy=f"end it, or have it listen on another port; ss -tlpn 'sport = {BGP}' shows it",
            stops=True,
        )


def kernel(host: Host, machine: Machine) -> Iterator[Finding]:
    """Find what the kernel lacks, perhaps since it was upgraded."""
    for name in MODULES:
        if machine.modules.get(name) is not False:
            continue
        if machine.locked:
            yield Finding(
                what=f"the kernel module {name} is not loaded, and the kernel loads no more",
                why="V-Nets and VPCs are devices of it; kernel.modules_disabled is 1",
                remedy=f"write {name} into a file of /etc/modules-load.d, and reboot",
                stops=True,
            )
        else:
            yield Finding(
                what=f"this kernel has no {name}",
                why="V-Nets and VPCs are devices of it",
                remedy="use a kernel with the module, such as the distribution's full one",
                stops=True,
            )
    unnumbered = [uplink.ifname for uplink in host.uplinks if not uplink.address]
    if unnumbered and not machine.ipv6:
        yield Finding(
            what="this kernel has no IPv6",
            why=f"the sessions of {', '.join(unnumbered)} are between IPv6 link-local addresses",
            remedy="boot without ipv6.disable=1, or give the links IPv4 addresses in the payload",
            stops=True,
        )


def _advertisements(host: Host, machine: Machine) -> Iterator[Finding]:
    """Find other NICs whose IPv6 would end, because the host begins to forward.

    The kernel of a router takes router advertisements only where accept_ra is 2, and deletes the
    default routes of before (rt6_purge_dflt_routers in net/ipv6/route.c). networkd reads them
    itself, and sets accept_ra to 0. A spare NIC to a leaf also has such a route, but no address.
    """
    for name in sorted(machine.advertised - {uplink.ifname for uplink in host.uplinks}):
        link = machine.links[name]
        settings = netlink.settings_of(link)["ipv6"]
        has_ipv6 = any(":" in address for address in machine.addresses.get(link.index, ()))
        if has_ipv6 and settings[_FORWARDING] == 0 and settings[_ACCEPT_RA] == 1:
            yield Finding(
                what=f"{name} has its IPv6 default route from router advertisements",
                why="a host with V-Nets forwards, and then the kernel ignores advertisements where"
                " accept_ra is 1",
                remedy=f"write net/ipv6/conf/{name}/accept_ra = 2 into a file of /etc/sysctl.d,"
                " and load it with `sysctl --system`",
                stops=True,
            )


def _managers(host: Host, machine: Machine) -> Iterator[Finding]:
    for uplink in host.uplinks:
        if uplink.ifname in machine.network_manager:
            yield Finding(
                what=f"NetworkManager manages {uplink.ifname}",
                why="it and networkd or ifupdown2 undo each other's settings",
                remedy=f"give {uplink.ifname} its addresses by netplan with renderer: networkd or"
                " by ifupdown2; unmanaged-devices= keeps NetworkManager from it",
                stops=True,
            )
    if machine.cloud_init:
        yield Finding(
            what=f"cloud-init writes /{machine.cloud_init}",
            why="with a new instance id it writes the file again, without your changes",
            remedy="/etc/cloud/cloud.cfg.d/99-network.cfg: network: {config: disabled}",
        )


def _leaves(host: Host, machine: Machine) -> Iterator[Finding]:
    expected = {uplink.neighbor: leaf(uplink) for uplink in host.uplinks}
    # LLDP also knows a switch without a session. The name from a session counts more.
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
    """Yield each neighbor whose switch is not the expected one, with the name of that switch."""
    for neighbor, name in expected.items():
        switch = actual.get(neighbor)
        if switch and name and _short(switch) != _short(name):
            yield neighbor, switch


def _short(name: str) -> str:
    """Return a switch's name without its domain, in lower case."""
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
