"""A host on which commands meet faults, for the modules that try them.

tests/lab/faults.py finds the points and judges. The gate tries a fixed sample. `tests/run --all`
tries all points on one system, and `--all --system NAME` on that one. With EVPN_HOST_RELIABILITY=1
the counts go to docs/reliability.md.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from lab.fabric import Lab, eventually
from tests.lab import reliability
from tests.lab.faults import Bench, Counts, Fault, Judge, Verb
from tests.lab.k8s01 import established, payload, underlay, vnet
from tests.lab.tracing import Point

HOOK = "evpn-host-failover.service"
WHOLE = "trixie-netplan"
"""The system on which `--all` tries all points."""
LESS, MORE = "/root/less.json", "/root/more.json"
ADD = Verb("apply, one V-Net more", ("apply", "-p", MORE), "less", "more")
REMOVE = Verb("apply, one V-Net less", ("apply", "-p", LESS), "more", "less")
# A rollback that was stopped at its end has done its work. A second one without a number would go
# back by one entry more. So the next run names the entry.
ROLLBACK = Verb(
    "rollback", ("rollback",), "more", "less", 'evpn-host rollback "$(cat /root/entry)"'
)
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
        self.seconds = 0.0
        """How long the last apply took that had no fault and changed files."""
        # A host with a full history, as most are: each apply removes the oldest entry.
        lab.machine.write("/etc/evpn-host/config.yaml", "keep: 3\n")
        self.judge.states["without"] = self.bench.look()
        self.judge.at = "without"
        underlay(lab.fabric, on=True)
        for state in ("less", "more") * 3:
            self.judge.know(state)

    def say(self, text: str) -> None:
        """Print a line at once: a whole run takes long."""
        print(f"{time.strftime('%H:%M:%S')} {self.system}: {text}", flush=True)

    def reach(self, state: str) -> None:
        """Bring the host to a state, from any other."""
        if state == "without":
            self.host.evpn_host("uninstall")
            return
        if self.host.run(["test", "-e", "/etc/systemd/system/evpn-host.timer"], check=False).code:
            self.host.evpn_host("install-units")
        if state == "more":  # so that a rollback leads to the other one
            self._apply("less")
            listed = self.host.evpn_host("history", "--json").json
            entry = next(each["number"] for each in listed if each["outcome"] == "current")
            self.lab.machine.write("/root/entry", str(entry))
        self._apply(state)
        eventually(lambda: established(self.host) == {"ens4", "ens5"})

    def _apply(self, state: str) -> None:
        """Apply a payload that is new each time, with the same meaning.

        After a rollback, apply would leave alone a payload that it went back from.
        """
        self._serial += 1
        document, path = (self.less, LESS) if state == "less" else (self.more, MORE)
        self.lab.machine.write(path, json.dumps(document) + " " * self._serial)
        start = time.monotonic()
        if self.host.evpn_host("apply", "-p", path).out:  # the files that changed
            self.seconds = time.monotonic() - start

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
        """Try the faults of commands; each begins where the previous one ended, if it can."""
        queues = [(verb, list(faults), counts) for verb, faults, counts in plans]
        while remaining := [plan for plan in queues if plan[1]]:
            plan = next((p for p in remaining if p[0].begins == self.judge.at), remaining[0])
            self.judge.trial(plan[0], plan[1].pop(0), plan[2])

    def finish(self, counts: dict[str, Counts]) -> None:
        """Write the counts down, and fail if anything was wrong."""
        for name, each in counts.items():
            self.say(" | ".join(reliability.row(self.system, name, each)))
        if self.whole:
            reliability.write(self.system, counts)
        assert not [text for each in counts.values() for text in each.wrong]


def trials_of(lab: Lab, config: pytest.Config) -> Trials:
    """Prepare the host of a fresh lab; the options of the run say how much is tried."""
    system = f"{lab.machine.suite}-{lab.backend}"
    chosen = config.getoption("systems") or [WHOLE]
    return Trials(lab, system, bool(config.getoption("all_of_it", False)) and system in chosen)
