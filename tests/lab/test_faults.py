"""A command is stopped at each of its points: no file is half, and the next run ends right.

An apply, a rollback, and the hook's move. See tests/lab/trials.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.fabric import Lab
from tests.lab import faults
from tests.lab.faults import Counts
from tests.lab.moves import BRIDGE, NIC, Moves
from tests.lab.systems import RELEASED
from tests.lab.trials import ADD, HOOK, REMOVE, ROLLBACK, Trials, trials_of


@pytest.fixture(scope="module", params=RELEASED, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]) -> Lab:
    """A fabric, and a host without the product."""
    return fresh_lab(*request.param)


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest, lab: Lab) -> Trials:
    """The host on which commands meet faults."""
    return trials_of(lab, request.config)


@pytest.mark.long
def test_apply_stopped_anywhere(trials: Trials) -> None:
    """An apply that adds a V-Net, and one that removes it, stopped at each of their points."""
    plans = []
    for verb, few in ((ADD, 6), (REMOVE, 4)):
        points = trials.points(verb)
        tried = faults.faults(faults.thinned(points, faults.SAMPLED), thorough=verb is ADD)
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
