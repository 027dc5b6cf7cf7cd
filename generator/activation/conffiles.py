"""Has dpkg put its own version of FRR's files beside ours when the package is upgraded.

/etc/frr/frr.conf and /etc/frr/daemons are conffiles of Debian's package. Of one that somebody has
changed dpkg asks at an upgrade which version it is to keep, and an upgrade that nobody watches
stops there. With a diversion (dpkg-divert(1)) the package's version is beside ours, and dpkg
compares that.
"""

from pathlib import Path, PurePath

from generator.activation import commands, frr
from generator.activation.commands import Log, Step
from generator.state import files, record, tree

SUFFIX = ".distrib"  # dpkg-divert's own default
_SHIPPED = (frr.CONF, frr.DAEMONS)
_CONFFILES = Path("var/lib/dpkg/info/frr.conffiles")  # not there: another distribution's FRR


def divert(root: Path, log: Log) -> None:
    """Divert the package's version of each file of ours. What somebody else has diverted stays.

    dpkg goes on with the operator's file, of which we keep a copy. Raises `OSError`.
    """
    for path in _SHIPPED if tree.is_file(root, _CONFFILES) else ():
        copy = record.KEPT / path
        if tree.is_file(root, copy) and _place(path, log) == PurePath("/", path):
            files.copy(root, copy, path + SUFFIX)
            _run("--add", path, "an upgrade of FRR asks nothing about our file", log)


def packaged(root: Path, path: str) -> str | None:
    """Return the path of the diverted version, None if there is none.

    It was the operator's file, and has become another one only by upgrades of the package.
    """
    diverted = path + SUFFIX
    return diverted if path in _SHIPPED and tree.is_file(root, diverted) else None


def restore(root: Path, log: Log) -> None:
    """End our diversions. Files that were diverted are in their places already."""
    for path in _SHIPPED if tree.is_file(root, _CONFFILES) else ():
        if _place(path, log) == PurePath("/", path + SUFFIX):
            files.remove(root, path + SUFFIX)
            _run("--remove", path, "the file is the package's again", log)


def _place(path: str, log: Log) -> PurePath:
    """Return where dpkg puts the package's version of a file."""
    step = Step(("dpkg-divert", "--truename", f"/{path}"), "whether dpkg knows that it is ours")
    return PurePath(commands.run(step, log).strip())


def _run(action: str, path: str, reason: str, log: Log) -> None:
    diversion = ("--local", "--no-rename", "--divert", f"/{path}{SUFFIX}")
    argv = ("dpkg-divert", "--quiet", *diversion, action, f"/{path}")
    commands.run(Step(argv, reason, may_fail=True), log)
