"""Verbs that need no host, only payloads or reports. They change no host."""

import sys
from pathlib import Path

import click

from generator.activation.backends import NAMES
from generator.verbs import parameters
from generator.verbs.command import Diff, a_number, colour, is_coloured

_PLATFORMS = ("libvirt", "nad", "incus", "podman", "qemu", "nspawn", "lxc")


@click.command()
@parameters.payload
@parameters.output
@click.option(
    "-H", "--host", metavar="HOST", type=parameters.TEXT, help="only this host of a Fleet"
)
@click.option(
    "-b",
    "--backend",
    type=click.Choice(NAMES),
    default=NAMES[0],
    show_default=True,
    help="which tool the files are for",
)
@click.option(
    "--json", "as_json", is_flag=True, help="the changes of hosts and files, for a script"
)
def render(source: str | None, output: Path, host: str | None, backend: str, as_json: bool) -> None:
    """Write the files of a host, or of each host of a Fleet.

    A host's files are below DIR/etc, those of a Fleet's hosts below DIR/<host>/etc. Earlier files
    of evpn-host that the payload no longer has are removed. Files of others stay, and unchanged
    files are not rewritten.

    Needs no root and reads nothing of this machine.
    """
    from generator.verbs import context
    from generator.verbs import render as verb

    done = verb.render(context.payload_of(source), host, backend, output)
    if as_json:
        click.echo(context.json(done, indent=2))
        return
    for line in verb.lines(done):
        click.echo(line)


@click.command(cls=Diff)
@click.argument("old", metavar="OLD", type=parameters.TEXT)
@click.argument("new", metavar="NEW", type=parameters.TEXT)
@click.option("--json", "as_json", is_flag=True, help="every change with its hosts, for a script")
@click.option("--markdown", is_flag=True, help="a comment for a pull request")
@click.option(
    "--html",
    "page",
    metavar="FILE",
    type=parameters.FILE,
    help="also write FILE, a page to look at",
)
@click.option(
    "--reports",
    metavar="DIR",
    type=parameters.DIR,
    help="the page also shows the state of each host, from the reports that hosts posted into DIR",
)
@click.option("--fail-on-risk", is_flag=True, help="end with 1 only if a change is marked with !")
def review(
    old: str,
    new: str,
    as_json: bool,
    markdown: bool,
    page: Path | None,
    reports: Path | None,
    fail_on_risk: bool,
) -> None:
    """Say what changes between two payloads or rendered trees.

    OLD and NEW are each a payload (a path, - or an http(s) URL), a folder that render wrote, or
    REV:path in the Git repository that you are in: a payload or such a folder at that revision.

    Equal changes of many hosts are one line. Risky changes are marked with ! and the reason.

    The exit code is 0 if no host changes, 1 if one does, 2 in trouble. With --fail-on-risk it is 1
    only if a change is marked.
    """
    from generator.verbs import context, review_text
    from generator.verbs import review as verb

    if as_json and markdown:
        raise click.UsageError("--json and --markdown: give one of them")
    if reports and not page:
        raise click.UsageError("--reports: only the page of --html shows them")
    sides = verb.read(old, new)
    result = verb.review(*sides)
    if page:
        from generator.verbs import review_page

        review_page.write(result, sides, (old, new), page, reports)
    if as_json:
        click.echo(context.json(result.answer, indent=2))
    elif markdown:
        click.echo(review_text.markdown(result))
    else:
        for line in review_text.lines(result):
            click.echo(click.style(line, fg=colour(line)) if is_coloured() else line)
    sys.exit(1 if (result.risk if fail_on_risk else result.differs) else 0)


@click.command()
@parameters.payload
@click.option(
    "-H", "--host", metavar="HOST", type=parameters.TEXT, help="also check that a Fleet has HOST"
)
@click.option("--json", "as_json", is_flag=True, help="problems and warnings, for a script")
def check(source: str | None, host: str | None, as_json: bool) -> None:
    """Name every problem of the payload, and each warning.

    The exit code is 1 if there is a problem.
    """
    from generator.verbs import check as verb
    from generator.verbs import context

    if not as_json:
        checked = context.payload_of(source)
        if host is not None:
            checked.host(host)
        return
    report = verb.report(context.data_of(source), host)
    click.echo(context.json(report, indent=2))
    sys.exit(1 if report.problems else 0)


@click.command()
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice(_PLATFORMS),
    help="platform of the guests",
)
@click.argument("vnet", required=False, type=parameters.TEXT)
@click.option(
    "-p",
    "--payload",
    "source",
    metavar="SRC",
    type=parameters.TEXT,
    help="use this payload instead of the applied one",
)
@click.option("-H", "--host", metavar="HOST", type=parameters.TEXT, help="which host of a Fleet")
@parameters.root
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=parameters.DIR,
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
    """Print definitions that put guests into V-Nets.

    \b
    libvirt  networks:   evpn-host guests --format libvirt 26 | virsh net-define /dev/stdin
    nad      NetworkAttachmentDefinitions:  … --format nad | kubectl apply -f -
    incus    profiles:   evpn-host guests --format incus | incus admin init --preseed
    podman   networks:   evpn-host guests --format podman -o /etc/containers/networks
    qemu     lines for /etc/qemu/bridge.conf
    nspawn   settings for /etc/systemd/nspawn/MACHINE.nspawn
    lxc      lines for a container's configuration

    VNET is a VNI or a name. Without it, all V-Nets are printed.
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


@click.command()
@parameters.payload
@parameters.output
@click.option(
    "--switches",
    metavar="FILE",
    type=parameters.TEXT,
    help="loopbacks, AS numbers and uplinks of the leaves, which no payload has",
)
@click.option(
    "--json", "as_json", is_flag=True, help="the changes of leaves and files, for a script"
)
def leaves(source: str | None, output: Path, switches: str | None, as_json: bool) -> None:
    """Write the configuration of each leaf for its host ports.

    A leaf's frr.conf and its file for ifupdown2 are below DIR/<leaf>/etc. Without --switches they
    have the word LOOPBACK in place of the leaf's loopback, and ASN in place of an AS number that
    the payload does not have.

    Needs no root and reads nothing of this machine. Use a DIR for leaves only: render would remove
    their files.
    """
    from generator.verbs import context
    from generator.verbs import leaves as verb

    done = verb.leaves(context.payload_of(source), verb.read_switches(switches), output)
    for warning in done.warnings:
        context.say(f"warning: {warning}")
    if as_json:
        click.echo(context.json(done, indent=2))
        return
    for line in verb.lines(done):
        click.echo(line)


@click.command("fleet-status", cls=Diff)
@click.argument("folder", metavar="DIR", type=parameters.DIR)
@click.option(
    "-p",
    "--payload",
    "source",
    metavar="FLEET",
    type=parameters.TEXT,
    help="also name its hosts that never reported, and hosts with another generation",
)
@click.option(
    "--stale",
    metavar="MINUTES",
    type=click.FloatRange(0, min_open=True),
    default=parameters.STALE,
    show_default=True,
    callback=a_number,
    help="a host that has not reported for MINUTES needs a person",
)
@click.option("--json", "as_json", is_flag=True, help="for a script")
def fleet_status(folder: Path, source: str | None, stale: float, as_json: bool) -> None:
    """Show the state of each host of a fleet.

    DIR has the reports that hosts posted. A host needs a person if its health is not ok or waiting,
    if something differs, or if its report is stale. Such hosts come first. Files that are not
    reports come last.

    The exit code is 0 if no host needs a person, 1 if one does, 2 in trouble.
    """
    from generator.desired import payload
    from generator.verbs import context
    from generator.verbs import fleet_status as verb

    known = payload.load(context.data_of(source)) if source else None
    with context.progress(verbose=False) as log:
        log("# the reports are read")
        status = verb.look(folder, known, stale * 60)
    if as_json:
        click.echo(context.json(status, indent=2))
    else:
        for line in verb.lines(status):
            click.echo(line)
    sys.exit(0 if status.ok else 1)


@click.command()
def schema() -> None:
    """Print the payload's JSON Schema."""
    import json

    from generator.desired.payload import schema as verb

    click.echo(json.dumps(verb.schema(), indent=2, ensure_ascii=False))


VERBS = (render, review, check, guests, leaves, fleet_status, schema)
