"""What preflight says of a machine: what stops an apply, what its operator should know."""

import datetime
from collections.abc import Callable

import msgspec
import pytest

from generator.desired import model
from generator.desired.payload import load
from generator.observed import preflight
from generator.observed.machine import MODULES, PROGRAMS, Machine
from generator.observed.netlink import Link
from tests.strategies import LEAF1, LEAF2, encoded, host, tagged, vnet

DOCUMENT = host(vnet(26, prefixes=["10.26.0.1/24"], ports=tagged(LEAF1, LEAF2)))
HOST = load(encoded(DOCUMENT)).hosts[0]
DEVICES = list(model.devices(HOST))
NIC1, NIC2 = (uplink.ifname for uplink in HOST.uplinks)


def nic(index: int, name: str, **fields: object) -> Link:
    """A NIC that is up and has carrier."""
    link = Link(index=index, name=name, up=True, mtu=9216, mac="", master=0, kind="", carrier=True)
    return msgspec.structs.replace(link, **fields)


def machine(*links: Link, **fields: object) -> Machine:
    """A machine with which nothing is wrong: these devices besides the uplinks."""
    nics = [nic(1, NIC1), nic(2, NIC2), *links]
    ready = Machine(
        links={link.name: link for link in nics},
        addresses={1: {HOST.management.ipv4}} if HOST.management else {},
        frr_programs=frozenset(PROGRAMS),
        modules=dict.fromkeys(MODULES, True),
        free={"etc": 1 << 30},
        time=datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC),
    )
    return msgspec.structs.replace(ready, **fields)


def without(name: str, *links: Link) -> Machine:
    """The same without one of its NICs."""
    whole = machine(*links, addresses={9: {HOST.management.ipv4}} if HOST.management else {})
    return msgspec.structs.replace(
        whole, links={key: link for key, link in whole.links.items() if key != name}
    )


def findings(machine: Machine, *, first: bool = True) -> list[preflight.Finding]:
    return preflight.findings(HOST, DEVICES, machine, first=first)


def test_a_machine_that_is_ready() -> None:
    """Nothing is said of it."""
    assert findings(machine()) == []


STOPS: dict[str, Callable[[], Machine]] = {
    f"{NIC1} is not there; {NIC1}0 is": lambda: without(NIC1, nic(9, f"{NIC1}0")),
    "it is an alternative name of enp1": lambda: without(NIC1, nic(9, "enp1", altnames=(NIC1,))),
    f"{NIC1} is a port of br0": lambda: machine(
        nic(9, "br0", kind="bridge"), nic(1, NIC1, master=9)
    ),
    "nbr-26 is there already": lambda: machine(nic(9, "nbr-26", kind="bridge")),
    "table 1033 is the one of blue": lambda: machine(nic(9, "blue", kind="vrf", table=1033)),
    "VNI 26 is the one of theirs": lambda: machine(
        nic(9, "theirs", kind="vxlan", vni=26, port=4789)
    ),
    "enp1 has the alternative name nbr-26": lambda: machine(nic(9, "enp1", altnames=("nbr-26",))),
    "vxlan_sys_4789 has UDP port 4789 for itself": lambda: machine(
        nic(9, "vxlan_sys_4789", kind="vxlan", vni=0, port=4789, alone=True),
        udp_ports={4789: ""},
    ),
    "table 1033 has a route to 10.9.0.0/16": lambda: machine(tables={254: "", 1033: "10.9.0.0/16"}),
    "a rule looks up table 1033": lambda: machine(rules=frozenset({254, 1033})),
    "a program uses UDP port 4789": lambda: machine(udp_ports={53: "", 4789: ""}),
    "dockerd uses UDP port 4789": lambda: machine(udp_ports={4789: "dockerd"}),
    "a program listens on TCP port 179": lambda: machine(tcp_listeners={22: "", 179: ""}),
    "bird listens on TCP port 179": lambda: machine(tcp_listeners={179: "bird"}, bgp_runs=True),
    "FRR's bgpd, frr-reload.py are not installed": lambda: machine(
        frr_programs=frozenset({"zebra", "bfdd"})
    ),
    "the kernel module vrf is not loaded, and the kernel loads no more": lambda: machine(
        modules={"vrf": False, "vxlan": True}, locked=True
    ),
    "this kernel has no IPv6": lambda: machine(ipv6=False),
    "this kernel has no vxlan": lambda: machine(modules={"vrf": None, "vxlan": False}),
    f"NetworkManager manages {NIC1}": lambda: machine(network_manager=frozenset({NIC1, "wlan0"})),
    "/etc has 100 KiB left": lambda: machine(free={"etc": 100 << 10}),
}


@pytest.mark.parametrize("text", STOPS)
def test_what_stops_an_apply(text: str) -> None:
    """The finding names what is wrong, why that matters and what to do."""
    [finding] = findings(STOPS[text]())
    assert text in finding.what
    assert finding.stops
    assert finding.why
    assert finding.remedy


WARNS: dict[str, Callable[[], Machine]] = {
    f"{NIC2} has no carrier": lambda: machine(nic(2, NIC2, carrier=False)),
    "cloud-init writes /etc/netplan/50-cloud-init.yaml": lambda: machine(
        cloud_init="etc/netplan/50-cloud-init.yaml"
    ),
    f"{NIC1} is connected to other": lambda: machine(leaves={NIC1: "other.example.net"}),
    f"{NIC1} is connected to another": lambda: machine(switches={NIC1: "another", NIC2: ""}),
    "the clock says 1970-01-01": lambda: machine(
        time=datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    ),
}


@pytest.mark.parametrize("text", WARNS)
def test_what_an_operator_should_know(text: str) -> None:
    """It is said, and stops nothing."""
    [finding] = findings(WARNS[text]())
    assert text in finding.what
    assert not finding.stops


def test_devices_of_a_host_that_was_applied_are_ours() -> None:
    """Only before the first apply a device with our name is somebody else's."""
    assert findings(machine(nic(9, "nbr-26", kind="bridge")), first=False) == []


def test_what_is_new_may_be_somebody_elses() -> None:
    """Also after the first apply: a VPC is new, and somebody has its table."""
    ours = {device.name for device in DEVICES} - {"Vrf_33"}
    blue = machine(nic(9, "blue", kind="vrf", table=1033), nic(10, "nbr-26", kind="bridge"))
    [finding] = preflight.findings(HOST, DEVICES, blue, first=False, ours=ours)
    assert finding.what == "table 1033 is the one of blue"
    assert finding.stops


def test_vxlan_devices_share_a_port() -> None:
    """Such as Calico's: the kernel has one socket for all that are alike."""
    theirs = nic(9, "vxlan.calico", kind="vxlan", vni=4096, port=4789)
    assert findings(machine(theirs, udp_ports={4789: ""})) == []


def test_a_plugin_may_have_made_the_bridge() -> None:
    """It becomes ours, unless it is no bridge or nothing of ours was ever here."""
    ours = {device.name for device in DEVICES} - {"nbr-26"}
    early = machine(nic(9, "nbr-26", kind="bridge"))
    assert preflight.findings(HOST, DEVICES, early, first=False, ours=ours) == []
    dummy = machine(nic(9, "nbr-26", kind="dummy"))
    [finding] = preflight.findings(HOST, DEVICES, dummy, first=False, ours=ours)
    assert finding.what == "nbr-26 is there already"


def test_bgpd_of_frr_is_no_other_speaker() -> None:
    """It may listen already."""
    assert findings(machine(tcp_listeners={179: "bgpd"}, bgp_runs=True)) == []


def test_the_management_address_may_be_on_a_bridge_of_ours() -> None:
    """Its V-Net gets another VNI: the address is still on the bridge of before."""
    management = HOST.management
    assert management
    bridge = nic(9, "nbr-99", kind="bridge")
    there = machine(bridge, addresses={9: {management.ipv4}})
    ours = frozenset({"nbr-99"})
    assert preflight.findings(HOST, DEVICES, there, first=False, ours=ours) == []
    [finding] = preflight.findings(HOST, DEVICES, there, first=False)
    assert finding.stops
    assert f"{management.ipv4} is on nbr-99" in finding.what


def test_a_leafs_name_is_compared_without_its_domain() -> None:
    """FRR says the host name of the switch, which may be in full."""
    expected = model.leaf(HOST.uplinks[0])
    assert expected
    assert findings(machine(leaves={NIC1: f"{expected.upper()}.example.net"})) == []
