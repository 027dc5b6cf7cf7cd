"""Brings the fabric of this machine to the state in the state file, at boot or after a change.

    fabric.py links      make namespaces, cables and devices; at boot, before the network comes up
    fabric.py routers    start the routing daemons of leaves and spine

While the machine runs, the agent calls `converge` after a change of the state file, `stop`, `start`
and `bfd` for a switch, and `ask` for a daemon.

Each leaf, spine and bare-metal server is a network namespace; the host under test is the root
namespace. A switch's daemons keep their sockets in /run/lab/<name>, apart from the host's own FRR.
A leaf's FRR gets the frr.conf that the state file has for it (lab/leaves.py). Its devices are made
by `ip`, because ifupdown2 would take seconds for each change; tests/lab/test_leaves.py proves the
interfaces file of `evpn-host leaves`.
The alias of a device is a hash of the commands that made it, so that only a device whose commands
changed is made again. The module needs only the standard library.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/lab/fabric.json")
RUN = Path("/run/lab")
Devices = list[dict[str, Any]]
"""Devices, as `ip -json link` describes them."""
MTU = 9216
MANAGEMENT_VNI = 14


@dataclass(frozen=True)
class Router:
    """A switch of the fabric; `nic` is the host's NIC that is cabled to its port swp9s1."""

    name: str
    asn: int
    loopback: str
    nic: str = ""


LEAVES = (
    Router("ns-leaf-0", 4200300001, "10.2.0.1", "ens4"),
    Router("ns-leaf-1", 4200300002, "10.2.0.2", "ens5"),
    Router("ns-leaf-2", 4200300003, "10.2.0.3"),
)
SPINE = Router("ns-spine-0", 4200300100, "10.2.0.100")
SWITCHES = (*LEAVES, SPINE)
# The daemons of a switch and their options. zebra gets the size of netlink socket that Debian gives
# it, so that a burst overflows it less often.
DAEMONS = {"mgmtd": "", "zebra": " -s 90000000", "bgpd": ""}
# The daemon that answers a `show` command, by the word after `show`.
DAEMON_OF = {"bgp": "bgpd", "bfd": "bfdd"} | dict.fromkeys(
    ("evpn", "interface", "ip", "ipv6", "vrf"), "zebra"
)
HOST_PORT, UPLINK = "swp9s1", "swp51"

# Each port of the spine has the session that `templates/leaves` has on the other end.
SPINE_FRR = "\n".join(
    [
        f"hostname {SPINE.name}",
        f"router bgp {SPINE.asn}",
        f" bgp router-id {SPINE.loopback}",
        " no bgp ebgp-requires-policy",
        " no bgp default ipv4-unicast",
        " bgp bestpath as-path multipath-relax",
        " neighbor FABRIC peer-group",
        " neighbor FABRIC remote-as external",
        " neighbor FABRIC timers 3 9",
        " neighbor FABRIC timers connect 1",
        *(f" neighbor swp{n} interface peer-group FABRIC" for n in range(1, len(LEAVES) + 1)),
        " address-family ipv4 unicast",
        f"  network {SPINE.loopback}/32",
        "  neighbor FABRIC activate",
        " exit-address-family",
        " address-family l2vpn evpn",
        "  neighbor FABRIC activate",
        " exit-address-family",
        "exit",
    ]
)
# Lines that no daemon gets: comments, ends of blocks, what only vtysh reads, and the log, which is
# not to be in the host's journal.
UNSENT = ("!", "exit", "frr ", "log ")

SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/fib_multipath_hash_policy": 1,
    "net/ipv6/conf/default/accept_dad": 0,
}


def state() -> dict[str, Any]:
    """Return the fabric's desired state."""
    state_: dict[str, Any] = json.loads(STATE.read_text())
    return state_


def links() -> None:
    """Make namespaces and cables, then the devices of leaves and the servers."""
    names = [router.name for router in SWITCHES] + ["office"]
    cables = [f"netns add {name}" for name in names]
    for number, leaf in enumerate(LEAVES, start=1):
        cables.append(
            f"link add {UPLINK} mtu {MTU} netns {leaf.name} type veth"
            f" peer name swp{number} mtu {MTU} netns {SPINE.name}"
        )
        if leaf.nic:
            cables.append(_nic(leaf.nic, HOST_PORT, leaf.name))
    cables.append(_nic("ens6", "eth0", "office"))
    _ip("", cables)
    settings = "".join(f"echo {value} > /proc/sys/{key}\n" for key, value in SYSCTLS.items())
    for router in SWITCHES:
        _run(["nsenter", f"--net=/run/netns/{router.name}", "sh", "-ec", settings])
        ports = [port["ifname"] for port in _devices(router.name) if port["ifname"] != "lo"]
        _ip(router.name, [f"link set {port} up" for port in ("lo", *ports)])
        _ip(router.name, [f"address add {router.loopback}/32 dev lo"])
    _ip("office", ["link set lo up", "link set eth0 up", "address add 192.0.2.1/24 dev eth0"])
    desired = state()
    for leaf in LEAVES:
        _make_devices(leaf, desired)
    _make_servers(desired)
    for leaf in LEAVES:
        _place_ports(leaf, desired)


def routers() -> None:
    """Start and configure FRR on each switch, then have the servers send packets."""
    _start_frr(SWITCHES)
    _ping_gateways(state()["servers"])


def stop(name: str) -> None:
    """Cut the power of a switch: its FRR dies, and its ports lose their carrier."""
    for pid in _run(["ip", "netns", "pids", name]).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _ip(name, [f"link set {port} down" for port in _cables(name)])


def start(name: str) -> None:
    """Start a switch that was stopped, with the configuration of the state file."""
    _ip(name, [f"link set {port} up" for port in _cables(name)])
    _start_frr([router for router in SWITCHES if router.name == name])


def bfd(name: str) -> None:
    """Start bfdd on a switch. It does not start at boot: few switches use it, and it takes time."""
    if not (RUN / name / "bfdd.vty").exists():
        _start_daemons(name, {"bfdd": ""}).wait()


def _cables(name: str) -> list[str]:
    output = _run(["ip", "-n", name, "-json", "link", "show", "type", "veth"])
    return [device["ifname"] for device in json.loads(output)]


def _start_frr(switches: Sequence[Router]) -> None:
    desired = state()
    for router in switches:
        folder = RUN / router.name
        shutil.rmtree(folder, ignore_errors=True)
        for place in (folder, folder / "etc"):
            place.mkdir(parents=True)
            shutil.chown(place, "frr", "frr")
        (folder / "applied").write_text("[]")
    for process in [_start_daemons(router.name, DAEMONS) for router in switches]:
        process.wait()
    for router in switches:
        _configure(router, desired)


def converge() -> None:
    """Bring the fabric to the state in the state file, and leave alone what stays the same."""
    desired = state()
    devices = {}
    for leaf in LEAVES:
        _configure(leaf, desired, only_removals=True)
        devices[leaf.name] = _make_devices(leaf, desired)
    new_servers = _make_servers(desired)
    access = False
    for leaf in LEAVES:
        ports = _place_ports(leaf, desired, None if new_servers else devices[leaf.name])
        _configure(leaf, desired)
        _flush_macs(leaf, ports)
        access |= HOST_PORT in ports
    if access and not desired["underlay"]:
        _forget_host()
    _ping_gateways(new_servers)


def _ping_gateways(servers: list[dict[str, Any]]) -> None:
    """Have servers ping their gateways: a leaf advertises a host only once the host sent a packet.

    A real server sends packets when it boots.
    """
    hello = ["ping", "-q", "-c", "5", "-i", "0.5", "-w", "5"]
    for server in servers:
        for gateway in server["gateways"]:
            subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{server['name']}", *hello, gateway],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )


def _nic(nic: str, port: str, namespace: str) -> str:
    mac = f"52:54:00:00:00:{int(nic.removeprefix('ens')):02x}"
    return f"link add {nic} address {mac} type veth peer name {port} mtu {MTU} netns {namespace}"


def _make_devices(leaf: Router, desired: dict[str, Any]) -> Devices | None:
    """Make the VRFs, bridges and VXLAN ports of a leaf: a full VTEP, as a controller would.

    Return all devices of the leaf if nothing had to change, and None otherwise.
    """
    recipes = _recipes(leaf, desired)
    devices = _devices(leaf.name)
    aliases = {device["ifname"]: device.get("ifalias") for device in devices}
    prefixes = ("Vrf_", "br-", "vx-", "l3br-", "l3vx-")
    current = {name for name, steps in recipes.items() if aliases.get(name) == _alias(steps)}
    stale = [name for name in aliases if name.startswith(prefixes) and name not in current]
    _delete(leaf, stale)
    lines: list[str] = []
    for name, steps in recipes.items():
        if name not in current:
            # A leaf asks for an IPv6 neighbour from its link-local address.
            mode = "eui64" if any(_is_ipv6(step) for step in steps) else "none"
            lines += [steps[0], f"link set {name} addrgenmode {mode} alias {_alias(steps)}"]
    changed = {name for name in recipes if name not in current}
    for name, (_, master) in _masters(desired).items():
        if name not in current or master not in current:
            changed.add(name)
            lines.append(f"link set {name} master {master}")
            if name.startswith("vx-"):
                lines.append(f"link set {name} type bridge_slave neigh_suppress on learning off")
            if name.startswith("l3vx-"):
                lines.append(f"link set {name} type bridge_slave learning off")
    # Addresses come last, as with networkd and ifupdown2. A device that gets another master loses
    # its IPv6 addresses, and zebra 8.4.4 can miss that they were added again.
    for name, steps in recipes.items():
        if name in changed:
            lines += [f"link set {name} up", *steps[1:]]
    _ip(leaf.name, lines)
    return None if stale or lines else devices


def _delete(leaf: Router, stale: list[str]) -> None:
    """Remove devices of a leaf."""
    # A deleted bridge releases its VXLAN port, and a deleted VRF its bridges; _make_devices gives
    # them their new master.
    vrfs = [name for name in stale if name.startswith("Vrf_")]
    _ip(leaf.name, [f"link delete {name}" for name in stale if name not in vrfs])
    # The routes of a VRF go before it: zebra 10.3 crashes if routes outlive the VRF of their table.
    for name in vrfs:
        for family in ("-4", "-6"):
            table = str(1000 + int(name.removeprefix("Vrf_")))
            _run(["ip", "-n", leaf.name, family, "route", "flush", "table", table])
    _ip(leaf.name, [f"link delete {name}" for name in vrfs])


def _recipes(leaf: Router, desired: dict[str, Any]) -> dict[str, list[str]]:
    """Return each device's name and the `ip` lines that make it, masters first."""
    recipes: dict[str, list[str]] = {}
    vxlan = f"local {leaf.loopback} dstport 4789 nolearning ttl 64"
    for vpc in desired["vpcs"]:
        vrf = f"Vrf_{vpc['id']}"
        table = 1000 + vpc["id"]
        recipes[vrf] = [
            f"link add {vrf} type vrf table {table}",
            f"route replace unreachable default table {table} metric 4278198272",
            f"route replace unreachable ::/0 table {table} metric 4278198272",
        ]
        if vni := vpc.get("vni"):
            recipes[f"l3br-{vni}"] = [_bridge(f"l3br-{vni}", MTU - 100, _router_mac(leaf, vni))]
            name = f"l3vx-{vni}"
            recipes[name] = [f"link add {name} mtu {MTU - 100} type vxlan id {vni} {vxlan}"]
    for vnet in _active(desired):
        vni, mtu = vnet["vxlanID"], vnet.get("mtu", 1500)
        mac = vnet.get("customAnycastMac") or vnet.get("macAddress")
        mac = mac or f"44:38:39:ff:{vni >> 8 & 255:02x}:{vni & 255:02x}"
        recipes[f"br-{vni}"] = [
            _bridge(f"br-{vni}", mtu, mac),
            *(
                f"address replace {gateway['prefix']} dev br-{vni}{_nodad(gateway['prefix'])}"
                for gateway in vnet.get("gateways", [])
            ),
        ]
        recipes[f"vx-{vni}"] = [f"link add vx-{vni} mtu {mtu} type vxlan id {vni} {vxlan}"]
    return recipes


def _is_ipv6(step: str) -> bool:
    """Return whether a line of a recipe adds an IPv6 address."""
    return step.startswith("address ") and ":" in step


def _bridge(name: str, mtu: int, mac: str) -> str:
    # Without a PVID zebra 8.4 has no access VLAN: it would keep a pointer to the first VLAN's
    # bridge, and crash once that bridge is gone and a VXLAN port comes (zebra_evpn_mac_svi_add).
    return (
        f"link add {name} mtu {mtu} address {mac}"
        " type bridge stp_state 0 forward_delay 0 mcast_snooping 0 vlan_default_pvid 0"
    )


def _masters(desired: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the kind and the master of each device that has a master."""
    masters: dict[str, tuple[str, str]] = {}
    for vpc in desired["vpcs"]:
        if vni := vpc.get("vni"):
            masters[f"l3br-{vni}"] = ("bridge", f"Vrf_{vpc['id']}")
            masters[f"l3vx-{vni}"] = ("vxlan", f"l3br-{vni}")
    for vnet in _active(desired):
        vni = vnet["vxlanID"]
        if vnet.get("gateways") and vnet.get("vpc"):
            masters[f"br-{vni}"] = ("bridge", f"Vrf_{vnet['vpc']['id']}")
        masters[f"vx-{vni}"] = ("vxlan", f"br-{vni}")
    return masters


def _active(desired: dict[str, Any]) -> list[dict[str, Any]]:
    return [vnet for vnet in desired["vnets"] if vnet.get("state", "active") == "active"]


def _router_mac(leaf: Router, vni: int) -> str:
    number = LEAVES.index(leaf) + 1
    return f"02:1e:af:{number:02x}:{vni >> 8 & 255:02x}:{vni & 255:02x}"


def _make_servers(desired: dict[str, Any]) -> list[dict[str, Any]]:
    """Make new and changed servers and return them; remove servers that are no longer desired.

    A server that only gets another V-Net stays, and its port moves (`_place_ports`).
    """
    namespaces = {path.name for path in Path("/run/netns").iterdir()}
    record = RUN / "servers"
    previous: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    servers = {server["name"]: server for server in desired["servers"]}
    for name, server in previous.items():
        if name in namespaces and _without_vnet(servers.get(name)) != _without_vnet(server):
            _ip(server["leaf"], [f"link delete {_port(name)}"])
            _ip("", [f"netns delete {name}"])
            namespaces.discard(name)
    new = [server for name, server in servers.items() if name not in namespaces]
    for server in new:
        name = server["name"]
        mac = f" address {server['mac']}" if server.get("mac") else ""
        mtu = server.get("mtu", 1500)
        own_end = f"eth0 netns {name} mtu {mtu}{mac}"
        leaf_end = f"{_port(name)} mtu {MTU} netns {server['leaf']}"
        _ip("", [f"netns add {name}", f"link add {own_end} type veth peer name {leaf_end}"])
        lines = ["link set lo up", "link set eth0 up"]
        lines += [f"address add {each} dev eth0{_nodad(each)}" for each in server["addresses"]]
        lines += [f"route add default via {gateway}" for gateway in server["gateways"]]
        _ip(name, lines)
        _ip(server["leaf"], [f"link set {_port(name)} up"])
    RUN.mkdir(exist_ok=True)
    record.write_text(json.dumps(servers))
    return new


def _without_vnet(server: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings of a server except its V-Net, which can change without a new server."""
    return {key: value for key, value in (server or {}).items() if key != "vni"}


def _nodad(address: str) -> str:
    """Turn duplicate address detection off: all leaves have the same gateway address on purpose."""
    return " nodad" if ":" in address else ""


def _port(server: str) -> str:
    return f"swp-{server}"[:15]


def _place_ports(
    leaf: Router, desired: dict[str, Any], devices: Devices | None = None
) -> list[str]:
    """Put a leaf's ports into the bridges of their V-Nets, and take the routed port out.

    Return the ports that were put into a bridge. `devices` are those of the leaf, if known.
    """
    bridges = {
        _port(server["name"]): f"br-{server['vni']}"
        for server in desired["servers"]
        if server["leaf"] == leaf.name
    }
    if leaf.nic:
        routed = leaf.name in desired["underlay"]
        bridges[HOST_PORT] = "" if routed else f"br-{MANAGEMENT_VNI}"
    by_name = {device["ifname"]: device for device in devices or _devices(leaf.name)}
    lines, ports = [], []
    for port, bridge in bridges.items():
        if port not in by_name or by_name[port].get("master", "") == bridge:
            continue
        if bridge and bridge not in by_name:  # the V-Net was removed: its ports have no bridge
            continue
        lines.append(f"link set {port} master {bridge}" if bridge else f"link set {port} nomaster")
        ports += [port] if bridge else []
    _ip(leaf.name, lines)
    return ports


def _flush_macs(leaf: Router, ports: list[str]) -> None:
    """Flush the MACs of ports once zebra knows the ports' bridges, so that it gets each MAC again.

    zebra learns of links and of MACs in two threads, and drops a MAC on a port that it does not
    know yet.
    """
    for port in ports:
        command = f"show interface {port}"
        deadline = time.monotonic() + 10
        while "Master interface" not in ask(leaf.name, command) and time.monotonic() < deadline:
            time.sleep(0.05)
    _ip(leaf.name, [f"link set {port} type bridge_slave fdb_flush" for port in ports])


def _forget_host() -> None:
    """Wait until no leaf has neighbours behind the host any more, and delete what zebra left.

    While a route is withdrawn, zebra 10.3 may take its neighbour for a local one. It then leaves
    the entry in the kernel, which sends all packets to the old MAC, whatever the neighbour says:
    the management address is silent on the port where it is now.
    """
    loopbacks = {leaf.loopback for leaf in LEAVES}
    deadline = time.monotonic() + 10
    for leaf in LEAVES:
        known = _neighbours(leaf)
        while not _vteps(known) <= loopbacks and time.monotonic() < deadline:
            time.sleep(0.1)
            known = _neighbours(leaf)
        bridge = f"br-{MANAGEMENT_VNI}"
        show = ["ip", "-n", leaf.name, "-json", "neighbour", "show", "dev", bridge, "nud", "noarp"]
        entries = [e["dst"] for e in json.loads(_run(show) or "[]") if "extern_learn" in e]
        stale = [each for each in entries if known.get(each, {}).get("type") != "remote"]
        for each in stale:  # zebra may delete it by now
            delete = ["ip", "-n", leaf.name, "neighbour", "delete", each, "dev", bridge]
            subprocess.run(delete, capture_output=True, check=False)


def _vteps(neighbours: dict[str, dict[str, Any]]) -> set[str]:
    """Return the VTEPs behind which neighbours are."""
    return {each["remoteVtep"] for each in neighbours.values() if "remoteVtep" in each}


def _neighbours(leaf: Router) -> dict[str, dict[str, Any]]:
    """Return what zebra knows of the management V-Net's neighbours, by address."""
    known = json.loads(ask(leaf.name, f"show evpn arp-cache vni {MANAGEMENT_VNI} json") or "{}")
    return {address: each for address, each in known.items() if isinstance(each, dict)}


def _paths(text: str) -> list[tuple[str, ...]]:
    """Return each line of a configuration, after the lines that it stands below."""
    paths: list[tuple[str, ...]] = []
    above: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.strip()
        if words and not words.startswith(UNSENT):
            above = (*above[: len(line) - len(line.lstrip())], words)
            paths.append(above)
    return paths


def _text(paths: Iterable[tuple[str, ...]]) -> str:
    """Return the text that brings a daemon to each line where the line belongs."""
    text = ""
    above: tuple[str, ...] = ()
    for path in paths:
        inside = [depth for depth in range(len(path)) if path[:depth] == above[:depth]]
        same = inside[-1]
        text += "".join(f"{' ' * depth}exit\n" for depth in range(len(above) - 1, same - 1, -1))
        text += "".join(f"{' ' * depth}{path[depth]}\n" for depth in range(same, len(path)))
        above = path if _has_lines(path[-1]) else path[:-1]
    return text


def _has_lines(line: str) -> bool:
    """Return whether lines can stand below a line."""
    return line.startswith(("router ", "address-family ", "vrf ", "interface ", "route-map "))


def _vrf(path: tuple[str, ...]) -> str:
    """Return the VRF whose configuration a line is part of, or ""."""
    return path[0].partition("vrf ")[2]


def _whole(path: tuple[str, ...]) -> str:
    """Return the VRF or interface that is made anew if this line changes, or "".

    Of the times that an interface advertises, FRR refuses some between the old ones and the new
    ones. Meanwhile the interface goes on to advertise.
    """
    apart = not path[0].startswith("interface ") or path[-1] == "no ipv6 nd suppress-ra"
    return _vrf(path) or ("" if apart else path[0])


def _undo(removed: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the lines that undo these."""
    undo = []
    for *above, line in removed:
        # All lines of a neighbor go with its first one. Where it stays, the value is replaced.
        of_neighbor = line.startswith("neighbor ") and " interface " not in line
        if not (of_neighbor or line.startswith("hostname ") or _has_lines(line)):
            undo.append((*above, line[3:] if line.startswith("no ") else f"no {line}"))
    return undo


def _configure(router: Router, desired: dict[str, Any], only_removals: bool = False) -> None:
    """Change the configuration of a running switch to the desired one."""
    folder = RUN / router.name
    applied = [tuple(path) for path in json.loads((folder / "applied").read_text())]
    desired_lines = _paths(SPINE_FRR if router is SPINE else desired["frr"][router.name])
    stale = {_whole(path) for path in set(applied) ^ set(desired_lines)} - {""}
    current = [path for path in applied if path in desired_lines and _whole(path) not in stale]
    removed = [path for path in applied if path not in current]
    in_vrfs = [path for path in removed if _vrf(path)]
    _load(folder, _text((p[0], f"no {p[1]}") for p in in_vrfs if p[1:] and p[1].startswith("vni ")))
    for path in _undo(path for path in reversed(removed) if not _vrf(path)):
        _load(folder, _text([path]), attempts=100)
    for path in in_vrfs:
        # bgpd refuses to remove a VRF until it has heard, a moment later, that the VNI is gone. It
        # also refuses to remove a VRF twice, so each VRF has attempts of its own.
        if path[1:] == () and path[0].startswith("router "):
            _load(folder, f"no {path[0]}\n", attempts=100)
    if not only_removals:
        _load(folder, _text(path for path in desired_lines if path not in current), attempts=100)
        current = desired_lines
    if current != applied:
        (folder / "applied").write_text(json.dumps(current))


def _load(folder: Path, text: str, attempts: int = 1) -> None:
    """Load configuration lines into the daemons of a switch.

    Lines of VRFs and interfaces go to mgmtd (to zebra where there is no mgmtd), and all others to
    bgpd.
    After an error try again, until `attempts` are used up.
    """
    lines: dict[str, list[str]] = {}
    zebra = "mgmtd" if _installed("mgmtd") else "zebra"
    daemon = ""
    for line in text.splitlines():
        if not line.startswith((" ", "exit")):
            daemon = zebra if line.startswith(("vrf ", "interface ")) else "bgpd"
        lines.setdefault(daemon, []).append(line)
    for daemon, commands in lines.items():
        while True:
            attempts -= 1
            try:
                _send(folder / f"{daemon}.vty", "configure terminal", *commands)
                break
            except RuntimeError:
                if attempts <= 0:
                    raise
                time.sleep(0.2)


def ask(router: str, command: str) -> str:
    """Return the output of a `show` command on a switch, or on the host if `router` is ""."""
    folder = RUN / router if router else Path("/run/frr")
    return _send(folder / f"{DAEMON_OF[command.split()[1]]}.vty", command)


def _send(path: Path, *lines: str) -> str:
    """Send commands to a daemon as vtysh does (lib/vty.c), and return the answer to the last one.

    vtysh itself takes thirty times as long. If a daemon refuses one of several lines, raise
    RuntimeError.
    """
    answer = b""
    with socket.socket(socket.AF_UNIX) as vty:
        vty.settimeout(30)
        vty.connect(str(path))
        for line in ("enable", *lines):
            vty.sendall(line.encode() + b"\0")
            answer = b""
            while answer[-4:-1] != b"\0\0\0":  # the byte after them is the status
                answer += (more := vty.recv(1 << 16))
                if not more:
                    raise ConnectionResetError(f"{path}: the daemon closed the connection")
            if answer[-1] and len(lines) > 1:
                raise RuntimeError(f"{path}: {line}: {answer[-1]}: {answer[:-4].decode()}")
    return answer[:-4].decode()


def _installed(daemon: str) -> bool:
    """Return whether this FRR has a daemon: mgmtd came with FRR 9."""
    return Path("/usr/lib/frr", daemon).exists()


def _start_daemons(router: str, options: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start daemons of a switch.

    The switch's own folders are mounted over those of the host, as not every path of FRR has an
    option.
    """
    folder = RUN / router
    script = f"mount --bind {folder} /run/frr; mount --bind {folder}/etc /etc/frr\n" + "".join(
        f"/usr/lib/frr/{daemon} --daemon{words} > {folder}/{daemon}.log 2>&1\n"
        for daemon, words in options.items()
        if _installed(daemon)
    )
    return subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{router}", "unshare", "--mount", "sh", "-ec", script],
        stdin=subprocess.DEVNULL,
    )


def _alias(steps: list[str]) -> str:
    """Return a hash of a recipe, as the alias of its device."""
    return hashlib.sha256("\n".join(steps).encode()).hexdigest()[:16]


def _devices(namespace: str) -> Devices:
    devices: Devices = json.loads(_run(["ip", "-n", namespace, "-json", "link"]))
    return devices


def _ip(namespace: str, lines: list[str]) -> None:
    if lines:
        options = ["-n", namespace] if namespace else []
        _run(["ip", *options, "-batch", "-"], "\n".join(lines) + "\n")


def _run(argv: list[str], text: str = "") -> str:
    process = subprocess.run(argv, input=text, capture_output=True, check=False, text=True)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)}: {process.stderr or process.stdout}\n{text}")
    return process.stdout


if __name__ == "__main__":
    start_time = time.monotonic()
    {"links": links, "routers": routers}[sys.argv[1]]()
    print(f"{sys.argv[1]}: {time.monotonic() - start_time:.1f} s", file=sys.stderr)
