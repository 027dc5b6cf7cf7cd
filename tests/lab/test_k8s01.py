"""The main job on a real kernel with the real daemons: K8S01 of the documentation is a VTEP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from lab.fabric import Fabric, Host, Lab, Leaf, Node, eventually
from tests.lab.k8s01 import (
    DUAL,
    DUAL_2,
    LEAVES,
    OPERATORS_COMMANDS,
    TENANT_A,
    TENANT_B,
    Payload,
    addresses,
    bare_metal,
    bring_up,
    change,
    established,
    guest,
    no_reload_pending,
    payload,
    resets,
    vnet,
)
from tests.lab.systems import SYSTEMS

FOREIGN = {"netplan": "/etc/netplan/50-operator.yaml", "ifupdown": "/etc/network/interfaces"}


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """Make a fabric with K8S01 as a VTEP, both switch ports in the underlay."""
    lab: Lab = fresh_lab(*request.param)
    lab.foreign = _foreign(lab)  # type: ignore[attr-defined]
    bring_up(lab)
    return lab


@pytest.fixture
def pod(lab: Lab) -> Node:
    """A guest in V-Net 26."""
    return guest(lab.host, "pod", 26, "10.188.0.254", 10)


@pytest.fixture
def gpu(lab: Lab) -> Node:
    """A bare-metal server in V-Net 26."""
    return bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)


@pytest.mark.claim(
    "4.1",
    "The loopback is the VTEP's address, a V-Net's bridge has its gateway, Management has none",
)
def test_addresses_are_as_documented(host: Host) -> None:
    """The loopback is the VTEP's address; a bridge has its gateways; Management has none."""
    assert addresses(host, "lo") == {"10.2.0.101/32"}
    assert addresses(host, "nbr-26") == {"10.188.0.254/24"}
    assert addresses(host, "nbr-31") == {"10.188.1.254/24"}
    host.run(["ip", "link", "show", "nbr-14"])


@pytest.mark.claim(
    "12.1",
    "A session with each leaf carries IPv4 and EVPN, with the documented AS numbers",
)
def test_two_sessions_carry_ipv4_and_evpn(host: Host) -> None:
    """AS 4200000001 is Established with 4200300001 and 4200300002 in both address families."""
    shown = host.show("show bgp summary json")
    for family in ("ipv4Unicast", "l2VpnEvpn"):
        assert shown[family]["as"] == 4200000001
        peers = {name: peer["remoteAs"] for name, peer in shown[family]["peers"].items()}
        assert peers == {"ens4": 4200300001, "ens5": 4200300002}
    assert established(host) == {"ens4", "ens5"}
    assert no_reload_pending(host)


def test_status_finds_no_difference(host: Host) -> None:
    """`status` compares what should be with the kernel and FRR, and agrees."""
    report = json.loads(host.evpn_host("status", "--json").out)
    assert report["differences"] == []
    assert report["ok"]


def test_networkd_listens_for_lldp_on_nics_alone(lab: Lab) -> None:
    """Each device that it listens on takes one of the 1,024 files that it may have open."""
    links = {
        str(link["ifindex"]): link["ifname"] for link in lab.host.run(["ip", "-json", "link"]).json
    }
    sockets = [line.split() for line in lab.host.machine.read("/proc/net/packet").splitlines()[1:]]
    listening = {links[device] for _, _, _, protocol, device, *_ in sockets if protocol == "88cc"}
    assert listening == ({"ens4", "ens5", "ens6"} if lab.backend == "netplan" else set())


@pytest.mark.claim("6.1", "A remote VTEP has two next hops, and many flows use both uplinks")
def test_both_uplinks_carry_traffic(host: Host, fabric: Fabric, pod: Node) -> None:
    """The third leaf's loopback has two next hops, and traffic to many servers uses both.

    Many servers, because the kernel's VXLAN keeps the route that it found for a remote MAC: flows
    to one server stay on one uplink (drivers/net/vxlan, dst_cache).
    """
    eventually(lambda: _next_hops(host, "10.2.0.3/32") == {"ens4", "ens5"})
    servers = [bare_metal(fabric, f"bm-{n}", 26, "10.188.0.254", 100 + n) for n in range(16)]
    before = _sent(host)
    for server in servers:
        assert pod.ping(server, count=20, interval=0.01).received
    after = _sent(host)
    sent = {nic: after[nic] - before[nic] for nic in after}
    print(f"packets by uplink: {sent}")
    assert min(sent.values()) > 15, sent


def _next_hops(host: Host, prefix: str) -> set[str]:
    [route] = host.run(["ip", "-json", "route", "show", prefix]).json
    return {hop["dev"] for hop in route.get("nexthops", [route])}


def _sent(host: Host) -> dict[str, int]:
    path = "/sys/class/net/{}/statistics/tx_packets"
    return {nic: int(host.machine.read(path.format(nic))) for nic in ("ens4", "ens5")}


@pytest.mark.claim("1.1", "A guest and a bare-metal server of one V-Net talk, through the fabric")
@pytest.mark.claim(
    "5.1",
    "On the wire: VXLAN to UDP 4789 with the V-Net's VNI, from loopback to loopback, both ways",
)
def test_guest_and_bare_metal_share_a_vnet(fabric: Fabric, pod: Node, gpu: Node) -> None:
    """Both directions work; on the wire is VXLAN with the V-Net's VNI, between the loopbacks."""
    eventually(lambda: pod.ping(gpu, count=1))
    for source, target, outer in (
        (pod, gpu, "10.2.0.101.{port} > 10.2.0.3.4789"),
        (gpu, pod, "10.2.0.3.{port} > 10.2.0.101.4789"),
    ):
        leaf = fabric.leaf("ns-leaf-2")
        # Only VXLAN with ICMP of IPv4 inside: others ask for routers meanwhile.
        icmp = "udp port 4789 and udp[28:2] = 0x0800 and udp[39] = 1"
        with leaf.capture("any", icmp, count=12) as wire:
            assert source.ping(target, count=6)
        start, end = outer.split(".{port}")
        lines = [line for line in wire.text.splitlines() if start in line and end in line]
        assert any("vni 26" in line for line in lines), wire.text


@pytest.mark.claim(
    "1.2",
    "V-Nets of a VPC are routed into each other in IPv4 and IPv6, over the L3VNI",
)
def test_routing_between_vnets_of_a_vpc_in_both_families(lab: Lab) -> None:
    """Symmetric IRB over the L3VNI: the packet crosses the fabric in VNI 1033."""
    change(lab, payload(DUAL, DUAL_2))
    here = lab.host.pod(
        "irb", "nbr-40", ipv4="10.188.4.10/24", gateway="10.188.4.254",
        ipv6="fd00:188:4::10/64", gateway6="fd00:188:4::254",
    )  # fmt: skip
    server = lab.fabric.server(
        "irb-bm", vni=41, ipv4="10.188.5.20/24", gateway="10.188.5.254",
        ipv6="fd00:188:5::20/64", gateway6="fd00:188:5::254",
    )  # fmt: skip
    for node, v4, v6 in (
        (here, "10.188.4.254", "fd00:188:4::254"),
        (server, "10.188.5.254", "fd00:188:5::254"),
    ):
        eventually(partial(node.ping, v4, count=1))
        eventually(partial(node.ping, v6, count=1, family=6))
    eventually(lambda: here.ping(server, count=1))
    eventually(lambda: here.ping(server, count=1, family=6))
    of_the_vpc = f"udp port 4789 and udp[12:4] = {1033 << 8}"
    with lab.fabric.leaf("ns-leaf-2").capture("any", of_the_vpc, count=20) as wire:
        assert here.ping(server)
        assert server.ping(here)
        assert here.ping(server, family=6)
        assert server.ping(here, family=6)
    assert "vni 1033" in wire.text


@pytest.mark.claim(
    "13.1",
    "Two VPCs may use the same prefix; neither reaches the other, the host or the underlay",
)
def test_vpcs_of_the_same_prefix_are_strangers(lab: Lab, pod: Node) -> None:
    """Tenants use the same addresses. A guest reaches its own tenant, no host and no underlay."""
    change(
        lab,
        payload(
            vnet(60, 50, "172.20.0.254/24"),
            vnet(61, 51, "172.20.0.254/24"),
            vnet(62, 51, "172.20.9.254/24"),
            vnet(63, 51),
            vpcs=(TENANT_A, TENANT_B),
        ),
    )
    a = guest(lab.host, "tenant-a", 60, "172.20.0.254", 10)
    b = guest(lab.host, "tenant-b", 61, "172.20.0.254", 10)
    only_b = bare_metal(lab.fabric, "only-b", 62, "172.20.9.254", 20)
    eventually(lambda: b.ping(only_b, count=1))
    listener = lab.host.start(["python3", "-m", "http.server", "8080"])
    forbidden = [
        only_b.ipv4,  # another tenant's network
        pod.ipv4,
        "10.12.0.101",  # the host: management, a lease, another NIC, the VTEP
        "10.254.254.10",
        "192.0.2.10",
        "10.2.0.101",
        "10.2.0.1",  # the underlay
        "10.12.0.5",  # the management V-Net
    ]
    try:
        eventually(lambda: _connects(lab.host, "10.2.0.101"))
        for target in forbidden:
            assert a.ping(target, count=2, interval=0.1).received == 0, target
            assert not _connects(a, target), target
        assert not _connects(a, "172.20.0.254"), "the host's services on the gateway address"
    finally:
        listener.stop()
    _l2_tenant_stays_out_of_the_host(lab)


def _connects(node: Node, address: str) -> bool:
    probe = f"import socket; socket.create_connection(('{address}', 8080), 0.7)"
    return node.run(["python3", "-c", probe], check=False).code == 0


def _l2_tenant_stays_out_of_the_host(lab: Lab) -> None:
    """In a V-Net without a gateway a frame to the bridge's own MAC does not reach the host."""
    pod = lab.host.pod("l2", "nbr-63", ipv4="10.99.0.1/24")
    [bridge] = lab.host.run(["ip", "-json", "link", "show", "nbr-63"]).json
    for address in ("10.12.0.101", "10.2.0.101", "10.12.0.5"):
        pod.run(["ip", "route", "replace", address, "dev", "eth0"])
        neighbour = ["lladdr", bridge["address"], "dev", "eth0", "nud", "permanent"]
        pod.run(["ip", "neigh", "replace", address, *neighbour])
        before = _delivered(lab.host)
        assert pod.ping(address, count=2, interval=0.1).received == 0, address
        assert _delivered(lab.host) == before, address
    lab.host.run(["ip", "netns", "delete", "l2"])


def _delivered(host: Host) -> int:
    """Return how many echo requests the host has taken for its own."""
    table = [line.split() for line in host.machine.read("/proc/net/snmp").splitlines()]
    names, values = (line for line in table if line[0] == "Icmp:")
    return int(values[names.index("InEchos")])


@pytest.mark.claim(
    "11.1",
    "A V-Net's type-3 route comes and goes with it; other V-Nets lose no packet",
)
def test_a_vnet_comes_changes_and_goes_without_touching_others(
    lab: Lab, pod: Node, gpu: Node
) -> None:
    """Leaves see its type-3 route come and go; others lose no packet, no session is reset."""
    change(lab, payload())
    leaf = lab.fabric.leaf("ns-leaf-2")
    eventually(lambda: pod.ping(gpu, count=1))
    before = resets(lab.host)
    added = vnet(70, 33, "10.188.7.254/24")
    changed = vnet(70, 33, "10.188.8.254/24", mtu=1400)
    steps = (
        (payload(added), True),
        (payload(changed), True),
        (payload(vnet(70, 50, "10.188.8.254/24"), vpcs=(TENANT_A,)), True),
        (payload(), False),
    )
    with pod.pinging(gpu, interval=0.02) as running:
        for document, is_member in steps:
            change(lab, document)
            eventually(partial(_announced_is, leaf, 70, is_member))
    assert running.result.sent > len(steps)
    assert running.result, running.result
    assert resets(lab.host) == before
    assert no_reload_pending(lab.host)
    assert "nbr-70" not in lab.host.run(["ip", "-brief", "link"]).out


def _announced_is(leaf: Any, vni: int, expected: bool) -> bool:
    return _announced(leaf, vni) == expected


def _announced(leaf: Any, vni: int) -> bool:
    """Return whether the host has announced itself as a member of a V-Net."""
    shown = leaf.show("show bgp l2vpn evpn route type multicast json")
    target = f":{vni}"
    return any(
        community["string"].startswith("RT:") and community["string"].split()[0].endswith(target)
        for community in _communities(shown, "[3]:[0]:[32]:[10.2.0.101]")
    )


def _communities(shown: Payload, prefix: str) -> Iterator[Payload]:
    for routes in shown.values():
        if isinstance(routes, dict) and prefix in routes:
            for paths in routes[prefix]["paths"]:
                for path in paths if isinstance(paths, list) else [paths]:
                    if "extendedCommunity" in path:
                        yield path["extendedCommunity"]


def test_applying_again_writes_and_runs_nothing(lab: Lab) -> None:
    """The second apply of a payload leaves every file's time and runs no command."""
    document = payload()
    change(lab, document)
    listing = "find /etc /var/lib/evpn-host /run/systemd/network -type f -printf '%p %T@ %i\\n'"
    before = lab.host.run(["sh", "-c", listing]).out
    again = lab.host.apply(document, "-v")
    assert [line for line in again.err.splitlines() if line.startswith("+")] == []
    assert again.out == ""
    assert lab.host.run(["sh", "-c", listing]).out == before


@pytest.mark.claim(
    "17.1",
    "The operator's own netplan apply, reconfigure, networkd restart or ifreload costs no traffic",
)
def test_an_operators_own_apply_costs_nothing(lab: Lab, pod: Node, gpu: Node) -> None:
    """The operator's apply removes no route and no neighbour: the guest's ping goes on."""
    change(lab, payload())
    eventually(lambda: pod.ping(gpu, count=1))
    before = resets(lab.host)
    for command in OPERATORS_COMMANDS[lab.backend]:
        with pod.pinging(gpu, interval=0.05) as running:
            lab.host.run(command, timeout=300)
            time.sleep(3)  # effects of the command may come after its end
        print(f"{' '.join(command)}: {running.result}")
        assert running.result, (command, running.result)
        assert resets(lab.host) == before, command
        eventually(lambda: json.loads(lab.host.evpn_host("status", "--json").out)["ok"])
    assert established(lab.host) == {"ens4", "ens5"}
    assert lab.host.evpn_host("status", check=False).code == 0


@pytest.mark.claim(
    "3.1",
    "An unlisted NIC, the operator's files and a foreign bridge are untouched",
)
def test_what_is_not_ours_is_as_before(lab: Lab) -> None:
    """An unlisted NIC, an operator's file and a foreign bridge have not changed at all."""
    change(lab, payload(DUAL))
    now, before = _foreign(lab), lab.foreign  # type: ignore[attr-defined]
    for name, previous in before.items():
        assert now[name] == previous, name


def _foreign(lab: Lab) -> dict[str, Any]:
    """Return what is not ours, and add a bridge that somebody has until the next reboot."""
    host, path = lab.host, FOREIGN[lab.backend]
    if host.run(["ip", "link", "add", "br-foreign", "type", "bridge"], check=False).code == 0:
        host.run(["ip", "link", "set", "br-foreign", "up"])
        host.await_dad()

    def shown(device: str) -> Payload:
        [link] = host.run(["ip", "-details", "-json", "address", "show", device]).json
        volatile = ("gc_timer", "hello_timer", "tcn_timer", "topology_change_timer")
        data = link.get("linkinfo", {}).get("info_data", {})
        for name in volatile:
            data.pop(name, None)
        return dict(link)

    return {
        "file": host.machine.read(path),
        "status": host.run(["stat", "-c", "%a %U %G %Y %i", path]).out,
        "ens6": shown("ens6"),
        "bridge": shown("br-foreign"),
    }


@pytest.mark.claim(
    "11.2",
    "No transit: no leaf learns another leaf's route from the host, in IPv4 or EVPN",
)
def test_no_leaf_is_reached_through_the_host(fabric: Fabric) -> None:
    """The host announces its own paths only: no leaf gets another leaf's paths from it."""
    for name in LEAVES:
        leaf = fabric.leaf(name)
        eventually(partial(_heard_of_the_host, leaf))


def _heard_of_the_host(leaf: Leaf) -> bool:
    """Return whether a leaf has the host's routes; fail if the host sends it another leaf's."""
    port = "swp9s1"
    received = leaf.show(f"show bgp ipv4 unicast neighbors {port} routes json")["routes"]
    text = json.dumps(leaf.show(f"show bgp l2vpn evpn neighbors {port} routes json"))
    others = set(received) - {"10.2.0.101/32"}
    if others or "4200300003" in text:
        pytest.fail(f"{leaf.name} heard from the host: {others} {text}")
    return bool(received) and "10.2.0.101" in text


@pytest.mark.claim(
    "14.1",
    "After a power cut the files alone bring links, VRFs, sessions and forwarding back",
)
def test_after_a_power_cut_the_files_alone_bring_all_back(lab: Lab) -> None:
    """Links, VRFs, rules, sessions and forwarding return without any run of evpn-host."""
    change(lab, payload())
    lab.reboot(hard=True)
    took = eventually(lambda: established(lab.host) == {"ens4", "ens5"})
    print(f"sessions Established {took:.1f} s after the machine was up")
    server = bare_metal(lab.fabric, "gpu", 26, "10.188.0.254", 20)
    pod = guest(lab.host, "pod", 26, "10.188.0.254", 10)
    eventually(lambda: pod.ping(server, count=1))
    assert pod.ping("10.12.0.101", count=2).received == 0

    def as_planned() -> bool:
        shown = lab.host.evpn_host("status", "--json", check=False).out
        assert json.loads(shown)["differences"] == []
        return True

    eventually(as_planned)  # the other V-Nets come up beside this one
    files = {name: lab.foreign[name] for name in ("file", "status")}  # type: ignore[attr-defined]
    lab.foreign = _foreign(lab) | files  # type: ignore[attr-defined]
