"""Describe the program that a machine runs under: it has its own tree and boots a suite's disk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import processors
from lab.build import REPO, debootstrap

# The program and its children live in a process namespace of their own. The namespace ends with the
# program, and the program ends with this process.
CONFINED = "setpriv --pdeathsig=KILL unshare --mount --pid --fork --kill-child".split()
MOUNT_POINTS = ("proc", "dev", "image", "outer/machine", "outer/repo")
# The tree holds the program and the C library that it needs.
MOUNT = """
set -eu
tree=$1; image=$2; own=$3; repo=$4; shift 4
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount --bind "$image" "$tree/image"
mount --bind "$own" "$tree/outer/machine"
mount --bind "$repo" "$tree/outer/repo"
export TMPDIR=/dev/shm HOME=/outer/machine
"""


@dataclass(frozen=True)
class Kernel:
    """A way to run a machine.

    While it runs, its tree has /image/disk, which it must not change, and the folder /outer, which
    it mounts in the guest. /outer has `machine`, the machine's own folder, and `repo`.
    """

    name: str
    tree: Callable[[], Path]
    """Returns the tree, and builds it at the first use."""
    script: str
    """Starts the program. sh runs it outside of the tree, which is $tree."""
    arguments: Callable[[str, int, Sequence[str]], list[str]]
    """Returns the script's $@. Takes memory, descriptor of the agent's line, kernel parameters."""
    patience: float = 1
    """How many times longer than usual a command or a wait may take."""
    processors: int = 1
    """The number of processors that the machine has."""

    def start(
        self, image: Path, own: Path, line: int, memory: str, parameters: Sequence[str]
    ) -> subprocess.Popen[bytes]:
        """Turn a machine on and return its process, whose standard output is the console."""
        places = [str(place) for place in (self.tree(), image, own, REPO)]
        arguments = self.arguments(memory, line, parameters)
        affinity = ["taskset", "--cpu-list", processors.claim()] if self.processors == 1 else []
        return subprocess.Popen(
            [*affinity, *CONFINED, "sh", "-c", MOUNT + self.script, self.name, *places, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[line],
        )


def unpack(folder: Path, suite: str, packages: Sequence[str]) -> None:
    """Make the tree of a kernel from packages, without running their scripts."""
    debootstrap(suite, folder, "--variant=extract", f"--include={','.join(packages)}")
    for point in MOUNT_POINTS:
        (folder / point).mkdir(parents=True, exist_ok=True)
    for merged in ("lib", "lib64"):  # base-files would make these, but it is not installed
        if not (folder / merged).exists():
            (folder / merged).symlink_to(f"usr/{merged}")
