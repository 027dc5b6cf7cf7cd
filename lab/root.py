"""Run a suite's native tools on files of this computer, without booting a machine.

The tree is mounted once for many calls: each call takes two milliseconds longer than its tool.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from lab import build, image
from lab.result import LabUnavailable, Result

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}
# Mounts a writable layer over the cached tree, in new mount and network namespaces. `cat` keeps the
# namespaces until its standard input closes, which happens however the tests end.
WARDEN = """
set -eu
tree=$1; repo=$2; scratch=$3; shift 3
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay -o "lowerdir=$tree,upperdir=$scratch/upper,workdir=$scratch/work" overlay \
    "$scratch/root"
mount --rbind /dev "$scratch/root/dev"
mount --rbind /proc "$scratch/root/proc"
mount --bind "$repo" "$scratch/root/opt/repo"
for folder; do
    mkdir -p "$scratch/root$folder"
    mount --bind "$folder" "$scratch/root$folder"
done
ip link set lo up 2>/dev/null || true
exec chroot "$scratch/root" sh -c "echo ready; exec cat"
"""


class Root:
    """The root tree of a suite, in which commands run: `with Root("bookworm") as root`."""

    def __init__(
        self, suite: str = "trixie", share: Sequence[Path | str] = (), over: Sequence[Path] = ()
    ) -> None:
        """Describe the tree; `__enter__` mounts it.

        `share` are folders of this computer that appear in the tree under the same path, as /tmp
        always does. `over` are trees of packages that lie over the suite's own tree.
        """
        self.suite = suite
        self._over = [str(tree) for tree in over]
        self._share = [tempfile.gettempdir(), *(str(Path(folder).resolve()) for folder in share)]
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Mount the tree."""
        folder = image.image(self.suite)
        with ExitStack() as opening:
            opening.enter_context(build.in_use(folder))
            # This folder must not be below /tmp, because /tmp itself is shared into the tree.
            scratch = opening.enter_context(build.scratch("root"))
            trees = ":".join([*self._over, str(folder / "root")])
            places = [trees, str(build.REPO), str(scratch)]
            argv = ["unshare", "--mount", "--net", "sh", "-c", WARDEN, "warden", *places]
            self._warden = opening.enter_context(
                subprocess.Popen(
                    [*argv, *self._share],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            assert self._warden.stdout
            if self._warden.stdout.readline() != "ready\n":
                _, error = self._warden.communicate()
                raise LabUnavailable(f"the tree of {self.suite} cannot be mounted: {error.strip()}")
            self._open = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Unmount everything."""
        self._open.close()

    def run(  # noqa: PLR0913 - as subprocess.run
        self,
        argv: Sequence[str | Path],
        check: bool = True,
        *,
        timeout: float = 60,
        input: str | None = None,  # noqa: A002 - as subprocess names it
        cwd: str | Path = "/",
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command inside the tree; raise CommandError when it fails and `check` is set."""
        words = [str(word) for word in argv]
        enter = ["nsenter", f"--target={self._warden.pid}", "--mount", "--net", "--root"]
        process = subprocess.run(
            [*enter, f"--wd=/proc/{self._warden.pid}/root{cwd}", *words],
            input=input or "",
            capture_output=True,
            check=False,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            env={**ENVIRONMENT, **(env or {})},
        )
        result = Result(process.returncode, process.stdout, process.stderr)
        return result.checked(words) if check else result
