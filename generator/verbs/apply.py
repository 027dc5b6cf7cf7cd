"""`evpn-host apply`: decides what a payload needs on this host, and whether that may be done.

`verbs.transaction` does it.
"""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from generator import __version__
from generator.activation import backends, commands, staging
from generator.activation.commands import Log
from generator.activation.guard import Guard
from generator.activation.partial import partial_of
from generator.controller import source as sources
from generator.controller.source import Source
from generator.desired import plan
from generator.desired.payload import Payload
from generator.desired.plan import Plan
from generator.desired.summary import summary
from generator.errors import Problem, Refused, Unchecked, Unreachable
from generator.observed import comparison
from generator.reporting import report
from generator.reporting.report import Outcome
from generator.state import changes as reading
from generator.state import generations, held, record, unconfirmed
from generator.state.lock import lock
from generator.state.record import Record
from generator.verbs import awaiting, check, preflight, transaction
from generator.verbs.options import Options
from generator.verbs.planning import frr_local, inputs_of, make_plan, previous_record
from generator.verbs.transaction import Run, carry_out, outcome_of


def apply_from(source: Source, options: Options, log: Log, say: Log, *, last_good: bool) -> Outcome:
    """Apply the payload of a source, and report the run.

    With `last_good` the last good payload is applied if the source gives none. Raises what `apply`
    and `Source.refresh` raise.
    """
    with report.reported(source.settings, source.name, say, activates=options.activate) as run:
        try:
            data = source.refresh()
        except Unreachable as missed:
            kept = sources.last_good(source.root) if last_good else None
            if kept is None:
                raise
            run.go_on_without(missed, say)
            data = kept
        run.outcome = apply(data, options, log, say, source.answers if run.missed is None else None)
        source.remember(data)
    return run.outcome


def apply(
    data: bytes,
    options: Options,
    log: Log,
    say: Log,
    controller: Callable[[], bool] | None = None,
) -> Outcome:
    """Make this host what a payload says. Nothing to do means nothing written and nothing run.

    `log` gets each command, `say` each sentence for the user. `controller` tells whether the
    controller that gave the payload still answers. Raises `Refused` (nothing was changed),
    `ActivationFailed` (the generation before is active again) or `Stranded`.
    """
    root = options.root
    inputs = inputs_of(data, frr_local(root), options)
    # Nobody waits for the lock while we work on a large document, unless it was applied before.
    prepared = None if _is_of(previous_record(options), inputs) else make_plan(data, options)
    with lock(root), commands.interruptible():
        previous = previous_record(options)
        if options.person:
            awaiting.refuse_second(root)
        elif waiting := unconfirmed.read(root) or held.find(root, inputs):
            return _left_alone(str(waiting), previous)
        anew = options.full or held.read(root) is not None
        if previous and not anew and _nothing_to_do(inputs, previous, options):
            return outcome_of(previous.target)
        guard = Guard(options.patience, log, say, controller)
        run = _decide(prepared or make_plan(data, options), previous, options, guard, log, say)
        files = run.partial.files if run.partial else run.plan.files
        with staging.staged(root, files, run.plan.backend) as stage:
            unchanged = not run.is_new and not options.full
            if previous and unchanged and _as_planned(previous, options):
                # Another payload gives the same files: there is nothing to do but to record it. The
                # time stays, because health counts sessions that are down since the last apply.
                same = run.record(ok=previous.ok, detail=previous.detail)
                record.write(root, msgspec.structs.replace(same, time=previous.time), data)
                held.release(root)
                return outcome_of(run.target)
            _check(stage, run)
            if not run.is_new and options.confirm is not None:
                say("nothing is new, so there is nothing to confirm")
                options = msgspec.structs.replace(options, confirm=None)
            with awaiting.awaiting(options, "apply", run.number, previous, log, say):
                return carry_out(run, data, stage)


def _decide(  # noqa: PLR0913, PLR0917  # what is, what is to be, and who hears of it
    prepared: tuple[Plan, Payload, str],
    previous: Record | None,
    options: Options,
    guard: Guard,
    log: Log,
    say: Log,
) -> Run:
    """Return what an apply has to do; say its warnings. Raises `Refused`."""
    begun = time.monotonic()
    planned, payload, inputs = prepared
    for warning in check.lines(payload):
        say(f"warning: {warning}")
    if not options.force:
        _refuse_older(planned, previous)
    root = options.root
    if not options.replace_frr:
        preflight.refuse_foreign_bgp(root)
    target = plan.target(planned)
    if options.activate:
        preflight.heed(planned, target, previous, options, log, say)
    preflight.refuse_conflicts(root, planned)
    changes = staging.changes(root, planned.files)
    lines = summary(previous.target if previous else None, target)
    stays = previous is not None and not changes and not lines
    number = previous.number if previous and stays else generations.next_number(root, previous)
    return Run(
        options=options,
        plan=planned,
        target=target,
        inputs=inputs,
        previous=previous,
        changes=changes,
        number=number,
        nic_files=backends.named(planned.backend).digest(root),
        summary=lines,
        begun=begun,
        former=preflight.former_addresses(root, planned, previous),
        partial=None if options.full else partial_of(root, previous, planned, changes),
        guard=guard,
        log=log,
        say=say,
    )


def _left_alone(why: str, previous: Record | None) -> Outcome:
    """Return that nothing was done and why. Raises `Refused` on a host without a record."""
    if previous is None:
        raise Refused(why)
    return outcome_of(previous.target, left_alone=why)


def _refuse_older(planned: Plan, previous: Record | None) -> None:
    generation = planned.generation
    if previous and generation < previous.target.generation:
        raise Refused(
            Problem(
                "generation",
                str(generation),
                f"is lower than the one applied, {previous.target.generation}",
                "--force applies it all the same",
            )
        )


def _is_of(previous: Record | None, inputs: str) -> bool:
    """Whether the last apply made its files from these inputs."""
    return previous is not None and (previous.inputs, previous.version) == (inputs, __version__)


def _nothing_to_do(inputs: str, previous: Record, options: Options) -> bool:
    """Whether the last apply had the same inputs, and all that it brought about is still there."""
    root = options.root
    if not _is_of(previous, inputs):
        return False
    if previous.nic_files != backends.named(previous.target.backend).digest(root):
        return False
    if staging.present(root) - previous.target.files.keys():
        return False
    for path, digest in previous.target.files.items():
        content = reading.read(root, path)
        if content is None or plan.digest(plan.body(content)) != digest:
            return False
        if staging.has_other_mode(root, path):
            return False
    return _as_planned(previous, options)


def _as_planned(previous: Record, options: Options) -> bool:
    """Whether the last apply ended well, and the kernel and FRR are still as it left them."""
    if not options.activate:
        return previous.detail != transaction.BEGUN
    person = options.person
    return previous.ok and not comparison.differences(previous.target, options.root, lasting=person)


def _check(stage: Path, run: Run) -> None:
    try:
        staging.check(stage, run.plan.backend, run.size, run.log)
    except Unchecked as missing:
        # Rendering for another root needs none of the host's tools.
        if run.options.activate:
            raise
        run.say(f"not checked: {missing}")
