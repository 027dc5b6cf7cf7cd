"""The command line: verbs, options and exit codes. What a verb needs is imported when it runs."""

import gc
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from generator import __version__
from generator.activation.backends import NAMES
from generator.errors import EvpnHostError, text_of
from generator.verbs.command import TROUBLE, Diff, Filled, Folder, Seconds, Verbs, prepare_streams

_PLATFORMS = ("libvirt", "nad", "incus")
_TEXT = Filled()
_DIR = Folder(path_type=Path, file_okay=False)

_payload = click.option(
    "-p",
    "--payload",
    "source",
    metavar="SRC",
    type=_TEXT,
    help="the payload: a path, - for standard input, or an http(s) URL [config.yaml: controller]",
)
_host = click.option(
    "-H",
    "--host",
    metavar="HOST",
    type=_TEXT,
    help="which host of a Fleet [config.yaml: host; else this machine's name]",
)
_backend = click.option(
    "-b",
    "--backend",
    type=click.Choice(NAMES),
    help="which tool activates the files [default: the one that this machine uses]",
)
_root = click.option(
    "--root",
    type=_DIR,
    metavar="DIR",
    help="act on the tree below DIR instead of this machine; activates nothing",
)
_verbose = click.option("-v", "--verbose", is_flag=True, help="show each command and why")


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="evpn-host")
def evpn_host() -> None:
    """Make this Linux server a VTEP of an EVPN/VXLAN fabric.

    Exit codes: 0 done or nothing to do, 1 refused and nothing changed, 2 wrong usage, 3 activation
    failed and the generation before is active, 4 that failed too and a person is needed. For diff:
    0 same, 1 differs, 2 trouble.
    """


@evpn_host.command()
@_payload
@click.option("-o", "--output", required=True, metavar="DIR", type=_DIR)
@click.option("-H", "--host", metavar="HOST", type=_TEXT, help="only this host of a Fleet")
@click.option("-b", "--backend", type=click.Choice(NAMES), default=NAMES[0], show_default=True)
def render(source: str | None, output: Path, host: str | None, backend: str) -> None:
    """Write the files of a host, or of each host of a Fleet.

    They go below DIR, or below DIR/<host> for a Fleet.

    Needs no root and reads nothing of this machine.
    """
    from generator.verbs import context
    from generator.verbs import render as verb

    verb.render(context.payload_of(source), host, backend, output)


@evpn_host.command()
@_payload
def check(source: str | None) -> None:
    """Name every problem of the payload, and each warning."""
    from generator.verbs import context

    context.payload_of(source)


@evpn_host.command(cls=Diff)
@_payload
@_host
@_backend
@_root
def diff(source: str | None, host: str | None, backend: str | None, root: Path | None) -> None:
    """Show what apply would change.

    Devices that would be removed come last.
    """
    from generator.verbs import apply as verb
    from generator.verbs import context

    origin = context.source_of(source, host, root)
    data, options = origin.refresh(), context.options_of(root, origin, backend)
    differs = False
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line in verb.preview(data, options):
        click.echo(click.style(line, fg=_colour(line)) if colour else line)
        differs = True
    sys.exit(1 if differs else 0)


def _colour(line: str) -> str | None:
    if line.startswith(("--- ", "+++ ")):
        return None
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])


@evpn_host.command()
@_payload
@_host
@_backend
@_root
@click.option("--no-activate", is_flag=True, help="write the files and run nothing")
@click.option("--full", is_flag=True, help="activate everything anew, not only what changed")
@click.option("--force", is_flag=True, help="apply a payload of a lower generation too")
@click.option(
    "--wait",
    type=Seconds(0, 600, min_open=True),
    metavar="SECONDS",
    help="keep trying for SECONDS until the controller answers [config.yaml: timeout, retries]",
)
@click.option(
    "--last-good", is_flag=True, help="apply the last good payload if the controller gives none"
)
@click.option("--json", "as_json", is_flag=True, help="what was done, for a script")
@_verbose
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
    as_json: bool,
    verbose: bool,
) -> None:
    """Make this host what the payload says.

    If there is nothing to do, it writes nothing and runs nothing.
    """
    from generator.verbs import apply as verb
    from generator.verbs import context

    origin = context.source_of(source, host, root, wait)
    options = context.options_of(
        root, origin, backend, no_activate=no_activate, full=full, force=force
    )
    log = context.log(verbose=verbose)
    outcome = verb.apply_from(origin, options, log, context.say, last_good=last_good)
    if as_json:
        click.echo(context.json(outcome))
        return
    for path in outcome.kept:
        context.say(f"/{path} was not ours: a copy is kept below /var/lib/evpn-host/kept")
    for text in outcome.mended:
        context.say(f"mended: {text}")
    for path in outcome.changed:
        click.echo(f"/{path}")


@evpn_host.command()
@click.argument("generation", type=click.IntRange(min=0), required=False)
@_root
@click.option("--no-activate", is_flag=True, help="write the files and run nothing")
@_verbose
def rollback(generation: int | None, root: Path | None, no_activate: bool, verbose: bool) -> None:
    """Make an earlier generation current again.

    GENERATION is its number, by default that of the one before. It stays current until the
    controller's payload changes.
    """
    from generator.verbs import context
    from generator.verbs import rollback as verb

    options = context.options_of(root, no_activate=no_activate)
    settings = context.settings_of(options.root)
    log = context.log(verbose=verbose)
    time = verb.rollback_reported(generation, options, settings, log, context.say)
    click.echo(f"applied on {time} is current again")


@evpn_host.command()
@_root
@_verbose
def uninstall(root: Path | None, verbose: bool) -> None:
    """Remove all files and devices of evpn-host.

    It removes nothing else, and restores what they had replaced.
    """
    from generator.reporting import report
    from generator.verbs import context
    from generator.verbs import uninstall as verb

    options = context.options_of(root)
    settings = context.settings_of(options.root)
    removed = verb.uninstall(options, context.log(verbose=verbose), context.say)
    report.forget(settings, options.root)
    for path in removed:
        click.echo(f"/{path}")


@evpn_host.command()
@_root
@click.option("--json", "as_json", is_flag=True, help="for a script")
def status(root: Path | None, as_json: bool) -> None:
    """Show what should be, what is, and each difference.

    The exit code is 1 if there is a difference.
    """
    from generator.reporting import status as reading
    from generator.verbs import context
    from generator.verbs import status as verb

    current = reading.status(root or Path("/"))
    if as_json:
        click.echo(context.json(current, indent=2))
    else:
        click.echo(verb.text(current))
    sys.exit(1 if current.differences else 0)


@evpn_host.command()
@click.option("--once", is_flag=True, help="look once, move the address if it has to move, and end")
@_verbose
def failover(once: bool, verbose: bool) -> None:
    """Keep the management address where the fabric is.

    Stays and follows events, unless --once is given.
    """
    from generator.failover import hook
    from generator.verbs import context

    log = context.log(verbose=verbose)
    (hook.once if once else hook.follow)(Path("/"), log)


@evpn_host.command("install-units")
@_root
@click.option("--cron", is_flag=True, help="write /etc/cron.d/evpn-host too, instead of the timer")
@_verbose
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


@evpn_host.command()
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice(_PLATFORMS),
    help="platform of the guests",
)
@click.argument("vnet", required=False, type=_TEXT)
@click.option(
    "-p", "--payload", "source", metavar="SRC", type=_TEXT, help="instead of the applied payload"
)
@click.option("-H", "--host", metavar="HOST", type=_TEXT, help="which host of a Fleet")
@_root
@click.option(
    "-o", "--output", metavar="DIR", type=_DIR, help="write a file for each V-Net below DIR"
)
def guests(
    form: str,
    vnet: str | None,
    source: str | None,
    host: str | None,
    root: Path | None,
    output: Path | None,
) -> None:
    """Print definitions that put guests into V-Nets.

    \b
    libvirt  networks:   evpn-host guests --format libvirt 26 | virsh net-define /dev/stdin
    nad      NetworkAttachmentDefinitions:  … --format nad | kubectl apply -f -
    incus    profiles:   evpn-host guests --format incus | incus admin init --preseed

    VNET is a VNI or a name; without it, each V-Net.
    """
    from generator.verbs import context
    from generator.verbs import guests as verb

    if host and not source:
        raise click.UsageError("-H is for a payload: give -p SRC")
    if source:
        vnets = verb.planned(context.payload_of(source).host(host))
    else:
        vnets = verb.applied((root or Path("/")).resolve())
    chosen = verb.choose(vnets, vnet)
    if output is None:
        click.echo(verb.text(form, chosen), nl=False)
        return
    for path in verb.write(form, chosen, output):
        click.echo(path)


@evpn_host.command()
def schema() -> None:
    """Print the payload's JSON Schema."""
    import json

    from generator.desired.payload import schema as verb

    click.echo(json.dumps(verb.schema(), indent=2, ensure_ascii=False))


def main() -> NoReturn:
    """Run the command; failures become words and the contract's exit codes."""
    prepare_streams()
    gc.set_threshold(100_000)  # of thousands of V-Nets all objects live to the end
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
