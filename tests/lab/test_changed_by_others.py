"""What others change on a running host: `status` names it, and the next `apply` puts it right.

Each case stands for a kind. All cases of a system share one machine, and each ends as it began.
"""

from __future__ import annotations

from typing import Any

import pytest

from lab.fabric import Host, Lab, eventually
from tests.lab.k8s01 import (
    DUAL,
    bare_metal,
    bring_up,
    differences,
    established,
    guest,
    no_reload_pending,
    payload,
)
from tests.lab.systems import SYSTEMS

AS = 4200000001
BGP = f"router bgp {AS}"
VPC = f"router bgp {AS} vrf Vrf_33"
LATER = "later"  # FRR removes an L3VNI in its own time, and refuses the rest until then
IPV4, EVPN = "address-family ipv4 unicast", "address-family l2vpn evpn"

# Commands that change the host, and a part of the difference that `status` then lists.
KERNEL = {
    "forwarding": ("sysctl -qw net.ipv4.ip_forward=0", "net/ipv4/ip_forward: is 0, not 1"),
    "forwarding of IPv6": (
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
        "net/ipv6/conf/all/forwarding: is 0, not 1",
    ),
    "setting of an uplink": ("sysctl -qw net.ipv4.conf.ens4.rp_filter=1", "rp_filter: is 1, not 2"),
    "setting of a bridge": (
        "sysctl -qw net.ipv4.conf.nbr-26.rp_filter=1",
        "nbr-26/rp_filter: is 1",
    ),
    "IPv6 in an L2 V-Net": (
        "sysctl -qw net.ipv6.conf.nbr-14.disable_ipv6=0",
        "nbr-14/disable_ipv6: is 0, not 1",
    ),
    "router advertisements": (
        "sysctl -qw net.ipv6.conf.nbr-31.accept_ra=2",
        "nbr-31/accept_ra: is 2, not 0",
    ),
    "services in a VRF": (
        "sysctl -qw net.ipv4.tcp_l3mdev_accept=1",
        "net/ipv4/tcp_l3mdev_accept: is 1, not 0",
    ),
    "room for neighbours": (
        "sysctl -qw net.ipv4.neigh.default.gc_thresh3=1024",
        "gc_thresh3: is 1024, not 8192",
    ),
    "hash of flows": (
        "sysctl -qw net.ipv4.fib_multipath_hash_policy=0",
        "fib_multipath_hash_policy: is 0, not 1",
    ),
    "loopback": ("ip address delete 10.2.0.101/32 dev lo", "lo: has no address 10.2.0.101/32"),
    "all addresses of the loopback": (
        "ip address flush dev lo",
        "lo: has no address 10.2.0.101/32",
    ),
    "loopback on an uplink": (
        "ip address delete 10.2.0.101 peer 169.254.0.1/32 dev ens4",
        "ens4: has no address 10.2.0.101 peer 169.254.0.1",
    ),
    "link-local address of an uplink": (
        "ip -6 address flush dev ens4 scope link",
        "ens4: has no IPv6 link-local address",
    ),
    "uplink down": ("ip link set dev ens5 down", "ens5: up is off, not on"),
    "MTU of an uplink": ("ip link set dev ens4 mtu 1400", "ens4: mtu is 1400, not 1500"),
    "MTU of a bridge": ("ip link set dev nbr-26 mtu 1400", "nbr-26: mtu is 1400, not 1500"),
    "MTU of a VXLAN port": ("ip link set dev vxlan26 mtu 1400", "vxlan26: mtu is 1400, not 1500"),
    "MAC of a bridge": ("ip link set dev nbr-26 address 02:00:00:00:00:01", "nbr-26: mac is 02:00"),
    "gateway": (
        "ip address delete 10.188.0.254/24 dev nbr-26",
        "nbr-26: has no address 10.188.0.254/24",
    ),
    "gateway of IPv6": (
        "ip address delete fd00:188:4::254/64 dev nbr-40",
        "nbr-40: has no address fd00:188:4::254/64",
    ),
    "one more address": (
        "ip address add 10.99.0.1/24 dev nbr-26",
        "nbr-26: has the address 10.99.0.1/24, which is not ours",
    ),
    "rule for VRFs": ("ip rule del pref 1000", "IPv4 rules: no rule for VRFs"),
    "rule for VRFs, IPv6": ("ip -6 rule del pref 1000", "IPv6 rules: no rule for VRFs"),
    "rule for table local": ("ip rule del pref 32765", "IPv4 rules: no rule for table local"),
    "rule for table local, first": (
        "ip rule add pref 0 table local",
        "IPv4 rules: table local (priority 0) stands before the VRFs' (1000)",
    ),
    "one more rule for table local": (
        "ip -6 rule add pref 500 table local",
        "IPv6 rules: table local (priority 500) stands before the VRFs' (1000)",
    ),
    "learning as a port": (
        "bridge link set dev vxlan26 learning on",
        "vxlan26: learning as a port is on, not off",
    ),
    "neighbour suppression": (
        "bridge link set dev vxlan26 neigh_suppress off",
        "vxlan26: neighbour suppression is off, not on",
    ),
    "neighbour suppression of an L3VNI": (
        "bridge link set dev l3vx-1033 neigh_suppress on",
        "l3vx-1033: neighbour suppression is on, not off",
    ),
    "state of a port": (
        "bridge link set dev vxlan26 state 0",
        "vxlan26: forwarding of all frames is off, not on",
    ),
    "flooding": (
        "bridge link set dev vxlan31 flood off mcast_flood off bcast_flood off",
        "vxlan31: forwarding of all frames is off, not on",
    ),
    "isolated, and locked": (
        "bridge link set dev vxlan31 isolated on locked on",
        "vxlan31: forwarding of all frames is off, not on",
    ),
    "VLANs": (
        "ip link set dev nbr-26 type bridge vlan_filtering 1 vlan_default_pvid 0",
        "nbr-26: VLAN filtering is on, not off",
    ),
    "ARP": ("ip link set dev nbr-26 arp off", "nbr-26: ARP is off, not on"),
    "another destination of a VXLAN port": (
        "ip link set dev vxlan26 type vxlan remote 192.0.2.99 dev ens6",
        "vxlan26: flooding to one address or NIC is on, not off",
    ),
    "forwarding of a bridge": (
        "sysctl -qw net.ipv4.conf.nbr-26.forwarding=0",
        "net/ipv4/conf/nbr-26/forwarding: is 0, not 1",
    ),
    "forwarding of an L3VNI": (
        "sysctl -qw net.ipv4.conf.l3br-1033.forwarding=0",
        "net/ipv4/conf/l3br-1033/forwarding: is 0, not 1",
    ),
    "learning": ("ip link set dev vxlan26 type vxlan learning", "vxlan26: learning is on, not off"),
    "bridge in no VRF": ("ip link set dev nbr-26 nomaster", "nbr-26: master is none, not Vrf_33"),
    "spanning tree": (
        "ip link set dev nbr-26 type bridge stp_state 1",
        "nbr-26: stp is on, not off",
    ),
    "forward delay": (
        "ip link set dev nbr-31 type bridge forward_delay 400",
        "nbr-31: forward delay is 400, not 0",
    ),
    "bridge down": ("ip link set dev nbr-31 down", "nbr-31: up is off, not on"),
    "VXLAN port down": ("ip link set dev vxlan31 down", "vxlan31: up is off, not on"),
    "VRF down": ("ip link set dev Vrf_33 down", "Vrf_33: up is off, not on"),
    "bridge deleted": ("ip link delete dev nbr-31", "nbr-31: is not there"),
    "VXLAN port deleted": ("ip link delete dev vxlan31", "vxlan31: is not there"),
    "last route of a VRF": (
        "ip route del unreachable default vrf Vrf_33 metric 4278198272",
        "Vrf_33: has no unreachable default route (0.0.0.0/0)",
    ),
    "FRR at boot": ("systemctl disable frr.service", "frr.service: does not start at boot"),
    "management address": (
        "ip address delete 10.12.0.101/16 dev ens4",
        "management address 10.12.0.101/16: is on no device, and evpn-host-failover.service",
    ),
}
# Lines that are typed into FRR, and a part of the difference that `status` then lists.
FRR = {
    "network": ([BGP, IPV4, "no network 10.2.0.101/32"], "`network 10.2.0.101/32` of router bgp"),
    "another network": (
        [BGP, IPV4, "network 192.0.2.0/24"],
        "`network 192.0.2.0/24` of router",
    ),
    "policy": (
        [BGP, EVPN, "no neighbor LEAVES route-map OWN out"],
        "`neighbor LEAVES route-map OWN out` of router bgp",
    ),
    "session shut down": (
        [BGP, "neighbor ens5 shutdown"],
        "`neighbor ens5 shutdown` of router",
    ),
    "timers": ([BGP, "neighbor LEAVES timers 10 30"], "`neighbor LEAVES timers 3 9` of router bgp"),
    "session more": (
        [BGP, "neighbor 192.0.2.9 remote-as 65009", "neighbor 192.0.2.9 description somebody's"],
        "`neighbor 192.0.2.9 remote-as 65009` of router bgp",
    ),
    "session more, by interface": (
        [BGP, "neighbor ens6 interface remote-as external"],
        "`neighbor ens6 interface remote-as external` of router bgp",
    ),
    "session gone": (
        [BGP, "no neighbor ens5 interface v6only peer-group LEAVES"],
        "`neighbor ens5 interface v6only peer-group LEAVES` of router bgp",
    ),
    "peer-group's EVPN": ([BGP, EVPN, "no neighbor LEAVES activate"], "`neighbor LEAVES activate`"),
    "all VNIs": ([BGP, EVPN, "no advertise-all-vni"], "`advertise-all-vni` of router bgp"),
    "router-id": ([BGP, "bgp router-id 192.0.2.1"], "`bgp router-id 10.2.0.101` of router bgp"),
    "route-map": (["no route-map OWN"], "route-map OWN permit 10"),
    "route-map denies": (["route-map FABRIC deny 5"], "`route-map FABRIC deny 5`"),
    "prefix-list": (["no ip prefix-list NOT-DEFAULT seq 5"], "`ip prefix-list NOT-DEFAULT seq 5"),
    "AS path list": (["no bgp as-path access-list OWN"], "`bgp as-path access-list OWN seq 5"),
    "VNI of a VPC": (["vrf Vrf_33", "no vni 1033"], "`vni 1033` of vrf Vrf_33 is missing"),
    "static route": (["ip route 192.0.2.0/24 blackhole"], "`ip route 192.0.2.0/24 blackhole`"),
    "router advertisements": (
        ["interface ens4", "ipv6 nd ra-lifetime 1800"],
        "`ipv6 nd ra-lifetime 0` of interface ens4",
    ),
    "connected routes of a VPC": (
        [VPC, IPV4, "no redistribute connected"],
        "`redistribute connected` of router bgp 4200000001 vrf Vrf_33, address-family ipv4 unicast",
    ),
    "routes of type 5": ([VPC, EVPN, "no advertise ipv4 unicast"], "`advertise ipv4 unicast`"),
    "log": (["log syslog debugging"], "`log syslog informational` is missing"),
    "policy of one session": ([BGP, EVPN, "neighbor ens4 route-map FABRIC out"], "ens4 route-map"),
    "policy's condition": (
        ["route-map OWN permit 10", "no match as-path OWN"],
        "`match as-path OWN` of route-map OWN permit 10 is missing",
    ),
    "password": (
        [BGP, "neighbor LEAVES password not-ours"],
        "`neighbor LEAVES password (not shown)",
    ),
    "one path": ([BGP, IPV4, "maximum-paths 1"], "`maximum-paths 1` of router bgp"),
    "forwarding": (["no ip forwarding"], "net/ipv4/ip_forward: is 0, not 1"),
    "next-hop objects": (["zebra nexthop kernel enable"], "`no zebra nexthop kernel enable`"),
    "static route of a VPC": (
        ["vrf Vrf_33", "ip route 192.0.2.0/24 blackhole"],
        "`ip route 192.0.2.0/24 blackhole` of vrf Vrf_33 is not in its file",
    ),
    "route target": (
        [VPC, EVPN, "route-target import 65000:7"],
        "`route-target import 65000:7` of router bgp 4200000001 vrf Vrf_33",
    ),
    "access list": (["access-list MINE seq 5 permit 192.0.2.0/24"], "`access-list MINE seq 5"),
    "all of BGP": (
        ["vrf Vrf_33", "no vni 1033", LATER, f"no {VPC}", f"no {BGP}"],
        "`router bgp 4200000001` is missing",
    ),
    "BGP of a VPC": (
        ["vrf Vrf_33", "no vni 1033", LATER, f"no {VPC}"],
        "`router bgp 4200000001 vrf Vrf_33`",
    ),
}


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """K8S01 as a VTEP with a dual-stack V-Net, both switch ports in the underlay, and no hook."""
    lab: Lab = fresh_lab(*request.param)
    bring_up(lab, payload(DUAL))
    return lab


@pytest.fixture
def host(lab: Lab) -> Host:
    """The host as planned, without the rules of an earlier test."""
    for priority in ("499", "500"):
        lab.host.run(["ip", "-6", "rule", "del", "pref", priority], check=False)
    if differences(lab.host):
        lab.host.evpn_host("apply", "-p", "/root/payload.json", check=False)
    eventually(lambda: established(lab.host) == {"ens4", "ens5"})
    assert differences(lab.host) == []
    return lab.host


def type_into_frr(host: Host, lines: list[str]) -> bool:
    """Type configuration lines into FRR; return whether FRR took them."""
    options = [word for line in ["configure terminal", *lines] for word in ("-c", line)]
    return host.run(["vtysh", *options], check=False).code == 0


def check_report_and_repair(host: Host, named: str) -> None:
    """Fail unless `status` names the change, and `apply` repairs it and then has nothing to do."""
    listed = differences(host)
    assert any(named in text for text in listed), listed
    result = host.evpn_host("apply", "-p", "/root/payload.json")
    assert f"repaired: {next(text for text in listed if named in text)}" in result.err
    assert "not repaired" not in result.err
    eventually(lambda: established(host) == {"ens4", "ens5"})
    assert differences(host) == []
    assert host.evpn_host("apply", "-p", "/root/payload.json").err == ""


@pytest.mark.parametrize("case", KERNEL)
def test_a_change_of_the_kernel(host: Host, case: str) -> None:
    """`status` names changed settings, addresses, attributes and rules; `apply` repairs them."""
    command, named = KERNEL[case]
    host.run(command.split())
    check_report_and_repair(host, named)


@pytest.mark.parametrize("case", FRR)
def test_a_change_of_frr(host: Host, case: str) -> None:
    """`status` names lines that somebody added, removed or changed in vtysh."""
    lines, named = FRR[case]
    first, rest = (lines[: lines.index(LATER)], lines) if LATER in lines else (lines, [])
    assert type_into_frr(host, first)
    if rest:
        eventually(lambda: type_into_frr(host, rest[rest.index(LATER) + 1 :]))
    check_report_and_repair(host, named)
    assert no_reload_pending(host)


def test_what_is_not_ours_to_put_right(host: Host) -> None:
    """An uplink in somebody's bridge is named and stays there; a renamed device is refused."""
    for line in ("link add br0 type bridge", "link set br0 up", "link set ens5 master br0"):
        host.run(["ip", *line.split()])
    try:
        assert "ens5: is a port of br0" in differences(host)
    finally:
        host.run("ip link delete br0".split())
    for line in ("set vxlan31 down", "set vxlan31 name theirs", "set theirs up"):
        host.run(["ip", "link", *line.split()])
    try:
        assert "vxlan31: is not there" in differences(host)
        result = host.evpn_host("apply", "-p", "/root/payload.json", check=False)
        assert (result.code, "VNI 31 belongs to theirs" in result.err) == (1, True), result.err
    finally:
        host.run("ip link delete theirs".split())
    host.evpn_host("apply", "-p", "/root/payload.json")
    eventually(lambda: established(host) == {"ens4", "ens5"})
    assert differences(host) == []


# The operator's file that is read after ours, and the command that activates it.
OTHER_FILES = {
    "netplan": (
        "/etc/netplan/90-others.yaml",
        "network: {bridges: {nbr-26: {mtu: 1400}}}\n",
        ["netplan", "apply"],
    ),
    "ifupdown": (
        "/etc/network/interfaces.d/others",
        "iface nbr-26\n    mtu 1400\n",
        ["ifup", "nbr-26"],
    ),
}


def test_another_file_that_sets_it_back(lab: Lab, host: Host) -> None:
    """`status` names the file beside the difference."""
    path, text, command = OTHER_FILES[lab.backend]
    host.machine.write(path, text)
    host.run(["chmod", "600", path])
    try:
        host.run(command)
        eventually(lambda: "nbr-26: mtu is 1400, not 1500" in differences(host))
        status = host.evpn_host("status", check=False)
        assert f"warning: {path} names nbr-26 and its mtu too" in status.out
    finally:
        host.run(["rm", path])
    host.evpn_host("apply", "-p", "/root/payload.json")
    assert differences(host) == []


def test_a_later_sysctl_file(lab: Lab, host: Host) -> None:
    """`status` names a later file that ends routing at each boot; `apply` routes again."""
    path = "/etc/sysctl.d/99-hardening.conf"
    host.machine.write(path, "net.ipv4.ip_forward = 0\n")
    finding = f"{path} sets net/ipv4/ip_forward to 0 at each boot, ours to 1"
    assert f"warning: {finding}" in host.evpn_host("status").out
    gpu = bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)
    host.run(["sync"])
    lab.reboot()
    pod = guest(lab.host, "pod", 31, "10.188.1.254", 10)
    eventually(lambda: established(host) == {"ens4", "ens5"})
    assert "net/ipv4/ip_forward: is 0, not 1" in differences(host)
    result = host.evpn_host("apply", "-p", "/root/payload.json")
    assert f"warning: {finding}" in result.err
    assert "repaired: net/ipv4/ip_forward: is 0, not 1" in result.err
    eventually(lambda: pod.ping(gpu, count=1))
    host.run(["rm", path])


def test_lines_that_frr_spells_otherwise(host: Host) -> None:
    """An operator's lines in another spelling are no difference, and cause no reload."""
    host.machine.write("/etc/frr/frr.conf.local", "ip prefix-list MINE permit 192.0.2.0/24\n")
    host.evpn_host("apply", "-p", "/root/payload.json")
    assert differences(host) == []
    assert "frr-reload" not in host.evpn_host("apply", "-v", "-p", "/root/payload.json").err
    host.run(["vtysh", "-c", "configure terminal", "-c", "no ip prefix-list MINE"])
    assert any("MINE" in text for text in differences(host))
    host.evpn_host("apply", "-p", "/root/payload.json")
    assert differences(host) == []
    host.run(["rm", "/etc/frr/frr.conf.local"])
    host.evpn_host("apply", "-p", "/root/payload.json")
    assert differences(host) == []
