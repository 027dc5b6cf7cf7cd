"""Stops the hook's move of the management address at a point, and judges where the address is.

The address is brought to the other place by hand before each move: by the very commands that the
hook itself ran for that, and with the hook's memory of that moment. So the sessions stay as they
are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.fabric import eventually
from tests.lab.faults import Bench, Counts, Fault, code_of
from tests.lab.tracing import Point

ADDRESS = "10.12.0.101"
NIC, BRIDGE = "ens4", "nbr-14"
NICS = ("ens4", "ens5")
MEMORY = "/run/evpn-host/failover.json"
ONCE = ("failover", "--once")


@dataclass(frozen=True)
class Place:
    """A place of the address, and the commands that bring it there."""

    device: str
    commands: tuple[str, ...]
    memory: str
    routes: tuple[str, ...]


class Moves:
    """Moves of the management address, one way and back, on a host whose hook is stopped."""

    def __init__(self, bench: Bench, say: Callable[[str], None]) -> None:
        """Take a bench on which both sessions are Established."""
        self.bench, self.host = bench, bench.host
        self._say = say
        self.places: dict[str, Place] = {}

    def learn(self) -> None:
        """Let the hook move the address to either place, and remember how."""
        for device in (NIC, BRIDGE):
            self.fabric(established=device == BRIDGE)
            shown = self.host.evpn_host("failover", "--once", "-v").err.splitlines()
            commands = [line.removeprefix("+ ip ") for line in shown if line.startswith("+ ip ")]
            self.places[device] = Place(
                device,
                tuple(line for line in commands if not line.startswith("-")),
                self.bench.machine.read(MEMORY),
                self._routes(),
            )
            assert self.devices() == [device]
            assert self.places[device].commands

    def fabric(self, *, established: bool) -> None:
        """Bring both sessions up, or shut them down."""
        asn = self.host.show("show bgp summary json")["ipv4Unicast"]["as"]
        words = [f"{'no ' if established else ''}neighbor {nic} shutdown" for nic in NICS]
        lines = ("configure terminal", f"router bgp {asn}", *words)
        self.host.run(["vtysh", *(word for line in lines for word in ("-c", line))])
        eventually(lambda: self._established() == (len(NICS) if established else 0))

    def points(self, device: str) -> list[Point]:
        """Find the points of a move to a device."""
        self._begin(device)
        self.bench.learn_tools(ONCE)
        self._begin(device)
        points = self.bench.trace(ONCE)
        assert points, "the hook starts other tools each time"
        return points

    def trial(self, device: str, fault: Fault, counts: Counts) -> None:
        """Interrupt a move to a device by a fault, then let the hook look once more."""
        text = f"hook to {device}, {fault}"
        for _ in range(3):
            self._begin(device)
            run = self.bench.run(ONCE, fault)
            wrong = [] if self.devices() else ["the address is nowhere"]
            if run.code == 0:
                wrong += self._other(device)
            elif run.code not in (-9, -15, 3):
                wrong.append(f"exit {run.code}: {run.result.err}")
            again = self.host.evpn_host(*ONCE, check=False)
            late = [f"next look: {each}" for each in self._other(device)]
            if again.code:
                late.append(f"next look: exit {again.code}: {again.err}")
            self._say(f"{text}: {run.code} {run.hit if run.hit != fault.point.subject else ''}")
            if run.hit == fault.point.subject or wrong or late:
                break
        else:
            late = ["the point was not reached"]
        counts.kinds[fault.kind] += 1
        counts.codes[code_of(run.code)] += 1
        counts.right += not late
        counts.wrong += [f"{text}: {each}" for each in wrong + late]
        for each in wrong + late:
            self._say(f"WRONG {text}: {each} | {run.code} {run.result.err[-500:]}")

    def devices(self) -> list[str]:
        """Return the devices that have the address."""
        links: list[dict[str, Any]] = self.host.run(["ip", "-json", "address"]).json
        return sorted(
            link["ifname"]
            for link in links
            if any(each.get("local") == ADDRESS for each in link["addr_info"])
        )

    def _begin(self, device: str) -> None:
        """Bring the address to the other device."""
        place = self.places[NIC if device == BRIDGE else BRIDGE]
        lines = "".join(f"{line}\n" for line in place.commands)
        self.host.run(["ip", "-force", "-batch", "-"], check=False, input=lines)
        self.bench.machine.write(MEMORY, place.memory)
        assert self.devices() == [place.device]

    def _other(self, device: str) -> list[str]:
        """Return what differs from the state after a move without a fault."""
        wrong = []
        if (devices := self.devices()) != [device]:
            wrong.append(f"the address is on {devices}")
        if (routes := self._routes()) != self.places[device].routes:
            wrong.append(f"routes are {routes}")
        memory = json.loads(self.bench.machine.read(MEMORY))
        if memory["device"] != device:
            wrong.append(f"the hook believes it on {memory['device']}")
        return wrong

    def _routes(self) -> tuple[str, ...]:
        shown = self.host.run(["ip", "route", "show", "default"]).out
        return tuple(" ".join(line.split()) for line in shown.splitlines())

    def _established(self) -> int:
        peers = self.host.show("show bgp l2vpn evpn summary json").get("peers", {}).values()
        return len([peer for peer in peers if peer["state"] == "Established"])
