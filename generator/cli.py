"""The command line: verbs and exit codes, and nothing else."""

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from generator import __version__
from generator.errors import EvpnHostError, Refused, Unreachable

Verb = TypeVar("Verb", bound=Callable[..., Any])

_BACKENDS = ("netplan", "ifupdown")
_PLATFORMS = ("libvirt", "nad", "incus")


def _payload(verb: Verb) -> Verb:
    text = "the payload: a path, - for standard input, or an http(s) URL [config.yaml: controller]"
    return click.option("-p", "--payload", "source", metavar="SRC", help=text)(verb)


def _host(verb: Verb) -> Verb:
    text = "which host of a Fleet [config.yaml: host; else this machine's name]"
    return click.option("-H", "--host", metavar="HOST", help=text)(verb)


def _backend(verb: Verb) -> Verb:
    text = "which tool activates the files [default: the one that this machine uses]"
    return click.option("-b", "--backend", type=click.Choice(_BACKENDS), help=text)(verb)


def _root(verb: Verb) -> Verb:
    text = "act on the tree below DIR instead of this machine; activates nothing"
    return click.option(
        "--root", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help=text
    )(verb)


def _verbose(verb: Verb) -> Verb:
    return click.option("-v", "--verbose", is_flag=True, help="show each command and why")(verb)


def _say(text: str) -> None:
    click.echo(text, err=True)


class Verbs(click.Group):
    """Ends as other commands do when the reader of its output has gone; click's 1 means refused."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)


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
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False)
)
@click.option("-H", "--host", metavar="HOST", help="only this host of a Fleet")
@click.option("-b", "--backend", type=click.Choice(_BACKENDS), default="netplan", show_default=True)
def render(source: str | None, output: Path, host: str | None, backend: str) -> None:
    """Write the files of a host, or of each host of a Fleet.

    They go below DIR, or below DIR/<host> for a Fleet.

    Needs no root and reads nothing of this machine.
    """
    from generator.desired import plan
    from generator.state import files

    payload = _load(source)
    single = payload.kind == "Host" or host is not None
    for found in [payload.host(host)] if single else payload.hosts:
        base = output if single else output / found.name
        for path, text in plan.make(found, backend).files.items():
            files.write_plain(f"{base}/{path}", text.encode(), plan.mode(path))


@evpn_host.command()
@_payload
def check(source: str | None) -> None:
    """Name every problem of the payload, and the warnings."""
    _load(source)


@evpn_host.command()
@_payload
@_host
@_backend
@_root
def diff(source: str | None, host: str | None, backend: str | None, root: Path | None) -> None:
    """Show what apply would change, devices that would go included."""
    from generator.verbs import apply as applying

    given = _source(source, host, root)
    data, options = given.refresh(), _options(root, given, backend)
    differs = False
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line in applying.preview(data, options):
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
    type=click.FloatRange(0, 600, min_open=True),
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
    wait: float | None,
    last_good: bool,
    as_json: bool,
    verbose: bool,
    **flags: bool,
) -> None:
    """Make this host what the payload says.

    If there is nothing to do, it writes nothing and runs nothing.
    """
    from generator.controller import source as sources
    from generator.verbs import apply as applying

    given = _source(source, host, root, wait)
    options = _options(root, given, backend, **flags)
    with _told(options, given.settings, given.name) as run:
        try:
            data = given.refresh()
        except Unreachable as missed:
            kept = sources.last_good(given.root) if last_good else None
            if kept is None:
                raise
            run.miss(missed, _say)
            data = kept
        outcome = run.outcome = applying.apply(data, options, _log(verbose), _say)
        given.remember(data)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(outcome))
        return
    for path in outcome.kept:
        _say(f"/{path} was not ours: a copy is kept below /var/lib/evpn-host/kept")
    for text in outcome.mended:
        _say(f"mended: {text}")
    for path in outcome.changed:
        click.echo(f"/{path}")


@evpn_host.command()
@click.argument("generation", type=click.IntRange(min=0), required=False)
@_root
@click.option("--no-activate", is_flag=True, help="write the files and run nothing")
@_verbose
def rollback(generation: int | None, root: Path | None, no_activate: bool, verbose: bool) -> None:
    """Make an earlier payload GENERATION current again, by default the one before.

    It stays so until the controller's payload changes.
    """
    from generator.controller import config
    from generator.verbs import apply as applying
    from generator.verbs import lifecycle

    options = _options(root, no_activate=no_activate)
    settings = _settings(options.root)
    with _told(options, settings, settings.host or config.hostname()) as run:
        done, changed = lifecycle.rollback(generation, options, _log(verbose), _say)
        target = done.target
        run.outcome = applying.Outcome(
            target.host, target.generation, changed=changed, devices=len(target.devices)
        )
        run.message = f"{target.host}: what was applied on {done.time} is current again"
    click.echo(f"applied on {done.time} is current again")


@evpn_host.command()
@_root
@_verbose
def uninstall(root: Path | None, verbose: bool) -> None:
    """Remove every file and device of evpn-host, and nothing else."""
    from generator.reporting import report
    from generator.verbs import lifecycle

    options = _options(root)
    settings = _settings(options.root)
    for path in lifecycle.uninstall(options, _log(verbose), _say):
        click.echo(f"/{path}")
    report.forget(settings, options.root)


@evpn_host.command()
@_root
@click.option("--json", "as_json", is_flag=True, help="for a script")
def status(root: Path | None, as_json: bool) -> None:
    """Show what should be, what is, and each difference.

    The exit code is 1 if there is a difference.
    """
    from generator.reporting import status as showing

    found = showing.status(root or Path("/"))
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        click.echo(showing.text(found))
    sys.exit(1 if found.differences else 0)


@evpn_host.command()
@_root
@click.option("--once", is_flag=True, help="look once, move the address if it has to move, and end")
@_verbose
def failover(root: Path | None, once: bool, verbose: bool) -> None:
    """Keep the management address where the fabric is.

    Stays and follows events, unless --once is given.
    """
    from generator.failover import hook

    (hook.once if once else hook.follow)(root or Path("/"), _log(verbose))


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

    log = _log(verbose)
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
@click.argument("vnet", required=False)
@click.option(
    "-p",
    "--payload",
    "source",
    metavar="SRC",
    help="a payload, instead of the applied one",
)
@click.option("-H", "--host", metavar="HOST", help="which host of a Fleet")
@_root
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="write a file for each V-Net below DIR",
)
def guests(
    form: str,
    vnet: str | None,
    source: str | None,
    host: str | None,
    root: Path | None,
    output: Path | None,
) -> None:
    """Print what puts the guests of a platform into the V-Nets of this host.

    \b
    libvirt  networks:   evpn-host guests --format libvirt 26 | virsh net-define /dev/stdin
    nad      NetworkAttachmentDefinitions:  … --format nad | kubectl apply -f -
    incus    profiles:   evpn-host guests --format incus | incus admin init --preseed

    VNET is a VNI or a name; without it, each V-Net.
    """
    from generator.state import files
    from generator.verbs import guests as guest

    if host and not source:
        raise click.UsageError("-H is for a payload: give -p SRC")
    top = (root or Path("/")).resolve()
    known = guest.planned(_load(source).host(host)) if source else guest.applied(top)
    chosen = guest.choose(known, vnet)
    write, suffix = guest.FORMATS[form]
    if output is None:
        click.echo(write(chosen), nl=False)
        return
    for each in chosen:
        path = output / f"{each.bridge}.{suffix}"
        files.write_plain(str(path), write([each]).encode(), 0o644)
        click.echo(path)


@evpn_host.command()
def schema() -> None:
    """Print the payload's JSON Schema."""
    import json

    from generator.desired.payload.schema import schema as make

    click.echo(json.dumps(make(), indent=2, ensure_ascii=False))


def _load(source: str | None) -> Any:
    from generator.controller import config
    from generator.controller import source as sources
    from generator.desired import payload

    here = source is not None and not config.is_url(source)  # config.yaml has no say in it
    found = payload.load(sources.local(source or "") if here else _source(source).read())
    for warning in found.warnings:
        _say(f"warning: {warning}")
    return found


def _source(
    source: str | None,
    host: str | None = None,
    root: Path | None = None,
    wait: float | None = None,
) -> Any:
    from generator.controller import config
    from generator.controller import source as sources

    top = (root or Path("/")).resolve()
    settings = config.load(top)
    named = source or settings.controller
    if named is None:
        raise click.UsageError("no payload: give -p SRC, or name a controller in config.yaml")
    settings = settings.patient(wait) if wait else settings
    return sources.Source(named, host or settings.host, settings, top)


def _settings(root: Path) -> Any:
    """Read config.yaml for a verb that has to work without it too."""
    from generator.controller import config

    try:
        return config.load(root)
    except Refused as refused:
        _say(f"warning: {refused}")
        return config.Config()


@contextlib.contextmanager
def _told(options: Any, settings: Any, name: str) -> Iterator[Any]:
    """Report what happens inside to journal, metrics and controller; on a tree, to nobody."""
    from generator.reporting import report

    if not options.activate:
        yield report.Run()
        return
    with report.told(settings, name, _say) as run:
        yield run


def _log(verbose: bool) -> Callable[[str], None]:
    from generator.activation import commands

    return commands.to_stderr if verbose else commands.silent


def _options(
    root: Path | None,
    given: Any = None,
    backend: str | None = None,
    *,
    no_activate: bool = False,
    **others: Any,
) -> Any:
    from generator.verbs.apply import Options

    if given:
        others |= {"host": given.host, "backend": backend or given.settings.backend}
    acting = root is None and not no_activate
    return Options(root=(root or Path("/")).resolve(), activate=acting, **others)


def main() -> NoReturn:
    """Run the command; failures become words and the contract's exit codes."""
    gc.set_threshold(100_000)  # of thousands of V-Nets all objects live to the end
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    try:
        code = evpn_host.main(prog_name="evpn-host", standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except EvpnHostError as error:
        for problem in error.problems if not error.told else ():
            _say(f"evpn-host: {problem}")
        code = 2 if verb == "diff" and isinstance(error, Refused) else error.exit_code
    except OSError as error:
        _say(f"evpn-host: {error.filename or 'system'}: {error.strerror}")
        code = 2 if verb == "diff" else 1
    sys.exit(code)
