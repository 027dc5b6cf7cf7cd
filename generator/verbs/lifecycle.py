"""Back to an earlier generation, and off the machine again."""

import contextlib
import shutil
from pathlib import Path

import msgspec

from generator.activation import before, commands, converge, staging, units
from generator.activation.commands import Log
from generator.activation.staging import Change
from generator.desired import plan
from generator.errors import EvpnHostError, Problem, Refused, Stranded
from generator.failover import hook
from generator.state import record
from generator.state.record import Record
from generator.verbs.apply import RUN, Options, lock


def rollback(
    generation: int | None, options: Options, log: Log, say: Log
) -> tuple[Record, list[str]]:
    """Make an earlier generation current, until the payload changes; its record, and what changed.

    Without a number, the one before. Raises `Refused` when that is not kept.
    """
    root = options.root
    with lock(root):
        current = record.read(root)
        if current is None:
            raise Refused("nothing was applied yet")
        kept, texts = _kept(root, current, generation)
        changes = staging.changes(root, texts)
        # The payload gone back from counts as dealt with: the timer does not bring it back.
        target = msgspec.structs.replace(kept.target, generation=current.target.generation)
        pending = msgspec.structs.replace(
            kept,
            inputs=current.inputs,
            target=target,
            ok=False,
            detail="rollback begun, not ended",
            remaining_devices=record.removed_devices(current, target),
            remaining_numbered=current.possible_numbered,
        )
        with staging.staged(root, texts) as tree:
            if options.activate:
                staging.judge(tree, target.backend, len(target.devices), log)
            record.write(root, pending)
            try:
                staging.commit(root, changes)
                if options.activate:
                    activation = converge.Activation(
                        root=root,
                        tree=tree,
                        target=target,
                        removed=pending.remaining_devices,
                        changed_files={change.path for change in changes},
                        previous=current,
                    )
                    converge.converge(activation, log, say)
            except EvpnHostError as failure:
                raise Stranded(*failure.problems, "the rollback did not end well") from None
        done = pending
        if options.activate:
            done = msgspec.structs.replace(
                pending, ok=True, detail="", remaining_devices=[], remaining_numbered=[]
            )
        record.write(root, done)
        return done, sorted(change.path for change in changes)


def _kept(root: Path, current: Record, generation: int | None) -> tuple[Record, dict[str, str]]:
    """Return the newest kept apply of that generation, or the one before the current one."""
    entries = []
    for file in (root / record.GENERATIONS).glob("*/record.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            entries.append((record.decode(file.read_bytes()), file.parent))
    entries.sort(key=lambda entry: entry[0].number, reverse=True)
    for kept, folder in entries:
        if generation is None:
            chosen = kept.number < current.number
        else:
            chosen = kept.target.generation == generation
        if chosen:
            files = [file for file in folder.rglob("*") if file.is_file()]
            texts = {
                str(file.relative_to(folder)): file.read_text(errors="surrogateescape")
                for file in files
                if file.name != "record.json"
            }
            return kept, texts
    known = ", ".join(sorted({str(kept.target.generation) for kept, _ in entries})) or "none"
    hint = f"kept: {known}"
    raise Refused(Problem("generation", str(generation or "before"), "is not kept", hint))


def uninstall(options: Options, log: Log, say: Log) -> list[str]:
    """Remove all that is ours, and give back what ours replaced; return the removed paths."""
    root = options.root
    with lock(root, uninstalled=True):
        applied = record.read(root)
        known = before.read(root)
        if options.activate:
            commands.run_all(units.stop(root), log)
        written = units.remove(root, log, reload=options.activate)
        if options.activate and applied and applied.target.management:
            hook.give_back(root, log)
        removed = [
            Change(path, text, None)
            for path in sorted(staging.present(root))
            if plan.ours(text := staging.read(root, path) or "")
        ]
        staging.commit(root, removed)
        kept = root / record.KEPT
        for copy in sorted(kept.rglob("*")):
            if copy.is_file():
                staging.give_back(copy, root / copy.relative_to(kept))
                say(f"/{copy.relative_to(kept)} is as it was before")
        if options.activate and applied:
            converge.withdraw(applied, log)
            before.give_back(root, known, log)
        before.remove_folders(root, known)
        shutil.rmtree(root / RUN, ignore_errors=True)
        shutil.rmtree(root / record.STATE, ignore_errors=True)
    return [change.path for change in removed] + written
