"""Reads what preflight has to know about a machine."""

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from generator.desired.model import UNREACHABLE_METRIC
from generator.errors import printable
from generator.observed import frr, netlink, routing_rules
from generator.state import tree

_FRR = Path("usr/lib/frr")
_NETWORK_MANAGER = Path("run/NetworkManager/devices")
# The files that cloud-init writes for the backends (its reference/network-config page).
_CLOUD_INIT_FILES = ("etc/netplan/50-cloud-init.yaml", "etc/network/interfaces.d/50-cloud-init")
_LISTEN = "0A"  # TCP_LISTEN, net/tcp_states.h
_NEEDED = (179, 4789)  # BGP, VXLAN
_WRITTEN = ("etc", "var/lib", "run")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What was read about a machine."""

    links: dict[str, netlink.Link]
    addresses: dict[int, set[str]]
    # Ports in use, with the program's name, "" for the kernel itself or if we can't read it.
    udp_ports: dict[int, str] = {}
    tcp_listeners: dict[int, str] = {}
    tables: dict[int, str] = {}  # routing tables of no VRF, each with one of its prefixes
    rules: frozenset[int] = frozenset()  # tables that a routing rule looks up
    advertised: frozenset[str] = frozenset()  # devices with routes from router advertisements
    frr_programs: frozenset[str] = frozenset()  # those of `PROGRAMS` that are installed
    bgp_runs: bool = False  # whether FRR's bgpd answers
    leaves: dict[str, str] = {}  # neighbor to the host name that it sends
    switches: dict[str, str] = {}  # NIC to the name of the switch there, by LLDP
    modules: dict[str, bool | None] = {}  # whether the kernel has them; None: unknown
    locked: bool = False  # the kernel loads no more modules
    ipv6: bool = True  # whether the kernel has IPv6
    network_manager: frozenset[str] = frozenset()  # NICs that NetworkManager manages
    cloud_init: str = ""  # the network file that cloud-init writes
    free: dict[str, int] = {}  # free bytes, by folder
    time: datetime.datetime


PROGRAMS = ("zebra", "bgpd", "bfdd", "frr-reload.py")
MODULES = ("bridge", "vrf", "vxlan")


def read(switches: Mapping[str, str], root: Path = Path("/")) -> Machine:
    """Read a machine; nothing is changed, and nothing is sent.

    `switches` are the names of the switches by LLDP, by NIC.
    """
    links = netlink.links()
    names, answers = _leaves()
    return Machine(
        links=links,
        addresses=netlink.addresses(),
        udp_ports=_programs(root, dict(_sockets(root, "udp", ""))),
        tcp_listeners=_programs(root, dict(_sockets(root, "tcp", _LISTEN))),
        tables=_tables({link.table for link in links.values() if link.kind == "vrf"}),
        rules=frozenset(rule.table for rule in routing_rules.read()),
        advertised=frozenset(_advertised(links)),
        frr_programs=frozenset(p for p in PROGRAMS if (root / _FRR / p).exists()),
        bgp_runs=answers,
        leaves=names,
        switches=dict(switches),
        modules={name: _has_module(root, name) for name in MODULES},
        locked=_is_locked(root),
        ipv6=(root / "proc/sys/net/ipv6").exists(),
        network_manager=frozenset(_managed(root, links)),
        cloud_init=_cloud_init(root),
        free={folder: _free(root / folder) for folder in _WRITTEN if (root / folder).exists()},
        time=datetime.datetime.now(datetime.UTC),
    )


def _leaves() -> tuple[dict[str, str], bool]:
    """Return the host names of neighbors, and whether bgpd answers."""
    try:
        return frr.hostnames(Path("/")), True
    except frr.Silent:
        return {}, False


def _sockets(root: Path, protocol: str, state: str) -> Iterator[tuple[int, str]]:
    """Yield port and inode of sockets. No process has the kernel's own, such as VXLAN's."""
    for name in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in (root / "proc/net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] != "0" and state in ("", fields[3]):
                    yield int(fields[1].rpartition(":")[2], 16), fields[9]


def _programs(root: Path, inodes: dict[int, str]) -> dict[int, str]:
    """Return the program on each port; its name is "" for a port that we do not need."""
    needed = {inode: port for port, inode in inodes.items() if port in _NEEDED}
    names = dict.fromkeys(inodes, "")
    for descriptor in (root / "proc").glob("[0-9]*/fd/*") if needed else ():
        with contextlib.suppress(OSError):
            inode = descriptor.readlink().name.removeprefix("socket:[").removesuffix("]")
            if inode in needed:
                comm = (descriptor.parents[1] / "comm").read_text()
                names[needed[inode]] = printable(comm.strip(), 32)
    return names


def _tables(of_vrfs: AbstractSet[int | None]) -> dict[int, str]:
    """Return one prefix of each routing table that has routes and belongs to no VRF.

    The unreachable default route of a deleted VRF of ours does not count.
    """
    tables: dict[int, str] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in netlink.routes(family):
            if route.table not in of_vrfs and route.metric != UNREACHABLE_METRIC:
                tables.setdefault(route.table, route.prefix)
    return tables


def _advertised(links: dict[str, netlink.Link]) -> Iterator[str]:
    names = {link.index: name for name, link in links.items()}
    for route in netlink.advertised_routes():
        yield from (names[index] for _, index in route.hops if index in names)


def _has_module(root: Path, name: str) -> bool | None:
    """Whether the kernel has a module or can load it."""
    if (root / "sys/module" / name).exists():
        return True
    folder = root / "lib/modules" / os.uname().release
    known = None
    for index in ("modules.builtin", *(() if _is_locked(root) else ("modules.dep",))):
        with contextlib.suppress(OSError):
            known = bool(known) or f"/{name}.ko" in (folder / index).read_text()
    return known


def _is_locked(root: Path) -> bool:
    with contextlib.suppress(OSError):
        return (root / "proc/sys/kernel/modules_disabled").read_text().strip() == "1"
    return False


def _managed(root: Path, links: dict[str, netlink.Link]) -> Iterator[str]:
    """Yield the devices that NetworkManager manages, by its state files."""
    for name, link in links.items():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if "managed=true" in (root / _NETWORK_MANAGER / str(link.index)).read_text():
                yield name


def _cloud_init(root: Path) -> str:
    """Return the file that cloud-init writes, "" if it does not configure the network."""
    written = next((path for path in _CLOUD_INIT_FILES if tree.is_file(root, path)), "")
    for path in tree.find(root, "etc/cloud/cloud.cfg.d/*.cfg"):
        with contextlib.suppress(OSError):
            text = tree.read(root, path).decode(errors="replace").replace(" ", "")
            if "config:disabled" in text:
                return ""
    return written


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
