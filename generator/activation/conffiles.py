"""Has dpkg put its own version of FRR's files beside ours when the package is upgraded.

/etc/frr/frr.conf and /etc/frr/daemons are conffiles of Debian's package. If somebody has changed a
conffile, dpkg asks at an upgrade which version to keep, and an unattended upgrade stops there. With
a diversion (dpkg-divert(1)) dpkg puts the package's version beside ours, and compares that one with
the next.
"""

import contextlib
from pathlib import Path, PurePath

from generator.activation import commands, frr
from generator.activation.commands import Log, Step
from generator.errors import ActivationFailed
from generator.state import files, record, tree

SUFFIX = ".distrib-evpn-host"  # only ours: dpkg-divert's default is .distrib
_SHIPPED = (frr.CONF, frr.DAEMONS)
_CONFFILES = Path("var/lib/dpkg/info/frr.conffiles")  # missing for another distribution's FRR


def divert(root: Path, log: Log) -> None:
    """Divert the package's version of each file of ours, unless somebody else has diverted it.

    dpkg then upgrades a copy of the operator's file. Raises `OSError`.
    """
    for path in _SHIPPED if tree.is_file(root, _CONFFILES) else ():
        copy = record.KEPT / path
        with contextlib.suppress(ActivationFailed):  # an apply does not depend on dpkg
            if tree.is_file(root, copy) and _place(path, log) == f"/{path}":
                files.copy(root, copy, path + SUFFIX)
                reason = "an upgrade of FRR asks nothing about our file"
                commands.run(_step(path, "--add", reason), log)


def packaged(root: Path, path: PurePath | str, log: Log) -> str | None:
    """Return the path of the version that we have diverted, None if there is none.

    It is the operator's file, which only upgrades of the package have changed. Raises
    `ActivationFailed` if dpkg does not answer.
    """
    diverted = f"{path}{SUFFIX}"
    if str(path) in _SHIPPED and tree.is_file(root, diverted) and _is_ours(str(path), log):
        return diverted
    return None


def restore(root: Path, log: Log) -> None:
    """End our diversions. The diverted files are in their own places already.

    Raises `OSError` or `ActivationFailed`.
    """
    for path in _SHIPPED if tree.is_file(root, _CONFFILES) else ():
        if _is_ours(path, log):
            commands.run(_step(path, "--remove", "the file is the package's again"), log)
        files.remove(root, path + SUFFIX)


def _is_ours(path: str, log: Log) -> bool:
    return _place(path, log) == f"/{path}{SUFFIX}"


def _place(path: str, log: Log) -> str:
    """Return the path at which dpkg puts the package's version of a file."""
    step = Step(("dpkg-divert", "--truename", f"/{path}"), "whether dpkg knows that it is ours")
    return commands.run(step, log).strip()


def _step(path: str, action: str, reason: str) -> Step:
    diversion = ("--local", "--no-rename", "--divert", f"/{path}{SUFFIX}")
    argv = ("dpkg-divert", "--quiet", *diversion, action, f"/{path}")
    return Step(argv, reason)
