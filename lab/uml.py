"""User-Mode Linux: a kernel that is an ordinary process, at native speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.build import built
from lab.kernel import MOUNT_POINTS, Kernel, unpack

# Versions older than that of sid crash at once on processors with a large register state.
PACKAGE = ("sid", "user-mode-linux")
# pty.legacy_count=0 leaves out the 256 old pseudo-terminals of this kernel. Otherwise systemd would
# watch each of them, and each reload of its units would take twice as long.
PARAMETERS = (
    "seccomp=on uml_dir=/outer/machine umid=lab hostfs=/outer panic=-1 pty.legacy_count=0"
    " con=null con0=null,fd:1 ssl=null"
    " ubd0=/outer/machine/cow,/image/disk root=/dev/ubda rw init=/sbin/lab-init"
).split()


def tree() -> Path:
    """Return the tree with the kernel, its modules and its C library; build it if need be."""
    suite, package = PACKAGE
    recipe = [*PACKAGE, *MOUNT_POINTS]
    return built("kernel", recipe, lambda folder: unpack(folder, suite, [package]))


def _arguments(memory: str, line: int, parameters: Sequence[str]) -> list[str]:
    return [*PARAMETERS, f"mem={memory}", f"ssl0=fd:{line}", *parameters]


UML = Kernel("uml", tree, 'exec chroot "$tree" /usr/bin/linux.uml "$@"', _arguments)
