"""The transaction of an apply: from the first changed file to the end, or back.

The record says `ok: false` from before the first file changes until the kernel and FRR are seen to
be as planned. If something stops us in between, the next run reads that and finishes the work.
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
    """Say what an apply of a target did; `paths` are the outcome's lists."""
    return Outcome(
        target.host,
        target.generation,
        **paths,
        activated=activated,
        devices=len(target.devices),
        left_alone=left_alone,
    )


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """An apply in progress: what it was decided from, and what was decided."""

    options: Options
    plan: Plan
    target: Target
    inputs: str
    previous: Record | None
    changes: list[Change]
    partial: Partial | None  # None: the native tools take up the whole plan
    guard: Guard
    log: Log
    say: Log
    number: int  # of the entry of the history
    nic_files: str  # digest of the operator's files that decide for NICs
    summary: list[str]
    begun: float  # by the monotonic clock, seconds
    former: list[FormerAddress]

    @property
    def is_new(self) -> bool:
        """Whether the host becomes another than it is recorded to be."""
        return self.previous is None or bool(self.changes or self.summary)

    @property
    def size(self) -> int:
        """How many devices the native tools have to deal with."""
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
    """Make the host what a run has planned, from staged files, and return what was done.

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
        mended=repaired,
        summary=run.summary,
    )


def _activate(run: Run, stage: Path) -> list[str]:
    """Bring the host to its target, and see that it is there; return what was put right."""
    root = run.options.root
    conffiles.divert(root, run.log)
    # What others have changed since the last apply, if this one changes nothing else.
    found = [] if run.is_new else comparison.of_kernel(run.target, root)
    repaired = converge.converge(_activation(run, stage), run.log, run.say)
    _place_management(run)
    run.guard.hold(run.target)
    rules = map(str, diverted.findings(run.target))
    left = list(rules) if run.is_new else comparison.differences(run.target, root)
    for text in left:
        run.say(f"warning: not put right: {text}")
    return [text for text in [*found, *repaired] if text not in left]


def _place_management(run: Run) -> None:
    """Look once in the hook's place, if it does not run and the management address is nowhere."""
    root, management = run.options.root, run.target.management
    if observed.hook_runs(root) or not nics.misplaced(management, devices.read(), hook_runs=False):
        return
    from generator.failover import hook  # noqa: PLC0415  # an apply with nothing to do needs it not

    try:
        hook.once(root, run.log)
    except EvpnHostError as failure:
        run.say(f"warning: the management address: {failure}")


def _undo(run: Run, reason: str) -> None:
    """Go back, and note the failure. Raises `Stranded`."""
    # Without inputs no payload counts as the one applied: the next run tries again.
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
    """Have the timer wait, and the history say what happened."""
    root = run.options.root
    try:
        held.failed(root, run.inputs, failed.detail.partition("\n")[0])
        if run.is_new:  # else the number is that of the entry that the host has
            generations.keep(root, failed, {}, run.options.keep)
    except OSError as error:
        run.say(f"warning: it is not noted that the payload failed: {text_of(error)}")


def _activation(run: Run, stage: Path) -> Activation:
    """Return what the native tools have to bring about."""
    previous = run.previous
    changed = {change.path for change in run.changes}
    if previous and not previous.ok:
        changed |= run.plan.files.keys()  # nobody knows how far the run before came
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
