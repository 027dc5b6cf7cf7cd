"""The power fails during an apply, and an uninstall is stopped at each of its points.

Both take long to recover from, so they have a machine of their own. See tests/lab/trials.py.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable

import pytest

from lab.fabric import Lab
from tests.lab import faults
from tests.lab.faults import Counts
from tests.lab.systems import RELEASED
from tests.lab.trials import ADD, REINSTALL, REMOVE, UNINSTALL, Trials, trials_of


@pytest.fixture(scope="module", params=RELEASED, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]) -> Lab:
    """A fabric, and a host without the product."""
    return fresh_lab(*request.param)


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest, lab: Lab) -> Trials:
    """The host on which commands meet faults."""
    return trials_of(lab, request.config)


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
        judge.at = "?"
        judge.go(verb.begins)
        start = time.monotonic()
        process = trials.host.start(["evpn-host", *verb.argv])
        time.sleep(random_.uniform(0.2, trials.seconds))
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
        took = time.monotonic() - start
        trials.say(f"power cut {number} {state}, {took:.0f} s: {wrong or 'right'}")
    trials.finish({"power cuts during an apply": counts})


@pytest.mark.long
def test_uninstall_stopped_anywhere(trials: Trials) -> None:
    """An uninstall can be stopped at each of its points; an apply may follow, or an uninstall."""
    points = trials.points(UNINSTALL)
    chosen = faults.faults(faults.thinned(points, faults.SAMPLED_OF_UNINSTALL), thorough=False)
    counts = Counts(len(points))
    verbs = itertools.cycle((UNINSTALL, REINSTALL))
    for fault in chosen if trials.whole else faults.sample(chosen, 1):
        trials.judge.trial(next(verbs), fault, counts)
    trials.finish({UNINSTALL.name: counts})
