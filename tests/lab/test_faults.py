"""A command is stopped at each of its points: each file is whole, and the next run ends right.

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
    """An apply that adds or removes a V-Net can be stopped at each of its points."""
    plans = []
    for verb, few in ((ADD, 6), (REMOVE, 4)):
        points = trials.points(verb)
        chosen = faults.faults(faults.thinned(points, faults.SAMPLED), thorough=verb is ADD)
        if not trials.whole:
            chosen = faults.sample(chosen, few)
        plans.append((verb, chosen, Counts(len(points))))
    trials.try_all(*plans)
    trials.finish({verb.name: counts for verb, _, counts in plans})


@pytest.mark.long
def test_rollback_stopped_anywhere(trials: Trials) -> None:
    """A rollback can be stopped at each of its points."""
    points = trials.points(ROLLBACK)
    chosen = faults.faults(faults.thinned(points, faults.SAMPLED), thorough=False)
    counts = Counts(len(points))
    for fault in chosen if trials.whole else faults.sample(chosen, 3):
        trials.judge.at = "?"  # so that the previous generation is the other one
        trials.judge.trial(ROLLBACK, fault, counts)
    trials.finish({ROLLBACK.name: counts})


@pytest.mark.long
def test_move_of_the_address_stopped_anywhere(trials: Trials) -> None:
    """The hook's move of the address, either way, can be stopped at each of its points."""
    trials.judge.go("less")
    trials.host.run(["systemctl", "stop", HOOK])
    moves = Moves(trials.bench, trials.say)
    every = {}
    try:
        moves.learn()
        for device in (BRIDGE, NIC):
            moves.fabric(established=device == BRIDGE)
            points = moves.points(device)
            chosen = faults.faults(points, thorough=trials.whole)
            counts = every[f"hook's move to {'the bridge' if device == BRIDGE else 'the NIC'}"] = (
                Counts(len(points))
            )
            for fault in chosen if trials.whole else faults.sample(chosen, 1):
                moves.trial(device, fault, counts)
    finally:
        moves.fabric(established=True)
        trials.host.run(["systemctl", "start", HOOK])
    trials.finish(every)
