"""The hook: it moves the management address and its routes between the NIC and the bridge.

It is level-triggered: the state of the kernel and of FRR decides where the address belongs, and a
move can be repeated. Netlink events wake the hook, and a slow poll covers missed events. It reads
the record, never the payload or a template. See docs/failover.md.
"""

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.desired.model import Management
from generator.desired.target import FormerAddress, Target
from generator.errors import ActivationFailed, EvpnHostError, Refused, text_of
from generator.failover import announce, events, floating, further, memory, place
from generator.failover.fabric import Fabric
from generator.failover.names import LinkNames
from generator.failover.notify import notify
from generator.failover.pace import Backoff, Damping, Schedule
from generator.failover.place import Move
from generator.observed import companions
from generator.observed import management as observing
from generator.observed.management import Observation
from generator.state import files, placement, record
from generator.state.placement import Place, Placement

POLL = 10.0  # seconds between two checks without an event
# The same while FRR is silent or leaves are solicited, or after a move that failed.
SOON = 1.0


class Hook:
    """The state of the hook between two checks."""

    def __init__(self, root: Path, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self.log = log
        self.placement = placement.read(root) or Placement()
        self.bridges: list[str] = []  # of the management V-Net
        self.fabric = Fabric(root, clock)
        self._names = LinkNames(root, log, clock)
        self._clock = clock
        self._damping = Damping(clock)
        self._schedule = Schedule(clock)
        self._backoff = Backoff(clock)  # for routes that did not move
        self._reported: list[str] = []  # routes that did not move and were reported
        self._written = b""
        self._indexes: list[int] = []  # of the devices that matter
        self._watched: list[int] = []  # of the devices whose events wake the hook
        self._stamp: tuple[int, int] | None = None
        self._target: Target | None = None
        self._former: list[FormerAddress] = []

    def settle(self) -> float:
        """Bring the address to its place; return the seconds until the next check.

        Raises `ActivationFailed` if the address is not there afterwards.
        """
        target = self._read_target()
        if target is None or target.management is None:
            return POLL
        management, observed = self._observe(target.management)
        here = self._current_place(management, observed)
        if self.placement.stuck and self._backoff.due():
            self.placement.stuck = []
        if here and self.fabric.reason:
            # Repair changes by others at once, before FRR answers. Not at the first check: an
            # earlier hook may have moved the address and been killed before it recorded that.
            observed = self._repair(target, management, here, observed)
        established = self.fabric.established(target.sessions)
        now = here[1] if here else ""
        destination = place.decide(established, observed, management.ifname, self.bridges, now)
        if destination and destination[0] == "nic" and established:
            self.fabric.reason = f"{management.bridge} is gone or down, or has no VXLAN port"
        if destination and destination != here:
            wait = self._damping.wait()
            if here and wait:  # an address that no device has moves at once
                return min(wait, self._announce(management))
        if destination:
            self._bring(target, management, destination, observed)
            self._restore_next_hop(target, management, observed)
        undecided = self._names.settle(self.placement, management, observed, self._write)
        soon = established is None or self.fabric.soliciting or not self.fabric.log() or undecided
        return min(self._announce(management), SOON if soon else POLL)

    def rest(self, listener: socket.socket, wait: float) -> None:
        """Sleep until an event, at most for `wait` seconds."""
        if self._indexes != self._watched:
            events.watch(listener, self._indexes)
            self._watched = self._indexes
            return  # check again for changes of a device from before it was watched
        begun = self._clock()
        while (left := begun + wait - self._clock()) > 0:
            log = self.fabric.log()
            if events.wait(listener, left, begun, log):
                return
            if log and self.fabric.changed():
                return

    def _read_target(self) -> Target | None:
        """Return what the host should be. The record is read again only if it has changed."""
        try:
            status = (self.root / record.RECORD).stat()
        except FileNotFoundError:
            return None
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp != self._stamp:
            applied = record.read(self.root)
            self._target, self._stamp = applied.target if applied else None, stamp
            self._former = applied.former_addresses if applied else []
        return self._target

    def _observe(self, management: Management) -> tuple[Management, Observation]:
        """Read the kernel. If the NIC was renamed, the management has its new name."""
        with contextlib.suppress(OSError):
            name = socket.if_indextoname(self.placement.index)
            if not (Path("/sys/class/net") / management.ifname).exists():
                management = msgspec.structs.replace(management, ifname=name)
        now = self.placement.device if self.placement.place == "bridge" else ""
        self.bridges = list(dict.fromkeys(filter(None, (management.bridge, now))))
        former = {each.ifname for each in self._former}
        observed = observing.observe({management.ifname, *self.bridges, *former})
        known = self.placement.original.companions
        observed = companions.observe(self.root, management, observed, known)
        self._indexes = sorted(device.index for device in observed.devices.values())
        return management, observed

    def _current_place(
        self, management: Management, observed: Observation
    ) -> tuple[Place, str] | None:
        """Return where the hook put the address; None if that device is gone or down."""
        if self.placement.place == "nic" and management.ifname in observed.devices:
            return "nic", management.ifname
        if self.placement.place == "bridge" and self.placement.device in self.bridges:
            device = observed.devices.get(self.placement.device)
            return ("bridge", self.placement.device) if device and device.up else None
        return None

    def _repair(
        self,
        target: Target,
        management: Management,
        here: tuple[Place, str],
        observed: Observation,
    ) -> Observation:
        """Restore what others deleted in the place of the address, or added elsewhere."""
        self._remember(management, observed, here[0])
        lines = place.steps(self._move(target, management, here, observed), observed)
        if not lines:
            return observed
        self._run(lines, here[0])
        self.placement.repairs += 1
        self._schedule.restart()
        observed = self._observe(management)[1]
        self._note_stuck(here, observed)
        self._write()
        return observed

    def _bring(
        self,
        target: Target,
        management: Management,
        destination: tuple[Place, str],
        observed: Observation,
    ) -> None:
        """Move the address to its destination. Raises `ActivationFailed` if it is not there."""
        moves = destination != (self.placement.place, self.placement.device)
        self._remember(management, observed, destination[0])
        if moves:
            self.placement.stuck = []
            self._backoff.reset()
        move = self._move(target, management, destination, observed)
        if lines := place.steps(move, observed):
            self._write()  # record what the NIC has before the move deletes it
            self._run(lines, destination[0])
            observed = self._observe(management)[1]
            self._note_stuck(destination, observed)
            move = self._move(target, management, destination, observed)
            if remaining := place.steps(move, observed):
                raise ActivationFailed(
                    f"the address is not on the {destination[0]} yet; left: {remaining[0]}"
                )
            self._schedule.restart()
        if moves:
            self._record_move(destination, counted=bool(lines))
        self._write()

    def _restore_next_hop(
        self, target: Target, management: Management, observed: Observation
    ) -> None:
        """Give bgpd a next hop again if the IPv6 address has left the NIC."""
        on_bridge = self.placement.place == "bridge"
        if management.ipv6 and on_bridge and self.fabric.lacks_next_hop(management.ifname):
            here: tuple[Place, str] = "bridge", self.placement.device
            move = self._move(target, management, here, observed)
            self._run(place.next_hop(move, observed), "bridge")

    def _move(
        self,
        target: Target,
        management: Management,
        destination: tuple[Place, str],
        observed: Observation,
    ) -> Move:
        candidates = {management.ifname, management.bridge, self.placement.device}
        candidates |= {each.ifname for each in self._former}
        loopback = next((device.local for device in target.devices if device.local), None)
        return Move(
            management=management,
            place=destination[0],
            device=destination[1],
            others=sorted((candidates & observed.devices.keys()) - {destination[1]}),
            loopback=loopback,
            original=self.placement.original,
            former=self._former,
            stuck=self.placement.stuck,
        )

    def _note_stuck(self, destination: tuple[Place, str], observed: Observation) -> None:
        """Note which routes are not in their new place, to try again later.

        The kernel has refused them, or somebody's tools have just deleted them.
        """
        stuck = further.missing(self.placement.original.further, observed, destination[1])
        for route in stuck:
            if route not in self._reported:
                _say(f"this route could not move with the management address: {route}")
        if stuck and not self._reported:
            self._backoff.due()  # starts the first pause
        self.placement.stuck = self._reported = stuck

    def _remember(self, management: Management, observed: Observation, moves_to: Place) -> None:
        """Remember what the operator has on the NIC, to restore it later."""
        if nic := observed.devices.get(management.ifname):
            self.placement.index = nic.index
        self.placement.original = memory.remember(
            *(self.placement.original, management, observed, self._former),
            (self.placement.place, moves_to),
        )

    def _run(self, lines: list[str], destination: Place) -> None:
        """Have `ip` carry out the lines of `place.steps`."""
        text = "".join(f"{line}\n" for line in lines)
        reason = f"the management address belongs on the {destination}"
        for line in lines:
            self.log(f"ip {line}")
        step = Step(("ip", "-force", "-batch", "-"), reason, timeout=10, input=text, may_fail=True)
        commands.run(step, self.log)

    def _record_move(self, destination: tuple[Place, str], *, counted: bool) -> None:
        current = self.placement
        if counted and current.place is not None:
            self._damping.count()
        current.place, current.device = destination
        current.since, current.reason = time.time(), self.fabric.reason
        current.moves += counted
        _say(f"management address on {destination[1]}: {current.reason}")

    def _write(self) -> None:
        data = msgspec.json.encode(self.placement)
        if data != self._written:
            files.write(self.root, placement.FILE, data, 0o644)
            self._written = data

    def _announce(self, management: Management) -> float:
        """Announce the address if that is due; return the seconds until the next check."""
        if self._schedule.due():
            also = self.placement.original.companions
            announce.announce_all(management, self.placement.device, also)
        wait = self._schedule.wait()
        return POLL if wait is None else min(POLL, max(0.01, wait))

    def announce_and_end(self) -> None:
        """Make the early announcements of a move, for a hook that does not keep running."""
        target = self._read_target()
        self._schedule.shorten()
        while target and target.management and (wait := self._schedule.wait()) is not None:
            time.sleep(wait)
            self._announce(target.management)

    def restore(self, target: Target) -> None:
        """Bring the address to the NIC for good: the hook is removed."""
        if target.management is None:
            return
        management, observed = self._observe(target.management)
        self._remember(management, observed, "nic")
        move = self._move(target, management, ("nic", management.ifname), observed)
        if lines := place.steps(move, observed):
            self._run(lines, "nic")
            also = self.placement.original.companions
            announce.announce_all(management, management.ifname, also)
        self.placement.place, self.placement.device = "nic", management.ifname
        self._names.settle(self.placement, management, observed, self._write)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def once(root: Path, log: Log) -> None:
    """Check once, and move the address if needed.

    Raises `Refused` if nothing was applied yet, and `ActivationFailed` if the address is not in its
    place, or if that could not be recorded. The next check starts from the state of the kernel.
    """
    if record.read(root) is None:
        raise Refused("nothing was applied yet: there is no management address to look after")
    hook = Hook(root, log)
    before = hook.placement.moves, hook.placement.repairs
    try:
        hook.settle()
    except OSError as error:  # it may come after the move
        raise ActivationFailed(text_of(error)) from None
    if (hook.placement.moves, hook.placement.repairs) != before:
        hook.announce_and_end()


def restore(root: Path, log: Log) -> None:
    """Bring the address to the NIC for good, exactly as the operator had configured it."""
    if applied := record.read(root):
        Hook(root, log).restore(applied.target)
    files.remove(root, placement.FILE)


def follow(root: Path, log: Log) -> None:
    """Follow events until SIGTERM. The address then stays where it is."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    hook = Hook(root, log)
    floating.start(log, lambda: hook.bridges)
    with events.listen() as listener:
        notify("READY=1")
        while not signals:
            try:
                wait = hook.settle()
            except (OSError, EvpnHostError) as error:
                _say(f"{error}; trying again")
                time.sleep(SOON)  # the failed attempt has caused events, which would wake at once
                wait = 0.0
            notify("WATCHDOG=1")
            hook.rest(listener, wait)
