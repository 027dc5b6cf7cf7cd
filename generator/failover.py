"""The management-IP hook: the address and its default route follow the fabric, and come back.

Level-triggered: `decide` says from what is seen where the address belongs, `steps` makes it so, and
both come to the same result however often they run. Netlink events wake it, FRR's JSON decides, a
slow poll covers what an event missed. It reads the record, never the payload or a template.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec

from generator import activate, events, files, frr, netlink, record
from generator.activate import Log, Step
from generator.announce import announce
from generator.errors import ActivationFailed, Refused
from generator.model import Management

Place = Literal["nic", "bridge"]

STATE = Path("run/evpn-host/failover.json")
POLL = 5.0  # seconds between looks when no event comes
ANSWER = 2.0  # seconds that bgpd has to answer a question
PATIENCE = 10.0  # seconds without an answer after which there counts as no session
BURST, REFILL = 2, 10.0  # moves at once; seconds until the next: a bounce is followed no faster

_MAIN = 254


class State(msgspec.Struct):
    """Where the address is and why: what `status` shows, and what a restart goes on from."""

    place: Place
    since: float  # seconds since the epoch
    reason: str
    moves: int = 0
    # Metrics of the operator's default routes by the management gateways, while they are away
    # from the NIC; a gateway by which he has none is not here.
    metrics: dict[str, int] = {}


class Seen(msgspec.Struct, frozen=True):
    """What the kernel has, as far as it matters here."""

    bridge: netlink.Link | None
    nic: netlink.Link | None
    on: dict[str, set[str]]  # address to the devices that have it
    routes: dict[str, dict[str, int]]  # gateway to device to metric of a default route by it


def look(place: Management) -> Seen:
    """Read the kernel."""
    links = netlink.links()
    names = {link.index: link.name for link in links.values()}
    on: dict[str, set[str]] = {address: set() for address, _ in place.pairs}
    for index, found in netlink.addresses().items():
        for address in on.keys() & found:
            on[address].add(names.get(index, ""))
    routes: dict[str, dict[str, int]] = {gateway: {} for _, gateway in place.pairs if gateway}
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in netlink.routes(family):
            if route.table == _MAIN and route.prefix in ("0.0.0.0/0", "::/0"):
                for gateway, index in route.hops:
                    if gateway in routes:
                        routes[gateway][names.get(index, "")] = route.metric
    return Seen(links.get(place.bridge), links.get(place.ifname), on, routes)


def decide(established: list[str], seen: Seen) -> Place:
    """Where the address belongs: on the bridge while a session carries EVPN, else on the NIC."""
    return "bridge" if established and seen.bridge and seen.bridge.up else "nic"


def steps(place: Management, wanted: Place, seen: Seen, metrics: dict[str, int]) -> list[str]:
    """Lines for `ip -batch` that bring the address to where it belongs; none when it is there.

    The new place first, then the old goes. A route that names the address as its source goes with
    it (acassen/keepalived#1719), so the default route is said again at the end.
    """
    here, there = place.bridge, place.ifname
    if wanted == "nic":
        here, there = there, here
    lines = []
    for address, gateway in place.pairs:
        route = []
        if gateway and (wanted == "bridge" or gateway in metrics):
            metric = metrics.get(gateway, 0)
            suffix = f" metric {metric}" if metric else ""
            route = [f"route replace default via {gateway} dev {here} proto static{suffix}"]
        if here not in seen.on[address]:
            nodad = " nodad" if ":" in address else ""
            lines += [f"address replace {address} dev {here}{nodad}", *route]
        elif route and (here not in seen.routes[gateway or ""] or there in seen.on[address]):
            lines += route
        if there in seen.on[address]:
            lines += [f"address delete {address} dev {there}", *route]
        if gateway and there in seen.routes[gateway] and there not in seen.on[address]:
            lines += [f"route delete default via {gateway} dev {there}"]
    return lines


class Hook:
    """The hook's memory between two looks."""

    def __init__(self, root: Path, log: Log) -> None:
        self.root = root
        self.log = log
        self._sessions: list[str] = []
        self._heard = time.monotonic()
        self._moves: list[float] = []
        try:
            self.state = msgspec.json.decode((root / STATE).read_bytes(), type=State)
        except (OSError, msgspec.DecodeError):
            self.state = State("nic", time.time(), "not moved yet")

    def sessions(self) -> list[str]:
        """Neighbors whose session carries EVPN; a short silence of FRR changes nothing."""
        try:
            found = frr.sessions(self.root, ANSWER).values()
            self._sessions = [session.neighbor for session in found if session.established]
            self._heard = time.monotonic()
        except frr.Silent:
            if time.monotonic() - self._heard > PATIENCE:
                self._sessions = []
        return self._sessions

    def settle(self) -> float:
        """Bring the address to where it belongs; seconds until the next look is due."""
        last = record.read(self.root)
        if last is None or last.management is None:
            return POLL
        place, seen = last.management, look(last.management)
        established = self.sessions()
        wanted = decide(established, seen)
        if wanted == "nic" and seen.nic is None:
            return POLL  # renamed or unplugged: there is nowhere to go back to
        self._remember(place, seen)
        lines = steps(place, wanted, seen, self.state.metrics)
        moving = wanted != self.state.place
        if moving and (wait := self._damped()):
            return wait
        if lines:
            self.run(lines, wanted)
            self._announce(place, seen.bridge if wanted == "bridge" else seen.nic)
        if moving:
            self._moved(wanted, established)
        return POLL

    def _remember(self, place: Management, seen: Seen) -> None:
        """The operator's default routes as they are on the NIC, to put them back one day."""
        for gateway, devices in seen.routes.items():
            if place.ifname in devices:
                self.state.metrics[gateway] = devices[place.ifname]

    def _announce(self, place: Management, device: netlink.Link | None) -> None:
        for address, _ in place.pairs:
            if device:
                announce(address, device.name, device.mac)

    def _damped(self) -> float:
        """Seconds until another move is allowed, 0 when it is now."""
        now = time.monotonic()
        self._moves = [at for at in self._moves if now - at < BURST * REFILL]
        if len(self._moves) < BURST:
            return 0.0
        return max(0.0, self._moves[-1] + REFILL - now)

    def run(self, lines: list[str], wanted: Place) -> None:
        """Have `ip` carry out the lines of `steps`."""
        text = "".join(f"{line}\n" for line in lines)
        reason = f"the management address belongs on the {wanted}"
        step = Step(("ip", "-force", "-batch", "-"), reason, timeout=10, input=text, may_fail=True)
        activate.run(step, self.log)

    def _moved(self, wanted: Place, established: list[str]) -> None:
        because = (
            f"EVPN is Established with {', '.join(established)}"
            if established
            else "no EVPN session is Established"
        )
        self._moves.append(time.monotonic())
        self.state = State(wanted, time.time(), because, self.state.moves + 1, self.state.metrics)
        files.write(self.root / STATE, msgspec.json.encode(self.state), 0o644)
        print(f"management address on the {wanted}: {because}", file=sys.stderr, flush=True)


def once(root: Path, log: Log) -> None:
    """One look, and one move where it is due. Raises `Refused` when nothing was applied yet."""
    last = record.read(root)
    if last is None:
        raise Refused("nothing was applied yet: there is no management address to look after")
    Hook(root, log).settle()


def give_back(root: Path, place: Management, log: Log) -> None:
    """Bring the address to the NIC for good: the hook goes."""
    hook = Hook(root, log)
    seen = look(place)
    if lines := steps(place, "nic", seen, hook.state.metrics):
        hook.run(lines, "nic")
    (root / STATE).unlink(missing_ok=True)


def follow(root: Path, log: Log) -> None:
    """Stay and follow events, until SIGTERM: the address stays where it is then."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopping.append(number))
    hook = Hook(root, log)
    with events.listen() as listener:
        _notify("READY=1")
        while not stopping:
            try:
                wait = hook.settle()
            except (OSError, ActivationFailed, Refused) as error:
                print(f"failover: {error}; trying again", file=sys.stderr, flush=True)
                wait = POLL
            _notify("WATCHDOG=1")
            events.wait(listener, wait)


def _notify(text: str) -> None:
    """Tell systemd (sd_notify(3)), where it listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(text.encode())
