"""A server whose management address follows the fabric, watched from the controller."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.channel import Process
from lab.fabric import Lab, eventually
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
CYCLES = int(os.environ.get("EVPN_HOST_TRANSITIONS", "2"))
LONG = CYCLES > 10
LOOP = 60 if LONG else 10  # seconds of each nuisance
SUITE = os.environ.get("EVPN_HOST_SUITE", "trixie")
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


@dataclass(frozen=True)
class Transition:
    """When a session changed and when the address had moved (0: it did not), and what was lost."""

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


def summary(rows: list[Transition]) -> str:
    """Say what came of a transition that was made several times."""
    times = [row.took for row in rows]
    lost = statistics.median(row.pings.lost for row in rows)
    gaps = [row.pings.longest_gap_s for row in rows]
    text = "did not move"
    if max(times):
        text = f"moved after {statistics.median(times):.3f} s (median), {max(times):.3f} s (worst)"
    text += f"; {lost:.0f} pings of 10 ms lost (median)"
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


class Story:
    """A server in the fabric, watched from the controller."""

    def __init__(self, lab: Lab, backend: str) -> None:
        self.lab, self.backend = lab, backend
        self.host, self.fabric = lab.host, lab.fabric
        self.controller = lab.fabric.controller
        self.tcp: Process | None = None
        self._generation = PAYLOAD["generation"]

    def provision(self) -> None:
        self.fabric.carry(PAYLOAD)
        self.lab.machine.write("/root/tcp.py", TCP)
        self.host.evpn_host("install-units")
        self.host.apply(PAYLOAD)
        self.right(NIC)

    def watch(self) -> None:
        """Begin to watch anew: after a reboot, or for figures of one test."""
        echo = self.host.start(["python3", "/root/tcp.py", "echo"])
        self.monitor = self.host.start(["ip", "-ts", "-o", "monitor", "address"])
        eventually(lambda: "ready" in echo.output and self._monitored())
        self.tcp = self.controller.start(["python3", "/root/tcp.py", ADDRESS])
        eventually(lambda: self.tcp and self.tcp.output)

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

        eventually(found, 40)

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

    def right(self, device: str, within: float = 30, reached: bool = True) -> float:
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
        assert self.tcp
        before = len(self.tcp.output)
        took = eventually(lambda: self.tcp and len(self.tcp.output) > before, within)
        assert self.tcp.running, self.tcp.errors
        return took

    @contextmanager
    def fault(self, what: str) -> Iterator[list[str]]:
        """Let something befall the host: what is said of it, and what was lost, is a figure."""
        said: list[str] = []
        with self.controller.pinging(ADDRESS, interval=0.01) as pinging:
            yield said
        took, result = self.carries_on(), pinging.result
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

    def lapses(self, since: float, begin: str = BRIDGE) -> str:
        """Say the same in words."""
        both, none = (f"{longest * 1000:.0f} ms" for longest in self.twofold(since, begin))
        return f"two places {both}, none {none} at the longest"

    def sessions(self, since: float, way: str) -> list[float]:
        """When FRR said that a session went "Up" or "Down"."""
        argv = f"journalctl -u frr -o json --since @{int(since)} -g ADJCHANGE".split()
        lines = self.host.run(argv, check=False).out.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        times = [int(e["__REALTIME_TIMESTAMP"]) / 1e6 for e in events if f" {way}" in e["MESSAGE"]]
        return [at for at in times if at >= since]

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

    def next_generation(self) -> int:
        self._generation += 1
        return int(self._generation)

    def rename(self, old: str, new: str) -> None:
        for words in (f"{old} down", f"{old} name {new}", f"{new} up"):
            self.host.run(["ip", "link", "set", *words.split()])

    def signal_frr(self, signal: str, daemons: str) -> None:
        """Only the host's own: the leaves' daemons run in other namespaces."""
        script = (
            f"for name in {daemons}; do for pid in $(pidof $name); do"
            ' [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/1/ns/net)" ]'
            f" && kill -{signal} $pid; done; done; true"
        )
        self.host.run(["sh", "-c", script])

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
        eventually(lambda: self.host.run(["test", "-e", file], check=False).code == 0, 30)
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
        servers = []
        for node, port in ((self.controller, "eth0"), (self.fabric.leaf("ns-leaf-0"), "swp9s1")):
            node.run(f"ip address add 10.254.254.1/24 dev {port}".split())
            self.lab.machine.write(f"/root/{port}.conf", LEASES.format(port=port))
            self.lab.machine.write(f"/run/lab/{port}.leases", "")
            server = node.start(["busybox", "udhcpd", "-f", f"/root/{port}.conf"])
            servers.append((node, port, server))
        file, (static, dynamic) = OPERATOR[self.backend]
        if self.host.run(["sh", "-c", "command -v dhclient"], check=False).code:
            dynamic = re.sub("dhclient.*", DHCPCD, dynamic)
        before = self.host.run(["cat", file]).out
        assert static in before
        self._operator(file, before.replace(static, dynamic))
        try:
            yield Leases([server for *_, server in servers])
        finally:
            self.host.run(
                ["sh", "-c", "kill $(cat /run/dhclient.pid /run/dhcpcd/ens4-4.pid) 2>&-; true"]
            )
            self._operator(file, before)
            for node, port, server in servers:
                server.stop()
                node.run(f"ip address delete 10.254.254.1/24 dev {port}".split())

    def _operator(self, file: str, text: str) -> None:
        """Change the operator's own file, with nothing left of what it said of that address."""
        self.lab.machine.write(file, text)
        argv = f"ip address delete 10.254.254.10/24 dev {NIC}".split()
        self.host.run(argv, check=False)
        again = ["netplan", "apply"] if self.backend == "netplan" else ["ifreload", "-a"]
        self.host.run(again, timeout=120)
        shown = ["ip", "-4", "address", "show", NIC]
        eventually(lambda: "10.254.254.10/24" in self.host.run(shown).out, 40)

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


def write_figures(backend: str) -> None:
    """Put what was measured between the backend's marks in docs/failover.md.

    A run of some of the tests replaces their rows alone.
    """
    file = REPO / "docs/failover.md"
    begin, end = f"<!-- {backend}: written by tests/lab/test_failover.py -->", f"<!-- {backend} -->"
    before, _, rest = file.read_text().partition(begin)
    old, _, after = rest.partition(end)
    known = re.findall(r"^\| (?!what)([^|-][^|]*) \| (.*) \|$", old, re.MULTILINE)
    figures = dict(known) | dict(FIGURES.get(backend, []))
    rows = [f"| {what} | {text} |" for what, text in figures.items()]
    table = [begin, f"### {backend}", "", "| what | seen |", "| --- | --- |", *rows, end]
    file.write_text(before + "\n".join(table) + after)
