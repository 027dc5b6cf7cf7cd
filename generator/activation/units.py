"""Writes systemd units for an installation that has none: from a wheel, or a checkout."""

import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.errors import Problem, Refused
from generator.state import files, tree

UNITS = Path("etc/systemd/system")
CRON = Path("etc/cron.d")
FOLDERS = (UNITS, Path("usr/lib/systemd/system"), Path("lib/systemd/system"))
_HERE = Path(__file__).parents[1]
_HOMES = (Path("/root"), Path("/home"), Path("/run/user"))
_PACKAGED = "/usr/bin/evpn-host"  # the program in the files, for distribution packages
_BANNER = "# Written by evpn-host install-units, which writes it anew.\n"


def program() -> Path:
    """Return the program for the units: the running command, else the Python that runs us."""
    own = Path(sys.argv[0])
    if own.name == "evpn-host" and own.is_file():
        return own.resolve()
    return Path(shutil.which("evpn-host") or sys.executable)


def command() -> tuple[str, ...]:
    """Return the words of the command that the units run."""
    own = program()
    return (str(own),) if own.name == "evpn-host" else (str(own), "-m", "generator")


def _command(escape: Callable[[str], str]) -> str:
    """Return the command of the units, quoted for a file."""
    return " ".join(map(escape, command()))


def _for_systemd(path: str) -> str:
    return shlex.quote(path).replace("%", "%%").replace("$", "$$")


def _for_cron(path: str) -> str:
    return shlex.quote(path).replace("%", r"\%")


def _texts(*, cron: bool) -> Iterator[tuple[Path, str]]:
    """Yield each file's path and text, with the running command in it."""
    folders = [(UNITS, "systemd", _for_systemd), (CRON, "cron.d", _for_cron)]
    for target, folder, escape in folders if cron else folders[:1]:
        for file in sorted((_HERE / folder).iterdir()):
            text = files.read(Path("/"), file).replace(_PACKAGED, _command(escape))
            yield target / file.name, _BANNER + text


def install(root: Path, log: Log, *, cron: bool, reload: bool) -> list[str]:
    """Write the files that differ, and have systemd read them; return their paths.

    Raises `Refused` if they could not run, or would replace the package's units.
    """
    if zipfile.is_zipfile(sys.argv[0]):
        raise Refused("units can't run a single file, which unpacks itself: install the package")
    for folder in FOLDERS[1:]:
        for path, _ in _texts(cron=False):
            if tree.is_file(root, folder / path.name):
                unit = f"/{folder / path.name}"
                raise Refused(f"{unit}: the package's units are there, and need no others")
    if any(program().is_relative_to(home) for home in _HOMES):
        rule = "the units can't run a command there, as they see no home folder (ProtectHome=)"
        hint = "install the package, or into a virtual environment below /opt"
        raise Refused(Problem(str(program()), "", rule, hint))
    changed = []
    for path, text in _texts(cron=cron):
        if not tree.is_file(root, path) or files.read(root, path) != text:
            files.write(root, path, text.encode(), 0o644)
            changed.append(str(path))
    if changed and reload:
        commands.run(Step(("systemctl", "daemon-reload"), "systemd reads the units"), log)
    return changed


def stop(root: Path) -> list[Step]:
    """Return the steps that stop and disable our units.

    The timer is stopped first: it could start a service again that was just stopped.
    """
    names = {path.name for path, _ in _texts(cron=False)}
    installed = sorted(n for n in names if any(tree.is_file(root, f / n) for f in FOLDERS))
    if not installed:
        return []
    timers = [name for name in installed if name.endswith(".timer")]
    commands = (("systemctl", "stop", *timers), ("systemctl", "disable", "--now", *installed))
    return [Step(argv, "nothing may apply again", may_fail=True) for argv in commands]


def enabled(root: Path) -> list[str]:
    """Return the links with which systemd starts our units at boot."""
    names = {path.name for path, _ in _texts(cron=False)}
    links = tree.find(root, f"{UNITS}/*.wants/*")
    return [link for link in links if Path(link).name in names]


def remove(root: Path, log: Log, *, reload: bool) -> list[str]:
    """Remove what `install` wrote; return the paths."""
    removed = []
    for path, _ in _texts(cron=True):
        if tree.is_file(root, path) and files.read(root, path).startswith(_BANNER):
            files.remove(root, path)
            removed.append(str(path))
    if removed and reload:
        commands.run(Step(("systemctl", "daemon-reload"), "systemd forgets the units"), log)
    return removed
