"""What the verbs share: how they get a payload, the machine's settings and their options."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from generator.activation import commands
from generator.activation.commands import Log
from generator.controller import config
from generator.controller import source as sources
from generator.controller.config import Config
from generator.controller.source import Source
from generator.desired import payload
from generator.desired.payload import Payload
from generator.errors import Refused
from generator.secrets import mask
from generator.verbs import check
from generator.verbs.options import Options
from generator.verbs.progress import Progress

_running: list[Progress] = []  # the progress line of the verb that runs


def say(text: str) -> None:
    """Print a sentence for the user on standard error."""
    for progress in _running:
        progress.clear()
    click.echo(mask(text), err=True)


def log(*, verbose: bool) -> Log:
    """Return a log of commands: standard error if `verbose`, else none."""
    return commands.to_stderr if verbose else commands.silent


@contextlib.contextmanager
def progress(*, verbose: bool) -> Iterator[Log]:
    """Yield the log of a verb's commands. Without `verbose` it shows only steps that take long."""
    if verbose:
        yield commands.to_stderr
        return
    steps = Progress()
    _running.append(steps)
    try:
        yield steps
    finally:
        steps.close()
        _running.remove(steps)


def payload_of(source: str | None) -> Payload:
    """Read and check a payload, and print its warnings. Raises `Refused`."""
    data = data_of(source)
    with progress(verbose=False) as log:
        log("# the payload is checked")
        checked = payload.load(data)
    for warning in check.lines(checked):
        say(f"warning: {warning}")
    return checked


def data_of(source: str | None) -> bytes:
    """Read a payload. Raises `Refused`."""
    if source is not None and not config.is_url(source):  # works with a damaged config.yaml too
        return sources.local(source)
    return source_of(source).read()


def source_of(
    source: str | None,
    host: str | None = None,
    root: Path | None = None,
    wait: float | None = None,
) -> Source:
    """Return the source that the command line or config.yaml names. Raises `Refused`."""
    top = (root or Path("/")).resolve()
    settings = config.load(top)
    name = source or settings.controller
    if name is None:
        raise click.UsageError("no payload: give -p SRC, or name a controller in config.yaml")
    settings = settings.patient(wait) if wait else settings
    return Source(name, host or settings.host, settings, top)


def settings_of(root: Path) -> Config:
    """Read config.yaml for a verb that also has to work if it can't be read."""
    try:
        return config.load(root)
    except Refused as refused:
        say(f"warning: {refused}")
        return Config()


def options_of(  # noqa: PLR0913  # one parameter an option
    root: Path | None,
    source: Source | None = None,
    backend: str | None = None,
    *,
    no_activate: bool = False,
    full: bool = False,
    force: bool = False,
    person: bool = False,
    keep: int = 20,
    replace_frr: bool = False,
    guard: float | None = None,
    confirm: float | None = None,
) -> Options:
    """Return the options of a verb. It activates only on this machine, without `no_activate`."""
    activate = root is None and not no_activate
    if confirm is not None and not activate:
        raise click.UsageError("--confirm needs an activation on this machine")
    return Options(
        root=(root or Path("/")).resolve(),
        backend=(backend or source.settings.backend) if source else None,
        host=source.host if source else None,
        guest_bgp=bool(source and source.settings.guest_bgp),
        guest_nat=source is None or source.settings.guest_nat,
        activate=activate,
        full=full,
        force=force,
        person=person,
        keep=keep,
        started_by=started_by(),
        replace_frr=replace_frr,
        guard=guard,
        confirm=confirm,
    )


def started_by() -> str:
    """Return the name of the person or of the service that runs the command."""
    import pwd  # noqa: PLC0415  # only for verbs that change a host

    if not os.environ.get("SUDO_USER"):
        with contextlib.suppress(OSError):
            # systemd names the control group of a service after it (cgroups(7)).
            group = Path("/proc/self/cgroup").read_bytes().decode().strip()
            if group.endswith(".service"):
                return group.rpartition("/")[2]
    with contextlib.suppress(KeyError):
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def json_list(answers: Sequence[msgspec.Struct]) -> str:
    """Return a list of answers for a script."""
    return msgspec.json.format(msgspec.json.encode(answers), indent=2).decode()


def json(answer: msgspec.Struct, indent: int = 0) -> str:
    """Return an answer for a script, on one line unless `indent` is given."""
    data = msgspec.json.encode(answer)
    return (msgspec.json.format(data, indent=indent) if indent else data).decode()
