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
# The published example gives the NICs an MTU of 1500. That is too small for full-size packets in
# VXLAN: a connection that sends such packets stalls (`check` warns).
for link in PAYLOAD["links"]:
    link["mtu"] = 9216
ADDRESS = "10.12.0.101"
HOOK = "evpn-host-failover.service"
NIC, BRIDGE = "ens4", "nbr-14"
LEAVES = ("ns-leaf-0", "ns-leaf-1")
WITHIN = 60.0
"""Wait so many seconds at most for a condition. Tests record the time and do not judge it."""
MANY = 10_000  # EVPN routes
FIGURES: dict[str, list[tuple[str, str]]] = {}

# A TCP connection that lives as long as the test: it sends numbers to the host, which sends them
# back in order.
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

# Adds and deletes MACs, and so routes, all the time. In portions: a zebra that gets all of them at
# once loses events of the kernel, and routes with them.
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

# Replaces `ip`. If the file `kill` exists, it runs only so many lines of the hook's next move and
# then kills the hook.
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

# A DHCP server that leases 10.254.254.10, the address in the published example, to the host for
# 40 s. The lease is static: otherwise the server would refuse to renew it when another server
# granted it.
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
# The file in which the operator asks for DHCP: the line with the static address, and the line that
# replaces it.
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
# Replaces dhclient on systems that no longer have it.
DHCPCD = "dhcpcd --ipv4only --noipv4ll --quiet --background ens4"


# The published story, step by step: its title, the ports that are then in the underlay, the device
# that then has the address, and the change of a session ("Up", "Down") that FRR logs before the
# move. "": the address does not move.
WAYS = (
    ("first port to underlay", ("ns-leaf-0",), BRIDGE, "Up"),
    ("second port to underlay", LEAVES, BRIDGE, ""),
    ("first port back", ("ns-leaf-1",), BRIDGE, ""),
    ("second port back", (), NIC, "Down"),
)
# Commands by which somebody else changes the address or its route while it is on the bridge.
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
    """The times of a session's change and of the end of the move (0: no move), and the pings.

    Times are in seconds since 1970, by the host's clock.
    """

    begun: float
    session: float
    moved: float
    pings: Ping

    @property
    def took(self) -> float:
        """Seconds from the session's change to the end of the move."""
        return self.moved - self.session

    @property
    def parts(self) -> tuple[float, float]:
        """Of the longest silence, the seconds before the session's change and after the move."""
        begin, end = self.pings.silence
        before, after = min(self.session, end) - begin, end - max(self.moved, begin)
        return max(0.0, before), max(0.0, after)


def summary(rows: list[Transition], interval: float) -> str:
    """Summarize the repetitions of one transition; pings were sent every `interval` seconds."""
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

    def acknowledgements(self) -> int:
        """Count how often the servers granted or renewed the lease."""
        return sum((each.output + each.errors).count("ing ACK") for each in self._servers)

    def end(self) -> None:
        """Stop the servers, so that nobody renews a lease."""
        for server in self._servers:
            server.stop()


@dataclass(frozen=True)
class Adjacency:
    """A line of FRR's log about a session that came up or went down."""

    at: float
    message: str


class Story:
    """A server in the fabric, watched from the controller."""

    def __init__(self, lab: Lab, backend: str, interval: float = 0.05) -> None:
        """Take a lab; `interval` is the time in seconds between two pings."""
        self.lab, self.backend, self.interval = lab, backend, interval
        self.host, self.fabric = lab.host, lab.fabric
        self.controller = lab.fabric.controller
        self.watchers: tuple[Process, ...] = ()
        self._fabric = copy.deepcopy(lab.fabric.state)
        self._settings: dict[str, Any] | None = None
        """How the applied server settings differ from PAYLOAD. None: nothing is applied."""
        self._generation = PAYLOAD["generation"]

    def ready(self) -> None:
        """Restore what every test begins with: a server that is provisioned and watched.

        Each test calls this first. A test that uninstalls or reboots the server need not repair it.
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
        """Change the fabric to these parts of a payload if it has others."""
        if any(self.fabric.state[part] != expected for part, expected in parts.items()):
            self.fabric.change(**parts)

    def _provision(self) -> None:
        self.underlay()
        self.lab.machine.write("/root/tcp.py", TCP)
        self.host.evpn_host("install-units")
        self.apply()
        self.right(NIC)

    def apply(self, **settings: Any) -> None:
        """Apply the payload with settings of the server that the published example lacks."""
        # Record them first: ready() must also repair an apply that failed half-way.
        self._settings = settings
        self._generation += 1
        server = PAYLOAD["server"] | settings
        self.host.apply(PAYLOAD | {"generation": self._generation, "server": server})

    @contextmanager
    def settings(self, **settings: Any) -> Iterator[None]:
        """Apply these settings of the server for the duration of the block."""
        self.apply(**settings)
        try:
            yield
        finally:
            self.apply()

    def uninstall(self) -> None:
        """Uninstall the product from the host."""
        self._settings = None
        self.host.evpn_host("uninstall")

    def reboot(self) -> None:
        """Reboot the host. The watching processes end with it; ready() starts them again."""
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
        """Return whether the monitor already reports changes of addresses."""
        for verb in ("add", "delete"):
            self.host.run(f"ip address {verb} 127.0.0.9/32 dev lo".split())
        return "127.0.0.9" in self.monitor.output

    def underlay(self, *names: str) -> None:
        """Put the ports with these names into the underlay, and make the others access ports."""
        for number in (0, 1):
            name = f"ns-leaf-{number}"
            if (name in names) != (name in self.fabric.state["underlay"]):
                self.fabric.leaf(name).underlay(on=name in names)

    def established(self, count: int) -> None:
        """Wait until exactly so many sessions are Established."""

        def has_sessions() -> bool:
            peers = self.host.show("show bgp l2vpn evpn summary json")["peers"].values()
            return len([peer for peer in peers if peer["state"] == "Established"]) == count

        eventually(has_sessions, WITHIN)

    def places(self) -> list[str]:
        """Return the names of the devices that have the management address."""
        links = json.loads(self.host.run(["ip", "-json", "address"]).out)
        return sorted(
            link["ifname"]
            for link in links
            if any(each.get("local") == ADDRESS for each in link["addr_info"])
        )

    def defaults(self) -> list[tuple[str, str]]:
        """Return device and gateway of each IPv4 default route."""
        routes = json.loads(self.host.run(["ip", "-json", "route", "show", "default"]).out)
        return [(route["dev"], route["gateway"]) for route in routes]

    def right(self, device: str, reached: bool = True) -> float:
        """Wait until this device alone has the address and the default route; give the seconds.

        If `reached`, also wait until the controller reaches the address.
        """
        seconds = eventually(lambda: self._on(device), WITHIN)
        if reached:
            eventually(lambda: self.controller.ping(ADDRESS, count=1), WITHIN)
            # The operator's own address stays on the NIC, whoever has the management address. Only
            # networkd removes it, when the NIC loses its carrier.
            nic = self.host.run(["ip", "-brief", "-4", "address", "show", NIC]).out
            assert "10.254.254.10/24" in nic
        assert self.places() == [device]
        return seconds

    def _on(self, device: str) -> bool:
        return self.places() == [device] and self.defaults() == [(device, "10.12.0.1")]

    def carries_on(self) -> float:
        """Wait until the TCP connection transfers data again; give the seconds.

        TCP itself waits for up to 120 s before it sends a packet again.
        """
        before = len(self.tcp.output)
        took = eventually(lambda: len(self.tcp.output) > before, within=130)
        assert self.tcp.running, self.tcp.errors
        return took

    def transition(self, names: tuple[str, ...], device: str, way: str) -> Transition:
        """Put these ports into the underlay, the others back, and check everything that follows.

        `way` is the expected change of a session, "Up" or "Down"; "": the address must not move.
        """
        since, before = self.now(), self.places()
        with self.pinging() as pinging:
            self.underlay(*names)
            self.established(len(names))
            self.right(device)
            time.sleep(1.5)  # an unexpected second change would happen in this time
        session = move = 0.0
        if way:
            eventually(lambda: self.sessions(since, way) and self.changes(since), WITHIN)
            session, move = self.sessions(since, way)[0].at, self.changes(since)[-1][0]
        changes = [(place, came) for _, place, came in self.changes(since)]
        assert changes == ([(device, True), (*before, False)] if way else [])
        assert pinging.result.received
        return Transition(since, session, move, pinging.result)

    def pinging(self) -> AbstractContextManager[Pinging]:
        """Ping the management address from the controller during the block."""
        return self.controller.pinging(ADDRESS, interval=self.interval)

    @contextmanager
    def fault(self, name: str) -> Iterator[list[str]]:
        """Ping while the block disturbs the host, and record the result as the figure `name`.

        The block may add notes to the list; the figure begins with them.
        """
        notes: list[str] = []
        with self.pinging() as pinging:
            yield notes
        took, result = self.carries_on(), pinging.result
        assert result.sent, result
        notes.append(f"{result.lost} of {result.sent} pings lost")
        notes.append(f"longest gap {result.longest_gap_s:.2f} s")
        notes.append("TCP goes on" + (f" {took:.1f} s later" if took > 0.5 else ""))
        self.figure(name, "; ".join(notes))

    def now(self) -> float:
        """Return the seconds since 1970, by the host's clock."""
        return float(self.host.run(["date", "+%s.%N"]).out)

    def changes(self, since: float) -> list[tuple[float, str, bool]]:
        """Return when the kernel added the address to a device (true) or removed it (false)."""
        changes = []
        line = re.compile(rf"^\[(\S+)\] (Deleted )?\d+: (\S+)\s+inet {ADDRESS}/", re.MULTILINE)
        for at, deleted, device in line.findall(self.monitor.output):
            moment = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
            if moment >= since:
                changes.append((moment, device, not deleted))
        return changes

    def twofold(self, since: float, begin: str) -> tuple[float, float]:
        """Return the longest times (s) in which two devices had the address, and in which none had.

        `begin` is the device that has the address at the time `since`.
        """
        devices, previous, both, none = {begin}, since, 0.0, 0.0
        for moment, device, came in self.changes(since):
            both = max(both, moment - previous if len(devices) > 1 else 0)
            none = max(none, moment - previous if not devices else 0)
            devices, previous = (devices | {device} if came else devices - {device}), moment
        return both, none

    def nowhere(self, since: float, begin: str = BRIDGE) -> int:
        """Count how often the address was removed from the only device that had it."""
        devices, times = {begin}, 0
        for _, device, came in self.changes(since):
            devices = devices | {device} if came else devices - {device}
            times += not devices
        return times

    def lapses(self, since: float, begin: str = BRIDGE) -> str:
        """Put the result of twofold() into words."""
        both, none = (f"{longest * 1000:.0f} ms" for longest in self.twofold(since, begin))
        return f"two places {both}, none {none} at the longest"

    def sessions(self, since: float, way: str) -> list[Adjacency]:
        """Return the sessions that went "Up" or "Down" (`way`) since that time, from FRR's log."""
        argv = f"journalctl -u frr -o json --since @{int(since)} -g ADJCHANGE".split()
        lines = self.host.run(argv, check=False).out.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        changes = [Adjacency(int(e["__REALTIME_TIMESTAMP"]) / 1e6, e["MESSAGE"]) for e in events]
        return [each for each in changes if each.at >= since and f" {way}" in each.message]

    def figure(self, name: str, text: str) -> None:
        """Print a figure and keep it for write_figures()."""
        FIGURES.setdefault(self.backend, []).append((name, text))
        print(f"\n{self.backend}: {name}: {text}", flush=True)

    def moves(self) -> int:
        """Count the moves that the hook has made since the boot."""
        return int(self.status()["moves"])

    def status(self) -> dict[str, Any]:
        """Return the part of `status --json` about the management address."""
        output = self.host.evpn_host("status", "--json", check=False).out
        management: dict[str, Any] = json.loads(output)["management"]
        return management

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
        """Rename the NIC for the duration of the block."""
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
        """Let both ends of the uplink to a leaf drop every packet; give the time of the second."""
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
        """Take the carrier from the uplink to a leaf; give the time at which this began."""
        try:
            since = self.now()
            leaf.run("ip link set swp9s1 down".split())
            yield since
        finally:
            leaf.run("ip link set swp9s1 up".split())

    @contextmanager
    def carriers(self) -> Iterator[Callable[[str], None]]:
        """Give a function that sets the carriers of both uplinks "down" or "up".

        They are up after the block.
        """

        def set_carriers(way: str) -> None:
            for name in LEAVES:
                self.fabric.leaf(name).run(["ip", "link", "set", "swp9s1", way])

        try:
            yield set_carriers
        finally:
            set_carriers("up")

    @contextmanager
    def bfd(self) -> Iterator[None]:
        """Let BFD watch the sessions with both leaves; the block begins once BFD is up."""
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
        """Switch leaves off for the duration of the block."""
        try:
            for leaf in leaves:
                leaf.power(on=False)
            yield
        finally:
            for leaf in leaves:
                leaf.power(on=True)

    @contextmanager
    def hung(self, daemons: str) -> Iterator[None]:
        """Stop daemons of FRR with SIGSTOP for the duration of the block."""
        try:
            self.signal_frr("STOP", daemons)
            yield
        finally:
            self.signal_frr("CONT", daemons)

    @contextmanager
    def stopped(self, unit: str) -> Iterator[None]:
        """Stop a unit of systemd for the duration of the block."""
        try:
            self.host.run(["systemctl", "stop", unit])
            yield
        finally:
            self.host.run(["systemctl", "start", unit])

    @contextmanager
    def routes_coming_and_going(self, count: int) -> Iterator[None]:
        """Let the fabric advertise so many MACs of the management V-Net, and withdraw them again.

        It does so all the time during the block, portion by portion.
        """
        leaf = self.fabric.leaf("ns-leaf-2")
        churn = leaf.start(["sh", "-c", CHURN, "churn", str(count)])
        try:
            # One portion of 500 may be withdrawn at this moment.
            eventually(lambda: _macs(self.host) > count - 600, 180)
            yield
        finally:
            churn.stop()
            # An FRR may miss the withdrawal of one among many MACs. Switching the leaf off removes
            # everything that the leaf knew.
            with self.off(leaf):
                leaf.run(["ip", "link", "delete", "churn"], check=False)
            eventually(lambda: _macs(leaf) < 100, WITHIN)
            eventually(lambda: _macs(self.host) < 100, WITHIN)

    def hang(self, daemons: str, seconds: int) -> None:
        """Stop daemons of FRR for so many seconds, by the host's clock.

        One shell script on the host does all of it, so a busy lab does not make the time longer.
        """
        script = f"{_signal('STOP', daemons)}; sleep {seconds}; {_signal('CONT', daemons)}"
        self.host.run(["sh", "-c", script])

    def signal_frr(self, signal: str, daemons: str) -> None:
        """Send a signal to daemons of the host's own FRR."""
        self.host.run(["sh", "-c", _signal(signal, daemons)])

    def hook(self, verb: str) -> None:
        """Run `systemctl VERB` on the hook's unit."""
        self.host.run(["systemctl", verb, HOOK])

    @contextmanager
    def killing(self) -> Iterator[Callable[[int], None]]:
        """Give a function that makes the hook's next move kill the hook after so many lines."""
        self.lab.machine.write("/usr/local/sbin/ip", KILLER)
        self.host.run(["chmod", "755", "/usr/local/sbin/ip"])
        try:
            yield lambda count: self.lab.machine.write("/run/evpn-host/kill", f"{count}\n")
        finally:
            self.host.run(["rm", "-f", "/usr/local/sbin/ip", "/run/evpn-host/kill"])

    def killed(self) -> int:
        """Wait until the hook was killed; give the number of lines that the move had."""
        file = "/run/evpn-host/killed"
        eventually(lambda: self.host.run(["test", "-e", file], check=False).code == 0, WITHIN)
        lines = self.host.run(["cat", file]).out.splitlines()
        self.host.run(["rm", file])
        return len(lines)

    def shut(self, off: bool) -> None:
        """Shut the session on the NIC down (`off`), or let it come up again."""
        asn = self.host.show("show bgp summary json")["ipv4Unicast"]["as"]
        words = f"{'' if off else 'no '}neighbor {NIC} shutdown"
        lines = ("configure terminal", f"router bgp {asn}", words)
        self.host.run(["vtysh", *(word for line in lines for word in ("-c", line))])

    @contextmanager
    def leasing(self) -> Iterator[Leases]:
        """Let the operator get 10.254.254.10 by DHCP during the block.

        The controller serves it while the port is an access port, the leaf while it is underlay.
        """
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
        """Change the operator's own file, and remove the address that the old file configured."""
        self.lab.machine.write(file, text)
        argv = f"ip address delete 10.254.254.10/24 dev {NIC}".split()
        self.host.run(argv, check=False)
        again = ["netplan", "apply"] if self.backend == "netplan" else ["ifreload", "-a"]
        self.host.run(again, timeout=120)
        show = ["ip", "-4", "address", "show", NIC]
        eventually(lambda: "10.254.254.10/24" in self.host.run(show).out, WITHIN)

    @contextmanager
    def vnets(self, count: int) -> Iterator[None]:
        """Add so many V-Nets with gateways, as many as a controller would give to a large host.

        This adds them to the kernel directly, where FRR and the hook see them: an apply of so many
        takes minutes.
        """
        numbers = range(2000, 2000 + count)
        create, delete = [], []
        for vni in numbers:
            bridge, port = f"nbr-{vni}", f"vxlan{vni}"
            create += [
                f"link add {bridge} address 44:38:39:ff:{vni >> 8:02x}:{vni & 255:02x} type bridge",
                f"link set {bridge} master Vrf_33 up",
                f"address add 100.{64 + (vni >> 8)}.{vni & 255}.254/24 dev {bridge}",
                f"link add {port} type vxlan id {vni} local 10.2.0.101 dstport 4789 nolearning",
                f"link set {port} master {bridge} up",
            ]
            delete += [f"link delete {port}", f"link delete {bridge}"]
        ip = ["ip", "-force", "-batch", "-"]
        try:
            self.host.run(ip, input="\n".join(create) + "\n", timeout=180)
            show = "show evpn vni json"
            eventually(lambda: len(self.host.show(show)) >= count, 120, every=1)
            yield
        finally:
            self.host.run(ip, input="\n".join(delete) + "\n", timeout=180, check=False)
            # networkd looks at each removed device, and answers no request until it is done.
            answers = ["networkctl", "--no-pager"]
            eventually(lambda: not count or not self.host.run(answers, check=False).code, 180)


def _signal(signal: str, daemons: str) -> str:
    """Give the shell command that sends a signal to the host's own daemons.

    It compares network namespaces: the leaves' daemons have the same names in other namespaces.
    """
    return (
        f"for name in {daemons}; do for pid in $(pidof $name); do"
        ' [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/1/ns/net)" ]'
        f" && kill -{signal} $pid; done; done; true"
    )


def _macs(router: Router | Host) -> int:
    """Count the MACs that FRR knows in the management V-Net."""
    return int(router.show("show evpn vni 14 json")["numMacs"])


def write_figures(backend: str) -> None:
    """Write the figures between the backend's marks in docs/failover.md.

    A run of some of the tests replaces only the rows of those tests.
    """
    file = REPO / "docs/failover.md"
    begin, end = f"<!-- {backend}: written by tests/lab/story.py -->", f"<!-- {backend} -->"
    before, _, rest = file.read_text().partition(begin)
    old, _, after = rest.partition(end)
    old_rows = re.findall(r"^\| (?!what)([^|-][^|]*) \| (.*) \|$", old, re.MULTILINE)
    figures = dict(old_rows) | dict(FIGURES.get(backend, []))
    rows = [f"| {name} | {text} |" for name, text in figures.items()]
    table = [begin, f"### {backend}", "", "| what | seen |", "| --- | --- |", *rows, end]
    file.write_text(before + "\n".join(table) + after)
