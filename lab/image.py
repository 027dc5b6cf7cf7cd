"""Build and cache what the lab boots: per suite a root tree and a disk, and one kernel.

A build is named after the hash of its recipe, so that a changed recipe builds anew and an
unchanged one costs nothing. Everything is made aside and renamed into place.
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
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.result import LabUnavailable

REPO = Path(__file__).parents[1]
GUEST_REPO = "/opt/repo"
SUITES = ("trixie", "bookworm")
# In the order: the system, tools that look at it, what the product drives, what it runs on.
PACKAGES = (
    "systemd systemd-sysv dbus udev kmod iproute2 iputils-ping iputils-arping procps ethtool"
    " tcpdump netplan.io frr frr-pythontools ifupdown2 python3 python3-venv nftables iperf3"
    " ca-certificates"
).split()
# Needed until pyproject.toml is there to say it.
DEPENDENCIES = ["jinja2", "ruamel.yaml", "click", "netaddr", "msgspec", "pyroute2"]
# What this computer needs for a build, and the package that has it.
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DISK_SIZE = "4G"
# Older ones than sid's die at once on processors with a large register state.
KERNEL = ("sid", "user-mode-linux")
MOUNT_POINTS = ("proc", "dev", "image", "outer/machine", "outer/repo")

# Run inside the new tree. First-boot work is done here, once, instead of at every boot of a
# fresh machine; timers and logins have nothing to do in a machine that lives for minutes.
FINISH = f"""
set -eu
mkdir -p {GUEST_REPO} /opt/outer
cat > /usr/local/bin/evpn-host <<'END'
#!/bin/sh
PYTHONPATH={GUEST_REPO} exec /opt/evpn-host/bin/python -m generator "$@"
END
cat > /sbin/lab-init <<'END'
#!/bin/sh
mount -t hostfs none /opt/outer
mount --bind /opt/outer/repo {GUEST_REPO}
exec sh {GUEST_REPO}/lab/guest/init
END
chmod 755 /usr/local/bin/evpn-host /sbin/lab-init
python3 -m venv --without-pip /opt/evpn-host
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
    logrotate.timer e2scrub_all.timer e2scrub_reap.service getty.target \
    systemd-tmpfiles-clean.timer systemd-journal-flush.service systemd-timesyncd.service \
    systemd-hwdb-update.service ldconfig.service; do
    systemctl mask --quiet $unit
done
systemctl disable --quiet networking.service
systemd-machine-id-setup >/dev/null 2>&1
journalctl --update-catalog
systemctl enable --quiet systemd-networkd.service
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /usr/share/doc /usr/share/man
touch /etc/.updated /var/.updated
"""


def cache() -> Path:
    """Give the folder of everything built."""
    return Path(os.environ.get("EVPN_HOST_LAB_CACHE", "/var/cache/evpn-host-lab"))


def dependencies() -> list[str]:
    """Read what the product needs at run time."""
    project = REPO / "pyproject.toml"
    if not project.exists():
        return DEPENDENCIES
    return list(tomllib.loads(project.read_text())["project"]["dependencies"])


def kernel() -> Path:
    """Return the tree with the User-Mode Linux kernel, its modules and the C library it needs."""
    return _built("kernel", [*KERNEL, *MOUNT_POINTS], _build_kernel)


def image(suite: str) -> Path:
    """Return the folder with `root/` and `disk` of a suite, built if need be (about a minute)."""
    if suite not in SUITES:
        raise ValueError(f"{suite}: is not one of {', '.join(SUITES)}")
    recipe = [FINISH, DISK_SIZE, kernel().name, *PACKAGES, *sorted(dependencies())]
    return _built(suite, recipe, lambda folder: _build_image(suite, folder))


def tree(suite: str) -> Path:
    """Return the root tree of a suite; nobody may write to it."""
    return image(suite) / "root"


def disk(suite: str) -> Path:
    """Return the file system image of a suite; nobody may write to it."""
    return image(suite) / "disk"


def _built(name: str, recipe: Sequence[str], build: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]
    done = cache() / f"{name}-{digest}"
    if done.exists():
        return done
    if os.geteuid() != 0:
        raise LabUnavailable("building the lab's machine needs root")
    with _locked(name):
        if done.exists():  # another run built it while this one waited
            return done
        _install_tools()
        print(f"lab: building {name}; this happens once", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache()) as aside:
            folder = Path(aside) / "new"
            folder.mkdir()
            build(folder)
            folder.rename(done)
        for old in cache().glob(f"{name}-*"):
            if old != done and not _in_use(old):
                shutil.rmtree(old, ignore_errors=True)
    return done


def _build_kernel(folder: Path) -> None:
    suite, package = KERNEL
    _debootstrap(suite, folder, "--variant=extract", f"--include={package}")
    for point in MOUNT_POINTS:
        (folder / point).mkdir(parents=True, exist_ok=True)
    for merged in ("lib", "lib64"):  # base-files, which is not there, would have made these
        if not (folder / merged).exists():
            (folder / merged).symlink_to(f"usr/{merged}")


def _build_image(suite: str, folder: Path) -> None:
    root = folder / "root"
    _debootstrap(suite, root, "--variant=minbase", "--include=" + ",".join(PACKAGES))
    modules = kernel() / "usr/lib/uml/modules"
    shutil.copytree(modules, root / "usr/lib/modules", dirs_exist_ok=True, symlinks=True)
    _run(["chroot", str(root), "sh", "-c", FINISH])
    _install_dependencies(root)
    _run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(folder / "disk"), DISK_SIZE])


def _install_dependencies(root: Path) -> None:
    """Fill the venv from outside, so that pip asks the index which this computer is set up for."""
    [library] = (root / "opt/evpn-host/lib").glob("python3.*")
    version = library.name.removeprefix("python")
    pip = [_python_with_pip(), "-m", "pip", "install", "--quiet", "--no-compile"]
    pip += ["--root-user-action=ignore", "--only-binary=:all:", f"--python-version={version}"]
    _run([*pip, "--target", str(library / "site-packages"), *dependencies()])
    _run(["chroot", str(root), "/opt/evpn-host/bin/python", "-m", "compileall", "-q", "/opt"])


def _python_with_pip() -> str:
    for python in (sys.executable, "/usr/bin/python3"):
        asked = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
        if asked.returncode == 0:
            return python
    _run(["apt-get", "install", "--yes", "--quiet=2", "python3-pip"])
    return "/usr/bin/python3"


def _debootstrap(suite: str, folder: Path, *options: str) -> None:
    """Unpack a Debian suite from where this computer's own apt gets its packages."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write(_apt_settings())
        settings.flush()
        argv = ["mmdebstrap", "--quiet", f"--aptopt={settings.name}", *options, suite, str(folder)]
        _run([*argv, *_mirror()])


def _apt_settings() -> str:
    """Take over how this computer reaches its mirror: proxies, and checks that were relaxed."""
    dump = _run(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"])
    wanted = re.compile(r"^Acquire::(Check|https?|Retries)")
    return "".join(line for line in dump.splitlines(keepends=True) if wanted.match(line))


def _mirror() -> list[str]:
    """Name this computer's Debian mirror; on another distribution leave it to mmdebstrap."""
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    return _run([*query, "Origin: Debian", "Label: Debian"]).splitlines()[:1]


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
    _run(["apt-get", "update", "--quiet=2"])
    _run(["apt-get", "install", "--yes", "--quiet=2", *missing])


def _run(argv: Sequence[str]) -> str:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        env=environment,
        timeout=900,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise LabUnavailable(f"{argv[0]} failed with exit code {done.returncode}:\n{said}")
    return done.stdout


@contextmanager
def _locked(name: str) -> Iterator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep a built folder from being cleared away by a newer build."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """Give a folder that is gone afterwards; one that a killed run left goes now."""
    cache().mkdir(parents=True, exist_ok=True)
    for old in cache().glob(f"scratch-{purpose}-*"):
        # A minute: one that was made just now may not be locked yet.
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


if __name__ == "__main__":
    for each in sys.argv[1:] or SUITES:
        print(image(each))
