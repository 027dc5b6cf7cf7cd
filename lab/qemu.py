"""QEMU without KVM: all of a computer in software, for where User-Mode Linux does not start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.build import built, run
from lab.kernel import MOUNT_POINTS, Kernel, unpack

SUITE = "trixie"
# Debian's kernel for clouds has NVMe, ext4 and virtiofs built in: no initrd is needed. With
# liblzma depmod reads the modules.
PACKAGES = "linux-image-cloud-amd64 qemu-system-x86 qemu-utils virtiofsd liblzma5".split()
# The guest sees /outer by virtiofs, and in it the modules. Nothing locks the disk below the
# overlay, which User-Mode Linux may be using at the same time. Written through, because
# QEMU's NVMe does not heed a write's FUA flag: a commit that began a new cluster of the overlay was
# lost with the power, and with it what was synced (seen six times in six).
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
# To write zeros into all memory before it is used, as Debian has its kernel do, is work as well.
PARAMETERS = (
    "console=ttyS0 panic=-1 mitigations=off init_on_alloc=0 net.ifnames=0"
    " root=/dev/nvme0n1 rw init=/bin/sh"
).split()
INIT = (
    "mount -t virtiofs outer /opt/outer && mount --bind /opt/outer/modules /usr/lib/modules"
    " && mount --bind /opt/outer/repo /opt/repo && exec sh /opt/repo/lab/guest/init"
)


def tree() -> Path:
    """Return the tree with QEMU, its libraries, and a kernel with its modules."""
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
