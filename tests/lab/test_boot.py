"""A boot does not wait for us, no unit fails, and hardened hosts come back too."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lab.fabric import PAYLOAD, Lab, eventually
from lab.guest.fabric import LEAVES
from tests.lab import leases
from tests.lab.k8s01 import bare_metal, bring_up, differences, established, guest, payload
from tests.lab.nics import nothing_differs
from tests.lab.systems import SYSTEMS

NEEDS_NETWORK = """
[Unit]
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true

[Install]
WantedBy=multi-user.target
"""
ACTIVE = "systemctl is-active needs-network.service".split()
WAIT_ONLINE = "/lib/systemd/systemd-networkd-wait-online"
NETPLANS = "/run/systemd/system/systemd-networkd-wait-online.service.d/10-netplan.conf"

# The operator's file, which asks for a lease.
ASKS = {
    "netplan": (
        "/etc/netplan/50-operator.yaml",
        "network: {version: 2, ethernets: {%s, ens5: {optional: true}}}\n",
    ),
    "ifupdown": (
        "/etc/network/interfaces",
        """\
auto lo
iface lo inet loopback

auto ens4
iface ens4 inet dhcp

auto ens5
iface ens5

source /etc/network/interfaces.d/*
""",
    ),
}
# Sections of netplan that ask for a lease: of the NIC's name, and as Debian's cloud image has it.
SECTIONS = {
    "a section of the NIC's name": "ens4: {dhcp4: true}",
    "a section of another name": "all-en: {match: {name: 'ens4*'}, dhcp4: true}",
}
NO_WAIT = '{"dhcp": {"defaults": {"dhcp-wait": "no"}}}'  # as preflight prints it

# The network part of the CIS benchmark for Debian, level 1 and 2, with IPv6 switched off.
CIS = """
net.ipv4.ip_forward = 0
net.ipv4.conf.all.send_redirects = 0
net.ipv4.conf.default.send_redirects = 0
net.ipv4.conf.all.accept_redirects = 0
net.ipv4.conf.default.accept_redirects = 0
net.ipv4.conf.all.secure_redirects = 0
net.ipv4.conf.all.accept_source_route = 0
net.ipv4.conf.all.log_martians = 1
net.ipv4.conf.all.rp_filter = 1
net.ipv4.conf.default.rp_filter = 1
net.ipv4.icmp_echo_ignore_broadcasts = 1
net.ipv4.icmp_ignore_bogus_error_responses = 1
net.ipv4.tcp_syncookies = 1
net.ipv6.conf.all.forwarding = 0
net.ipv6.conf.all.accept_ra = 0
net.ipv6.conf.default.accept_ra = 0
net.ipv6.conf.all.disable_ipv6 = 1
net.ipv6.conf.default.disable_ipv6 = 1
"""
NO_PROGRAMS = """
tmpfs /tmp tmpfs noexec,nosuid,nodev,mode=1777 0 0
/var/tmp /var/tmp none bind,noexec,nosuid,nodev 0 0
"""
# Not in fstab: systemd-remount-fs would make the whole disk read-only, /usr being a part of it.
READ_ONLY = """
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service
Before=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mount --bind /usr /usr
ExecStart=mount -o remount,bind,ro /usr

[Install]
WantedBy=local-fs.target
"""


@pytest.fixture(params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A host to which nothing was applied yet, and a unit that needs the network."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    lab.machine.write("/etc/systemd/system/needs-network.service", NEEDS_NETWORK)
    lab.host.run(["systemctl", "enable", "needs-network.service"])
    return lab


def boots(lab: Lab) -> None:
    """Boot: sessions come up, what needs the network starts, and no unit fails."""
    host = lab.host
    host.run(["sync"])
    lab.reboot()
    eventually(lambda: established(host) == {"ens4", "ens5"})
    eventually(lambda: host.run(ACTIVE, check=False).out == "active\n")
    assert host.run(["systemctl", "--failed", "--plain", "--no-legend"]).out == ""


@pytest.mark.claim("14.6", "Units that need the network start without a wait, and no unit fails")
def test_what_needs_the_network_starts_at_once(lab: Lab) -> None:
    """networkd's or ifupdown2's own unit waits for no VRF: it would give up after two minutes."""
    bring_up(lab)
    boots(lab)


# The lab's switches are namespaces, which get their defaults from the host.
SWITCHES_FORWARD = """
for switch in $(ip netns list | grep -o "^ns-[a-z0-9-]*"); do
    ip netns exec "$switch" sysctl --quiet net.ipv4.ip_forward=0 net.ipv4.ip_forward=1
done
"""


@pytest.mark.claim("14.13", "Units that somebody has disabled are named, and enabled again")
def test_what_others_switch_off_for_the_next_boot(lab: Lab) -> None:
    """Units, and forwarding of devices that are still to come, which no later file may set."""
    host = lab.host
    bring_up(lab)
    units = ["frr.service", "evpn-host-failover.service"]
    host.run(["systemctl", "disable", *units])
    profile = "net.ipv4.conf.default.forwarding = 0\nnet.ipv6.conf.default.forwarding = 0\n"
    host.machine.write("/etc/sysctl.d/99-stig.conf", profile)
    named = [f"{unit}: does not start at boot" for unit in units]
    assert [each for each in differences(lab.host) if "boot" in each] == named
    said = host.evpn_host("apply", "-p", PAYLOAD).err
    assert all(f"repaired: {each}" in said for each in named), said
    assert differences(lab.host) == []
    gpu = bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)
    boots(lab)
    host.run(["sh", "-ec", SWITCHES_FORWARD])
    eventually(lambda: nothing_differs(lab))
    pod = guest(host, "pod", 31, "10.188.1.254", 10)
    eventually(lambda: pod.ping(gpu, count=1))
    eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))


@pytest.mark.claim(
    "14.7", "A boot does not wait for a DHCP lease that no server in the fabric gives"
)
@pytest.mark.parametrize(
    ("lab", "section"),
    [
        pytest.param(system, section, id="-".join([*system, section]))
        for system in SYSTEMS
        for section in (SECTIONS if system[1] == "netplan" else [next(iter(SECTIONS))])
    ],
    indirect=["lab"],
)
def test_a_lease_that_nobody_gives(lab: Lab, section: str) -> None:
    """The boot goes on when the management NIC gets no lease: no DHCP server is in the fabric."""
    host = lab.host
    if lab.backend == "ifupdown" and host.run(["which", "dhclient"], check=False).code:
        pytest.xfail("ifupdown2 knows no other client than dhclient")
    server = leases.serve(lab)
    path, text = ASKS[lab.backend]
    lab.machine.write(path, text % SECTIONS[section] if "%s" in text else text, 0o600)
    leases.take_up(lab)
    lab.fabric.carry(payload())
    lab.machine.write(PAYLOAD, json.dumps(payload()))
    output = host.evpn_host("preflight", "-p", PAYLOAD).out
    assert "ens4 asks for its addresses by DHCP" in output
    assert (NO_WAIT in output) == (lab.backend == "ifupdown")
    if lab.backend == "ifupdown":
        lab.machine.write("/etc/network/ifupdown2/policy.d/dhcp.json", NO_WAIT)
        assert NO_WAIT not in host.evpn_host("preflight", "-p", PAYLOAD).out
    bring_up(lab)
    eventually(lambda: _default_route(lab) == "nbr-14")
    server.stop()
    boots(lab)
    _nobody_waits(lab)
    eventually(lambda: _default_route(lab) == "nbr-14")
    eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))
    eventually(lambda: nothing_differs(lab))
    for leaf in LEAVES:
        if leaf.nic:
            lab.fabric.leaf(leaf.name).underlay(on=False)
    eventually(lambda: _default_route(lab) == "ens4")
    eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))


def _nobody_waits(lab: Lab) -> None:
    """Fail if a server whose NICs exist before the generators run waits for the management NIC.

    In the lab they come later, and netplan does not name them at boot.
    """
    if lab.backend != "netplan":
        return
    lab.host.run(["netplan", "generate"])
    written = lab.host.run(["cat", NETPLANS], check=False).out
    for command in re.findall("^ExecStart=(/.*)$", written, re.MULTILINE) or [WAIT_ONLINE]:
        waited = lab.host.run([*command.split(), "--timeout=15"], check=False)
        assert waited.code == 0, (command, waited.err)


def _default_route(lab: Lab) -> str:
    """Return the device of the default route by the management gateway."""
    routes = lab.host.run(["ip", "-json", "route", "show", "default"]).json
    return next((each["dev"] for each in routes if each.get("gateway") == "10.12.0.1"), "")


@pytest.mark.claim(
    "14.8", "A hardened host boots correctly: CIS profile, locked modules, strict umask"
)
def test_a_hardened_host(lab: Lab) -> None:
    """A host boots with a CIS profile, no IPv6, no modules, a read-only /usr, a noexec /tmp."""
    host = lab.host
    lab.machine.write("/etc/sysctl.d/60-cis.conf", CIS)
    host.run(["/usr/lib/systemd/systemd-sysctl"])
    lab.machine.write(PAYLOAD, json.dumps(payload()))
    lab.fabric.carry(payload())
    host.run(["sh", "-c", f"umask 077; evpn-host apply -p {PAYLOAD}"], timeout=300)
    bring_up(lab)
    lab.machine.write("/etc/modules-load.d/lab.conf", "veth\ntun\n")  # for NICs and guests
    lab.machine.write("/etc/sysctl.d/99-modules.conf", "kernel.modules_disabled = 1\n")
    host.run(["tee", "-a", "/etc/fstab"], input=NO_PROGRAMS)
    lab.machine.write("/etc/systemd/system/read-only.service", READ_ONLY)
    host.run(["systemctl", "enable", "read-only.service"])
    boots(lab)
    assert host.run(["sysctl", "-n", "kernel.modules_disabled"]).out == "1\n"
    for path in ("/usr/written", "/var/tmp/written"):  # noqa: S108 - of the machine
        argv = ["sh", "-c", f"cp /bin/true {path} && {path}"]
        assert host.run(argv, check=False).code, path
    eventually(lambda: nothing_differs(lab))
    gpu = bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)
    pod = guest(host, "pod", 26, "10.188.0.254", 10)
    eventually(lambda: pod.ping(gpu, count=1))
    eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))
    host.run(["sh", "-c", f"umask 077; evpn-host apply -p {PAYLOAD} --full"], timeout=300)
    eventually(lambda: nothing_differs(lab))
