"""The controller as a DHCP server, which leases the management address to the host's NIC."""

from __future__ import annotations

from lab.channel import Process
from lab.fabric import Lab, eventually

# The lease is static: another server may have granted it before.
SETTINGS = """start 10.12.0.101
end 10.12.0.101
interface eth0
lease_file /run/lab/eth0.leases
pidfile /run/lab/eth0.pid
min_lease 5
static_lease 52:54:00:00:00:04 10.12.0.101
option subnet 255.255.0.0
option router 10.12.0.1
option lease 40
"""


def serve(lab: Lab) -> Process:
    """Start the server, and return it."""
    lab.machine.write("/root/eth0.conf", SETTINGS)
    lab.machine.write("/run/lab/eth0.leases", "")
    return lab.fabric.controller.start(["busybox", "udhcpd", "-f", "/root/eth0.conf"])


def take_up(lab: Lab) -> None:
    """Have the host take up the operator's files, and wait for the lease."""
    lab.host.run(["ip", "-4", "address", "flush", "dev", "ens4"])
    lab.host.run(["sh", "-c", "rm -f /run/systemd/network/10-netplan-*"])
    again = ["netplan", "apply"] if lab.backend == "netplan" else ["ifreload", "-a"]
    lab.host.run(again, timeout=120)
    show = "ip -4 address show dev ens4".split()
    eventually(lambda: "10.12.0.101/16" in lab.host.run(show).out)
