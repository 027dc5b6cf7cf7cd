"""The fabric around the host under test, as objects that a test's sentences are made of.

The README beside this file has an example.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lab.channel import Process
from lab.guest import fabric as inside
from lab.machine import Machine, patience
from lab.ping import Ping, parse
from lab.result import CommandError, LabError, Result

PAYLOAD = "/root/payload.json"


class Node:
    """A network namespace of the machine, or (name "") the machine's own."""

    def __init__(self, machine: Machine, name: str, ipv4: str = "", ipv6: str = "") -> None:
        """Take the namespace's name, and the addresses that others ping it by."""
        self.machine = machine
        self.name = name
        self.ipv4 = ipv4.partition("/")[0]
        self.ipv6 = ipv6.partition("/")[0]
        self._within = ["nsenter", f"--net=/run/netns/{name}"] if name else []

    def run(
        self,
        argv: Sequence[str | Path],
        check: bool = True,
        *,
        timeout: float = 60,
        input: str | None = None,  # noqa: A002 - as subprocess names it
    ) -> Result:
        """Run a command in the namespace."""
        return self.machine.run([*self._within, *argv], check=check, timeout=timeout, input=input)

    def start(self, argv: Sequence[str | Path]) -> Process:
        """Start a command in the namespace and leave it running."""
        return self.machine.start([*self._within, *argv])

    def ping(  # noqa: PLR0913 - the words of ping(8)
        self,
        other: Node | str,
        *,
        count: int = 5,
        interval: float = 0.2,
        size: int | None = None,
        df: bool = False,
        family: int = 4,
    ) -> Ping:
        """Ping another node (by its IPv4 or IPv6 address) or an address; true if all came back."""
        options = [*(["-s", str(size)] if size is not None else []), *(["-M", "do"] if df else [])]
        argv = [*self._ping(other, interval, family), "-c", str(count), "-W", "1", *options]
        done = self.run(argv, check=False, timeout=count * (interval + 1) + 10)
        if not done.out:
            raise CommandError(argv, done)
        return parse(done.out)

    @contextmanager
    def pinging(
        self, other: Node | str, interval: float = 0.02, family: int = 4
    ) -> Iterator[Pinging]:
        """Ping in the background as long as the block lasts; its `result` is there afterwards."""
        background = Pinging(self.start(self._ping(other, interval, family)))
        try:
            yield background
        finally:
            background.stop()

    @contextmanager
    def capture(
        self, interface: str, expression: str = "", count: int = 5, timeout: float = 60
    ) -> Iterator[Capture]:
        """Watch the wire during the block; its `text` is there afterwards, tcpdump's way."""
        tcpdump = ["tcpdump", "-nn", "-e", "-v", "-l", "-i", interface, "-c", str(count)]
        process = self.start([*tcpdump, *([expression] if expression else [])])
        eventually(lambda: "listening on" in process.errors or not process.running)
        seen = Capture(process, timeout)
        yield seen
        seen.finish()

    def _ping(self, other: Node | str, interval: float, family: int) -> list[str]:
        address = other if isinstance(other, str) else other.ipv6 if family == 6 else other.ipv4
        return ["ping", "-n", "-D", "-i", str(interval), address]


class Pinging:
    """A ping in the background."""

    def __init__(self, process: Process) -> None:
        """Take the running ping."""
        self._process = process
        self._result: Ping | None = None

    @property
    def result(self) -> Ping:
        """What came of it, once the block is over; until then what came of it so far."""
        return self._result or parse(self._process.output)

    def stop(self) -> None:
        """End it, when an answer shows that it goes on: what is on its way then is not lost."""
        answered = parse(self._process.output).received
        try:
            eventually(lambda: parse(self._process.output).received > answered, within=5)
        except AssertionError:
            self._result = parse(self._process.stop().out)
        else:
            self._result = parse(self._process.stop().out, cut_off=True)


class Capture:
    """Packets seen on an interface."""

    def __init__(self, process: Process, timeout: float) -> None:
        """Take the running tcpdump."""
        self._process = process
        self._timeout = timeout
        self.text = ""

    def finish(self) -> None:
        """Wait until all packets were seen, or the time is over."""
        deadline = time.monotonic() + self._timeout * patience()
        while self._process.running and time.monotonic() < deadline:
            time.sleep(0.05)
        result = self._process.stop()
        self.text = result.out
        if result.code and not result.out:
            raise CommandError(self._process.argv, result)


class Speaker(Node):
    """One that runs FRR."""

    def show(self, command: str) -> Any:
        """Ask its FRR; a command that ends in `json` comes back parsed."""
        out = self.machine.call("ask", self.name, command).out
        return json.loads(out) if command.endswith(" json") else out


class Router(Speaker):
    """A switch of the fabric with an FRR of its own."""

    def configure(self, *lines: str) -> None:
        """Give its FRR configuration lines, until its next reboot."""
        if any(line.endswith(" bfd") for line in lines):
            self.machine.call("bfd", self.name)
        words = [word for line in ("configure terminal", *lines) for word in ("-c", line)]
        self.run(["vtysh", "--vty_socket", f"/run/lab/{self.name}", *words])


class Leaf(Router):
    """A leaf switch; a full VTEP."""

    def __init__(self, fabric: Fabric, router: inside.Router) -> None:
        """Belong to a fabric."""
        super().__init__(fabric.machine, router.name, router.loopback)
        self.asn = router.asn
        self._fabric = fabric

    def underlay(self, on: bool = True) -> None:
        """Make the port to the host a routed one with eBGP, or an access port of Management."""
        others = [name for name in self._fabric.state["underlay"] if name != self.name]
        self._fabric.change(underlay=[*others, self.name] if on else others)

    def power(self, on: bool) -> None:
        """Cut its power: FRR dies, its ports lose their carrier; or give it back."""
        self.machine.call("start" if on else "stop", self.name)


class Host(Speaker):
    """The host under test: the machine itself."""

    def __init__(self, machine: Machine) -> None:
        """Take the machine."""
        super().__init__(machine, "")

    def apply(self, payload: Mapping[str, Any], *options: str, check: bool = True) -> Result:
        """Run `evpn-host apply` with a payload document."""
        self.machine.write(PAYLOAD, json.dumps(payload))
        return self.evpn_host("apply", "-p", PAYLOAD, *options, check=check)

    def evpn_host(self, *arguments: str, check: bool = True, timeout: float = 300) -> Result:
        """Run the product's command."""
        return self.run(["evpn-host", *arguments], check=check, timeout=timeout)

    def await_dad(self) -> None:
        """Wait for the detection of duplicates: no IPv6 address has its local route before."""
        eventually(lambda: not self.run(["ip", "-6", "address", "show", "tentative"]).out)

    def pod(  # noqa: PLR0913, PLR0917 - what a guest has
        self,
        name: str,
        bridge: str,
        ipv4: str = "",
        gateway: str = "",
        ipv6: str = "",
        gateway6: str = "",
        *,
        mtu: int = 1500,
        mac: str = "",
    ) -> Node:
        """Make a guest: a namespace whose cable ends in a bridge of the host."""
        port = f"veth-{name}"[:15]
        address = f" address {mac}" if mac else ""
        self.run(["ip", "link", "delete", port], check=False)
        self.run(["ip", "netns", "delete", name], check=False)
        cable = [
            f"netns add {name}",
            f"link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu}{address} netns {name}",
            f"link set {port} master {bridge}",
            f"link set {port} up",
        ]
        self._ip(cable)
        eventually(lambda: self._known(port))
        return self._guest(name, ipv4, gateway, ipv6, gateway6)

    def vm(self, name: str, bridge: str, ipv4: str, gateway: str) -> Node:
        """Make a guest as a hypervisor does: a process of it has a tap in a bridge of the host."""
        self.run(["ip", "netns", "add", name])
        self.run(["modprobe", "tun"])
        port = f"tap-{name}"[:15]
        running = self.start(["python3", "-B", "/opt/repo/lab/guest/vm.py", port, name])
        eventually(lambda: "ready" in running.output)
        self._ip([f"link set {port} master {bridge}", f"link set {port} up"])
        eventually(lambda: self._known(port))
        return self._guest(name, ipv4, gateway)

    def _known(self, port: str) -> bool:
        """Whether zebra, if it runs, knows that the port is a bridge's.

        It hears of links and of MACs in two threads, and drops a MAC on a port that it doesn't know
        yet (docs/operations.md, Limits): a guest of the lab, unlike one that boots, speaks at once.
        """
        shown = self.machine.call("ask", "", f"show interface {port}", check=False)
        return shown.code != 0 or "Master interface" in shown.out

    def _guest(
        self, name: str, ipv4: str, gateway: str, ipv6: str = "", gateway6: str = ""
    ) -> Node:
        within = [
            "link set lo up",
            "link set eth0 up",
            *([f"address add {ipv4} dev eth0"] if ipv4 else []),
            *([f"address add {ipv6} dev eth0 nodad"] if ipv6 else []),
            *(f"route add default via {way}" for way in (gateway, gateway6) if way),
        ]
        self._ip(within, "-n", name)
        return Node(self.machine, name, ipv4, ipv6)

    def _ip(self, lines: Sequence[str], *options: str) -> None:
        self.run(["ip", *options, "-batch", "-"], input="".join(f"{line}\n" for line in lines))


class Fabric:
    """Leaves, spine, controller and bare-metal servers."""

    def __init__(self, machine: Machine) -> None:
        """Take the machine that it runs in."""
        self.machine = machine
        self.leaves = {router.name: Leaf(self, router) for router in inside.LEAVES}
        self.spine = Router(machine, inside.SPINE.name, inside.SPINE.loopback)
        self.controller = Node(machine, "controller", "10.12.0.5")
        self.state: dict[str, Any] = json.loads(json.dumps(inside.INITIAL))

    def leaf(self, name: str) -> Leaf:
        """Return the leaf of that name."""
        return self.leaves[name]

    def carry(self, payload: Mapping[str, Any]) -> None:
        """Provision the V-Nets and VPCs of a payload on all leaves, and no others."""
        self.change(vpcs=payload.get("vpcs", []), vnets=payload.get("vnets", []))

    def server(  # noqa: PLR0913 - what a server has
        self,
        name: str,
        *,
        leaf: str = "ns-leaf-2",
        vni: int = 26,
        ipv4: str = "10.188.0.20/24",
        ipv6: str | None = None,
        gateway: str = "10.188.0.254",
        gateway6: str | None = None,
        mac: str | None = None,
    ) -> Node:
        """Put a bare-metal server on a port of a leaf, untagged in a V-Net."""
        server = {
            "name": name,
            "leaf": leaf,
            "vni": vni,
            "addresses": [address for address in (ipv4, ipv6) if address],
            "gateways": [address for address in (gateway, gateway6) if address],
            "mac": mac,
        }
        others = [each for each in self.state["servers"] if each["name"] != name]
        self.change(servers=[*others, server])
        return Node(self.machine, name, ipv4, ipv6 or "")

    def change(self, **parts: Any) -> None:
        """Replace parts of what the fabric should be, and have it follow."""
        self.state |= parts
        self.machine.write(str(inside.STATE), json.dumps(self.state))
        self.machine.call("converge")

    def wait(self, within: float = 120) -> float:
        """Wait until every leaf knows the loopbacks of all; seconds it took."""
        wanted = {f"{leaf.ipv4}/32" for leaf in self.leaves.values()}
        return eventually(
            lambda: all(
                wanted <= set(leaf.show("show ip route json")) for leaf in self.leaves.values()
            ),
            within,
        )


class Lab:
    """A fresh machine with the fabric in it, provisioned no further than an installer needs."""

    def __init__(self, suite: str = "trixie", backend: str = "netplan") -> None:
        """Choose the suite, and how its operator configured the NICs: netplan or ifupdown."""
        self.backend = backend
        parameters = ["lab_fabric=1", f"lab_backend={backend}"]
        self.machine = Machine(suite, parameters=parameters)
        self.host = Host(self.machine)
        self.fabric = Fabric(self.machine)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Boot, and wait for the fabric."""
        with ExitStack() as opening:
            opening.enter_context(self.machine)
            self.fabric.wait()
            self._open = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Throw it all away."""
        self._open.close()

    def reboot(self, hard: bool = False) -> float:
        """Reboot the machine and with it the fabric, as it was; guests are gone. Seconds."""
        seconds = self.machine.reboot(hard)
        return seconds + self.fabric.wait()


def eventually(predicate: Callable[[], Any], within: float = 60, every: float = 0.1) -> float:
    """Wait until the predicate is true; seconds it took. What it last said is in the error.

    The limit is generous on purpose: it only says when to give up, as a processor that others use
    too makes everything slower. An emulated machine is given more than `within`.
    """
    begun = time.monotonic()
    within *= patience()
    while True:
        try:
            last: Any = predicate()
            if last:
                return time.monotonic() - begun
        except (LookupError, AssertionError, ValueError, LabError) as error:
            last = error
        waited = time.monotonic() - begun
        if waited > within:
            raise AssertionError(f"not within {within:g} s; last: {last!r}")
        # To ask costs the machine more than what it waits for: the longer, the more rarely.
        time.sleep(max(every, min(waited / 10, 1)))


T = TypeVar("T")


def at_rest(look: Callable[[], T], pause: float = 2.0) -> T:
    """What a look gives once two of them, so many seconds apart, give the same."""
    looks = [look()]

    def same() -> bool:
        time.sleep(pause)
        looks.append(look())
        return bool(looks[-1] == looks[-2])

    eventually(same, within=60)
    return looks[-1]
