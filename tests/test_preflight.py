"""preflight's findings on a machine: some stop an apply, others inform the operator."""

import datetime
import socket
import struct
from collections.abc import Callable

import msgspec
import pytest

from generator.desired import model
from generator.desired.payload import load
from generator.observed import netlink, preflight
from generator.observed.machine import MODULES, PROGRAMS, Machine
from generator.observed.netlink import Link
from tests.strategies import LEAF1, LEAF2, encoded, host, tagged, vnet

DOCUMENT = host(vnet(26, prefixes=["10.26.0.1/24"], ports=tagged(LEAF1, LEAF2)))
HOST = load(encoded(DOCUMENT)).hosts[0]
DEVICES = list(model.devices(HOST))
NIC1, NIC2 = (uplink.ifname for uplink in HOST.uplinks)


def nic(index: int, name: str, **fields: object) -> Link:
    """Return a NIC that is up and has carrier."""
    link = Link(index=index, name=name, up=True, mtu=9216, mac="", master=0, kind="", carrier=True)
    return msgspec.structs.replace(link, **fields)


def machine(*links: Link, **fields: object) -> Machine:
    """Return a machine without a fault, with these devices besides the uplinks."""
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
    """Return the machine without one of its NICs."""
    whole = machine(*links, addresses={9: {HOST.management.ipv4}} if HOST.management else {})
    return msgspec.structs.replace(
        whole, links={key: link for key, link in whole.links.items() if key != name}
    )


def advertised(*, accept_ra: int, forwarding: int = 0, address: str = "2001:db8::9/64") -> Machine:
    """The same with another NIC, which has a route from router advertisements."""
    settings = struct.pack("=4i", forwarding, 64, 1280, accept_ra)  # up to DEVCONF_ACCEPT_RA
    families = netlink.attribute(socket.AF_INET6, netlink.attribute(2, settings))
    ens6 = nic(9, "ens6", families=families)
    addresses = {**machine().addresses, 9: {address}}
    return machine(ens6, advertised=frozenset({"ens6", NIC1}), addresses=addresses)


def findings(machine: Machine, *, first: bool = True) -> list[preflight.Finding]:
    return preflight.findings(HOST, DEVICES, machine, first=first)


def test_a_ready_machine_has_no_finding() -> None:
    """There is no finding on a machine that is ready."""
    assert findings(machine()) == []


STOPS: dict[str, Callable[[], Machine]] = {
    f"{NIC1} is not there; {NIC1}0 is": lambda: without(NIC1, nic(9, f"{NIC1}0")),
    "it is an alternative name of enp1": lambda: without(NIC1, nic(9, "enp1", altnames=(NIC1,))),
    f"{NIC1} is a port of br0": lambda: machine(
        nic(9, "br0", kind="bridge"), nic(1, NIC1, master=9)
    ),
    "nbr-26 is there already": lambda: machine(nic(9, "nbr-26", kind="bridge")),
    "table 1033 belongs to blue": lambda: machine(nic(9, "blue", kind="vrf", table=1033)),
    "VNI 26 belongs to theirs": lambda: machine(nic(9, "theirs", kind="vxlan", vni=26, port=4789)),
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
    "ens6 has its IPv6 default route from router advertisements": lambda: advertised(accept_ra=1),
    "/etc has 100 KiB left": lambda: machine(free={"etc": 100 << 10}),
}


@pytest.mark.parametrize("text", STOPS)
def test_a_finding_stops_an_apply(text: str) -> None:
    """A finding that stops an apply says what is wrong, why it matters and what to do."""
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
def test_a_finding_informs_the_operator(text: str) -> None:
    """A finding that only informs stops nothing."""
    [finding] = findings(WARNS[text]())
    assert text in finding.what
    assert not finding.stops


@pytest.mark.parametrize(
    "ready",
    [
        advertised(accept_ra=2),
        advertised(accept_ra=0),  # networkd reads them
        advertised(accept_ra=1, forwarding=1),
        advertised(accept_ra=1, address="192.0.2.9/24"),  # a leaf's, on a spare NIC
    ],
)
def test_advertisements_that_go_on(ready: Machine) -> None:
    """Nothing is said where a NIC has the same IPv6 after an apply as before."""
    assert findings(ready) == []


def test_devices_of_a_host_that_was_applied_are_ours() -> None:
    """After the first apply a device with our name is ours, not somebody else's."""
    assert findings(machine(nic(9, "nbr-26", kind="bridge")), first=False) == []


def test_a_table_of_a_new_vpc_may_be_somebody_elses() -> None:
    """Also after the first apply somebody may have the table of a new VPC."""
    ours = {device.name for device in DEVICES} - {"Vrf_33"}
    blue = machine(nic(9, "blue", kind="vrf", table=1033), nic(10, "nbr-26", kind="bridge"))
    [finding] = preflight.findings(HOST, DEVICES, blue, first=False, ours=ours)
    assert finding.what == "table 1033 belongs to blue"
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
    """FRR's own bgpd may listen already."""
    assert findings(machine(tcp_listeners={179: "bgpd"}, bgp_runs=True)) == []


def test_the_management_address_may_be_on_a_bridge_of_ours() -> None:
    """The address may still be on the old bridge when its V-Net gets another VNI."""
    management = HOST.management
    assert management
    bridge = nic(9, "nbr-99", kind="bridge")
    applied = machine(bridge, addresses={9: {management.ipv4}})
    ours = frozenset({"nbr-99"})
    assert preflight.findings(HOST, DEVICES, applied, first=False, ours=ours) == []
    [finding] = preflight.findings(HOST, DEVICES, applied, first=False)
    assert finding.stops
    assert f"{management.ipv4} is on nbr-99" in finding.what


def test_a_leafs_name_is_compared_without_its_domain() -> None:
    """A leaf's name is compared without its domain, which FRR may add."""
    expected = model.leaf(HOST.uplinks[0])
    assert expected
    assert findings(machine(leaves={NIC1: f"{expected.upper()}.example.net"})) == []
