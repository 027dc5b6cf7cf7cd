"""The command line: verbs, options and exit codes. What a verb needs is imported when it runs."""

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from generator import __version__, history_verbs, payload_verbs
from generator.errors import EvpnHostError, Refused, text_of
from generator.verbs import parameters
from generator.verbs.command import (
    TROUBLE,
    Diff,
    Verbs,
    a_number,
    colour,
    is_coloured,
    prepare_streams,
)

if TYPE_CHECKING:
    from generator.activation.commands import Log
    from generator.reporting.report import Outcome


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="evpn-host")
def evpn_host() -> None:
    """Make this Linux server a VTEP of an EVPN/VXLAN fabric.

    Exit codes: 0 done or nothing to do, 1 refused and nothing changed, 2 wrong usage, 3 activation
    failed and the previous generation is active, 4 that failed too and a person is needed. For diff
    and review: 0 same, 1 differs, 2 trouble.
    """


@evpn_host.command(cls=Diff)
@parameters.payload
@parameters.host
@parameters.backend
@parameters.root
@click.option("--stat", is_flag=True, help="only the summary in network terms")
@click.option("--json", "as_json", is_flag=True, help="the summary and the files, for a script")
def diff(
    source: str | None,
    host: str | None,
    backend: str | None,
    root: Path | None,
    stat: bool,
    as_json: bool,
) -> None:
    """Show what apply would change.

    First comes a summary in network terms, then each file, then the devices that would be removed.
    """
    from generator.verbs import context
    from generator.verbs import diff as verb

    origin = context.source_of(source, host, root)
    preview = verb.Preview(origin.refresh(), context.options_of(root, origin, backend))
    if as_json:
        click.echo(context.json(preview.difference, indent=2))
    else:
        lines = [*preview.summary(), *(() if stat else preview.files())]
        for line in lines:
            click.echo(click.style(line, fg=colour(line)) if is_coloured() else line)
    sys.exit(1 if preview.differs else 0)


@evpn_host.command()
@parameters.payload
@parameters.host
@click.option("--json", "as_json", is_flag=True, help="the findings, for a script")
def preflight(source: str | None, host: str | None, as_json: bool) -> None:
    """Name what would stop an apply, or surprise you.

    It looks at this machine and changes nothing. The exit code is 1 if something would stop it.
    """
    from generator.verbs import context, planning
    from generator.verbs import preflight as verb

    origin = context.source_of(source, host)
    options = context.options_of(None, origin)
    planned, _, _ = planning.make_plan(origin.read(), options)
    previous = planning.previous_record(options)
    findings = verb.look(planned, previous, options.root, context.log(verbose=False))
    click.echo(context.json_list(findings) if as_json else verb.text(findings))
    sys.exit(1 if any(finding.stops for finding in findings) else 0)


@evpn_host.command()
@parameters.payload
@parameters.host
@parameters.backend
@parameters.root
@click.option("--no-activate", is_flag=True, help="write the files and run nothing")
@click.option("--full", is_flag=True, help="activate everything, not only the changes")
@click.option("--force", is_flag=True, help="accept a payload with a lower generation")
@click.option(
    "--wait",
    type=click.FloatRange(0, 600, min_open=True),
    callback=a_number,
    metavar="SECONDS",
    help="keep trying for SECONDS until the controller answers [config.yaml: timeout, retries]",
)
@click.option(
    "--last-good", is_flag=True, help="apply the last good payload if the controller gives none"
)
@click.option(
    "--replace-frr", is_flag=True, help="replace your frr.conf that has a BGP instance; keep a copy"
)
@parameters.confirm
@parameters.no_guard
@click.option("--json", "as_json", is_flag=True, help="what was done, for a script")
@parameters.verbose
def apply(
    source: str | None,
    host: str | None,
    backend: str | None,
    root: Path | None,
    no_activate: bool,
    full: bool,
    force: bool,
    wait: float | None,
    last_good: bool,
    replace_frr: bool,
    seconds: float | None,
    no_guard: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Make this host what the payload says.

    If there is nothing to do, it writes nothing and runs nothing.
    """
    from generator.verbs import apply as verb
    from generator.verbs import context

    with context.progress(verbose=verbose) as log:
        if root is None and not no_activate and _went_back(log) and source is None:
            return
        origin = context.source_of(source, host, root, wait)
        options = context.options_of(
            root,
            origin,
            backend,
            no_activate=no_activate,
            full=full,
            force=force,
            person=source is not None,
            keep=origin.settings.keep,
            replace_frr=replace_frr,
            guard=None if no_guard else origin.settings.guard,
            confirm=seconds,
        )
        outcome = verb.apply_from(origin, options, log, context.say, last_good=last_good)
    if as_json:
        click.echo(context.json(outcome))
    else:
        _show(outcome, context.say)


def _went_back(log: "Log") -> bool:
    """Go back if nobody has confirmed in time; return whether this host has gone back."""
    from generator.state import unconfirmed

    if (waiting := unconfirmed.read(Path("/"))) is None or not waiting.due:
        return False
    from generator.verbs import confirm, context

    settings = context.settings_of(Path("/"))
    return confirm.expire(context.options_of(None, keep=settings.keep), settings, log, context.say)


def _show(outcome: "Outcome", say: "Log") -> None:
    for path in outcome.kept:
        say(f"/{path} was not ours: a copy is kept below /var/lib/evpn-host/kept")
    for text in outcome.repaired:
        say(f"repaired: {text}")
    for path in outcome.changed:
        click.echo(f"/{path}")
    if outcome.left_alone:
        click.echo(outcome.left_alone)
    for line in outcome.summary:
        click.echo(line)
    if outcome.summary:
        from generator.desired.change import total

        click.echo(total(outcome.summary))


@evpn_host.command()
@parameters.root
@click.option("--yes", is_flag=True, help="do not ask on a terminal")
@parameters.verbose
def uninstall(root: Path | None, yes: bool, verbose: bool) -> None:
    """Remove all files and devices of evpn-host.

    It removes nothing else, and restores the files that it had replaced. On a terminal it first
    says what it will do, and asks.
    """
    from generator.reporting import report
    from generator.verbs import context
    from generator.verbs import uninstall as verb

    options = context.options_of(root)
    settings = context.settings_of(options.root)
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        for line in verb.preview(options.root):
            click.echo(line)
        if not click.confirm("Remove all this?"):
            raise Refused("not confirmed: nothing was changed")
    with context.progress(verbose=verbose) as log:
        removed = verb.uninstall(options, log, context.say)
    report.forget(settings, options.root)
    for path in removed:
        click.echo(f"/{path}")


@evpn_host.command()
@parameters.root
@click.option("--json", "as_json", is_flag=True, help="for a script")
def status(root: Path | None, as_json: bool) -> None:
    """Show what should be, what is, and each difference.

    The exit code is 0 if nothing differs, and the health is ok or waiting (for the switch ports).
    """
    from generator.activation import commands, lldp
    from generator.reporting import status as reading
    from generator.verbs import context
    from generator.verbs import status as verb

    current = reading.status(root or Path("/"), {} if root else lldp.switches(commands.silent))
    if as_json:
        click.echo(context.json(current, indent=2))
    else:
        click.echo(verb.text(current))
    sys.exit(0 if verb.is_well(current) else 1)


@evpn_host.command(cls=Diff)
@click.argument("subject", metavar="ADDRESS|MAC", type=parameters.ADDRESS)
@click.option("--vnet", metavar="V", type=parameters.TEXT, help="in this V-Net: its VNI or name")
@click.option("--vpc", metavar="V", type=parameters.TEXT, help="in this VPC: its id or name")
@click.option("--json", "as_json", is_flag=True, help="the same steps, for a script")
def trace(subject: str, vnet: str | None, vpc: str | None, as_json: bool) -> None:
    """Say why a guest can or cannot be reached from this host.

    The steps follow the path of a packet; the last line names the first step that is wrong. A few
    echo requests to the guest's VTEP show whether full-size packets pass. Needs root.

    The exit code is 0 if nothing is wrong, 1 if something is, 2 for wrong usage.
    """
    from generator.verbs import context
    from generator.verbs import trace as verb

    if vnet is not None and vpc is not None:
        raise click.UsageError("--vnet and --vpc: give one of them")
    answer = verb.trace(subject, vnet, vpc, context.log(verbose=False))
    click.echo(context.json(answer, indent=2) if as_json else verb.text(answer))
    sys.exit(0 if answer.ok else 1)


@evpn_host.command()
@click.option("--once", is_flag=True, help="check once, move the address if needed, and end")
@parameters.verbose
def failover(once: bool, verbose: bool) -> None:
    """Move the management address between the NIC and the fabric.

    It keeps running and follows events, unless --once is given.
    """
    from generator.failover import hook
    from generator.verbs import context

    log = context.log(verbose=verbose)
    (hook.once if once else hook.follow)(Path("/"), log)


@evpn_host.command("install-units")
@parameters.root
@click.option("--cron", is_flag=True, help="write /etc/cron.d/evpn-host too, instead of the timer")
@parameters.verbose
def install_units(root: Path | None, cron: bool, verbose: bool) -> None:
    """Write the systemd units, if no package has installed them.

    They go below /etc/systemd/system.

    apply enables the hook. Enable the boot service and the timer yourself, if you want them.
    """
    from generator.activation import units
    from generator.verbs import context

    log = context.log(verbose=verbose)
    for path in units.install(root or Path("/"), log, cron=cron, reload=root is None):
        click.echo(f"/{path}")


for _verb in (*payload_verbs.VERBS, *history_verbs.VERBS):
    evpn_host.add_command(_verb)


def main() -> NoReturn:
    """Run the command; a failure becomes a message and an exit code of the contract."""
    prepare_streams()
    gc.set_threshold(100_000)  # with thousands of V-Nets no object is freed before the end
    try:
        code = evpn_host.main(prog_name="evpn-host", standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = TROUBLE
    except EvpnHostError as error:
        for problem in error.problems if not error.reported else ():
            click.echo(f"evpn-host: {problem}", err=True)
        code = error.exit_code
    except OSError as error:
        click.echo(f"evpn-host: {text_of(error)}", err=True)
        code = 1
    sys.exit(code)
