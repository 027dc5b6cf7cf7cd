"""A guest like that of a hypervisor: a tap on the host, and behind it its own network stack.

`vm.py TAP NAMESPACE` makes TAP on the host and eth0 in the namespace. Until it ends, it carries
frames between the two.
"""

import ctypes
import fcntl
import os
import select
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002
CLONE_NEWNET = 0x40000000


def tap(name: str) -> int:
    """Make a tap that lives as long as this process; return the descriptor for its frames."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_NO_PI))
    return descriptor


def main() -> None:
    """Make both taps, and carry frames between them in both directions."""
    host = tap(sys.argv[1])
    namespace = os.open(f"/run/netns/{sys.argv[2]}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    guest = tap("eth0")
    print("ready", flush=True)
    other = {host: guest, guest: host}
    while True:
        for source in select.select([host, guest], [], [])[0]:
            frame = os.read(source, 65536)
            try:
                os.write(other[source], frame)
            except OSError:  # the other tap is not up
                continue


if __name__ == "__main__":
    main()
