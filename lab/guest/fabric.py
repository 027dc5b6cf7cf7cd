"""Make the fabric of this machine what the state file says, from nothing or from what is there.

    fabric.py links      namespaces, cables and devices; at boot, before the network comes up
    fabric.py routers    start the routing daemons of leaves and spine

While it runs the agent calls `converge` after a change of the state file, `stop` and `start` of a
switch, and `ask` of a daemon.

Each leaf, spine and bare-metal server is a network namespace, the host under test is the root
namespace. Daemons keep their sockets in /run/lab/<name>, apart from the host's own FRR. A device
remembers in its alias how it was made: only what differs is made again. Standard library only.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/lab/fabric.json")
RUN = Path("/run/lab")
Devices = list[dict[str, Any]]
"""What `ip -json link` says of them."""
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
# With options: of zebra the size of its netlink socket that Debian gives it; bursts overflow less.
DAEMONS = {"mgmtd": "", "zebra": " -s 90000000", "bgpd": ""}
# Which daemon is asked for what `show` is followed by.
DAEMON_OF = {"bgp": "bgpd", "bfd": "bfdd"} | dict.fromkeys(
    ("evpn", "interface", "ip", "ipv6", "vrf"), "zebra"
)
HOST_PORT, UPLINK = "swp9s1", "swp51"

# What the fabric carries before anybody provisions a tenant: the management V-Net, with the
# controller in it.
INITIAL: dict[str, Any] = {
    "underlay": [],
    "vpcs": [{"id": 26, "name": "Infrastructure"}],
    "vnets": [
        {
            "name": "Management",
            "vxlanID": MANAGEMENT_VNI,
            "vpc": {"id": 26},
            "gateways": [{"prefix": "10.12.0.1/16"}],
        }
    ],
    "servers": [
        {
            "name": "controller",
            "leaf": "ns-leaf-2",
            "vni": MANAGEMENT_VNI,
            "addresses": ["10.12.0.5/16"],
            "gateways": ["10.12.0.1"],
        }
    ],
}

SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/fib_multipath_hash_policy": 1,
    "net/ipv6/conf/default/accept_dad": 0,
}


def state() -> dict[str, Any]:
    """Read what the fabric should be."""
    return json.loads(STATE.read_text()) if STATE.exists() else INITIAL


def links() -> None:
    """Lay the cables, then everything that hangs on them."""
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
    wanted = state()
    for leaf in LEAVES:
        _devices_of(leaf, wanted)
    _servers(wanted)
    for leaf in LEAVES:
        _ports_of(leaf, wanted)


def routers() -> None:
    """Start FRR on each switch and give it its configuration."""
    _start(SWITCHES)
    _greet(state()["servers"])


def stop(name: str) -> None:
    """Cut the power of a switch: its FRR dies, its ports lose their carrier."""
    for pid in _run(["ip", "netns", "pids", name]).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _ip(name, [f"link set {port} down" for port in _cables(name)])


def start(name: str) -> None:
    """Bring a switch that was stopped back as it was."""
    _ip(name, [f"link set {port} up" for port in _cables(name)])
    _start([router for router in SWITCHES if router.name == name])


def bfd(name: str) -> None:
    """Start a switch's bfdd, which most have no use for and which would make each boot longer."""
    if not (RUN / name / "bfdd.vty").exists():
        _daemons(name, {"bfdd": ""}).wait()


def _cables(name: str) -> list[str]:
    shown = _run(["ip", "-n", name, "-json", "link", "show", "type", "veth"])
    return [device["ifname"] for device in json.loads(shown)]


def _start(switches: Sequence[Router]) -> None:
    wanted = state()
    for router in switches:
        folder = RUN / router.name
        shutil.rmtree(folder, ignore_errors=True)
        for place in (folder, folder / "etc"):
            place.mkdir(parents=True)
            shutil.chown(place, "frr", "frr")
        (folder / "applied").write_text("{}")
    for process in [_daemons(router.name, DAEMONS) for router in switches]:
        process.wait()
    for router in switches:
        _configure(router, wanted)


def converge() -> None:
    """Follow the state file; what stays the same is not touched."""
    wanted = state()
    there = {}
    for leaf in LEAVES:
        _configure(leaf, wanted, only_removals=True)
        there[leaf.name] = _devices_of(leaf, wanted)
    made = _servers(wanted)
    for leaf in LEAVES:
        plugged = _ports_of(leaf, wanted, None if made else there[leaf.name])
        _configure(leaf, wanted)
        _learn_anew(leaf, plugged)
    _greet(made)


def _greet(servers: list[dict[str, Any]]) -> None:
    """Have servers speak, as one that boots does: its leaf advertises a host once it heard it."""
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


def _devices_of(leaf: Router, wanted: dict[str, Any]) -> Devices | None:
    """Make the VRFs, bridges and VXLAN ports of a leaf: a full VTEP, as a controller would.

    Give all that it has if that was nothing new.
    """
    recipes = _recipes(leaf, wanted)
    devices = _devices(leaf.name)
    there = {device["ifname"]: device.get("ifalias") for device in devices}
    ours = ("Vrf_", "br-", "vx-", "l3br-", "l3vx-")
    made = {name for name, steps in recipes.items() if there.get(name) == _alias(steps)}
    stale = [name for name in there if name.startswith(ours) and name not in made]
    _delete(leaf, stale)
    lines: list[str] = []
    for name, steps in recipes.items():
        if name not in made:
            lines += [steps[0], f"link set {name} addrgenmode none alias {_alias(steps)}"]
    moved = {name for name in recipes if name not in made}
    for name, (_, master) in _masters(wanted).items():
        if name not in made or master not in made:
            moved.add(name)
            lines.append(f"link set {name} master {master}")
            if name.startswith("vx-"):
                lines.append(f"link set {name} type bridge_slave neigh_suppress on learning off")
            if name.startswith("l3vx-"):
                lines.append(f"link set {name} type bridge_slave learning off")
    # Addresses last, as networkd and ifupdown2 do: a device that gets another master loses those of
    # IPv6, and zebra 8.4.4 can miss that they are there again.
    for name, steps in recipes.items():
        if name in moved:
            lines += [f"link set {name} up", *steps[1:]]
    _ip(leaf.name, lines)
    return None if stale or lines else devices


def _delete(leaf: Router, stale: list[str]) -> None:
    """Remove devices of a leaf."""
    # A bridge that is made again takes its VXLAN port along, a VRF its bridges.
    vrfs = [name for name in stale if name.startswith("Vrf_")]
    _ip(leaf.name, [f"link delete {name}" for name in stale if name not in vrfs])
    # Its routes before a VRF: zebra 10.3 crashes when there are some in a table whose VRF has gone.
    for name in vrfs:
        for family in ("-4", "-6"):
            table = str(1000 + int(name.removeprefix("Vrf_")))
            _run(["ip", "-n", leaf.name, family, "route", "flush", "table", table])
    _ip(leaf.name, [f"link delete {name}" for name in vrfs])


def _recipes(leaf: Router, wanted: dict[str, Any]) -> dict[str, list[str]]:
    """Give each device's name and the `ip` lines that make it, masters first."""
    recipes: dict[str, list[str]] = {}
    vxlan = f"local {leaf.loopback} dstport 4789 nolearning ttl 64"
    for vpc in wanted["vpcs"]:
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
    for vnet in _active(wanted):
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


def _bridge(name: str, mtu: int, mac: str) -> str:
    return (
        f"link add {name} mtu {mtu} address {mac}"
        " type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
    )


def _masters(wanted: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Say which device each one belongs to: (kind, master)."""
    masters: dict[str, tuple[str, str]] = {}
    for vpc in wanted["vpcs"]:
        if vni := vpc.get("vni"):
            masters[f"l3br-{vni}"] = ("bridge", f"Vrf_{vpc['id']}")
            masters[f"l3vx-{vni}"] = ("vxlan", f"l3br-{vni}")
    for vnet in _active(wanted):
        vni = vnet["vxlanID"]
        if vnet.get("gateways") and vnet.get("vpc"):
            masters[f"br-{vni}"] = ("bridge", f"Vrf_{vnet['vpc']['id']}")
        masters[f"vx-{vni}"] = ("vxlan", f"br-{vni}")
    return masters


def _active(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    return [vnet for vnet in wanted["vnets"] if vnet.get("state", "active") == "active"]


def _router_mac(leaf: Router, vni: int) -> str:
    number = LEAVES.index(leaf) + 1
    return f"02:1e:af:{number:02x}:{vni >> 8 & 255:02x}:{vni & 255:02x}"


def _servers(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Make the servers that are not there (and name them), remove those no longer wanted.

    One that only gets another V-Net stays: its port moves (`_ports_of`).
    """
    there = {place.name for place in Path("/run/netns").iterdir()}
    known = RUN / "servers"
    made: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    servers = {server["name"]: server for server in wanted["servers"]}
    for name, server in made.items():
        if name in there and _made_of(servers.get(name)) != _made_of(server):
            _ip(server["leaf"], [f"link delete {_port(name)}"])
            _ip("", [f"netns delete {name}"])
            there.discard(name)
    new = [server for name, server in servers.items() if name not in there]
    for server in new:
        name = server["name"]
        mac = f" address {server['mac']}" if server.get("mac") else ""
        mtu = server.get("mtu", 1500)
        near = f"eth0 netns {name} mtu {mtu}{mac}"
        far = f"{_port(name)} mtu {MTU} netns {server['leaf']}"
        _ip("", [f"netns add {name}", f"link add {near} type veth peer name {far}"])
        lines = ["link set lo up", "link set eth0 up"]
        lines += [f"address add {each} dev eth0{_nodad(each)}" for each in server["addresses"]]
        lines += [f"route add default via {gateway}" for gateway in server["gateways"]]
        _ip(name, lines)
        _ip(server["leaf"], [f"link set {_port(name)} up"])
    RUN.mkdir(exist_ok=True)
    known.write_text(json.dumps(servers))
    return new


def _made_of(server: dict[str, Any] | None) -> dict[str, Any]:
    """What a server is made of, which its V-Net is not."""
    return {key: value for key, value in (server or {}).items() if key != "vni"}


def _nodad(address: str) -> str:
    """Waive duplicate detection: every leaf has the same gateway address on purpose."""
    return " nodad" if ":" in address else ""


def _port(server: str) -> str:
    return f"swp-{server}"[:15]


def _ports_of(leaf: Router, wanted: dict[str, Any], there: Devices | None = None) -> list[str]:
    """Put the leaf's ports into the bridges of their V-Nets (and name them), or out of them."""
    bridges = {
        _port(server["name"]): f"br-{server['vni']}"
        for server in wanted["servers"]
        if server["leaf"] == leaf.name
    }
    if leaf.nic:
        routed = leaf.name in wanted["underlay"]
        bridges[HOST_PORT] = "" if routed else f"br-{MANAGEMENT_VNI}"
    devices = {device["ifname"]: device for device in there or _devices(leaf.name)}
    lines, plugged = [], []
    for port, bridge in bridges.items():
        if port not in devices or devices[port].get("master", "") == bridge:
            continue
        if bridge and bridge not in devices:  # the V-Net is gone: its ports hang free
            continue
        lines.append(f"link set {port} master {bridge}" if bridge else f"link set {port} nomaster")
        plugged += [port] if bridge else []
    _ip(leaf.name, lines)
    return plugged


def _learn_anew(leaf: Router, ports: list[str]) -> None:
    """Forget what bridges learned on ports before zebra knew those to be in a bridge.

    It hears of links and of MACs in two threads, and drops a MAC on a port that it has yet to know.
    """
    for port in ports:
        shown = f"show interface {port}"
        end = time.monotonic() + 10
        while "Master interface" not in ask(leaf.name, shown) and time.monotonic() < end:
            time.sleep(0.05)
    _ip(leaf.name, [f"link set {port} type bridge_slave fdb_flush" for port in ports])


def _stanzas(router: Router, wanted: dict[str, Any]) -> dict[str, str]:
    """Give the switch's FRR configuration, in parts that can come and go alone."""
    ports = [f"swp{number}" for number in range(1, len(LEAVES) + 1)]
    if router is not SPINE:
        ports = [UPLINK]
    stanzas = {"": _underlay(router, ports, vtep=router is not SPINE)}
    if router is SPINE:
        return stanzas
    if router.name in wanted["underlay"]:
        stanzas[HOST_PORT] = _neighbors(router, [HOST_PORT])
    for vpc in wanted["vpcs"]:
        if vpc.get("vni"):
            stanzas[f"Vrf_{vpc['id']}"] = _tenant(router, vpc)
    return stanzas


def _underlay(router: Router, ports: list[str], vtep: bool) -> str:
    all_vni = " address-family l2vpn evpn\n  advertise-all-vni\n exit-address-family\n"
    return (
        f"hostname {router.name}\n"
        f"router bgp {router.asn}\n"
        f" bgp router-id {router.loopback}\n"
        " no bgp ebgp-requires-policy\n"
        " no bgp default ipv4-unicast\n"
        " bgp bestpath as-path multipath-relax\n"
        " timers bgp 3 9\n"
        " address-family ipv4 unicast\n"
        f"  network {router.loopback}/32\n"
        " exit-address-family\n"
        f"{all_vni if vtep else ''}"
        "exit\n" + _neighbors(router, ports)
    )


def _neighbors(router: Router, ports: list[str]) -> str:
    sessions = "".join(
        f" neighbor {port} interface remote-as external\n neighbor {port} timers connect 1\n"
        for port in ports
    )
    activate = "".join(f"  neighbor {port} activate\n" for port in ports)
    return (
        f"router bgp {router.asn}\n{sessions}"
        f" address-family ipv4 unicast\n{activate} exit-address-family\n"
        f" address-family l2vpn evpn\n{activate} exit-address-family\nexit\n"
    )


def _tenant(router: Router, vpc: dict[str, Any]) -> str:
    vrf = f"Vrf_{vpc['id']}"
    targets = "".join(
        f"  route-target {direction} {target}\n"
        for direction in ("import", "export")
        for target in vpc.get("routeTargets", {}).get(direction, [])
    )
    return (
        f"vrf {vrf}\n vni {vpc['vni']}\nexit-vrf\n"
        f"router bgp {router.asn} vrf {vrf}\n"
        f" bgp router-id {router.loopback}\n"
        " no bgp ebgp-requires-policy\n"
        " address-family ipv4 unicast\n  redistribute connected\n exit-address-family\n"
        " address-family ipv6 unicast\n  redistribute connected\n exit-address-family\n"
        " address-family l2vpn evpn\n  advertise ipv4 unicast\n  advertise ipv6 unicast\n"
        f"{targets} exit-address-family\nexit\n"
    )


def _undo(router: Router, name: str) -> str:
    if name == HOST_PORT:
        session = f"neighbor {HOST_PORT} interface remote-as external"
        return f"router bgp {router.asn}\n no {session}\nexit\n"
    return f"no router bgp {router.asn} vrf {name}\n"


def _configure(router: Router, wanted: dict[str, Any], only_removals: bool = False) -> None:
    """Bring a running switch from the configuration that it has to the wanted one."""
    folder = RUN / router.name
    applied: dict[str, str] = json.loads((folder / "applied").read_text())
    stanzas = _stanzas(router, wanted)
    gone = {name: applied[name] for name in applied if applied[name] != stanzas.get(name)}
    vnis = {name: text.partition(" vni ")[2].partition("\n")[0] for name, text in gone.items()}
    _load(folder, "".join(f"vrf {n}\n no vni {vni}\nexit-vrf\n" for n, vni in vnis.items() if vni))
    for name in gone:
        # bgpd refuses to lose a VRF until it has heard, a moment later, that its VNI is gone; one
        # that it has lost it knows no more, so each is tried again by itself.
        _load(folder, _undo(router, name), attempts=100)
        del applied[name]
    text = ""
    if not only_removals:
        for name, stanza in stanzas.items():
            if name not in applied:
                text += stanza
                applied[name] = stanza
    _load(folder, text, attempts=100)
    if gone or text:
        (folder / "applied").write_text(json.dumps(applied))


def _load(folder: Path, text: str, attempts: int = 1) -> None:
    """Give daemons what they have to know: VRFs' VNIs mgmtd, or zebra without it; all else bgpd."""
    lines: dict[str, list[str]] = {}
    vrfs_daemon = "mgmtd" if _installed("mgmtd") else "zebra"
    daemon = ""
    for line in text.splitlines():
        if not line.startswith((" ", "exit")):
            daemon = vrfs_daemon if line.startswith("vrf ") else "bgpd"
        lines.setdefault(daemon, []).append(line)
    for daemon, some in lines.items():
        while True:
            attempts -= 1
            try:
                _tell(folder / f"{daemon}.vty", "configure terminal", *some)
                break
            except RuntimeError:
                if attempts <= 0:
                    raise
                time.sleep(0.2)


def ask(router: str, command: str) -> str:
    """What a daemon shows, of a switch or (name "") of the host."""
    folder = RUN / router if router else Path("/run/frr")
    return _tell(folder / f"{DAEMON_OF[command.split()[1]]}.vty", command)


def _tell(path: Path, *lines: str) -> str:
    """What a daemon answers to the last of some commands, given in vtysh's way (lib/vty.c).

    vtysh itself costs thirty times as much. What is wrong with a line of configuration is raised.
    """
    answer = b""
    with socket.socket(socket.AF_UNIX) as vty:
        vty.settimeout(30)
        vty.connect(str(path))
        for line in ("enable", *lines):
            vty.sendall(line.encode() + b"\0")
            answer = b""
            while answer[-4:-1] != b"\0\0\0":  # and a byte that says how it went
                answer += (more := vty.recv(1 << 16))
                if not more:
                    raise ConnectionResetError(f"{path} is gone")
            if answer[-1] and len(lines) > 1:
                raise RuntimeError(f"{path}: {line}: {answer[-1]}: {answer[:-4].decode()}")
    return answer[:-4].decode()


def _installed(daemon: str) -> bool:
    """Whether FRR has it: mgmtd came with FRR 9."""
    return Path("/usr/lib/frr", daemon).exists()


def _daemons(router: str, which: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start daemons with folders of its own in place of the host's; not all are options."""
    folder = RUN / router
    script = f"mount --bind {folder} /run/frr; mount --bind {folder}/etc /etc/frr\n" + "".join(
        f"/usr/lib/frr/{daemon} --daemon{options} > {folder}/{daemon}.log 2>&1\n"
        for daemon, options in which.items()
        if _installed(daemon)
    )
    return subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{router}", "unshare", "--mount", "sh", "-ec", script],
        stdin=subprocess.DEVNULL,
    )


def _alias(steps: list[str]) -> str:
    """Name a recipe by its hash."""
    return hashlib.sha256("\n".join(steps).encode()).hexdigest()[:16]


def _devices(namespace: str) -> Devices:
    devices: Devices = json.loads(_run(["ip", "-n", namespace, "-json", "link"]))
    return devices


def _ip(namespace: str, lines: list[str]) -> None:
    if lines:
        within = ["-n", namespace] if namespace else []
        _run(["ip", *within, "-batch", "-"], "\n".join(lines) + "\n")


def _run(argv: list[str], given: str = "") -> str:
    done = subprocess.run(argv, input=given, capture_output=True, check=False, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr or done.stdout}\n{given}")
    return done.stdout


if __name__ == "__main__":
    begun = time.monotonic()
    {"links": links, "routers": routers}[sys.argv[1]]()
    print(f"{sys.argv[1]}: {time.monotonic() - begun:.1f} s", file=sys.stderr)
