"""The transaction of an apply: it makes all changes, or undoes them.

The record says `ok: false` from before the first change until the kernel and FRR are verified to be
as planned. If the run is stopped in between, the next run reads that and finishes the work.
"""

import time
from pathlib import Path

import msgspec

from generator import __version__
from generator.activation import before, commands, conffiles, converge, staging
from generator.activation.backend import Activation
from generator.activation.commands import Log
from generator.activation.guard import Guard
from generator.activation.partial import Partial
from generator.desired.plan import Plan
from generator.desired.target import FormerAddress, Target
from generator.errors import EvpnHostError, text_of
from generator.observed import comparison, devices, diverted, nics
from generator.observed import management as observed
from generator.reporting.report import Outcome
from generator.state import generations, held, record
from generator.state.changes import Change
from generator.state.record import Record
from generator.verbs.going_back import Attempt, failure_of, go_back
from generator.verbs.options import Options

BEGUN = "begun, not ended"


def outcome_of(
    target: Target, *, activated: bool = False, left_alone: str = "", **paths: list[str]
) -> Outcome:
    """Return the outcome of an apply of a target; `paths` are the outcome's lists."""
    return Outcome(
        target.host,
        target.generation,
        **paths,
        activated=activated,
        devices=len(target.devices),
        left_alone=left_alone,
    )


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """An apply in progress: its inputs, and the decisions made from them."""

    options: Options
    plan: Plan
    target: Target
    inputs: str
    previous: Record | None
    changes: list[Change]
    partial: Partial | None  # None: the native tools activate the whole plan
    guard: Guard
    log: Log
    say: Log
    number: int  # of the entry of the history
    nic_files: str  # digest of the operator's files that configure NICs
    summary: list[str]
    begun: float  # by the monotonic clock, seconds
    former: list[FormerAddress]

    @property
    def is_new(self) -> bool:
        """Whether the host's recorded state changes."""
        return self.previous is None or bool(self.changes or self.summary)

    @property
    def size(self) -> int:
        """How many devices the native tools have to process."""
        return len(self.partial.names if self.partial else self.plan.devices)

    def record(self, *, ok: bool, detail: str = "") -> Record:
        """Return the record of this apply as it stands."""
        previous = self.previous
        entry = previous if previous and not self.is_new else None  # a repair is no new entry
        seconds = round(time.monotonic() - self.begun, 1)
        return Record(
            version=__version__,
            number=self.number,
            origin=entry.origin if entry else 0,
            started_by=entry.started_by if entry else self.options.started_by,
            seconds=entry.seconds if entry else seconds,
            summary=entry.summary if entry else self.summary,
            time=record.now(),
            ok=ok,
            detail=detail,
            activated=ok or bool(previous and previous.activated),
            inputs=self.inputs,
            nic_files=self.nic_files,
            target=self.target,
            remaining_devices=[] if ok else record.removed_devices(previous, self.target),
            remaining_numbered=[] if ok or not previous else previous.possible_numbered,
            former_addresses=self.former,
        )


def carry_out(run: Run, data: bytes, stage: Path) -> Outcome:
    """Make the host what a run has planned, from staged files, and return the outcome.

    `data` is the payload. Raises `Refused` (nothing was changed), `ActivationFailed` (the host has
    gone back) or `Stranded`.
    """
    root = run.options.root
    changed = sorted(change.path for change in run.changes)
    kept: list[str] = []
    staging.refuse_unwritable(root, run.changes)
    run.guard.look(run.previous.target if run.previous else None, run.target)
    before.remember(root, run.plan, run.log, running=run.options.activate)
    record.begin(root, run.record(ok=False, detail=BEGUN), run.previous)
    try:
        kept = staging.commit(root, run.changes)
        if run.previous and not run.previous.ok:
            before.sweep(root, run.plan.files)
        if not run.options.activate:
            record.write(root, run.record(ok=False, detail="written, not activated"), data)
            return outcome_of(run.target, changed=changed, kept=kept)
        repaired = _activate(run, stage)
        done = run.record(ok=True)
        record.write(root, done, data)
        commands.finish()
    except Exception as failure:  # noqa: BLE001  # whatever it is, the host goes back
        commands.finish()
        failed = failure_of(failure)
        _undo(run, str(failed))
        raise failed from None
    try:
        held.release(root)
        if run.is_new:
            generations.keep(root, done, run.plan.files, run.options.keep)
    except OSError as error:
        run.say(f"warning: this generation is not kept for a rollback: {text_of(error)}")
    return outcome_of(
        run.target,
        activated=True,
        changed=changed,
        kept=kept,
        repaired=repaired,
        summary=run.summary,
    )


def _activate(run: Run, stage: Path) -> list[str]:
    """Bring the host to its target, and verify that; return what was repaired."""
    root = run.options.root
    conffiles.divert(root, run.log)
    # Changes by others since the last apply. A run that repairs only these reports them.
    differences = [] if run.is_new else comparison.kernel_differences(run.target, root)
    repaired = converge.converge(_activation(run, stage), run.log, run.say)
    _place_management(run)
    run.guard.hold(run.target)
    rules = map(str, diverted.findings(run.target))
    remaining = list(rules) if run.is_new else comparison.differences(run.target, root)
    for text in remaining:
        run.say(f"warning: not repaired: {text}")
    return [text for text in [*differences, *repaired] if text not in remaining]


def _place_management(run: Run) -> None:
    """Place the management address once, if no device has it and the hook does not run."""
    root, management = run.options.root, run.target.management
    if observed.hook_runs(root) or not nics.misplaced(management, devices.read(), hook_runs=False):
        return
    from generator.failover import hook  # noqa: PLC0415  # an apply with nothing to do is faster

    try:
        hook.once(root, run.log)
    except EvpnHostError as failure:
        run.say(f"warning: the management address: {failure}")


def _undo(run: Run, reason: str) -> None:
    """Go back, and note the failure. Raises `Stranded`."""
    # A record without inputs matches no payload, so the next run tries again.
    restored = run.previous and msgspec.structs.replace(run.previous, inputs="", detail=reason)
    attempt = Attempt(
        options=run.options,
        changes=run.changes,
        failed=run.record(ok=False, detail=reason),
        previous=restored,
        guard=run.guard,
        log=run.log,
        say=run.say,
    )
    go_back(attempt)
    if run.options.activate:
        _remember_failure(run, attempt.failed)


def _remember_failure(run: Run, failed: Record) -> None:
    """Make the timer wait before it tries again, and add the failure to the history."""
    root = run.options.root
    try:
        held.hold_failed(root, run.inputs, failed.detail.partition("\n")[0])
        if run.is_new:  # else the number belongs to the current entry
            generations.keep(root, failed, {}, run.options.keep)
    except OSError as error:
        run.say(f"warning: the failure of the payload could not be noted: {text_of(error)}")


def _activation(run: Run, stage: Path) -> Activation:
    """Return the activation that the native tools have to carry out."""
    previous = run.previous
    changed = {change.path for change in run.changes}
    if previous and not previous.ok:
        changed |= run.plan.files.keys()  # the failed run may have changed any of them
    first = not (previous and previous.activated)
    return Activation(
        root=run.options.root,
        stage=stage,
        target=run.target,
        removed=record.removed_devices(previous, run.target),
        changed_files=changed,
        whole=first or run.options.full,
        first=first,
        previous=previous,
        partial=run.partial.names if run.partial else None,
    )
