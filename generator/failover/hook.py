"""The management-IP hook: the address and its default route follow the fabric, and come back.

Level-triggered: what is seen in the kernel and what FRR says decide where the address belongs, and
a move comes to the same however often it is made. Netlink events wake the hook, a slow poll covers
what an event missed. It reads the record, never the payload or a template. See docs/failover.md.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection
from ipaddress import ip_interface
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.desired.model import Management
from generator.desired.target import Target
from generator.errors import ActivationFailed, EvpnHostError, Refused
from generator.failover import announce, events, place
from generator.failover.place import Move, Own, Place, Seen
from generator.observed import frr, netlink
from generator.state import files, record

STATE = Path("run/evpn-host/failover.json")
POLL = 10.0  # seconds between looks when no event comes
# The same while FRR is silent or leaves are asked, or after a move that did not come to its end.
SOON = 1.0
# What bgpd logs when a session comes up or goes (`bgp log-neighbor-changes`): no event of the
# kernel's tells of the one, and the first routes come a second later.
CHANGE = b"%ADJCHANGE"
ANSWER = 2.0  # seconds that bgpd has to answer a question
PATIENCE = 10.0  # seconds without an answer after which there counts as no session
# How often leaves are asked for advertisements once bgpd runs: it can't talk to one that it has not
# heard, and theirs come every 10 s.
SOLICITATIONS = 3
BURST, REFILL = 2, 10.0  # moves at once; seconds until the next: a bounce is followed no faster
# Seconds after a move at which neighbours are told. The fabric carries nothing before the leaf has
# sent its first routes, about a second after the session (FRR's coalesce-time), and then at once.
TELL = (0.0, 0.1, 0.3, 0.6, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0)
# Later ones, for a hook that stays: busy leaves carry a new V-Net later, and a neighbour
# that nobody told keeps the old MAC for up to a minute.
LATER = (8.0, 12.0, 18.0, 25.0, 35.0, 45.0)


class State(msgspec.Struct):
    """Where the address is and why: what `status` shows, and what a restart goes on from."""

    place: Place | None = None  # None: not known yet
    device: str = ""
    since: float = 0.0  # seconds since the epoch
    reason: str = "not looked yet"
    moves: int = 0
    repairs: int = 0  # how often somebody else had put it elsewhere
    index: int = 0  # of the NIC: it may be renamed
    own: Own = msgspec.field(default_factory=Own)


def read(root: Path) -> State | None:
    """What the hook last wrote, None when there is none."""
    try:
        return msgspec.json.decode((root / STATE).read_bytes(), type=State)
    except (OSError, msgspec.DecodeError):
        return None


class Hook:
    """The hook's memory between two looks."""

    def __init__(self, root: Path, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self.log = log
        self._clock = clock
        self.state = read(root) or State()
        self._written = b""
        self._bgpd = frr.Vty("bgpd", root, ANSWER)
        self._silent: float | None = None  # since when bgpd has not answered
        self._solicitations = SOLICITATIONS  # that are left
        self._solicited = 0.0  # when the last one was
        self._unheard = False  # whether there is a leaf to ask
        self._reason = ""  # what bgpd last said, in words; nothing before the first look
        self._allowed = float(BURST)  # moves
        self._counted = self._clock()
        # What a hook before this one did not come to say.
        self._tell = self._times()
        self._indexes: list[int] = []  # of the devices that matter
        self._watched: list[int] = []  # of those whose events wake
        self._stamp: tuple[int, int] | None = None
        self._target: Target | None = None

    def settle(self) -> float:
        """Bring the address to where it belongs; seconds until the next look is due.

        Raises `ActivationFailed` when it did not come there.
        """
        target = self._read_target()
        if target is None or target.management is None:
            return POLL
        management, bridges, seen = self._look(target.management)
        here = self._where(management, bridges, seen)
        if here and self._reason:
            # What others did is put right at once, whatever FRR takes to answer. At the first look
            # it may be what a hook that was killed did, and did not come to write down.
            seen = self._repair(target, management, here, seen)
        established = self._sessions(target.sessions)
        wanted = place.decide(established, seen, management.ifname, bridges)
        if wanted and wanted[0] == "nic" and established:
            self._reason = f"{management.bridge} is gone or down"
        if wanted and wanted != here and (wait := self._damped(here)):
            return min(wait, self._announce(management))
        if wanted:
            self._bring(target, management, wanted, seen)
            self._next_hop(target, management, seen)
        soon = established is None or self._unheard or not self._bgpd.log()
        return min(self._announce(management), SOON if soon else POLL)

    def rest(self, listener: socket.socket, wait: float) -> None:
        """Sleep until something happens, or for so many seconds."""
        if self._indexes != self._watched:
            events.watch(listener, self._indexes)
            self._watched = self._indexes
            return  # what happened to a device before is seen by another look
        begun = self._clock()
        while (left := begun + wait - self._clock()) > 0:
            log = self._bgpd.log()
            if events.wait(listener, left, begun, log):
                return
            if log and (CHANGE in self._bgpd.read() or not self._bgpd.log()):
                return

    def _read_target(self) -> Target | None:
        """What the host should be, read again when the record is another file."""
        try:
            found = (self.root / record.RECORD).stat()
        except FileNotFoundError:
            return None
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp != self._stamp:
            applied = record.read(self.root)
            self._target, self._stamp = applied.target if applied else None, stamp
        return self._target

    def _look(self, management: Management) -> tuple[Management, list[str], Seen]:
        """The kernel as it is, with the NIC under the name that it now has."""
        with contextlib.suppress(OSError):
            name = socket.if_indextoname(self.state.index)
            if not (Path("/sys/class/net") / management.ifname).exists():
                management = msgspec.structs.replace(management, ifname=name)
        bridges = [management.bridge]
        if self.state.place == "bridge" and self.state.device not in (*bridges, ""):
            bridges.append(self.state.device)
        seen = place.look({management.ifname, *bridges})
        self._indexes = sorted(device.index for device in seen.devices.values())
        return management, bridges, seen

    def _where(
        self, management: Management, bridges: list[str], seen: Seen
    ) -> tuple[Place, str] | None:
        """Where it should be by what is known so far; None where that can't hold any more."""
        if self.state.place == "nic" and management.ifname in seen.devices:
            return "nic", management.ifname
        if self.state.place == "bridge" and self.state.device in bridges:
            device = seen.devices.get(self.state.device)
            return ("bridge", self.state.device) if device and device.up else None
        return None

    def _repair(
        self, target: Target, management: Management, here: tuple[Place, str], seen: Seen
    ) -> Seen:
        """Bring back what somebody else took from where it was, or put elsewhere as well."""
        self._remember(management, seen)
        lines = place.steps(self._move(target, management, here, seen), seen)
        if not lines:
            return seen
        self._run(lines, here[0])
        self.state.repairs += 1
        self._tell = self._times()
        self._write()
        return self._look(management)[2]

    def _sessions(self, own: list[str]) -> list[str] | None:
        """Neighbors whose session carries EVPN; None while it is too early to believe FRR gone.

        `own` are the neighbors of ours, whose leaf may be asked; an operator may have others.
        """
        asked = self._clock()
        try:
            found = frr.summary(self._bgpd).values()
        except frr.Silent as silent:
            self._silent = asked if self._silent is None else self._silent
            self._solicitations = SOLICITATIONS
            self._reason = f"no answer for {PATIENCE:.0f} s, which counts as no session: {silent}"
            return [] if self._clock() - self._silent > PATIENCE else None
        self._silent = None
        self._reason = _because(found)
        idle = {session.neighbor for session in found if session.evpn == "Idle"}
        self._solicit([neighbor for neighbor in own if neighbor in idle])
        return [session.neighbor for session in found if session.established]

    def _solicit(self, neighbors: list[str]) -> None:
        """Ask on uplinks whose leaf bgpd does not know for an advertisement, not for ever."""
        self._unheard = bool(neighbors and self._solicitations)
        now = self._clock()
        if self._unheard and now >= self._solicited + SOON:
            self._solicitations -= 1
            self._solicited = now
            for neighbor in neighbors:
                announce.solicit(neighbor)

    def _bring(
        self,
        target: Target,
        management: Management,
        wanted: tuple[Place, str],
        seen: Seen,
    ) -> None:
        """Have the address where it is wanted. Raises `ActivationFailed` when it is not there."""
        moving = wanted != (self.state.place, self.state.device)
        self._remember(management, seen)
        move = self._move(target, management, wanted, seen)
        if lines := place.steps(move, seen):
            self._write()  # what a move takes from the NIC is on record before it goes
            self._run(lines, wanted[0])
            seen = self._look(management)[2]
            move = self._move(target, management, wanted, seen)
            if left := place.steps(move, seen):
                raise ActivationFailed(
                    f"the address is not on the {wanted[0]} yet; left: {left[0]}"
                )
            self._tell = self._times()
        if moving:
            self._moved(wanted, counted=bool(lines))
        self._write()

    def _next_hop(self, target: Target, management: Management, seen: Seen) -> None:
        """Mend what leaves are told once the IPv6 address has left the NIC."""
        if management.ipv6 and self.state.place == "bridge" and self._next_hop_lost(management):
            here: tuple[Place, str] = "bridge", self.state.device
            self._run(place.next_hop(self._move(target, management, here, seen), seen), "bridge")

    def _next_hop_lost(self, management: Management) -> bool:
        with contextlib.suppress(frr.Silent):
            return frr.next_hop(self._bgpd, management.ifname).startswith("::ffff:")
        return False

    def _move(
        self, target: Target, management: Management, wanted: tuple[Place, str], seen: Seen
    ) -> Move:
        names = {management.ifname, management.bridge, self.state.device} & seen.devices.keys()
        loopback = next((device.local for device in target.devices if device.local), None)
        return Move(
            management=management,
            place=wanted[0],
            device=wanted[1],
            others=sorted(names - {wanted[1]}),
            loopback=loopback,
            own=self.state.own,
        )

    def _remember(self, management: Management, seen: Seen) -> None:
        """The operator's own of the NIC, to put it back one day."""
        if nic := seen.devices.get(management.ifname):
            self.state.index = nic.index
        self.state.own = place.remember(self.state.own, management, seen)

    def _damped(self, here: tuple[Place, str] | None) -> float:
        """Seconds until another move is allowed, 0 when it is now: from nowhere, it always is."""
        now = self._clock()
        self._allowed = min(BURST, self._allowed + (now - self._counted) / REFILL)
        self._counted = now
        return 0.0 if here is None or self._allowed >= 1 else (1 - self._allowed) * REFILL

    def _run(self, lines: list[str], wanted: Place) -> None:
        """Have `ip` carry out the lines of `place.steps`."""
        text = "".join(f"{line}\n" for line in lines)
        reason = f"the management address belongs on the {wanted}"
        for line in lines:
            self.log(f"ip {line}")
        step = Step(("ip", "-force", "-batch", "-"), reason, timeout=10, input=text, may_fail=True)
        commands.run(step, self.log)

    def _moved(self, wanted: tuple[Place, str], *, counted: bool) -> None:
        state = self.state
        if counted and state.place is not None:
            self._allowed = max(0.0, self._allowed - 1)
        state.place, state.device = wanted
        state.since, state.reason = time.time(), self._reason
        state.moves += counted
        _say(f"management address on {wanted[1]}: {self._reason}")

    def _write(self) -> None:
        data = msgspec.json.encode(self.state)
        if data != self._written:
            files.write(self.root / STATE, data, 0o644)
            self._written = data

    def _times(self) -> list[float]:
        """When neighbours are to be told of where the address is now."""
        return [self._clock() + after for after in TELL + LATER]

    def _announce(self, management: Management) -> float:
        """Tell neighbours what is due to be told; seconds until there is more."""
        now = self._clock()
        due = [at for at in self._tell if at <= now]
        self._tell = [at for at in self._tell if at > now]
        if due:
            announce_all(management, self.state.device)
        return min(POLL, max(0.01, self._tell[0] - now)) if self._tell else POLL

    def tell(self) -> None:
        """Stay for the first seconds in which neighbours are told: there is no later look."""
        target = self._read_target()
        self._tell = self._tell[: -len(LATER)]
        while self._tell and target and target.management:
            time.sleep(max(0.0, self._tell[0] - self._clock()))
            self._announce(target.management)

    def give_back(self, target: Target) -> None:
        """Bring the address to the NIC for good: the hook goes."""
        if target.management is None:
            return
        management, _, seen = self._look(target.management)
        self._remember(management, seen)
        move = self._move(target, management, ("nic", management.ifname), seen)
        if lines := place.steps(move, seen):
            self._run(lines, "nic")
            announce_all(management, management.ifname)


def announce_all(management: Management, device: str) -> None:
    """Tell the neighbours of each management address that it is on `device`."""
    try:
        mac = (Path("/sys/class/net") / device / "address").read_text().strip()
    except OSError:
        return
    for address, _ in management.pairs:
        interface = ip_interface(address)
        family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
        known = {
            neighbour.address: neighbour.mac
            for neighbour in netlink.neighbours(family)
            if neighbour.mac and ip_interface(neighbour.address).ip in interface.network
        }
        announce.announce(interface.ip, device, mac, known)


def _because(sessions: Collection[frr.Session]) -> str:
    """What the sessions are a reason for, in words."""
    if established := [session.neighbor for session in sessions if session.established]:
        return f"EVPN is Established with {', '.join(established)}"
    states = ", ".join(f"{session.neighbor} is {session.evpn}" for session in sessions)
    return f"no EVPN session is Established: {states or 'there is none'}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def once(root: Path, log: Log) -> None:
    """One look, and one move where it is due. Raises `Refused` when nothing was applied yet."""
    if record.read(root) is None:
        raise Refused("nothing was applied yet: there is no management address to look after")
    hook = Hook(root, log)
    before = hook.state.moves, hook.state.repairs
    hook.settle()
    if (hook.state.moves, hook.state.repairs) != before:
        hook.tell()


def give_back(root: Path, log: Log) -> None:
    """Bring the address to the NIC for good, exactly as the operator had it there."""
    if applied := record.read(root):
        Hook(root, log).give_back(applied.target)
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
            except (OSError, ActivationFailed, EvpnHostError) as error:
                _say(f"{error}; trying again")
                time.sleep(SOON)  # whatever our own attempt woke
                wait = 0.0
            _notify("WATCHDOG=1")
            hook.rest(listener, wait)


def _notify(text: str) -> None:
    """Tell systemd (sd_notify(3)), where it listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(text.encode())
