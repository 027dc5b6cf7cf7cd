"""QEMU without KVM: it emulates a whole computer where User-Mode Linux does not start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.build import built, run
from lab.kernel import MOUNT_POINTS, Kernel, unpack

SUITE = "trixie"
# Debian's kernel for clouds has NVMe, ext4 and virtiofs built in, so it needs no initrd. depmod
# needs liblzma to read the modules.
PACKAGES = "linux-image-cloud-amd64 qemu-system-x86 qemu-utils virtiofsd liblzma5".split()
# The guest gets /outer through virtiofs, with the modules in it. The disk below the overlay is not
# locked, because User-Mode Linux may use it at the same time. The cache is writethrough, because
# QEMU's NVMe ignores the FUA flag of a write: a power cut lost a commit that began a new cluster of
# the overlay, and with it synced data (in six of six attempts).
SCRIPT = """
mount --bind "$tree/usr/lib/modules" "$tree/outer/modules"
overlay=/outer/machine/overlay socket=/outer/machine/virtiofs
[ -e "$tree$overlay" ] ||
    chroot "$tree" qemu-img create -q -f qcow2 -b /image/disk -F raw "$overlay"
rm -f "$tree$socket"
chroot "$tree" /usr/libexec/virtiofsd --socket-path="$socket" --shared-dir=/outer \\
    --sandbox=none --log-level=error &
until [ -S "$tree$socket" ]; do kill -0 $!; sleep 0.02; done
exec chroot "$tree" qemu-system-x86_64 -drive \\
    "file=$overlay,if=none,id=disk,cache=writethrough,backing.file.locking=off" \\
    -chardev "socket,id=outer,path=$socket" "$@"
"""
# A processor model that runs everywhere; a second processor shortens the boot by a fifth.
COMPUTER = (
    "-nodefaults -no-user-config -display none -nic none -no-reboot"
    " -accel tcg,thread=multi,tb-size=512 -cpu Nehalem -smp 2"
    " -device virtio-serial -device virtserialport,chardev=agent"
    " -device nvme,serial=lab,drive=disk -device vhost-user-fs-pci,chardev=outer,tag=outer"
    " -chardev stdio,id=console,signal=off -serial chardev:console -kernel /boot/vmlinuz"
).split()
# Debian's kernel writes zeros into all memory before its use. init_on_alloc=0 saves that work.
PARAMETERS = (
    "console=ttyS0 panic=-1 mitigations=off init_on_alloc=0 net.ifnames=0"
    " root=/dev/nvme0n1 rw init=/bin/sh"
).split()
INIT = (
    "mount -t virtiofs outer /opt/outer && mount --bind /opt/outer/modules /usr/lib/modules"
    " && mount --bind /opt/outer/repo /opt/repo && exec sh /opt/repo/lab/guest/init"
)


def tree() -> Path:
    """Return the tree with QEMU and its libraries, and with a kernel and its modules."""
    return built("qemu", [SUITE, *PACKAGES, *MOUNT_POINTS], _build)


def _build(folder: Path) -> None:
    unpack(folder, SUITE, PACKAGES)
    (folder / "outer/modules").mkdir()
    [kernel] = (folder / "boot").glob("vmlinuz-*")
    (folder / "boot/vmlinuz").symlink_to(kernel.name)
    run(["chroot", str(folder), "depmod", kernel.name.removeprefix("vmlinuz-")])


def _arguments(memory: str, line: int, parameters: Sequence[str]) -> list[str]:
    return [
        *COMPUTER,
        *("-m", memory, "-machine", "memory-backend=memory"),
        *("-object", f"memory-backend-memfd,id=memory,size={memory},share=on"),
        *("-chardev", f"socket,id=agent,fd={line}"),
        *("-append", " ".join([*PARAMETERS, *parameters, f'-- -c "{INIT}"'])),
    ]


QEMU = Kernel("qemu", tree, SCRIPT, _arguments, patience=6, processors=2)
