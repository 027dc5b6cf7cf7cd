"""A command is stopped at each of its points: no file is half, and the next run ends right.

tests/lab/faults.py finds the points and judges. The gate tries a fixed sample. `tests/run --all`
tries all points on one system, and `--all --system NAME` on that one. With EVPN_HOST_RELIABILITY=1
the counts go to docs/reliability.md.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from lab.fabric import Lab, eventually
from tests.lab import faults, reliability
from tests.lab.faults import Bench, Counts, Fault, Judge, Verb
from tests.lab.k8s01 import LEAVES, established, payload, vnet
from tests.lab.moves import BRIDGE, NIC, Moves
from tests.lab.systems import RELEASED
from tests.lab.tracing import Point

HOOK = "evpn-host-failover.service"
WHOLE = "trixie-netplan"
"""The system on which `--all` tries all points."""
LESS, MORE = "/root/less.json", "/root/more.json"
ADD = Verb("apply, one V-Net more", ("apply", "-p", MORE), "less", "more")
REMOVE = Verb("apply, one V-Net less", ("apply", "-p", LESS), "more", "less")
ROLLBACK = Verb("rollback", ("rollback",), "more", "less")
UNINSTALL = Verb("uninstall", ("uninstall",), "less", "without")
REINSTALL = replace(
    UNINSTALL,
    script=f"evpn-host install-units; evpn-host apply -p {LESS}",
    ends_again="less",
)


class Trials:
    """A lab whose host meets faults, on one system."""

    def __init__(self, lab: Lab, system: str, whole: bool) -> None:
        """Take a lab with a host that has never had the product."""
        self.lab, self.host, self.system, self.whole = lab, lab.host, system, whole
        self.less = payload()
        more = vnet(80, 33, "10.188.8.254/24")
        self.more = self.less | {"vnets": [*self.less["vnets"], more]}
        lab.fabric.carry(self.more)
        self.bench = Bench(lab)
        self.judge = Judge(self.bench, self.reach, self.say)
        self._serial = 0
        self.judge.states["without"] = self.bench.look()
        self.judge.at = "without"
        for leaf in LEAVES:
            lab.fabric.leaf(leaf).underlay(on=True)
        for state in ("less", "more"):
            self.judge.know(state)
        began = time.monotonic()
        self.judge.go("less")
        self.seconds = time.monotonic() - began
        """How long an apply takes, about."""

    def say(self, text: str) -> None:
        """Print a line at once: a whole run takes long."""
        print(f"{time.strftime('%H:%M:%S')} {self.system}: {text}", flush=True)

    def reach(self, state: str) -> None:
        """Bring the host to a state, from whatever state."""
        if state == "without":
            self.host.evpn_host("uninstall")
            return
        if self.host.run(["test", "-e", "/etc/systemd/system/evpn-host.timer"], check=False).code:
            self.host.evpn_host("install-units")
        if state == "more":  # so that a rollback leads to the other one
            self._apply("less")
        self._apply(state)
        eventually(lambda: established(self.host) == {"ens4", "ens5"})

    def _apply(self, state: str) -> None:
        """Apply a payload that is new each time, with the same meaning.

        After a rollback the payload that was gone back from would count as dealt with.
        """
        self._serial += 1
        document, path = (self.less, LESS) if state == "less" else (self.more, MORE)
        self.lab.machine.write(path, json.dumps(document) + " " * self._serial)
        self.host.evpn_host("apply", "-p", path)

    def points(self, verb: Verb) -> list[Point]:
        """Find the points of a command."""
        for _ in range(5):
            self._freshly(verb.begins)
            self.bench.learn_tools(verb.argv)
            self._freshly(verb.begins)
            points = self.bench.trace(verb.argv)
            self.judge.at = "?"
            if points is not None:
                self.say(f"{verb.name}: {len(points)} points")
                return points
        raise AssertionError(f"{verb.name} starts other tools each time")

    def _freshly(self, state: str) -> None:
        self.judge.at = "?"
        self.judge.go(state)

    def try_all(self, *plans: tuple[Verb, list[Fault], Counts]) -> None:
        """Let commands meet their faults; each begins where the one before has ended, if it can."""
        queues = [(verb, list(faults), counts) for verb, faults, counts in plans]
        while left := [plan for plan in queues if plan[1]]:
            plan = next((p for p in left if p[0].begins == self.judge.at), left[0])
            self.judge.trial(plan[0], plan[1].pop(0), plan[2])

    def finish(self, counts: dict[str, Counts]) -> None:
        """Write the counts down, and fail if anything was wrong."""
        for name, each in counts.items():
            self.say(" | ".join(reliability.row(self.system, name, each)))
        if self.whole:
            reliability.write(self.system, counts)
        assert not [text for each in counts.values() for text in each.wrong]


@pytest.fixture(scope="module", params=RELEASED, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]) -> Lab:
    """A fabric, and a host without the product."""
    return fresh_lab(*request.param)


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest, lab: Lab) -> Trials:
    """The host on which commands meet faults."""
    system = f"{lab.machine.suite}-{lab.backend}"
    option = request.config.getoption
    chosen = option("systems") or [WHOLE]
    return Trials(lab, system, bool(option("all_of_it", False)) and system in chosen)


@pytest.mark.long
def test_apply_stopped_anywhere(trials: Trials) -> None:
    """An apply that adds a V-Net, and one that removes it, stopped at each of their points."""
    plans = []
    for verb, few in ((ADD, 6), (REMOVE, 4)):
        points = trials.points(verb)
        tried = faults.faults(faults.thinned(points, faults.SAMPLED), thorough=True)
        if not trials.whole:
            tried = faults.sample(tried, few)
        plans.append((verb, tried, Counts(len(points))))
    trials.try_all(*plans)
    trials.finish({verb.name: counts for verb, _, counts in plans})


@pytest.mark.long
def test_rollback_stopped_anywhere(trials: Trials) -> None:
    """A rollback, stopped at each of its points."""
    points = trials.points(ROLLBACK)
    tried = faults.faults(faults.thinned(points, faults.SAMPLED), thorough=False)
    counts = Counts(len(points))
    for fault in tried if trials.whole else faults.sample(tried, 3):
        trials.judge.at = "?"  # the generation before has to be the other one
        trials.judge.trial(ROLLBACK, fault, counts)
    trials.finish({ROLLBACK.name: counts})


@pytest.mark.long
def test_uninstall_stopped_anywhere(trials: Trials) -> None:
    """An uninstall, stopped at each of its points; every second time an apply follows."""
    points = trials.points(UNINSTALL)
    tried = faults.faults(faults.thinned(points, faults.SAMPLED_OF_UNINSTALL), thorough=False)
    counts = Counts(len(points))
    verbs = itertools.cycle((UNINSTALL, REINSTALL))
    for fault in tried if trials.whole else faults.sample(tried, 1):
        trials.judge.trial(next(verbs), fault, counts)
    trials.finish({UNINSTALL.name: counts})


@pytest.mark.long
def test_power_cut_during_an_apply(trials: Trials) -> None:
    """The power fails at a random instant of an apply: files are whole, the next apply ends right.

    EVPN_HOST_CUTS says how often; by default 100 times in a whole run, and once in the gate.
    """
    judge, counts = trials.judge, Counts()
    random_ = random.Random(17)  # noqa: S311
    cuts = int(os.environ.get("EVPN_HOST_CUTS", "100" if trials.whole else "1"))
    for number in range(cuts):
        verb = (ADD, REMOVE)[number % 2]
        judge.go(verb.begins)
        began = time.monotonic()
        process = trials.host.start(["evpn-host", *verb.argv])
        time.sleep(random_.uniform(0.3, trials.seconds))
        state = "while it ran" if process.running else "after it"
        trials.lab.machine.reboot(hard=True)
        trials.bench.equip()
        judge.at = "?"
        wrong = judge.whole(verb)
        trials.lab.fabric.wait()
        wrong += judge.ends_right(verb)
        counts.kinds["power cut"] += 1
        counts.codes[state] += 1
        counts.right += not wrong
        counts.wrong += [f"power cut {number} {state}: {each}" for each in wrong]
        took = time.monotonic() - began
        trials.say(f"power cut {number} {state}, {took:.0f} s: {wrong or 'right'}")
    trials.finish({"power cuts during an apply": counts})


@pytest.mark.long
def test_move_of_the_address_stopped_anywhere(trials: Trials) -> None:
    """The hook's move of the management address, either way, stopped at each of its points."""
    trials.judge.go("less")
    trials.host.run(["systemctl", "stop", HOOK])
    moves = Moves(trials.bench, trials.say)
    every = {}
    try:
        moves.learn()
        for device in (BRIDGE, NIC):
            moves.fabric(there=device == BRIDGE)
            points = moves.points(device)
            tried = faults.faults(points, thorough=trials.whole)
            counts = every[f"hook's move to {'the bridge' if device == BRIDGE else 'the NIC'}"] = (
                Counts(len(points))
            )
            for fault in tried if trials.whole else faults.sample(tried, 1):
                moves.trial(device, fault, counts)
    finally:
        moves.fabric(there=True)
        trials.host.run(["systemctl", "start", HOOK])
    trials.finish(every)
