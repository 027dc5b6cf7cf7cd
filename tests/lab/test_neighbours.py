"""What somebody else has on the same host: it is named, and nothing of it is touched.

An operator's VRF, routing table, device, VNI or port that the payload needs too; another BGP
speaker; and rules of routing that others put before ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from lab.fabric import Host, Lab, eventually
from tests.lab.k8s01 import Payload, bring_up, established, guest, payload, vnet
from tests.lab.systems import SYSTEMS
from tests.lab.test_changed_by_others import differences
from tests.lab.test_guard import files

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
    """What somebody else has: how it comes, how it shows, how it goes, and what is said of it."""

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
# By what the payload needs too: a VPC has the table 1000 + its id.
TAKEN = {
    "the table of a VRF": Theirs(
        vrf(1033), "ip route show table 1033", GONE_VRF, "table 1033 is the one of blue"
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
        "VNI 26 is the one of theirs",
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
        vrf(1050), "ip route show table 1050", GONE_VRF, "table 1050 is the one of blue"
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
        "VNI 60 is the one of theirs",
    ),
}
# What Cilium does to the rules at its start (NodeEnsureLocalRoutingRule), with those of its proxy;
# and NetBird or wg-quick, in both families.
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
    """The host without anything of ours."""
    return bare_host(lab)


def bare_host(lab: Lab) -> Host:
    """Return the host without anything of ours."""
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


def refused(host: Host, document: Payload, named: str, show: str = "true") -> None:
    """`preflight` names it, `apply` refuses it; files and what is theirs stay."""
    before, theirs = files(host), host.run(show.split()).out
    host.machine.write("/root/wanted.json", json.dumps(document))
    found = host.evpn_host("preflight", "-p", "/root/wanted.json", "--json", check=False)
    assert found.code == 1
    assert named in {each["what"] for each in found.json if each["stops"]}, found.out
    result = host.apply(document, check=False)
    assert result.code == 1, result.err
    assert named in result.err
    assert host.run(show.split()).out == theirs
    assert files(host) == before


def run(host: Host, commands: tuple[str, ...]) -> None:
    """Run commands, one after the other."""
    for command in commands:
        host.run(command.split())


@pytest.mark.parametrize("what", TAKEN)
@pytest.mark.claim("19.1", "What somebody else has is refused by its name, and stays as it is")
def test_the_first_payload_needs_it(bare: Host, what: str) -> None:
    """A table, the name of a device, a VNI."""
    theirs = TAKEN[what]
    run(bare, theirs.make)
    try:
        refused(bare, payload(), theirs.named, theirs.show)
    finally:
        run(bare, theirs.remove)


# Rules before which table local stands, until there are VRFs.
CATCHING = {
    "by an uplink": "iif ens4 lookup main",
    "from the management subnet": "from 10.12.0.0/16 lookup 101",
    "to the management subnet": "to 10.12.0.0/16 lookup main",
}


@pytest.mark.parametrize("what", CATCHING)
@pytest.mark.claim("19.8", "A rule that would take what is for the host elsewhere is refused")
def test_a_rule_that_takes_what_is_for_the_host(lab: Lab, bare: Host, what: str) -> None:
    """It did no harm, because table local comes first. It must not go, nor the host be cut off."""
    rule = CATCHING[what]
    run(bare, (f"ip rule add pref 100 {rule}", "ip route add default via 10.12.0.1 table 101"))
    try:
        eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))
        words = rule if rule.startswith("from") else f"from all {rule}"
        named = f"the routing rule 100 ({words}) would come before table local"
        refused(bare, payload(), named, "ip rule show pref 100")
        assert lab.fabric.controller.ping("10.12.0.101", count=2)
    finally:
        run(bare, ("ip rule del pref 100", "ip route flush table 101"))


def test_what_is_shut_down_in_frr(lab: Lab, bare: Host) -> None:
    """It is named. What was typed into vtysh ends with the apply."""
    bare.run(["systemctl", "start", "frr"], timeout=120)
    typed = [word for line in ("conf t", "interface ens5", "shutdown") for word in ("-c", line)]
    eventually(lambda: bare.run(["vtysh", *typed]))
    bare.machine.write("/root/wanted.json", json.dumps(payload()))
    said = bare.evpn_host("preflight", "-p", "/root/wanted.json").out
    assert "the session of ens5 is shut down in FRR, by somebody's vtysh" in said
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


@pytest.mark.parametrize("what", CLOSED)
@pytest.mark.claim("19.10", "A file that can't be written is refused before the first one is")
def test_a_file_that_can_not_be_written(lab: Lab, what: str) -> None:
    """At the first apply and later: 1, and nothing is changed."""
    close, reopen, named = CLOSED[what]
    for state in ("bare", "vtep"):
        host = bare_host(lab) if state == "bare" else lab.host
        if state == "vtep":
            bring_up(lab)
        before = files(host)
        for command in close:
            host.run(command)
        try:
            result = host.apply(payload(LATER, vpcs=(LATER_VPC,)), check=False)
        finally:
            for command in reopen:
                host.run(command)
        assert result.code == 1, result.err
        assert named in result.err
        assert files(host) == before
    assert differences(lab.host) == []


@pytest.mark.parametrize("what", PROGRAMS)
@pytest.mark.claim("19.2", "A program on the ports of BGP or VXLAN is refused by its name")
def test_a_program_has_the_port(bare: Host, what: str) -> None:
    """Such as BIRD, as Calico has it; FRR does not run yet."""
    name, kind, port, named = PROGRAMS[what]
    bare.run(["systemctl", "stop", "frr"])
    program = bare.start(["python3", "-c", LISTEN, name, kind, str(port)])
    try:
        eventually(lambda: "ready" in program.output)
        refused(bare, payload(), named)
        assert program.running
    finally:
        program.stop()


@pytest.mark.parametrize("what", ADDED)
@pytest.mark.claim("19.3", "What somebody else has is refused also for a V-Net that comes later")
def test_a_later_payload_needs_it(vtep: Host, what: str) -> None:
    """The host is a VTEP already, and stays what it is."""
    theirs = ADDED[what]
    run(vtep, theirs.make)
    try:
        refused(vtep, payload(LATER, vpcs=(LATER_VPC,)), theirs.named, theirs.show)
        assert established(vtep) == {"ens4", "ens5"}
    finally:
        run(vtep, theirs.remove)
    assert differences(vtep) == []


@pytest.fixture(params=RULES)
def rules(request: pytest.FixtureRequest, vtep: Host) -> Iterator[str]:
    """Have somebody add rules, in both families; return the table of the first, and undo it all."""
    for family in ("-4", "-6"):
        for line in RULES[request.param]:
            # apply has moved the kernel's rule at 0 already.
            vtep.run(["ip", family, *line.split()], check="pref 0" not in line)
    yield "local" if request.param == "Cilium" else "main"
    for family in ("-4", "-6"):
        for priority in ("9", "98", "99", "100", "110"):
            vtep.run(["ip", family, "rule", "del", "pref", priority], check=False)


@pytest.mark.claim("19.4", "Rules of Cilium or NetBird stay, and a tenant meets its VRF first")
def test_rules_that_stand_before(vtep: Host, rules: str) -> None:
    """`status` names it, `apply` mends it, the rules are all there, and no guest gets out."""
    pod = guest(vtep, "pod", 26, "10.188.0.254", 10)
    listed = differences(vtep)
    for family in ("IPv4", "IPv6"):
        text = f"{family} rules: table {rules} (priority 100) stands before the VRFs' (1000)"
        assert text in listed
    # An address of the host, and a route of its own.
    ways = {"local": ["10.2.0.101", "192.0.2.10"], "main": ["192.0.2.1"]}[rules]
    assert any(leads(vtep, way) for way in ways)  # what must not be
    theirs = theirs_of(vtep)
    said = vtep.evpn_host("apply", "-p", "/root/payload.json").err
    assert "mended: IPv4 rules" in said
    assert differences(vtep) == []
    assert theirs_of(vtep) == theirs
    assert not any(leads(vtep, way) for way in ways)
    assert not pod.ping("192.0.2.10", count=2)
    eventually(lambda: pod.ping("10.188.0.254", count=1))
    assert vtep.ping("192.0.2.10", count=1)  # the host knows its own addresses
    assert vtep.ping("10.2.0.101", count=1)
    eventually(lambda: established(vtep) == {"ens4", "ens5"})
    eventually(lambda: vtep.ping("10.2.0.1", count=1))  # a leaf


# By which packets for the host reach it no more, added after the apply.
LATER_RULES = {
    "by the bridge": ("iif nbr-14 lookup main", "forwarded"),
    "without the default route": (
        "from 10.12.0.0/16 lookup main suppress_prefixlength 0",
        "forwarded",
    ),
    "it refuses": ("from 10.12.0.0/16 prohibit", "dropped"),
}


@pytest.mark.parametrize("what", LATER_RULES)
@pytest.mark.claim(
    "19.9", "A rule that comes later and takes the host's packets is named, and stays"
)
def test_a_rule_that_comes_later(lab: Lab, vtep: Host, what: str) -> None:
    """`status` names it, also as JSON, and so does each apply. Nobody changes it."""
    rule, fate = LATER_RULES[what]
    vtep.evpn_host("failover", "--once")
    eventually(lambda: lab.fabric.controller.ping("10.12.0.101", count=1))
    run(vtep, (f"ip rule add pref 100 {rule}",))
    try:
        shown = vtep.run("ip rule show pref 100".split()).out.split(maxsplit=1)[1].strip()
        named = f"the routing rule 100 ({shown}) comes before table local"
        assert not lab.fabric.controller.ping("10.12.0.101", count=1)  # what must not be
        for said in (
            " ".join(differences(vtep)),
            vtep.evpn_host("status", check=False).out,
            vtep.evpn_host("apply", "-p", "/root/payload.json").err,
            vtep.apply(payload(vnet(61, 33, "172.21.0.254/24"))).err,
        ):
            assert f"{named}: packets for 10.12.0.101 are {fate}, not taken" in said, said
        assert vtep.evpn_host("preflight", "-p", "/root/payload.json").code == 0
        assert shown in vtep.run("ip rule show pref 100".split()).out
    finally:
        run(vtep, ("ip rule del pref 100",))
        vtep.apply(payload())
    assert differences(vtep) == []


def leads(host: Host, address: str) -> bool:
    """Whether the kernel would send a packet of a guest in V-Net 26 to an address."""
    way = ["ip", "route", "get", address, "from", "10.188.0.10", "iif", "nbr-26"]
    return host.run(way, check=False).code == 0


def theirs_of(host: Host) -> list[str]:
    """The rules that others have added, in both families."""
    return [
        line
        for family in ("-4", "-6")
        for line in host.run(["ip", family, "rule"]).out.splitlines()
        if line.partition(":")[0] in {"9", "100", "110"}
    ]


@pytest.mark.claim("19.5", "uninstall leaves rules of others where they are")
def test_uninstall_leaves_rules_of_others(lab: Lab, vtep: Host) -> None:
    """Cilium's table local is at 100: it stays the only one, and none of ours is left."""
    for line in RULES["Cilium"][:2]:
        vtep.run(["ip", *line.split()])
    vtep.evpn_host("apply", "-p", "/root/payload.json")
    for leaf in list(lab.fabric.state["underlay"]):
        lab.fabric.leaf(leaf).underlay(on=False)
    vtep.evpn_host("uninstall", "--yes")
    try:
        shown = vtep.run(["ip", "-4", "-json", "rule"]).json
        assert [each["priority"] for each in shown] == [9, 100, 32766, 32767], shown
    finally:
        run(vtep, ("ip rule add pref 0 table local", "ip rule del pref 100", "ip rule del pref 9"))


def test_strict_reverse_path_filter(vtep: Host) -> None:
    """For all devices it changes nothing: the larger value counts. For an uplink it is mended."""
    vtep.run("sysctl -qw net.ipv4.conf.all.rp_filter=1".split())
    assert differences(vtep) == []
    vtep.run("sysctl -qw net.ipv4.conf.ens4.rp_filter=1".split())
    assert "net/ipv4/conf/ens4/rp_filter: is 1, not 2" in differences(vtep)
    assert "mended:" in vtep.evpn_host("apply", "-p", "/root/payload.json").err
    assert differences(vtep) == []
