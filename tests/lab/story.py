"""A server whose management address follows the fabric, watched from the controller."""

from __future__ import annotations

import copy
import json
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.channel import Process
from lab.fabric import Host, Lab, Leaf, Pinging, Router, eventually
from lab.ping import Ping

REPO = Path(__file__).parents[2]
PAYLOAD: dict[str, Any] = json.loads((REPO / "examples/k8s01.json").read_text())
# The published example has 1500 on the NICs, too little for full-size packets in VXLAN: a
# connection that has more than that to say stalls (`check` warns).
for link in PAYLOAD["links"]:
    link["mtu"] = 9216
ADDRESS = "10.12.0.101"
HOOK = "evpn-host-failover.service"
NIC, BRIDGE = "ens4", "nbr-14"
LEAVES = ("ns-leaf-0", "ns-leaf-1")
WITHIN = 60.0
"""Seconds for which a condition is waited for; what it took is noted, and not judged."""
MANY = 10_000  # EVPN routes
FIGURES: dict[str, list[tuple[str, str]]] = {}

# A connection that lives as long as the test: numbers go to the host and come back in order.
TCP = r"""
import socket, sys, threading, time
if sys.argv[1] == "echo":
    def echo(peer):
        try:
            while data := peer.recv(4096):
                peer.sendall(data)
        except OSError:
            pass
    server = socket.create_server(("0.0.0.0", 7777))
    print("ready", flush=True)
    while True:
        threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()
peer = socket.create_connection((sys.argv[1], 7777), 10)
peer.settimeout(None)
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def send():
    for number in range(1 << 40):
        peer.sendall(b"%d\n" % number)
        time.sleep(0.05)
threading.Thread(target=send, daemon=True).start()
rest, expected = b"", 0
while data := peer.recv(4096):
    *lines, rest = (rest + data).split(b"\n")
    for line in lines:
        assert int(line) == expected
        expected += 1
    print(expected, flush=True)
"""

# Routes that come and go. In portions: a zebra that is given all at once loses events of the
# kernel, and routes with them.
CHURN = """
set -eu
portion() { seq $2 $(($2 + 499)) | awk -v what="$1" \
  '{printf "fdb %s 02:aa:00:00:%02x:%02x dev churn master static\\n", what, $1 / 256, $1 % 256}' |
  bridge -force -batch -; }
ip link add churn type dummy && ip link set churn master br-14 up
portions=$(seq 0 500 $(($1 - 1)))
for first in $portions; do portion add $first || :; sleep 0.5; done
while true; do
  for first in $portions; do portion delete $first; sleep 0.5; portion add $first; done
done
"""

# What stands in for `ip`: when it is told to, it does so many lines of a move and kills the hook.
KILLER = """#!/bin/sh
cd /run/evpn-host
if [ "$*" = "-force -batch -" ] && [ -n "$NOTIFY_SOCKET" ] && [ -e kill ]; then
    read -r count < kill
    rm kill
    cat > lines
    head -n "$count" lines | /usr/sbin/ip -force -batch -
    mv lines killed
    exec kill -KILL "$PPID"
fi
exec /usr/sbin/ip "$@"
"""

# A DHCP server that gives the host 10.254.254.10, as the published example has it, for 40 s. What
# another server gave it knows too, or it would refuse to renew it.
LEASES = """start 10.254.254.10
end 10.254.254.10
interface {port}
lease_file /run/lab/{port}.leases
pidfile /run/lab/{port}.pid
min_lease 5
static_lease 52:54:00:00:00:04 10.254.254.10
option subnet 255.255.255.0
option lease 40
"""
# What the operator writes for it, instead of the address.
OPERATOR = {
    "netplan": (
        "/etc/netplan/50-operator.yaml",
        ("[10.12.0.101/16, 10.254.254.10/24]", "[10.12.0.101/16]\n      dhcp4: true"),
    ),
    "ifupdown": (
        "/etc/network/interfaces",
        ("    address 10.254.254.10/24", "    post-up dhclient -q -pf /run/dhclient.pid ens4"),
    ),
}
# Where there is no dhclient any more.
DHCPCD = "dhcpcd --ipv4only --noipv4ll --quiet --background ens4"


# The published story: which ports are underlay then, where the address is, and what FRR says of the
# session for which it moves.
WAYS = (
    ("first port to underlay", ("ns-leaf-0",), BRIDGE, "Up"),
    ("second port to underlay", LEAVES, BRIDGE, ""),
    ("first port back", ("ns-leaf-1",), BRIDGE, ""),
    ("second port back", (), NIC, "Down"),
)
# What others do to the address while it is on the bridge.
BY_HAND = (
    f"ip address add {ADDRESS}/16 dev {NIC}",
    f"ip address delete {ADDRESS}/16 dev {BRIDGE}",
    "ip route delete default",
    f"ip route replace default via 10.12.0.1 dev {NIC} onlink",
)
NATIVE = {
    "netplan": (
        "networkctl reload",
        f"networkctl reconfigure {NIC}",
        f"networkctl reconfigure {BRIDGE}",
        "systemctl restart systemd-networkd",
    ),
    "ifupdown": (f"ifup --force {NIC}",),
}


@dataclass(frozen=True)
class Transition:
    """When a session changed and when the address had moved (0: it did not), and what was lost."""

    begun: float
    session: float
    moved: float
    pings: Ping

    @property
    def took(self) -> float:
        """Seconds from the one to the other."""
        return self.moved - self.session

    @property
    def parts(self) -> tuple[float, float]:
        """Of the longest silence: seconds before the session's change, and after the move."""
        begin, end = self.pings.silence
        before, after = min(self.session, end) - begin, end - max(self.moved, begin)
        return max(0.0, before), max(0.0, after)


def summary(rows: list[Transition], interval: float) -> str:
    """Say what came of a transition that was made several times, with a ping each so often."""
    times = [row.took for row in rows]
    lost = statistics.median(row.pings.lost for row in rows)
    gaps = [row.pings.longest_gap_s for row in rows]
    text = "did not move"
    if max(times):
        text = f"moved after {statistics.median(times):.3f} s (median), {max(times):.3f} s (worst)"
    text += f"; {lost:.0f} pings of {interval * 1000:.0f} ms lost (median)"
    text += f", gap {statistics.median(gaps):.2f} s (median), {max(gaps):.2f} s (worst)"
    if max(times):
        before, after = (statistics.median(row.parts[i] for row in rows) for i in (0, 1))
        text += f", of it {before:.2f} s before the session's change, {after:.2f} s after the move"
    return text


class Leases:
    """The DHCP servers."""

    def __init__(self, servers: list[Process]) -> None:
        self._servers = servers

    def given(self) -> int:
        """How often an address was."""
        return sum((each.output + each.errors).count("ing ACK") for each in self._servers)

    def end(self) -> None:
        """No lease is renewed any more."""
        for server in self._servers:
            server.stop()


@dataclass(frozen=True)
class Adjacency:
    """That a session came up or went down, as FRR logged it."""

    at: float
    message: str


class Story:
    """A server in the fabric, watched from the controller."""

    def __init__(self, lab: Lab, backend: str, interval: float = 0.05) -> None:
        """Take a lab; pings are sent each so many seconds."""
        self.lab, self.backend, self.interval = lab, backend, interval
        self.host, self.fabric = lab.host, lab.fabric
        self.controller = lab.fabric.controller
        self.watchers: tuple[Process, ...] = ()
        self._fabric = copy.deepcopy(lab.fabric.state)
        self._settings: dict[str, Any] | None = None
        """What differs in the server's part of the payload from PAYLOAD; None: it has none."""
        self._generation = PAYLOAD["generation"]

    def ready(self) -> None:
        """Make it what every test begins with, wherever that is lost: provisioned and watched.

        A server that was uninstalled or rebooted is made so by the next test, if there is one.
        """
        carried = {part: PAYLOAD[part] for part in ("vpcs", "vnets")}
        self._carry(**carried, servers=self._fabric["servers"])
        if self._settings is None:
            self._provision()
        elif self._settings:
            self.apply()
        if self.host.run(["systemctl", "is-active", HOOK], check=False).code:
            self.hook("reset-failed")
            self.hook("start")
        if not self.watchers or not all(each.running for each in self.watchers):
            self._watch()

    def _carry(self, **parts: Any) -> None:
        """Give the fabric what it does not have yet."""
        if any(self.fabric.state[part] != wanted for part, wanted in parts.items()):
            self.fabric.change(**parts)

    def _provision(self) -> None:
        self.underlay()
        self.lab.machine.write("/root/tcp.py", TCP)
        self.host.evpn_host("install-units")
        self.apply()
        self.right(NIC)

    def apply(self, **settings: Any) -> None:
        """Apply the payload, with settings of the server that the published example has not."""
        self._settings = settings  # before: half an apply is to be put right as well
        self._generation += 1
        server = PAYLOAD["server"] | settings
        self.host.apply(PAYLOAD | {"generation": self._generation, "server": server})

    @contextmanager
    def settings(self, **settings: Any) -> Iterator[None]:
        """Have the server so for a while."""
        self.apply(**settings)
        try:
            yield
        finally:
            self.apply()

    def uninstall(self) -> None:
        """Take the product off."""
        self._settings = None
        self.host.evpn_host("uninstall")

    def reboot(self) -> None:
        """Boot again; nobody watches then."""
        self.watchers = ()
        self.lab.reboot()

    def _watch(self) -> None:
        for process in self.watchers:
            process.stop(signal.SIGKILL)
        echo = self.host.start(["python3", "/root/tcp.py", "echo"])
        self.monitor = self.host.start(["ip", "-ts", "-o", "monitor", "address"])
        eventually(lambda: "ready" in echo.output and self._monitored(), WITHIN)
        self.tcp = self.controller.start(["python3", "/root/tcp.py", ADDRESS])
        self.watchers = echo, self.monitor, self.tcp
        eventually(lambda: self.tcp.output, WITHIN)

    def _monitored(self) -> bool:
        """Whether the monitor tells of addresses by now."""
        for verb in ("add", "delete"):
            self.host.run(f"ip address {verb} 127.0.0.9/32 dev lo".split())
        return "127.0.0.9" in self.monitor.output

    def underlay(self, *names: str) -> None:
        """Switch these ports over and the others back."""
        for number in (0, 1):
            name = f"ns-leaf-{number}"
            if (name in names) != (name in self.fabric.state["underlay"]):
                self.fabric.leaf(name).underlay(on=name in names)

    def established(self, count: int) -> None:
        """Wait until so many sessions are Established."""

        def found() -> bool:
            peers = self.host.show("show bgp l2vpn evpn summary json")["peers"].values()
            return len([peer for peer in peers if peer["state"] == "Established"]) == count

        eventually(found, WITHIN)

    def places(self) -> list[str]:
        found = json.loads(self.host.run(["ip", "-json", "address"]).out)
        return sorted(
            link["ifname"]
            for link in found
            if any(each.get("local") == ADDRESS for each in link["addr_info"])
        )

    def defaults(self) -> list[tuple[str, str]]:
        found = json.loads(self.host.run(["ip", "-json", "route", "show", "default"]).out)
        return [(route["dev"], route["gateway"]) for route in found]

    def right(self, device: str, within: float = WITHIN, reached: bool = True) -> float:
        """Wait until the address is there, there only, with the route, and answers; seconds."""
        seconds = eventually(lambda: self._on(device), within)
        if reached:
            eventually(lambda: self.controller.ping(ADDRESS, count=1), within)
            # The operator's own is always where it was, but for networkd where the carrier is lost.
            nic = self.host.run(["ip", "-brief", "-4", "address", "show", NIC]).out
            assert "10.254.254.10/24" in nic
        assert self.places() == [device]
        return seconds

    def _on(self, device: str) -> bool:
        return self.places() == [device] and self.defaults() == [(device, "10.12.0.1")]

    def carries_on(self, within: float = 130) -> float:
        """Wait until the one TCP connection's counter runs: TCP itself waits for up to 120 s."""
        before = len(self.tcp.output)
        took = eventually(lambda: len(self.tcp.output) > before, within)
        assert self.tcp.running, self.tcp.errors
        return took

    def transition(self, names: tuple[str, ...], device: str, way: str) -> Transition:
        """Switch these ports over, and the others back; all that may be expected is seen to."""
        since, before = self.now(), self.places()
        with self.pinging() as pinging:
            self.underlay(*names)
            self.established(len(names))
            self.right(device)
            time.sleep(1.5)  # whatever might still happen
        session = moved = 0.0
        if way:
            eventually(lambda: self.sessions(since, way) and self.changes(since), WITHIN)
            session, moved = self.sessions(since, way)[0].at, self.changes(since)[-1][0]
        changes = [(place, came) for _, place, came in self.changes(since)]
        assert changes == ([(device, True), (*before, False)] if way else [])
        assert pinging.result.received
        return Transition(since, session, moved, pinging.result)

    def pinging(self) -> AbstractContextManager[Pinging]:
        """Ping the management address from the controller meanwhile."""
        return self.controller.pinging(ADDRESS, interval=self.interval)

    @contextmanager
    def fault(self, what: str) -> Iterator[list[str]]:
        """Let something befall the host: what is said of it, and what was lost, is a figure."""
        said: list[str] = []
        with self.pinging() as pinging:
            yield said
        took, result = self.carries_on(), pinging.result
        assert result.sent, result
        said.append(f"{result.lost} of {result.sent} pings lost")
        said.append(f"longest gap {result.longest_gap_s:.2f} s")
        said.append("TCP goes on" + (f" {took:.1f} s later" if took > 0.5 else ""))
        self.figure(what, "; ".join(said))

    def now(self) -> float:
        return float(self.host.run(["date", "+%s.%N"]).out)

    def changes(self, since: float) -> list[tuple[float, str, bool]]:
        """When the address came (true) to a device or left it, as the kernel said."""
        found = []
        line = re.compile(rf"^\[(\S+)\] (Deleted )?\d+: (\S+)\s+inet {ADDRESS}/", re.MULTILINE)
        for at, deleted, device in line.findall(self.monitor.output):
            moment = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
            if moment >= since:
                found.append((moment, device, not deleted))
        return found

    def twofold(self, since: float, begin: str) -> tuple[float, float]:
        """The longest times (seconds) with two places, and with none."""
        on, last, both, none = {begin}, since, 0.0, 0.0
        for moment, device, came in self.changes(since):
            both = max(both, moment - last if len(on) > 1 else 0)
            none = max(none, moment - last if not on else 0)
            on, last = (on | {device} if came else on - {device}), moment
        return both, none

    def nowhere(self, since: float, begin: str = BRIDGE) -> int:
        """How often the address was taken from the only device that had it."""
        on, times = {begin}, 0
        for _, device, came in self.changes(since):
            on = on | {device} if came else on - {device}
            times += not on
        return times

    def lapses(self, since: float, begin: str = BRIDGE) -> str:
        """Say the same in words."""
        both, none = (f"{longest * 1000:.0f} ms" for longest in self.twofold(since, begin))
        return f"two places {both}, none {none} at the longest"

    def sessions(self, since: float, way: str) -> list[Adjacency]:
        """Each session of which FRR said since then that it went "Up" or "Down"."""
        argv = f"journalctl -u frr -o json --since @{int(since)} -g ADJCHANGE".split()
        lines = self.host.run(argv, check=False).out.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        found = [Adjacency(int(e["__REALTIME_TIMESTAMP"]) / 1e6, e["MESSAGE"]) for e in events]
        return [each for each in found if each.at >= since and f" {way}" in each.message]

    def figure(self, what: str, text: str) -> None:
        FIGURES.setdefault(self.backend, []).append((what, text))
        print(f"\n{self.backend}: {what}: {text}", flush=True)

    def moves(self) -> int:
        """How often the hook has moved the address since the boot."""
        return int(self.status()["moves"])

    def status(self) -> dict[str, Any]:
        """What `status` says of the address."""
        shown = self.host.evpn_host("status", "--json", check=False).out
        found: dict[str, Any] = json.loads(shown)["management"]
        return found

    def another_vni(self, vni: int) -> None:
        """Give the management V-Net another VNI, first in the fabric, then on the host."""
        vnets = copy.deepcopy(PAYLOAD["vnets"])
        vnets[0]["vxlanID"] = vni
        servers = [server | {"vni": vni} for server in self.fabric.state["servers"]]
        self._carry(vpcs=PAYLOAD["vpcs"], vnets=vnets, servers=servers)
        self._settings = {"vni": vni} if vni != PAYLOAD["vnets"][0]["vxlanID"] else {}
        self._generation += 1
        self.host.apply(PAYLOAD | {"generation": self._generation, "vnets": vnets})

    @contextmanager
    def renamed(self, name: str) -> Iterator[None]:
        """Have the NIC under another name for a while."""
        try:
            self._rename(NIC, name)
            yield
        finally:
            self._rename(name, NIC)

    def _rename(self, old: str, new: str) -> None:
        for words in (f"{old} down", f"{old} name {new}", f"{new} up"):
            self.host.run(["ip", "link", "set", *words.split()])

    @contextmanager
    def silent(self, leaf: Leaf) -> Iterator[float]:
        """Have the uplink to a leaf drop everything; give the time at which both ends do."""
        nic = {"ns-leaf-0": NIC, "ns-leaf-1": "ens5"}[leaf.name]
        ends, since = ((leaf, "swp9s1"), (self.host, nic)), 0.0
        try:
            for node, port in ends:
                node.run(f"tc qdisc replace dev {port} root netem loss 100%".split())
                since = self.now()
            yield since
        finally:
            for node, port in ends:
                node.run(f"tc qdisc delete dev {port} root".split(), check=False)

    @contextmanager
    def unplugged(self, leaf: Leaf) -> Iterator[float]:
        """Have the uplink to a leaf without carrier; give the time since which."""
        try:
            since = self.now()
            leaf.run("ip link set swp9s1 down".split())
            yield since
        finally:
            leaf.run("ip link set swp9s1 up".split())

    @contextmanager
    def carriers(self) -> Iterator[Callable[[str], None]]:
        """Have the carriers of both uplinks set "down" or "up"; they are up afterwards."""

        def both(way: str) -> None:
            for name in LEAVES:
                self.fabric.leaf(name).run(["ip", "link", "set", "swp9s1", way])

        try:
            yield both
        finally:
            both("up")

    @contextmanager
    def bfd(self) -> Iterator[None]:
        """Have BFD watch the sessions with both leaves, once it is up."""
        leaves = [self.fabric.leaf(name) for name in LEAVES]
        try:
            self.apply(bgp={"bfd": True})
            for leaf in leaves:
                leaf.configure(f"router bgp {leaf.asn}", "neighbor swp9s1 bfd")
            up = "Status: up"
            eventually(lambda: self.host.show("show bfd peers").count(up) == len(leaves), WITHIN)
            yield
        finally:
            for leaf in leaves:
                leaf.configure(f"router bgp {leaf.asn}", "no neighbor swp9s1 bfd")
            self.apply()

    @contextmanager
    def off(self, *leaves: Leaf) -> Iterator[None]:
        """Have leaves without power for a while."""
        try:
            for leaf in leaves:
                leaf.power(on=False)
            yield
        finally:
            for leaf in leaves:
                leaf.power(on=True)

    @contextmanager
    def hung(self, daemons: str) -> Iterator[None]:
        """Have daemons of FRR stand still for a while."""
        try:
            self.signal_frr("STOP", daemons)
            yield
        finally:
            self.signal_frr("CONT", daemons)

    @contextmanager
    def stopped(self, unit: str) -> Iterator[None]:
        """Have a unit of systemd stopped for a while."""
        try:
            self.host.run(["systemctl", "stop", unit])
            yield
        finally:
            self.host.run(["systemctl", "start", unit])

    @contextmanager
    def routes_coming_and_going(self, count: int) -> Iterator[None]:
        """Have the fabric advertise so many MACs of the management V-Net, and change its mind."""
        leaf = self.fabric.leaf("ns-leaf-2")
        churn = leaf.start(["sh", "-c", CHURN, "churn", str(count)])
        try:
            # One portion may be gone just now.
            eventually(lambda: _macs(self.host) > count - 600, 180)
            yield
        finally:
            churn.stop()
            # An FRR may miss that one of many goes; what a leaf knew goes with it.
            with self.off(leaf):
                leaf.run(["ip", "link", "delete", "churn"], check=False)
            eventually(lambda: _macs(leaf) < 100, WITHIN)
            eventually(lambda: _macs(self.host) < 100, WITHIN)

    def hang(self, daemons: str, seconds: int) -> None:
        """Have daemons of FRR stand still for so long, whatever this computer does meanwhile."""
        script = f"{_signal('STOP', daemons)}; sleep {seconds}; {_signal('CONT', daemons)}"
        self.host.run(["sh", "-c", script])

    def signal_frr(self, signal: str, daemons: str) -> None:
        """Send a signal to daemons of the host's own FRR."""
        self.host.run(["sh", "-c", _signal(signal, daemons)])

    def hook(self, verb: str) -> None:
        self.host.run(["systemctl", verb, HOOK])

    @contextmanager
    def killing(self) -> Iterator[Callable[[int], None]]:
        """Have the next move that the hook makes kill it, after so many of its lines."""
        self.lab.machine.write("/usr/local/sbin/ip", KILLER)
        self.host.run(["chmod", "755", "/usr/local/sbin/ip"])
        try:
            yield lambda count: self.lab.machine.write("/run/evpn-host/kill", f"{count}\n")
        finally:
            self.host.run(["rm", "-f", "/usr/local/sbin/ip", "/run/evpn-host/kill"])

    def killed(self) -> int:
        """Wait until it was, and give the number of lines that the move had."""
        file = "/run/evpn-host/killed"
        eventually(lambda: self.host.run(["test", "-e", file], check=False).code == 0, WITHIN)
        lines = self.host.run(["cat", file]).out.splitlines()
        self.host.run(["rm", file])
        return len(lines)

    def shut(self, off: bool) -> None:
        """End the session by the NIC, or let it come up again."""
        asn = self.host.show("show bgp summary json")["ipv4Unicast"]["as"]
        words = f"{'' if off else 'no '}neighbor {NIC} shutdown"
        lines = ("configure terminal", f"router bgp {asn}", words)
        self.host.run(["vtysh", *(word for line in lines for word in ("-c", line))])

    @contextmanager
    def leasing(self) -> Iterator[Leases]:
        """Have the operator take 10.254.254.10 by DHCP; either kind of port has a server."""
        servers: list[Process] = []
        file, (static, dynamic) = OPERATOR[self.backend]
        if self.host.run(["sh", "-c", "command -v dhclient"], check=False).code:
            dynamic = re.sub("dhclient.*", DHCPCD, dynamic)
        before = self.host.run(["cat", file]).out
        assert static in before
        ports = (self.controller, "eth0"), (self.fabric.leaf("ns-leaf-0"), "swp9s1")
        try:
            for node, port in ports:
                node.run(f"ip address replace 10.254.254.1/24 dev {port}".split())
                self.lab.machine.write(f"/root/{port}.conf", LEASES.format(port=port))
                self.lab.machine.write(f"/run/lab/{port}.leases", "")
                servers.append(node.start(["busybox", "udhcpd", "-f", f"/root/{port}.conf"]))
            self._operator(file, before.replace(static, dynamic))
            yield Leases(servers)
        finally:
            self.host.run(
                ["sh", "-c", "kill $(cat /run/dhclient.pid /run/dhcpcd/ens4-4.pid) 2>&-; true"]
            )
            self._operator(file, before)
            for (node, port), server in zip(ports, servers, strict=False):
                server.stop()
                node.run(f"ip address delete 10.254.254.1/24 dev {port}".split(), check=False)

    def _operator(self, file: str, text: str) -> None:
        """Change the operator's own file, with nothing left of what it said of that address."""
        self.lab.machine.write(file, text)
        argv = f"ip address delete 10.254.254.10/24 dev {NIC}".split()
        self.host.run(argv, check=False)
        again = ["netplan", "apply"] if self.backend == "netplan" else ["ifreload", "-a"]
        self.host.run(again, timeout=120)
        shown = ["ip", "-4", "address", "show", NIC]
        eventually(lambda: "10.254.254.10/24" in self.host.run(shown).out, WITHIN)

    @contextmanager
    def vnets(self, count: int) -> Iterator[None]:
        """Have so many V-Nets more, with gateways, as a controller would give to a large host.

        Put into the kernel by hand, where FRR and the hook see them: applying takes minutes.
        """
        numbers = range(2000, 2000 + count)
        make, free = [], []
        for vni in numbers:
            bridge, port = f"nbr-{vni}", f"vxlan{vni}"
            make += [
                f"link add {bridge} address 44:38:39:ff:{vni >> 8:02x}:{vni & 255:02x} type bridge",
                f"link set {bridge} master Vrf_33 up",
                f"address add 100.{64 + (vni >> 8)}.{vni & 255}.254/24 dev {bridge}",
                f"link add {port} type vxlan id {vni} local 10.2.0.101 dstport 4789 nolearning",
                f"link set {port} master {bridge} up",
            ]
            free += [f"link delete {port}", f"link delete {bridge}"]
        ip = ["ip", "-force", "-batch", "-"]
        try:
            self.host.run(ip, input="\n".join(make) + "\n", timeout=180)
            known = "show evpn vni json"
            eventually(lambda: len(self.host.show(known)) >= count, 120, every=1)
            yield
        finally:
            self.host.run(ip, input="\n".join(free) + "\n", timeout=180, check=False)
            # networkd looks at each that goes, and answers nobody until it has.
            answers = ["networkctl", "--no-pager"]
            eventually(lambda: not count or not self.host.run(answers, check=False).code, 180)


def _signal(signal: str, daemons: str) -> str:
    """Say it in shell; only to the host's own: the leaves' daemons run in other namespaces."""
    return (
        f"for name in {daemons}; do for pid in $(pidof $name); do"
        ' [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/1/ns/net)" ]'
        f" && kill -{signal} $pid; done; done; true"
    )


def _macs(router: Router | Host) -> int:
    """How many MACs FRR knows in the management V-Net."""
    return int(router.show("show evpn vni 14 json")["numMacs"])


def write_figures(backend: str) -> None:
    """Put what was measured between the backend's marks in docs/failover.md.

    A run of some of the tests replaces their rows alone.
    """
    file = REPO / "docs/failover.md"
    begin, end = f"<!-- {backend}: written by tests/lab/story.py -->", f"<!-- {backend} -->"
    before, _, rest = file.read_text().partition(begin)
    old, _, after = rest.partition(end)
    known = re.findall(r"^\| (?!what)([^|-][^|]*) \| (.*) \|$", old, re.MULTILINE)
    figures = dict(known) | dict(FIGURES.get(backend, []))
    rows = [f"| {what} | {text} |" for what, text in figures.items()]
    table = [begin, f"### {backend}", "", "| what | seen |", "| --- | --- |", *rows, end]
    file.write_text(before + "\n".join(table) + after)
