"""Verbs for earlier applies: history, confirm, rollback."""

from pathlib import Path

import click

from generator.verbs import parameters


@click.command()
@parameters.root
@click.option("--json", "as_json", is_flag=True, help="for a script")
def history(root: Path | None, as_json: bool) -> None:
    """List the applies of this host, the newest first.

    Each entry has its time, its outcome and its changes. rollback NUMBER goes back to an entry.
    """
    from generator.verbs import context
    from generator.verbs import history as verb

    entries = verb.entries((root or Path("/")).resolve())
    click.echo(context.json_list(entries) if as_json else verb.text(entries))


@click.command()
@parameters.verbose
def confirm(verbose: bool) -> None:
    """Keep the changes of apply --confirm or rollback --confirm.

    Without confirm, this host goes back when the time is over, and after a reboot.
    """
    from generator.verbs import confirm as verb
    from generator.verbs import context

    kept = verb.confirm(context.options_of(None), context.log(verbose=verbose))
    click.echo(f"entry {kept.number} is kept")


@click.command()
@click.argument("number", type=click.IntRange(min=1), required=False)
@parameters.root
@click.option("--no-activate", is_flag=True, help="write the files and run nothing")
@parameters.confirm
@click.option(
    "--unconfirmed", is_flag=True, help="only if the time of --confirm is over; systemd runs this"
)
@parameters.no_guard
@parameters.verbose
def rollback(
    number: int | None,
    root: Path | None,
    no_activate: bool,
    seconds: float | None,
    unconfirmed: bool,
    no_guard: bool,
    verbose: bool,
) -> None:
    """Go back to an earlier entry of the history.

    NUMBER is the number of the entry; by default the entry before the current one. The host keeps
    that state until the controller's payload changes.
    """
    from generator.verbs import context
    from generator.verbs import rollback as verb

    settings = context.settings_of((root or Path("/")).resolve())
    guard = None if no_guard else settings.guard
    options = context.options_of(
        root, no_activate=no_activate, keep=settings.keep, guard=guard, confirm=seconds
    )
    if unconfirmed and (number or root or no_activate or seconds is not None):
        raise click.UsageError("--unconfirmed takes no NUMBER and none of the other options")
    with context.progress(verbose=verbose) as log:
        if unconfirmed:
            from generator.verbs import confirm

            confirm.expire(options, settings, log, context.say)
            return
        entry = verb.rollback_reported(number, options, settings, log, context.say)
    click.echo(f"entry {entry.number}, of {entry.time}, is current again")


VERBS = (history, confirm, rollback)
