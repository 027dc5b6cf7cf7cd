"""Things that others have on the same host are named, and never touched.

An operator's VRF, routing table, device, VNI or port that the payload needs too; another BGP
speaker; and rules of routing that others put before ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from lab.fabric import Host, Lab, eventually
from tests.lab.k8s01 import (
    Payload,
    bring_up,
    differences,
    established,
    etc_checksums,
    guest,
    payload,
    underlay,
    vnet,
)
from tests.lab.systems import SYSTEMS

# A program that listens, under the name of another one.
LISTEN = """
import socket, sys, time
name, kind, port = sys.argv[1:]
open("/proc/self/comm", "w").write(name)
sock = socket.socket(type=getattr(socket, kind))
sock.bind(("0.0.0.0", int(port)))
kind == "SOCK_STREAM" and sock.listen()
print("ready", flush=True)
time.sleep(600)
"""


class Theirs(NamedTuple):
    """Something that others have: commands to make, show and remove it, and how we name it."""

    make: tuple[str, ...]
    show: str
    remove: tuple[str, ...]
    named: str


def vrf(table: int) -> tuple[str, ...]:
    """Return the commands that make an operator's VRF with this table, and a route in it."""
    return (
        f"ip link add blue type vrf table {table}",
        "ip link set blue up",
        "ip link add blue-port type dummy",
        "ip link set blue-port master blue up",
        "ip address add 198.51.100.1/24 dev blue-port",
    )


GONE_VRF = ("ip link delete blue-port", "ip link delete blue")
# Things that the payload needs too: a VPC has the table 1000 + its id.
TAKEN = {
    "the table of a VRF": Theirs(
        vrf(1033), "ip route show table 1033", GONE_VRF, "table 1033 belongs to blue"
    ),
    "a table with a route": Theirs(
        ("ip route add 198.51.100.0/24 dev lo table 1033",),
        "ip route show table 1033",
        ("ip route flush table 1033",),
        "table 1033 has a route to 198.51.100.0/24",
    ),
    "a table of IPv6": Theirs(
        ("ip -6 route add 2001:db8:9::/64 dev lo table 1033",),
        "ip -6 route show table 1033",
        ("ip -6 route flush table 1033",),
        "table 1033 has a route to 2001:db8:9::/64",
    ),
    "a table that a rule looks up": Theirs(
        ("ip rule add pref 5000 from 198.51.100.0/24 table 1033",),
        "ip rule show pref 5000",
        ("ip rule del pref 5000",),
        "a rule looks up table 1033",
    ),
    "the name of a VRF": Theirs(
        ("ip link add Vrf_33 type vrf table 777",),
        "ip -d link show Vrf_33",
        ("ip link delete Vrf_33",),
        "Vrf_33 is there already",
    ),
    "the name of a bridge": Theirs(
        ("ip link add nbr-26 type dummy",),
        "ip -d link show nbr-26",
        ("ip link delete nbr-26",),
        "nbr-26 is there already",
    ),
    "a VNI": Theirs(
        ("ip link add theirs type vxlan id 26 dstport 4789 local 192.0.2.10",),
        "ip -d link show theirs",
        ("ip link delete theirs",),
        "VNI 26 belongs to theirs",
    ),
    "the port of VXLAN": Theirs(
        (
            "ip link add vxlan_sys_4789 type vxlan external dstport 4789",
            "ip link set vxlan_sys_4789 up",
        ),
        "ip -d link show vxlan_sys_4789",
        ("ip link delete vxlan_sys_4789",),
        "vxlan_sys_4789 has UDP port 4789 for itself",
    ),
    "an alternative name": Theirs(
        ("ip link property add dev ens6 altname nbr-26",),
        "ip link show ens6",
        ("ip link property del dev ens6 altname nbr-26",),
        "ens6 has the alternative name nbr-26",
    ),
    "FRR's unit": Theirs(
        ("systemctl mask frr.service",),
        "readlink /etc/systemd/system/frr.service",
        ("systemctl unmask frr.service",),
        "frr.service is masked",
    ),
}
PROGRAMS = {
    "another BGP speaker": ("bird", "SOCK_STREAM", 179, "bird listens on TCP port 179"),
    "a program with VXLAN's port": ("dockerd", "SOCK_DGRAM", 4789, "dockerd uses UDP port 4789"),
}
LATER_VPC = {"id": 50, "name": "tenant-a", "vni": 1050}
LATER = vnet(60, 50, "172.20.0.254/24")
ADDED = {
    "the table of a VRF": Theirs(
        vrf(1050), "ip route show table 1050", GONE_VRF, "table 1050 belongs to blue"
    ),
    "a table with a route": Theirs(
        ("ip route add 198.51.100.0/24 dev lo table 1050",),
        "ip route show table 1050",
        ("ip route flush table 1050",),
        "table 1050 has a route to 198.51.100.0/24",
    ),
    "the name of a bridge": Theirs(
        ("ip link add nbr-60 type dummy",),
        "ip -d link show nbr-60",
        ("ip link delete nbr-60",),
        "nbr-60 is there already",
    ),
    "a VNI": Theirs(
        ("ip link add theirs type vxlan id 60 dstport 4789 local 192.0.2.10",),
        "ip -d link show theirs",
        ("ip link delete theirs",),
        "VNI 60 belongs to theirs",
    ),
}
# The rules that Cilium sets at its start (NodeEnsureLocalRoutingRule), with those of its proxy;
# and the rules of NetBird or wg-quick, in both families.
RULES = {
    "Cilium": (
        "rule add pref 9 fwmark 0x200/0xf00 table 2004",
        "rule add pref 100 table local protocol kernel",
        "rule del pref 0 table local",
    ),
    "NetBird": (
        "rule add pref 100 table main suppress_prefixlength 0",
        "rule add pref 110 not fwmark 0x1bd00 table 7120",
    ),
}


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with a host on which nothing was applied yet."""
    lab: Lab = fresh_lab(*request.param)
    return lab


@pytest.fixture
def bare(lab: Lab) -> Host:
    """The host without any part of ours."""
    return bare_host(lab)


def bare_host(lab: Lab) -> Host:
    """Return the host without any part of ours."""
    if lab.host.run("test -e /var/lib/evpn-host/record.json".split(), check=False).code == 0:
        for leaf in lab.fabric.state["underlay"]:
            lab.fabric.leaf(leaf).underlay(on=False)
        lab.host.evpn_host("uninstall", "--yes")
    return lab.host


@pytest.fixture
def vtep(lab: Lab) -> Host:
    """The host as a VTEP, as planned."""
    bring_up(lab)
    assert differences(lab.host) == []
    return lab.host


def check_refused(host: Host, document: Payload, named: str, show: str = "true") -> None:
    """Fail unless `preflight` names it and `apply` refuses it, and nothing changes."""
    before, theirs = etc_checksums(host), host.run(show.split()).out
    host.machine.write("/root/wanted.json", json.dumps(document))
    report = host.evpn_host("preflight", "-p", "/root/wanted.json", "--json", check=False)
    assert report.code == 1
    assert named in {each["what"] for each in report.json if each["stops"]}, report.out
    result = host.apply(document, check=False)
    assert result.code == 1, result.err
    assert named in result.err
    assert host.run(show.split()).out == theirs
    assert etc_checksums(host) == before


def run(host: Host, commands: tuple[str, ...]) -> None:
    """Run commands, one after the other."""
    for command in commands:
        host.run(command.split())


@pytest.mark.parametrize("case", TAKEN)
@pytest.mark.claim(
    "19.1", "apply refuses a device, table or VNI that others use, names it, and leaves it alone"
)
def test_the_first_payload_needs_it(bare: Host, case: str) -> None:
    """A table, the name of a device, a VNI."""
    theirs = TAKEN[case]
    run(bare, theirs.make)
    try:
        check_refused(bare, payload(), theirs.named, theirs.show)
    finally:
        run(bare, theirs.remove)


# Table local stands before these rules until the host has VRFs.
CATCHING = {
    "by an uplink": "iif ens4 lookup main",
    "from the management subnet": "from 10.12.0.0/16 lookup 101",
    "to the management subnet": "to 10.12.0.0/16 lookup main",
}


@pytest.mark.parametrize("case", CATCHING)
@pytest.mark.claim("19.8", "A routing rule that would divert packets for the host is refused")
def test_a_rule_that_takes_what_is_for_the_host(lab: Lab, bare: Host, case: str) -> None:
    """It did no harm, because table local comes first. It must not go, nor the host be cut off."""
    rule = CATCHING[case]
    run(bare, (f"ip rule add pref 100 {rule}", "ip route add default via 10.12.0.1 table 101"))
    try:
        eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))
        words = rule if rule.startswith("from") else f"from all {rule}"
        named = f"the routing rule 100 ({words}) would come before table local"
        check_refused(bare, payload(), named, "ip rule show pref 100")
        assert lab.fabric.controller.ping("10.12.0.101", count=2)
    finally:
        run(bare, ("ip rule del pref 100", "ip route flush table 101"))


def test_what_is_shut_down_in_frr(lab: Lab, bare: Host) -> None:
    """preflight names a session that somebody shut down in vtysh; apply brings it up."""
    bare.run(["systemctl", "start", "frr"], timeout=120)
    options = [word for line in ("conf t", "interface ens5", "shutdown") for word in ("-c", line)]
    eventually(lambda: bare.run(["vtysh", *options], check=False).code == 0)
    bare.machine.write("/root/wanted.json", json.dumps(payload()))
    output = bare.evpn_host("preflight", "-p", "/root/wanted.json").out
    assert "the session of ens5 is shut down in FRR, by somebody's vtysh" in output
    bring_up(lab)
    assert differences(bare) == []


def test_another_vxlan_device_with_the_same_port(lab: Lab, bare: Host) -> None:
    """As Calico has it: the kernel's VXLAN devices share a port, and both work."""
    run(
        bare,
        (
            "ip link add vxlan.calico type vxlan id 4096 local 10.12.0.101 dstport 4789 nolearning",
            "ip link set vxlan.calico up",
        ),
    )
    try:
        bring_up(lab)
        assert differences(bare) == []
    finally:
        run(bare, ("ip link delete vxlan.calico",))


# What makes a file of ours one that nobody can change, and what undoes it.
FLAGS = """
import fcntl, sys
file = open("/etc/frr/frr.conf")
flags = int.from_bytes(fcntl.ioctl(file, 0x80086601, bytes(8)), "little")
flags = flags | 0x10 if sys.argv[1] == "on" else flags & ~0x10
fcntl.ioctl(file, 0x40086602, flags.to_bytes(8, "little"))
"""
CLOSED = {
    "attribute i": (
        [["python3", "-c", FLAGS, "on"]],
        [["python3", "-c", FLAGS, "off"]],
        "/etc/frr/frr.conf: can't be changed: it, or its folder, has the attribute i or a",
    ),
    "read-only": (
        [["mount", "--bind", "/etc", "/etc"], ["mount", "-o", "remount,bind,ro", "/etc"]],
        [["umount", "/etc"]],
        "/etc/frr/frr.conf: is on a read-only file system",
    ),
}


@pytest.mark.parametrize("case", CLOSED)
@pytest.mark.claim("19.10", "A file that can't be written is refused before any file is written")
def test_a_file_that_can_not_be_written(lab: Lab, case: str) -> None:
    """At the first apply and later: 1, and nothing is changed."""
    close, reopen, named = CLOSED[case]
    for state in ("bare", "vtep"):
        host = bare_host(lab) if state == "bare" else lab.host
        if state == "vtep":
            bring_up(lab)
        before = etc_checksums(host)
        for command in close:
            host.run(command)
        try:
            result = host.apply(payload(LATER, vpcs=(LATER_VPC,)), check=False)
        finally:
            for command in reopen:
                host.run(command)
        assert result.code == 1, result.err
        assert named in result.err
        assert etc_checksums(host) == before
    assert differences(lab.host) == []


@pytest.mark.parametrize("case", PROGRAMS)
@pytest.mark.claim(
    "19.2", "apply refuses if a program uses the port of BGP or VXLAN, and names the program"
)
def test_a_program_has_the_port(bare: Host, case: str) -> None:
    """Such as BIRD, as Calico has it; FRR does not run yet."""
    name, kind, port, named = PROGRAMS[case]
    bare.run(["systemctl", "stop", "frr"])
    program = bare.start(["python3", "-c", LISTEN, name, kind, str(port)])
    try:
        eventually(lambda: "ready" in program.output)
        check_refused(bare, payload(), named)
        assert program.running
    finally:
        program.stop()


@pytest.mark.parametrize("case", ADDED)
@pytest.mark.claim("19.3", "apply also refuses a later V-Net that needs something others use")
def test_a_later_payload_needs_it(vtep: Host, case: str) -> None:
    """The host is a VTEP already, and stays what it is."""
    theirs = ADDED[case]
    run(vtep, theirs.make)
    try:
        check_refused(vtep, payload(LATER, vpcs=(LATER_VPC,)), theirs.named, theirs.show)
        assert established(vtep) == {"ens4", "ens5"}
    finally:
        run(vtep, theirs.remove)
    assert differences(vtep) == []


@pytest.fixture(params=RULES)
def rules(request: pytest.FixtureRequest, vtep: Host) -> Iterator[str]:
    """Add rules as others do, in both families; give the table of the first; undo all later."""
    for family in ("-4", "-6"):
        for line in RULES[request.param]:
            # apply has moved the kernel's rule at 0 already.
            vtep.run(["ip", family, *line.split()], check="pref 0" not in line)
    yield "local" if request.param == "Cilium" else "main"
    for family in ("-4", "-6"):
        for priority in ("9", "98", "99", "100", "110"):
            vtep.run(["ip", family, "rule", "del", "pref", priority], check=False)


@pytest.mark.claim(
    "19.4", "Rules of Cilium or NetBird stay, and a tenant's packets meet their VRF first"
)
def test_rules_that_stand_before(vtep: Host, rules: str) -> None:
    """`status` names the order, `apply` repairs it and keeps all rules, and no guest gets out."""
    pod = guest(vtep, "pod", 26, "10.188.0.254", 10)
    listed = differences(vtep)
    for family in ("IPv4", "IPv6"):
        text = f"{family} rules: table {rules} (priority 100) stands before the VRFs' (1000)"
        assert text in listed
    # Addresses of the host, and one behind a route of its own.
    ways = {"local": ["10.2.0.101", "192.0.2.10"], "main": ["192.0.2.1"]}[rules]
    assert any(leads(vtep, way) for way in ways)  # the fault
    theirs = foreign_rules(vtep)
    output = vtep.evpn_host("apply", "-p", "/root/payload.json").err
    assert "repaired: IPv4 rules" in output
    assert differences(vtep) == []
    assert foreign_rules(vtep) == theirs
    assert not any(leads(vtep, way) for way in ways)
    assert not pod.ping("192.0.2.10", count=2)
    eventually(lambda: pod.ping("10.188.0.254", count=1))
    assert vtep.ping("192.0.2.10", count=1)  # the host knows its own addresses
    assert vtep.ping("10.2.0.101", count=1)
    eventually(lambda: established(vtep) == {"ens4", "ens5"})
    eventually(lambda: vtep.ping("10.2.0.1", count=1))  # a leaf


# Rules that others add after the apply, and that take packets away from the host.
LATER_RULES = {
    "by the bridge": ("iif nbr-14 lookup main", "forwarded"),
    "without the default route": (
        "from 10.12.0.0/16 lookup main suppress_prefixlength 0",
        "forwarded",
    ),
    "it refuses": ("from 10.12.0.0/16 prohibit", "dropped"),
}


@pytest.mark.parametrize("case", LATER_RULES)
@pytest.mark.claim(
    "19.9", "A routing rule that is added later and diverts the host's packets is named, and stays"
)
def test_a_rule_that_comes_later(lab: Lab, vtep: Host, case: str) -> None:
    """`status` and each apply name a rule that takes the host's packets. Nobody changes it."""
    rule, fate = LATER_RULES[case]
    vtep.evpn_host("failover", "--once")
    eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))
    run(vtep, (f"ip rule add pref 100 {rule}",))
    try:
        shown = vtep.run("ip rule show pref 100".split()).out.split(maxsplit=1)[1].strip()
        named = f"the routing rule 100 ({shown}) comes before table local"
        assert not lab.fabric.controller.ping("10.12.0.101", count=1)  # the fault
        for output in (
            " ".join(differences(vtep)),
            vtep.evpn_host("status", check=False).out,
            vtep.evpn_host("apply", "-p", "/root/payload.json").err,
            vtep.apply(payload(vnet(61, 33, "172.21.0.254/24"))).err,
        ):
            assert f"{named}: packets for 10.12.0.101 are {fate}, not delivered" in output, output
        assert vtep.evpn_host("preflight", "-p", "/root/payload.json").code == 0
        assert shown in vtep.run("ip rule show pref 100".split()).out
    finally:
        run(vtep, ("ip rule del pref 100",))
        vtep.apply(payload())
    assert differences(vtep) == []


def leads(host: Host, address: str) -> bool:
    """Return whether the kernel would send a packet of a guest in V-Net 26 to an address."""
    way = ["ip", "route", "get", address, "from", "10.188.0.10", "iif", "nbr-26"]
    return host.run(way, check=False).code == 0


def foreign_rules(host: Host) -> list[str]:
    """Return the rules that others have added, in both families."""
    return [
        line
        for family in ("-4", "-6")
        for line in host.run(["ip", family, "rule"]).out.splitlines()
        if line.partition(":")[0] in {"9", "100", "110"}
    ]


@pytest.mark.claim("19.5", "uninstall leaves rules of others where they are")
def test_uninstall_leaves_rules_of_others(lab: Lab, vtep: Host) -> None:
    """uninstall leaves Cilium's rule for table local at 100, and none of ours."""
    for line in RULES["Cilium"][:2]:
        vtep.run(["ip", *line.split()])
    vtep.evpn_host("apply", "-p", "/root/payload.json")
    underlay(lab.fabric, on=False)
    vtep.evpn_host("uninstall", "--yes")
    try:
        shown = vtep.run(["ip", "-4", "-json", "rule"]).json
        assert [each["priority"] for each in shown] == [9, 100, 32766, 32767], shown
    finally:
        run(vtep, ("ip rule add pref 0 table local", "ip rule del pref 100", "ip rule del pref 9"))


def test_strict_reverse_path_filter(vtep: Host) -> None:
    """A strict filter on an uplink is reset; one for all devices stays: the larger value counts."""
    vtep.run("sysctl -qw net.ipv4.conf.all.rp_filter=1".split())
    assert differences(vtep) == []
    vtep.run("sysctl -qw net.ipv4.conf.ens4.rp_filter=1".split())
    assert "net/ipv4/conf/ens4/rp_filter: is 1, not 2" in differences(vtep)
    assert "repaired:" in vtep.evpn_host("apply", "-p", "/root/payload.json").err
    assert differences(vtep) == []
