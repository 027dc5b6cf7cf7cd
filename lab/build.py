"""Build what the lab boots from Debian packages, and keep each build in a cache.

The name of a build has the hash of its recipe: a changed recipe builds anew, and an unchanged one
costs nothing. Each build happens in a temporary folder, which is renamed when it is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.result import LabUnavailable

REPO = Path(__file__).parents[1]
# The programs that a build needs on this computer, and the Debian package of each.
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def cache() -> Path:
    """Return the folder that holds all builds."""
    return Path(os.environ.get("EVPN_HOST_LAB_CACHE", "/var/cache/evpn-host-lab"))


def built(name: str, recipe: Sequence[str], build: Callable[[Path], None]) -> Path:
    """Return the folder of a recipe; `build` fills it when it does not exist yet."""
    digest = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]
    final = cache() / f"{name}-{digest}"
    if final.exists():
        return final
    if os.geteuid() != 0:
        raise LabUnavailable("building the lab's machine needs root")
    with _locked(name):
        if final.exists():  # another run built it while this one waited
            return final
        _install_tools()
        print(f"lab: building {name}; this happens once", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache()) as temporary:
            folder = Path(temporary) / "new"
            folder.mkdir()
            build(folder)
            folder.rename(final)
        for old in cache().glob(f"{name}-*"):
            if old != final and not _in_use(old):
                shutil.rmtree(old, ignore_errors=True)
    return final


def debootstrap(suite: str, folder: Path, *options: str) -> None:
    """Unpack a Debian suite from the mirror that this computer's own apt uses."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write(_apt_settings())
        settings.flush()
        argv = ["mmdebstrap", "--quiet", f"--aptopt={settings.name}", *options, suite, str(folder)]
        run([*argv, *_mirror()])


def _apt_settings() -> str:
    """Return the apt settings by which this computer reaches its mirror: proxies and checks."""
    dump = run(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"])
    setting = re.compile(r"^Acquire::(Check|https?|Retries)")
    return "".join(line for line in dump.splitlines(keepends=True) if setting.match(line))


def _mirror() -> list[str]:
    """Return this computer's Debian mirror; on another distribution mmdebstrap chooses one."""
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    return run([*query, "Origin: Debian", "Label: Debian"]).splitlines()[:1]


def _install_tools() -> None:
    if platform.machine() != "x86_64":
        raise LabUnavailable(f"the lab's kernel is for x86_64, not for {platform.machine()}")
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if not KEYRING.exists():
        missing.append("debian-archive-keyring")
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise LabUnavailable(f"the lab needs {', '.join(missing)}, and there is no apt-get")
    print(f"lab: installing {', '.join(missing)} with apt-get", file=sys.stderr, flush=True)
    apt("install", "--yes", *missing)


def apt(*arguments: str, folder: Path | None = None) -> None:
    """Run apt-get in a folder. If that fails, fetch the lists of packages, and run it again.

    Only one process fetches them at a time: apt-get itself does not wait. Raises `LabUnavailable`.
    """
    argv = ["apt-get", "--quiet=2", "--option=DPkg::Lock::Timeout=300", *arguments]
    try:
        run(argv, folder)
    except LabUnavailable:
        with _locked("apt"):
            run(["apt-get", "--quiet=2", "update"])
        run(argv, folder)


def run(argv: Sequence[str], folder: Path | None = None) -> str:
    """Run a command of a build and return its output; raise LabUnavailable when it fails."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        argv,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        env=environment,
        timeout=900,
    )
    if result.returncode:
        output = (result.stderr or result.stdout).strip()[-2000:]
        raise LabUnavailable(f"{argv[0]} failed with exit code {result.returncode}:\n{output}")
    return result.stdout


@contextmanager
def _locked(name: str) -> Iterator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep a folder of the cache: no newer build and no other run removes it during the block."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """Create a folder for the time of the block, and remove folders that killed runs left."""
    cache().mkdir(parents=True, exist_ok=True)
    for old in cache().glob(f"scratch-{purpose}-*"):
        with suppress(FileNotFoundError):  # another process has removed it
            # Only folders older than a minute: a newer one may not be locked yet.
            if time.time() - old.stat().st_mtime > 60 and not _in_use(old):
                shutil.rmtree(old, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(
            prefix=f"scratch-{purpose}-", dir=cache(), ignore_cleanup_errors=True
        ) as folder,
        in_use(Path(folder)),
    ):
        yield Path(folder)


def _in_use(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
