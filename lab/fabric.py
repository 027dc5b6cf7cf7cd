"""The fabric around the host under test, as objects whose methods a test calls.

lab/README.md has an example.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from lab.channel import Process
from lab.guest import fabric as guest_fabric
from lab.leaves import INITIAL, of_payload, with_frr
from lab.machine import Machine, patience
from lab.ping import Ping, parse
from lab.result import CommandError, LabError, Result

PAYLOAD = "/root/payload.json"


class Node:
    """A network namespace of the machine; the name "" stands for the root namespace."""

    def __init__(self, machine: Machine, name: str, ipv4: str = "", ipv6: str = "") -> None:
        """Take the namespace's name, and the addresses at which others ping it."""
        self.machine = machine
        self.name = name
        self.ipv4 = ipv4.partition("/")[0]
        self.ipv6 = ipv6.partition("/")[0]
        self._nsenter = ["nsenter", f"--net=/run/netns/{name}"] if name else []

    def run(
        self,
        argv: Sequence[str | Path],
        check: bool = True,
        *,
        timeout: float = 60,
        input: str | None = None,  # noqa: A002 - as subprocess names it
    ) -> Result:
        """Run a command in the namespace."""
        return self.machine.run([*self._nsenter, *argv], check=check, timeout=timeout, input=input)

    def start(self, argv: Sequence[str | Path]) -> Process:
        """Start a command in the namespace and leave it running."""
        return self.machine.start([*self._nsenter, *argv])

    def ping(  # noqa: PLR0913 - options of ping(8)
        self,
        other: Node | str,
        *,
        count: int = 5,
        interval: float = 0.2,
        size: int | None = None,
        df: bool = False,
        family: int = 4,
    ) -> Ping:
        """Ping a node or an address; the result is true if every packet was answered.

        `family` (4 or 6) chooses which address of a node is pinged.
        """
        options = [*(["-s", str(size)] if size is not None else []), *(["-M", "do"] if df else [])]
        argv = [*self._ping(other, interval, family), "-c", str(count), "-W", "1", *options]
        result = self.run(argv, check=False, timeout=count * (interval + 1) + 10)
        if not result.out:
            raise CommandError(argv, result)
        return parse(result.out)

    @contextmanager
    def pinging(
        self, other: Node | str, interval: float = 0.02, family: int = 4
    ) -> Iterator[Pinging]:
        """Ping in the background during a `with` block; afterwards `result` has the outcome."""
        background = Pinging(self.start(self._ping(other, interval, family)))
        try:
            yield background
        finally:
            background.stop()

    @contextmanager
    def capture(
        self,
        interface: str,
        expression: str = "",
        count: int = 5,
        timeout: float = 60,
        *,
        direction: str = "inout",
    ) -> Iterator[Capture]:
        """Capture packets during a `with` block; afterwards `text` has the output of tcpdump.

        After the block wait until `count` packets were captured, for `timeout` seconds at most.
        `direction` is `in`, `out` or `inout`; in an expression libpcap 1.11 gets it wrong.
        """
        tcpdump = ["tcpdump", "-nn", "-e", "-v", "-l", "-i", interface, "-c", str(count)]
        tcpdump += ["-Q", direction]
        process = self.start([*tcpdump, *([expression] if expression else [])])
        eventually(lambda: "listening on" in process.errors or not process.running)
        packets = Capture(process, timeout)
        yield packets
        packets.finish()

    def _ping(self, other: Node | str, interval: float, family: int) -> list[str]:
        address = other if isinstance(other, str) else other.ipv6 if family == 6 else other.ipv4
        return ["ping", "-n", "-D", "-i", str(interval), address]


class Pinging:
    """A ping that runs in the background."""

    def __init__(self, process: Process) -> None:
        """Take the running ping."""
        self._process = process
        self._result: Ping | None = None

    @property
    def result(self) -> Ping:
        """The outcome: the final one after the block, and the one so far during the block."""
        return self._result or parse(self._process.output)

    def stop(self) -> None:
        """Wait for one more answer, then end the ping.

        If it came, packets that were still on their way at the end do not count as lost.
        """
        before = parse(self._process.output).received
        try:
            eventually(lambda: parse(self._process.output).received > before, within=5)
        except AssertionError:
            self._result = parse(self._process.stop().out)
        else:
            self._result = parse(self._process.stop().out, cut_off=True)


class Capture:
    """Packets that tcpdump captures on an interface."""

    def __init__(self, process: Process, timeout: float) -> None:
        """Take the running tcpdump."""
        self._process = process
        self._timeout = timeout
        self.text = ""

    def finish(self) -> None:
        """Wait until all packets were captured or the time is over, then end tcpdump."""
        deadline = time.monotonic() + self._timeout * patience()
        while self._process.running and time.monotonic() < deadline:
            time.sleep(0.05)
        result = self._process.stop()
        self.text = result.out
        if result.code and not result.out:
            raise CommandError(self._process.argv, result)


class Speaker(Node):
    """A node that runs FRR."""

    def show(self, command: str) -> Any:
        """Run a `show` command of its FRR; if the command ends in `json`, parse the output."""
        out = self.machine.call("ask", self.name, command).out
        return json.loads(out) if command.endswith(" json") else out


class Router(Speaker):
    """A switch of the fabric with an FRR of its own."""

    def configure(self, *lines: str) -> None:
        """Give configuration lines to its FRR; they last until its next reboot."""
        if any(line.endswith(" bfd") for line in lines):
            self.machine.call("bfd", self.name)
        options = [word for line in ("configure terminal", *lines) for word in ("-c", line)]
        self.run(["vtysh", "--vty_socket", f"/run/lab/{self.name}", *options])


class Leaf(Router):
    """A leaf switch, which is a full VTEP."""

    def __init__(self, fabric: Fabric, router: guest_fabric.Router) -> None:
        """Take the leaf's fabric, and the description of its switch."""
        super().__init__(fabric.machine, router.name, router.loopback)
        self.asn = router.asn
        self._fabric = fabric

    def underlay(self, on: bool = True) -> None:
        """Make the port to the host a routed port with eBGP, or an access port of Management."""
        others = [name for name in self._fabric.state["underlay"] if name != self.name]
        self._fabric.change(underlay=[*others, self.name] if on else others)

    def power(self, on: bool) -> None:
        """Switch its power on, or off: then its FRR dies and its ports lose their carrier."""
        self.machine.call("start" if on else "stop", self.name)


class Host(Speaker):
    """The host under test, which is the machine itself."""

    def __init__(self, machine: Machine) -> None:
        """Take the machine."""
        super().__init__(machine, "")

    def apply(self, payload: Mapping[str, Any], *options: str, check: bool = True) -> Result:
        """Run `evpn-host apply` with a payload document."""
        self.machine.write(PAYLOAD, json.dumps(payload))
        return self.evpn_host("apply", "-p", PAYLOAD, *options, check=check)

    def evpn_host(self, *arguments: str, check: bool = True) -> Result:
        """Run the command `evpn-host`."""
        return self.run(["evpn-host", *arguments], check=check, timeout=300)

    def await_dad(self) -> None:
        """Wait for duplicate address detection: until then an IPv6 address has no local route."""
        eventually(lambda: not self.run(["ip", "-6", "address", "show", "tentative"]).out)

    def pod(  # noqa: PLR0913, PLR0917 - settings of a guest
        self,
        name: str,
        bridge: str,
        ipv4: str = "",
        gateway: str = "",
        ipv6: str = "",
        gateway6: str = "",
        *,
        mac: str = "",
    ) -> Node:
        """Make a guest: a namespace with a veth cable to a bridge of the host."""
        port = f"veth-{name}"[:15]
        address = f" address {mac}" if mac else ""
        self.run(["ip", "link", "delete", port], check=False)
        self.run(["ip", "netns", "delete", name], check=False)
        cable = [
            f"netns add {name}",
            f"link add {port} type veth peer name eth0{address} netns {name}",
            f"link set {port} master {bridge}",
            f"link set {port} up",
        ]
        self._ip(cable)
        eventually(lambda: self._zebra_knows(port))
        return self._guest(name, ipv4, gateway, ipv6, gateway6)

    def vm(self, name: str, bridge: str, ipv4: str, gateway: str) -> Node:
        """Make a guest as a hypervisor does: a process owns a tap in a bridge of the host."""
        self.run(["ip", "netns", "add", name])
        self.run(["modprobe", "tun"])
        port = f"tap-{name}"[:15]
        process = self.start(["python3", "-B", "/opt/repo/lab/guest/vm.py", port, name])
        eventually(lambda: "ready" in process.output)
        self._ip([f"link set {port} master {bridge}", f"link set {port} up"])
        eventually(lambda: self._zebra_knows(port))
        return self._guest(name, ipv4, gateway)

    def _zebra_knows(self, port: str) -> bool:
        """Return whether zebra knows that a bridge has the port; true if zebra does not run.

        zebra learns of links and of MACs in two threads, and drops a MAC on a port that it does not
        know yet (docs/operations.md, Limits). A guest of the lab sends packets at once; one that
        boots does not.
        """
        answer = self.machine.call("ask", "", f"show interface {port}", check=False)
        return answer.code != 0 or "Master interface" in answer.out

    def _guest(
        self, name: str, ipv4: str, gateway: str, ipv6: str = "", gateway6: str = ""
    ) -> Node:
        lines = [
            "link set lo up",
            "link set eth0 up",
            *([f"address add {ipv4} dev eth0"] if ipv4 else []),
            *([f"address add {ipv6} dev eth0 nodad"] if ipv6 else []),
            *(f"route add default via {each}" for each in (gateway, gateway6) if each),
        ]
        self._ip(lines, "-n", name)
        return Node(self.machine, name, ipv4, ipv6)

    def _ip(self, lines: Sequence[str], *options: str) -> None:
        self.run(["ip", *options, "-batch", "-"], input="".join(f"{line}\n" for line in lines))


class Fabric:
    """The leaves, the spine, the controller and the bare-metal servers."""

    def __init__(self, machine: Machine) -> None:
        """Take the machine in which the fabric runs."""
        self.machine = machine
        self.leaves = {router.name: Leaf(self, router) for router in guest_fabric.LEAVES}
        self.spine = Router(machine, guest_fabric.SPINE.name, guest_fabric.SPINE.loopback)
        self.controller = Node(machine, "controller", "10.12.0.5")
        self.state: dict[str, Any] = json.loads(json.dumps(INITIAL))

    def leaf(self, name: str) -> Leaf:
        """Return the leaf with this name."""
        return self.leaves[name]

    def carry(self, payload: Mapping[str, Any]) -> None:
        """Provision the V-Nets and VPCs of a payload on all leaves, and remove all others."""
        self.change(**of_payload(payload))

    def server(  # noqa: PLR0913 - settings of a server
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
        """Connect a bare-metal server to a port of a leaf, untagged in a V-Net."""
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
        """Replace parts of the fabric's desired state, and bring the fabric to it."""
        self.state |= parts
        self.machine.write(str(guest_fabric.STATE), json.dumps(with_frr(self.state)))
        self.machine.call("converge")

    def wait(self, within: float = 120) -> float:
        """Wait until every leaf has routes to the loopbacks of all leaves; return the seconds."""
        loopbacks = {f"{leaf.ipv4}/32" for leaf in self.leaves.values()}
        return eventually(
            lambda: all(
                loopbacks <= set(leaf.show("show ip route json")) for leaf in self.leaves.values()
            ),
            within,
        )


class Lab:
    """A fresh machine with the fabric, which has only the V-Net that an installer needs."""

    def __init__(self, suite: str = "trixie", backend: str = "netplan") -> None:
        """Choose the suite, and the backend of the operator's NICs: netplan or ifupdown."""
        self.backend = backend
        parameters = ["lab_fabric=1", f"lab_backend={backend}"]
        files = {"fabric.json": json.dumps(with_frr(INITIAL))}
        self.machine = Machine(suite, parameters=parameters, files=files)
        self.host = Host(self.machine)
        self.fabric = Fabric(self.machine)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Boot the machine, and wait for the fabric."""
        with ExitStack() as opening:
            opening.enter_context(self.machine)
            self.fabric.wait()
            self._open = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the machine and delete its disk."""
        self._open.close()

    def reboot(self, hard: bool = False) -> float:
        """Reboot the machine and the fabric; return the seconds.

        The fabric comes back as it was, the guests do not. `hard` cuts the power.
        """
        seconds = self.machine.reboot(hard)
        return seconds + self.fabric.wait()


def eventually(predicate: Callable[[], Any], within: float = 60, every: float = 0.1) -> float:
    """Wait until the predicate is true; return the seconds. An error has its last result.

    The limit is generous on purpose, and only says when to give up: everything is slower on a
    processor that others use too. For an emulated machine the limit is a multiple of `within`.
    """
    start = time.monotonic()
    within *= patience()
    while True:
        try:
            result: Any = predicate()
            if result:
                return time.monotonic() - start
        except (LookupError, AssertionError, ValueError, LabError) as error:
            result = error
        waited = time.monotonic() - start
        if waited > within:
            raise AssertionError(f"not true within {within:g} s; last result: {result!r}")
        # Asking slows down what we wait for. So the pauses grow with the time waited.
        time.sleep(max(every, min(waited / 10, 1)))


T = TypeVar("T")


def at_rest(look: Callable[[], T], pause: float = 2.0) -> T:
    """Call `look` every `pause` seconds until two results in a row are equal; return the last."""
    results = [look()]

    def same() -> bool:
        time.sleep(pause)
        results.append(look())
        return bool(results[-1] == results[-2])

    eventually(same, within=60)
    return results[-1]
