"""Build what the lab boots: a root tree and a disk per suite, for every kind of machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from lab import uml
from lab.build import REPO, apt, built, debootstrap, run

GUEST_REPO = "/opt/repo"
# Debian's testing changes daily, so no gate waits for it: RELEASES leaves it out.
RELEASES = ("trixie", "bookworm")
SUITES = (*RELEASES, "forky")
# In this order: the system, tools that examine it, what the product controls, what the product runs
# on, and the software whose guests it serves.
PACKAGES = (
    "systemd systemd-sysv dbus udev kmod iproute2 iputils-ping iputils-arping procps ethtool"
    " tcpdump netplan.io frr frr-pythontools ifupdown2 python3 python3-venv nftables iperf3"
    " ca-certificates containernetworking-plugins libvirt-clients libxml2-utils"
    " isc-dhcp-client udhcpd lldpd git systemd-resolved"
).split()
# The packages that take the place of others in a suite. In trixie CNI's plugins depend on iptables.
# strace stops a command of the product at a system call (tests/lab/faults.py).
INSTEAD = {
    "trixie": {"tcpdump": ["tcpdump", "strace"]},
    "bookworm": {"tcpdump": ["tcpdump", "strace"]},
    "forky": {
        "isc-dhcp-client": ["dhcpcd-base"],
        "containernetworking-plugins": ["containernetworking-plugins", "iptables"],
    },
}
# The dependencies of the product, for a repository that has no pyproject.toml yet.
DEPENDENCIES = ["jinja2", "ruamel.yaml", "click", "netaddr", "msgspec", "pyroute2"]
DISK_SIZE = "4G"
# This folder holds the packages that the product's own Debian package depends on, and what many
# servers have besides. The machine cannot download them, because it has no way out. They are not
# installed, because the machine has to be a server that has never had the product. Debian 12 has no
# msgspec.
DEBS = "/opt/debs"
LIBRARIES = "python3-click python3-jinja2 python3-netaddr python3-ruamel.yaml python3-urllib3"
BESIDES = "needrestart apparmor apparmor-profiles"
DEPENDS = {
    "trixie": f"{LIBRARIES} python3-msgspec {BESIDES}",
    "bookworm": f"{LIBRARIES} {BESIDES}",
    "forky": f"{LIBRARIES} python3-msgspec {BESIDES}",
}
DOWNLOAD = f"""
mkdir -p "$1{DEBS}"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
apt-get clean
apt-get install --yes --download-only --no-install-recommends $DEPENDS
mv "$1"/var/cache/apt/archives/*.deb "$1{DEBS}/"
"""

# From version 258 on, systemctl does nothing without /proc. Both mounts end with their namespace.
ENTER = """
mount -t proc proc "$1/proc"
mount -t sysfs -o ro sysfs "$1/sys"
exec chroot "$1" sh -c "$2"
"""

# This script runs inside the new tree. It does the work of a first boot once, so that no fresh
# machine has to repeat it. A machine lives for minutes and needs no timers and no logins. The text,
# with its comments, is part of the recipe: a changed word builds all images anew.
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
    systemd-hwdb-update.service ldconfig.service systemd-logind.service modprobe@.service \
    systemd-udev-load-credentials.service systemd-user-sessions.service systemd-binfmt.service \
    proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount sys-kernel-config.mount \
    dev-mqueue.mount; do
    systemctl mask --quiet $unit
done
# Nor are there disks to look for, or users at 64 serial lines: each reload of systemd's units, of
# which netplan makes several, would do so again.
mkdir -p /etc/systemd/system-generators /etc/udev/rules.d
for generator in debug getty gpt-auto hibernate-resume rc-local run ssh system-update tpm2; do
    ln -s /dev/null /etc/systemd/system-generators/systemd-$generator-generator
done
sed '/^SUBSYSTEM=="tty"/d' /usr/lib/udev/rules.d/99-systemd.rules \
    > /etc/udev/rules.d/99-systemd.rules
systemctl disable --quiet networking.service lldpd.service systemd-resolved.service
# The package of systemd-resolved makes this file a link into its folder in /run.
rm -f /etc/resolv.conf
touch /etc/resolv.conf
systemd-machine-id-setup >/dev/null 2>&1
journalctl --update-catalog
systemctl enable --quiet systemd-networkd.service
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /usr/share/doc /usr/share/man
touch /etc/.updated /var/.updated
"""


def dependencies() -> list[str]:
    """Return the Python packages that the product needs at run time."""
    project = REPO / "pyproject.toml"
    if not project.exists():
        return DEPENDENCIES
    return list(tomllib.loads(project.read_text())["project"]["dependencies"])


def packages(suite: str) -> list[str]:
    """Return the Debian packages that are installed in a suite's tree."""
    replacements = INSTEAD.get(suite, {})
    return [each for name in PACKAGES for each in replacements.get(name, [name])]


def image(suite: str) -> Path:
    """Return the folder with `root/` and `disk` of a suite; build it first if it does not exist.

    A build takes about a minute.
    """
    if suite not in SUITES:
        raise ValueError(f"{suite}: is not one of {', '.join(SUITES)}")
    recipe = [FINISH, DISK_SIZE, uml.tree().name, *packages(suite), *sorted(dependencies())]
    recipe += [DOWNLOAD, DEPENDS[suite]]
    return built(suite, recipe, lambda folder: _build_image(suite, folder))


def _build_image(suite: str, folder: Path) -> None:
    root = folder / "root"
    fetch = f"--customize-hook=DEPENDS='{DEPENDS[suite]}'; set -eu; {DOWNLOAD}"
    debootstrap(suite, root, "--variant=minbase", "--include=" + ",".join(packages(suite)), fetch)
    modules = uml.tree() / "usr/lib/uml/modules"
    shutil.copytree(modules, root / "usr/lib/modules", dirs_exist_ok=True, symlinks=True)
    run(["unshare", "--mount", "sh", "-euc", ENTER, "enter", str(root), FINISH])
    _install_dependencies(root)
    run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(folder / "disk"), DISK_SIZE])


def _install_dependencies(root: Path) -> None:
    """Fill the venv from outside, so that pip uses the package index that this computer has set."""
    [library] = (root / "opt/evpn-host/lib").glob("python3.*")
    version = library.name.removeprefix("python")
    pip = [_python_with_pip(), "-m", "pip", "install", "--quiet", "--no-compile"]
    pip += ["--root-user-action=ignore", "--only-binary=:all:", f"--python-version={version}"]
    run([*pip, "--target", str(library / "site-packages"), *dependencies()])
    run(["chroot", str(root), "/opt/evpn-host/bin/python", "-m", "compileall", "-q", "/opt"])


def _python_with_pip() -> str:
    for python in (sys.executable, "/usr/bin/python3"):
        pip = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
        if pip.returncode == 0:
            return python
    apt("install", "--yes", "python3-pip")
    return "/usr/bin/python3"


if __name__ == "__main__":
    for each in sys.argv[1:] or RELEASES:
        print(image(each))
