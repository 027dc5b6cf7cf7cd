"""A guest as a hypervisor has one: a tap on the host, and behind it a network stack of its own.

`vm.py TAP NAMESPACE` carries frames between TAP, here, and eth0 in the namespace, until it ends.
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
    """Make a tap here that lives as long as this process, and give its other end."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_NO_PI))
    return end


def main() -> None:
    """Carry frames both ways."""
    outside = tap(sys.argv[1])
    namespace = os.open(f"/run/netns/{sys.argv[2]}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    inside = tap("eth0")
    print("ready", flush=True)
    other = {outside: inside, inside: outside}
    while True:
        for end in select.select([outside, inside], [], [])[0]:
            frame = os.read(end, 65536)
            try:
                os.write(other[end], frame)
            except OSError:  # the other end is not up
                continue


if __name__ == "__main__":
    main()
