"""`evpn-host uninstall`: the host without us."""

from collections.abc import Iterator
from pathlib import Path, PurePath

import msgspec

from generator.activation import (
    before,
    commands,
    conffiles,
    converge,
    services,
    staging,
    units,
)
from generator.activation.before import Before
from generator.activation.commands import Log
from generator.desired import plan
from generator.errors import Stranded, check_removed, problems_of
from generator.failover import hook
from generator.observed.management import HOOK
from generator.state import changes, files, record, tree
from generator.state.changes import Change
from generator.state.lock import RUN, lock
from generator.state.record import Record
from generator.verbs import awaiting
from generator.verbs.options import Options

_BEGUN = "uninstall begun, not ended"  # the record's `detail` meanwhile


def preview(root: Path) -> Iterator[str]:
    """Yield what an uninstall removes and restores, a line each. Raises `Refused`."""
    applied = record.read(root)
    for path in _own_files(root):
        yield f"- /{path}"
    for device in applied.possible_devices if applied else ():
        yield f"- device {device.name} ({device.kind})"
    if applied and applied.target.management:
        management = applied.target.management
        yield f"~ the management address {management.ipv4} goes to {management.ifname} for good"
    for copy in tree.walk(root, record.KEPT):
        yield f"+ /{PurePath(copy).relative_to(record.KEPT)}, as it was before"
    yield f"- /{record.STATE}: the record, the history, the last good payload"


def _own_files(root: Path) -> list[str]:
    """Return the paths of the files that we wrote."""
    present = sorted(staging.present(root))
    return [path for path in present if plan.ours(changes.read(root, path) or "")]


def uninstall(options: Options, log: Log, say: Log) -> list[str]:
    """Remove all that is ours, and restore what ours replaced; return the removed paths.

    Raises `Refused` or `OSError` (nothing was changed), or `Stranded`.
    """
    with lock(options.root, uninstalls=True), commands.interruptible():
        applied = record.read(options.root)
        known = before.read(options.root)
        if applied:
            begun = msgspec.structs.replace(applied, ok=False, detail=_BEGUN)
            record.begin(options.root, begun, applied)
        try:
            return _remove(applied, known, options, log, say)
        except Exception as failure:  # noqa: BLE001  # whatever it is, a person has to know
            hint = "not all of evpn-host is removed: run uninstall again"
            raise Stranded(*problems_of(failure), hint) from None


def _remove(
    applied: Record | None, known: Before, options: Options, log: Log, say: Log
) -> list[str]:
    root = options.root
    if options.activate:
        awaiting.stop_timer(log)  # nothing is to be confirmed any more
        commands.run_all(units.stop(root), log)
        check_removed(f"/{link}" for link in units.enabled(root))
    written = units.remove(root, log, reload=options.activate)
    removed = _restore_files(applied, options, log, say)
    if options.activate and applied:
        converge.withdraw(applied, log)
        before.restore(root, known, log)
    before.remove_folders(root, known)
    files.remove_tree(root, RUN)
    files.remove_tree(root, record.STATE)
    check_removed(f"/{record.STATE / name}" for name in tree.names(root, record.STATE))
    return removed + written


def take_back(applied: Record, options: Options, log: Log, say: Log) -> None:
    """Make the host what it was before the first apply. Units, history and settings stay.

    The caller has the lock. Raises `OSError` or `ActivationFailed`; it can be done again then.
    """
    root = options.root
    known = before.read(root)
    if services.is_installed(HOOK, root):
        services.disable(HOOK, "there is no address to move", log)
    _restore_files(applied, options, log, say)
    converge.withdraw(applied, log)
    before.restore(root, known, log)
    before.remove_folders(root, known)
    files.remove_tree(root, record.KEPT)
    files.remove(root, before.FILE)
    record.remove(root)


def _restore_files(applied: Record | None, options: Options, log: Log, say: Log) -> list[str]:
    """Give the address back, remove our files, restore the operator's; return ours."""
    root = options.root
    if options.activate and applied and applied.target.management:
        hook.restore(root, log)
    removed = [Change(path, changes.read(root, path), None) for path in _own_files(root)]
    copies = {
        str(PurePath(copy).relative_to(record.KEPT)): copy for copy in tree.walk(root, record.KEPT)
    }
    for path, copy in copies.items():  # takes the place of ours at once
        newer = conffiles.packaged(root, path, log) if options.activate else None
        files.copy(root, newer or copy, path)
        say(f"/{path} is as it was before")
    staging.commit(root, [change for change in removed if change.path not in copies])
    if options.activate:
        conffiles.restore(root, log)
    return [change.path for change in removed]
