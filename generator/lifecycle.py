"""Back to an earlier generation, and off the machine again."""

import contextlib
import shutil
from pathlib import Path

import msgspec

from generator import activate, before, converge, failover, plan, record, stage, units
from generator.activate import Log
from generator.apply import RUN, Options, lock
from generator.errors import EvpnHostError, Problem, Refused, Stranded
from generator.record import Record
from generator.stage import Change


def rollback(
    generation: int | None, options: Options, log: Log, say: Log
) -> tuple[Record, list[str]]:
    """Make an earlier generation current, until the payload changes; its record, and what changed.

    Without a number, the one before. Raises `Refused` when that is not kept.
    """
    root = options.root
    with lock(root):
        last = record.read(root)
        if last is None:
            raise Refused("nothing was applied yet")
        goal, texts = _kept(root, last, generation)
        found = stage.changes(root, texts)
        # The payload gone back from counts as dealt with: the timer does not bring it back.
        goal = msgspec.structs.replace(goal, inputs=last.inputs, generation=last.generation)
        with stage.staged(root, texts) as tree:
            if options.activate:
                stage.judge(tree, goal.backend, len(goal.devices), log)
            names = {device.name for device in goal.devices}
            gone = [device for device in last.devices if device.name not in names]
            pending = msgspec.structs.replace(
                goal, ok=False, detail="rollback begun, not ended", devices=[*goal.devices, *gone]
            )
            record.write(root, pending)
            try:
                stage.commit(root, found)
                if options.activate:
                    changed = {change.path for change in found}
                    wanted = converge.Wanted(root, goal, gone, changed, had=last)
                    converge.converge(wanted, tree, log, say)
            except EvpnHostError as failure:
                raise Stranded(*failure.problems, "the rollback did not end well") from None
        done = goal if options.activate else pending
        record.write(root, done)
        return done, sorted(change.path for change in found)


def _kept(root: Path, last: Record, generation: int | None) -> tuple[Record, dict[str, str]]:
    """The newest kept generation of that number, or the one before the current one."""
    base = root / record.GENERATIONS
    found = []
    for folder in base.glob("*/record.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found.append((msgspec.json.decode(folder.read_bytes(), type=Record), folder.parent))
    found.sort(key=lambda entry: entry[0].serial, reverse=True)
    for kept, folder in found:
        wanted = kept.serial < last.serial if generation is None else kept.generation == generation
        if wanted:
            files = [file for file in folder.rglob("*") if file.is_file()]
            texts = {
                str(file.relative_to(folder)): file.read_text(errors="surrogateescape")
                for file in files
                if file.name != "record.json"
            }
            return kept, texts
    known = ", ".join(sorted({str(kept.generation) for kept, _ in found})) or "none"
    hint = f"kept: {known}"
    raise Refused(Problem("generation", str(generation or "before"), "is not kept", hint))


def uninstall(options: Options, log: Log, say: Log) -> list[str]:
    """Take away all that is ours, and give back what ours took the place of; the paths removed."""
    root = options.root
    with lock(root, uninstalled=True):
        last = record.read(root)
        known = before.read(root)
        if options.activate:
            activate.run_all(units.stop(root), log)
        written = units.remove(root, log, reload=options.activate)
        if options.activate and last and last.management:
            failover.give_back(root, last.management, log)
        removed = [
            Change(path, text, None)
            for path in sorted(stage.present(root))
            if plan.ours(text := stage.read(root, path) or "")
        ]
        stage.commit(root, removed)
        kept = root / record.KEPT
        for copy in sorted(kept.rglob("*")):
            if copy.is_file():
                stage.give_back(copy, root / copy.relative_to(kept))
                say(f"/{copy.relative_to(kept)} is as it was before")
        if options.activate and last:
            converge.withdraw(last, log)
            before.give_back(root, known, log)
        before.remove_folders(root, known)
        shutil.rmtree(root / RUN, ignore_errors=True)
        shutil.rmtree(root / record.STATE, ignore_errors=True)
    return [change.path for change in removed] + written
