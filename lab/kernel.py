"""What a machine runs under: a program in a tree of its own that boots the disk of a suite."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import processors
from lab.build import REPO, debootstrap

# Everything that the program starts lives in a process namespace of its own, which dies with it,
# and the program dies with us.
CONFINED = "setpriv --pdeathsig=KILL unshare --mount --pid --fork --kill-child".split()
MOUNT_POINTS = ("proc", "dev", "image", "outer/machine", "outer/repo")
# The tree has the program with the C library that it needs.
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

    In its tree are then /image/disk, to be left alone, and the folder /outer, to be mounted in the
    guest: `machine`, for what belongs to this machine, and `repo`.
    """

    name: str
    tree: Callable[[], Path]
    """Gives the tree, built on first use."""
    script: str
    """Starts the program, by sh and outside of the tree ($tree)."""
    arguments: Callable[[str, int, Sequence[str]], list[str]]
    """Gives $@ of the script: from memory, descriptor of the agent's line, kernel parameters."""
    patience: float = 1
    """How many times longer than usual a command or a wait may take."""
    processors: int = 1
    """How many the machine has."""

    def start(
        self, image: Path, own: Path, line: int, memory: str, parameters: Sequence[str]
    ) -> subprocess.Popen[bytes]:
        """Power on; standard output is the console."""
        places = [str(place) for place in (self.tree(), image, own, REPO)]
        arguments = self.arguments(memory, line, parameters)
        kept = ["taskset", "--cpu-list", processors.claim()] if self.processors == 1 else []
        return subprocess.Popen(
            [*kept, *CONFINED, "sh", "-c", MOUNT + self.script, self.name, *places, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[line],
        )


def unpack(folder: Path, suite: str, packages: Sequence[str]) -> None:
    """Make the tree of a kernel out of packages, without running anything of theirs."""
    debootstrap(suite, folder, "--variant=extract", f"--include={','.join(packages)}")
    for point in MOUNT_POINTS:
        (folder / point).mkdir(parents=True, exist_ok=True)
    for merged in ("lib", "lib64"):  # base-files, which is not there, would have made these
        if not (folder / merged).exists():
            (folder / merged).symlink_to(f"usr/{merged}")
