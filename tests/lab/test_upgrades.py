"""Upgrades of other packages: new conffiles, restarted services, a kernel without a module."""

from __future__ import annotations

from typing import Any

import pytest

from lab.fabric import PAYLOAD, Lab, eventually
from tests.debs import REPOSITORY
from tests.lab import figures
from tests.lab.k8s01 import (
    addresses,
    bare_metal,
    bring_up,
    differences,
    established,
    guest,
    payload,
)
from tests.lab.nics import nothing_differs
from tests.lab.systems import SYSTEMS

OURS = ("/etc/frr/frr.conf", "/etc/frr/daemons")
# Repacks the installed package as dpkg-repack(1) does: a higher version, other conffiles.
REPACK = r"""
set -e
new=/root/$1
mkdir -p $new/DEBIAN
dpkg-query --listfiles frr | grep ^/ | while read -r path; do
    if ! [ -d "$path" ]; then echo "$path"; fi
done | tar --create --files-from - | tar --extract --directory $new
for file in frr.conf daemons; do
    original=/etc/frr/$file.distrib-evpn-host
    [ -e $original ] || original=/etc/frr/$file
    cp $original $new/etc/frr/$file
    echo "# of package $1" >> $new/etc/frr/$file
done
for part in conffiles preinst postinst prerm postrm; do
    part=/var/lib/dpkg/info/frr.$part
    if [ -e $part ]; then cp $part $new/DEBIAN/${part##*/frr.}; fi
done
fields=
for field in Architecture Maintainer Pre-Depends Depends; do
    fields="$fields$field: \${$field}\n"
done
dpkg-query --show --showformat "$fields" frr > $new/DEBIAN/control
dpkg-query --show --showformat "Package: frr\nVersion: \${Version}+$1\nDescription: FRR\n" frr \
    >> $new/DEBIAN/control
dpkg-deb -Znone --build $new $new.deb
"""


@pytest.fixture(params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    bring_up(lab)
    return lab


def upgrade(lab: Lab, name: str) -> None:
    """Upgrade FRR as a script does, which answers no question."""
    lab.host.run(["sh", "-c", REPACK, "repack", name], timeout=300)
    lab.host.run(["dpkg", "--install", f"/root/{name}.deb"], timeout=300)


def shipped(lab: Lab, suffix: str) -> list[str]:
    """Return the last line of each of the package's conffiles."""
    return [lab.machine.read(path + suffix).splitlines()[-1] for path in OURS]


@pytest.mark.claim(
    "17.13", "An upgrade of FRR with other conffiles asks nothing and keeps our files"
)
def test_conffiles_of_frr(lab: Lab) -> None:
    """The package's files lie beside ours; uninstall puts the newest in their places."""
    host = lab.host
    ours = [lab.machine.read(path) for path in OURS]
    upgrade(lab, "new1")
    assert [lab.machine.read(path) for path in OURS] == ours
    assert shipped(lab, ".distrib-evpn-host") == ["# of package new1"] * 2
    eventually(lambda: established(host) == {"ens4", "ens5"})
    eventually(lambda: nothing_differs(lab))
    host.evpn_host("uninstall", "--yes")
    assert shipped(lab, "") == ["# of package new1"] * 2
    assert not host.run(["sh", "-c", "ls /etc/frr/*.distrib*"], check=False).out
    upgrade(lab, "new2")
    assert shipped(lab, "") == ["# of package new2"] * 2


# The services that an upgrade of a library restarts.
RESTARTED = {
    "netplan": ("systemd-networkd", "systemd-udevd", "frr", "evpn-host-failover"),
    "ifupdown": ("systemd-udevd", "frr", "evpn-host-failover"),
}


@pytest.mark.claim(
    "17.14", "After restarts of networkd, udev and FRR, alone and at once, the host is as planned"
)
def test_restarted_services(lab: Lab) -> None:
    """Restarts leave no difference; the longest silence of a guest is written down."""
    host = lab.host
    gpu = bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)
    pod = guest(host, "pod", 26, "10.188.0.254", 10)
    eventually(lambda: pod.ping(gpu, count=1))
    units = RESTARTED[lab.backend]
    for batch in [*([each] for each in units), list(units)]:
        lost = []
        for _ in range(2):
            with gpu.pinging(pod) as ping:
                host.run(["systemctl", "reset-failed", *batch])  # systemd counts starts
                host.run(["systemctl", "restart", *batch], timeout=180)
                eventually(lambda: established(host) == {"ens4", "ens5"})
                eventually(lambda: gpu.ping(pod, count=1))
            lost.append(ping.result.longest_gap_s)
            eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))
            eventually(lambda: nothing_differs(lab))
        name = "all of them at once" if len(batch) > 1 else batch[0]
        longest = f"{max(lost):.1f} s"
        figures.write(lab, f"restart of {name}: longest time without an answer", longest)
    assert host.run(["systemctl", "--failed", "--plain", "--no-legend"]).out == ""
    assert host.evpn_host("status").code == 0


# The lab's own units hold the fabric and this test's commands. A server has no such units.
NOT_OF_A_SERVER = "$nrconf{override_rc}{qr(^lab-)} = 0;\n"
# Replaces libc as dpkg does: every process still has the old one, whose file is removed.
NEW_LIBRARY = """
set -e
file=$(readlink --canonicalize /lib/x86_64-linux-gnu/libc.so.6)
cp --preserve $file $file.dpkg-new
mv $file.dpkg-new $file
"""
# As unattended upgrades run apt, and needrestart at its end. Any package will do: the library has
# been replaced already.
UPGRADE = (
    "NEEDRESTART_MODE=a DEBIAN_FRONTEND=noninteractive"
    " apt-get install --yes --reinstall libproc-processtable-perl </dev/null"
)


@pytest.mark.claim(
    "17.16", "Debian's needrestart after a new libc asks nothing, and the host stays as planned"
)
def test_needrestart(lab: Lab) -> None:
    """needrestart leaves FRR alone and restarts networkd, udev and the hook."""
    host = lab.host
    host.run(["sh", "-c", REPOSITORY], timeout=300)
    quietly = "DEBIAN_FRONTEND=noninteractive apt-get install --yes needrestart </dev/null"
    host.run(["sh", "-c", quietly], timeout=600)
    lab.machine.write("/etc/needrestart/conf.d/lab.conf", NOT_OF_A_SERVER)
    gpu = bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)
    pod = guest(host, "pod", 26, "10.188.0.254", 10)
    eventually(lambda: pod.ping(gpu, count=1))
    before = {unit: started(lab, unit) for unit in (*RESTARTED[lab.backend], "networking")}
    with gpu.pinging(pod) as ping:
        host.run(["sh", "-c", NEW_LIBRARY])
        result = host.run(["sh", "-c", UPGRADE], timeout=600)
        eventually(lambda: established(host) == {"ens4", "ens5"})
        eventually(lambda: gpu.ping(pod, count=1))
    print(result.out, result.err)
    restarted = {unit for unit, time in before.items() if started(lab, unit) != time}
    assert restarted == {*RESTARTED[lab.backend]} - {"frr"}, result.out
    longest = f"{ping.result.longest_gap_s:.1f} s"
    figures.write(lab, "needrestart after a new libc: longest time without an answer", longest)
    eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))
    eventually(lambda: nothing_differs(lab))
    assert host.run(["systemctl", "--failed", "--plain", "--no-legend"]).out == ""
    assert host.evpn_host("status").code == 0


def started(lab: Lab, unit: str) -> str:
    """Return when a unit was started last."""
    show = "systemctl show --property ActiveEnterTimestampMonotonic --value".split()
    return lab.host.run([*show, unit]).out


# NICs without a fabric: the fabric of the lab needs the module too.
NICS = """
[Unit]
DefaultDependencies=no
Before=network-pre.target systemd-networkd.service networking.service
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ip link add ens4 type veth peer name far4
ExecStart=/sbin/ip link set far4 up
ExecStart=/sbin/ip link add ens5 type veth peer name far5
ExecStart=/sbin/ip link set far5 up

[Install]
WantedBy=sysinit.target
"""


@pytest.mark.claim(
    "17.15", "If a new kernel lacks a module, the management address stays and apply refuses"
)
@pytest.mark.parametrize("module", ["vrf", "vxlan"])
def test_a_kernel_without_a_module(lab: Lab, module: str) -> None:
    """preflight, status and apply name the missing module, and nothing changes."""
    host = lab.host
    lab.machine.write("/etc/systemd/system/nics.service", NICS)
    host.run(["systemctl", "enable", "nics.service"])
    for unit in ("lab-nics", "lab-routers"):
        off = "[Unit]\nConditionPathExists=/nowhere\n"
        lab.machine.write(f"/etc/systemd/system/{unit}.service.d/off.conf", off)
    host.run(["sh", "-c", f"rm $(find /lib/modules -name {module}.ko); depmod; sync"])
    lab.machine.reboot()
    eventually(lambda: "10.12.0.101/16" in addresses(host, "ens4"))
    preflight = host.evpn_host("preflight", "-p", PAYLOAD, check=False)
    assert preflight.code == 1
    assert f"this kernel has no {module}" in preflight.out
    for options in ((), ("--full",)):
        result = host.evpn_host("apply", "-p", PAYLOAD, *options, check=False)
        assert result.code == 1, result.err
        assert f"this kernel has no {module}" in result.err
    result = host.apply(payload(), check=False)
    assert result.code == 1, result.err
    assert any("is not there" in text for text in differences(host)), differences(host)
    assert "10.12.0.101/16" in addresses(host, "ens4")
