"""The life of a host: first apply, reboots, changes by others, and uninstall.

All tests of a system share one machine and find it in the state in which the previous test left it.
A fixture or a method of Life brings it to the state with which a test begins. `EVPN_HOST_REBOOTS`
(2, or 4 with `--all`) and `EVPN_HOST_OPERATORS_APPLIES` (3, or 6 with `--all`) set the number of
repetitions. The tests print how long forwarding was interrupted (`-rP`) and do not judge it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from lab.fabric import Host, Lab, Node, eventually
from tests.lab.k8s01 import (
    DUAL,
    Payload,
    bare_metal,
    change,
    differences,
    established,
    guest,
    no_reload_pending,
    payload,
    resets,
    underlay,
    vnet,
)
from tests.lab.systems import SYSTEMS

UP = {"ens4", "ens5"}
OPERATORS_APPLY = {"netplan": ["netplan", "apply"], "ifupdown": ["ifreload", "-a"]}
RECONFIGURED = {
    "netplan": ["networkctl reconfigure ens4", "networkctl reconfigure ens5"],
    "ifupdown": ["ifup --force ens4", "ifdown ens5; ifup ens5"],
}
RESTARTED = {
    "netplan": ["systemctl restart systemd-networkd"],
    "ifupdown": ["systemctl restart networking"],
}
MAKER = {"netplan": "pidof systemd-networkd", "ifupdown": "pgrep --full [s]bin/ifup"}
# Stops the process that makes devices (networkd or ifup) while it makes the V-Nets. networkd runs
# before that, so its pid is read first: a later look would come when networkd has finished. ifup
# only starts then, so its pid is read afterwards.
HELD_UP = """
maker=$({maker})
until [ -e /sys/class/net/nbr-210 ]; do :; done
maker=${{maker:-$({maker})}} && kill -STOP $maker && sleep {seconds} && kill -CONT $maker
"""

# Prints as JSON all state of the network and all files that the product could leave behind: lists
# with one line for each item, sorted.
SNAPSHOT = r"""
import hashlib, json, os, subprocess
from pathlib import Path
def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
def lines(*argv):
    return sorted(json.dumps(each, sort_keys=True) for each in json.loads(run(*argv) or "[]"))
VOLATILE = ("valid_life_time", "preferred_life_time", "expires")
def without(text):
    item = json.loads(text)
    for each in item.get("addr_info", []):
        for name in VOLATILE:
            each.pop(name, None)
    # The addresses are of different subnets, so their order has no meaning.
    item.get("addr_info", []).sort(key=json.dumps)
    item.pop("expires", None)
    return json.dumps(item, sort_keys=True)
state = {"links": lines("ip", "-details", "-json", "link")}
state["addresses"] = [without(line) for line in lines("ip", "-json", "address")]
for family in ("-4", "-6"):
    routes = lines("ip", family, "-json", "route", "show", "table", "all")
    state[f"routes{family}"] = [without(line) for line in routes]
    state[f"rules{family}"] = lines("ip", family, "-json", "rule")
state["bridge ports"] = lines("bridge", "-json", "link")
state["forwarding entries"] = lines("bridge", "-json", "fdb")
SYSCTLS = ("forwarding", "rp_filter", "arp_ignore", "accept_ra", "disable_ipv6", "accept_dad",
    "keep_addr_on_down", "gc_thresh", "l3mdev", "hash_policy", "ip_forward", "accept_redirects")
state["settings"] = sorted(
    f"{path} {path.read_text().strip()}"
    for path in Path("/proc/sys/net").rglob("*")
    if path.is_file() and any(word in path.name for word in SYSCTLS)
)
state["files"] = []
for top in ("/etc", "/var/lib/evpn-host", "/run/evpn-host", "/run/systemd/network"):
    for folder, folders, names in os.walk(top):
        for name in [".", *names]:
            path = Path(folder, name)
            info = path.lstat()
            text = path.read_bytes() if path.is_file() else b""
            what = os.readlink(path) if path.is_symlink() else hashlib.sha256(text).hexdigest()[:16]
            state["files"].append(f"{path} {info.st_mode:o} {info.st_uid} {info.st_gid} {what}")
state["files"].sort()
state["FRR"] = run("vtysh", "-c", "show running-config").splitlines()
print(json.dumps(state))
"""


class Life:
    """A host, and how often it became a VTEP since its machine booted."""

    def __init__(self, boot: Callable[[], Lab], suite: str, backend: str) -> None:
        self._boot, self.suite, self.backend = boot, suite, backend
        self.begin()

    def begin(self) -> None:
        """Boot a server on which the product was never applied."""
        self.lab = self._boot()
        self.host, self.fabric = self.lab.host, self.lab.fabric
        self.lives = 0  # how often it became a VTEP since the kernel started
        self.used = False
        self.host.await_dad()

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.backend}"

    @property
    def installed(self) -> bool:
        """Return whether a payload is applied and not uninstalled."""
        return self.host.run(["test", "-e", "/var/lib/evpn-host"], check=False).code == 0

    def snapshot(self) -> dict[str, list[str]]:
        """Return the state of the host's network and files: lists of lines, by kind."""
        state: dict[str, list[str]] = self.host.run(["python3", "-c", SNAPSHOT]).json
        return state

    def bring_up(self) -> Payload:
        """Make the host a VTEP with a dual-stack V-Net and both ports in the underlay."""
        self.used = True
        self.lives += not self.installed
        document = full_size(payload(DUAL))
        change(self.lab, document)
        underlay(self.fabric, on=True)
        eventually(lambda: established(self.host) == UP)
        return document

    def uninstall(self) -> None:
        """Uninstall the product if it is applied, and make the ports access ports."""
        if self.installed:
            self.host.evpn_host("uninstall")
        underlay(self.fabric, on=False)

    def reboot(self, hard: bool) -> None:
        """Reboot the host, or cut its power (`hard`)."""
        self.lab.reboot(hard=hard)
        self.lives = int(self.installed)

    def sh(self, command: str) -> str:
        """Run a shell command on the host and give its output."""
        return self.host.run(["sh", "-c", command], timeout=300).out

    def say(self, text: str) -> None:
        """Print a measurement of this system."""
        print(f"\n{self.name}: {text}", flush=True)


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def story(request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]) -> Life:
    """A fabric with a server in it; the server may be in any state."""
    suite, backend = request.param
    return Life(partial(fresh_lab, suite, backend), suite, backend)


@pytest.fixture
def stranger(story: Life) -> Life:
    """A server on which the product was never applied."""
    if story.used:
        story.begin()
    return story


@pytest.fixture
def vtep(story: Life) -> Life:
    """A server that is a VTEP."""
    story.bring_up()
    return story


@pytest.fixture
def repetitions(request: pytest.FixtureRequest) -> Callable[[str, int], int]:
    """Give a function that says how often to repeat something.

    It takes the name of an environment variable, and a number that applies if the variable is not
    set. `--all` doubles that number.
    """
    everything = request.config.getoption("all_of_it", False)
    return lambda name, few: int(os.environ.get(name) or (few * 2 if everything else few))


def full_size(document: Payload) -> Payload:
    """Give the payload NICs whose MTU lets a full-size packet pass in VXLAN."""
    for link in document["links"]:
        link["mtu"] = 9216
    return document


@pytest.mark.claim("15.1", "Uninstall restores exactly the state before the first apply")
def test_uninstall_gives_back_what_was_there(stranger: Life) -> None:
    """Links, addresses, routes, rules, bridges, kernel settings and files are as before."""
    story, before = stranger, stranger.snapshot()
    story.host.evpn_host("install-units")
    story.bring_up()
    eventually(lambda: "10.12.0.101" in story.sh("ip -brief address show nbr-14"))
    change(story.lab, full_size(payload()))  # without the V-Net that bring_up() added
    assert differences(story.host) == []
    assert story.snapshot()["settings"] != before["settings"]
    assert [line for line in story.snapshot()["links"] if '"mtu": 9216' in line]

    story.uninstall()
    eventually(lambda: _same(story.snapshot(), before))
    assert story.host.ping("10.12.0.1")


def _same(now: dict[str, list[str]], before: dict[str, list[str]]) -> bool:
    """Fail with the differences between two snapshots, or give True if there are none."""
    for kind, lines in before.items():
        more, less = sorted(set(now[kind]) - set(lines)), sorted(set(lines) - set(now[kind]))
        assert not more, f"{kind}: now there are also {more}; now these are missing: {less}"
        assert not less, f"{kind}: now these are missing: {less}"
    return True


@pytest.mark.claim("15.2", "A bridge has its own MAC from the first moment on")
def test_bridges_are_born_with_their_mac(story: Life) -> None:
    """A bridge has its MAC from the start: udev would replace a random MAC at some later moment."""
    story.uninstall()
    monitor = story.host.start(["ip", "-o", "monitor", "link"])
    document = story.bring_up()
    eventually(lambda: "nbr-31" in monitor.output)
    events = monitor.stop().out.splitlines()
    macs = {v["vxlanID"]: v["macAddress"] for v in document["vnets"] if "macAddress" in v}
    for vni, mac in macs.items():
        lines = [e for e in events if f": nbr-{vni}: " in e and "link/ether" in e]
        assert lines
        assert all(f"link/ether {mac}" in line for line in lines), lines


@pytest.mark.claim(
    "15.4", "After an uninstall and another apply the rules are as after the first apply"
)
def test_the_rules_of_a_second_life(story: Life) -> None:
    """The kernel adds the rule for VRFs only once; if it is missing, ifupdown2 adds its own."""
    story.bring_up()
    while story.lives < 2:
        story.uninstall()
        story.bring_up()
    for family, defaults in (("-4", [32766, 32767]), ("-6", [32766])):
        rules = story.host.run(["ip", family, "-json", "rule"]).json
        assert [rule["priority"] for rule in rules] == [1000, 32765, *defaults], rules


@pytest.mark.claim("14.4", "After each reboot the files alone bring everything back")
def test_files_alone_bring_it_back(story: Life, repetitions: Callable[[str, int], int]) -> None:
    """Links, VRFs, addresses, sessions and routes of types 2, 3 and 5 return without our units."""
    units = "find /etc/systemd/system /usr/lib/systemd/system -name 'evpn-host*'"
    if story.sh(units):
        story.uninstall()
    story.bring_up()
    assert story.sh(units) == ""
    for number in range(repetitions("EVPN_HOST_REBOOTS", 2)):
        story.reboot(hard=number % 2 == 0)
        host, leaf = story.host, story.fabric.leaf("ns-leaf-2")
        eventually(lambda: established(story.host) == UP)
        seconds = float(host.machine.read("/proc/uptime").split()[0])
        story.say(f"reboot {number + 1}: Established {seconds:.1f} s after the kernel's start")
        # Check this while the leaf's own routes come in: at that time nobody has run `apply`.
        eventually(lambda: differences(story.host) == [])
        server = bare_metal(story.fabric, "gpu", 26, "10.188.0.254", 20)
        pod = host.pod(
            "pod", "nbr-40", ipv4="10.188.4.10/24", gateway="10.188.4.254",
            ipv6="fd00:188:4::10/64", gateway6="fd00:188:4::254",
        )  # fmt: skip
        eventually(partial(pod.ping, "fd00:188:4::254", count=1, family=6))
        eventually(partial(pod.ping, server, count=1))
        eventually(partial(_has_routes_of_the_host, leaf, pod))


def _has_routes_of_the_host(leaf: Any, pod: Node) -> bool:
    """Fail unless a leaf has the host's routes of types 3, 2 (guest) and 5 (both families)."""
    text = json.dumps(leaf.show("show bgp l2vpn evpn json"))
    expected = (
        "[3]:[0]:[32]:[10.2.0.101]",
        f"[32]:[{pod.ipv4}]",
        f"[128]:[{pod.ipv6}]",
        "[5]:[0]:[24]:[10.188.4.0]",
        "[5]:[0]:[64]:[fd00:188:4::]",
    )
    missing = [each for each in expected if each not in text]
    assert not missing, missing
    return True


@pytest.fixture
def ends(vtep: Life) -> tuple[Node, Node]:
    """A guest and a server of one V-Net that reach each other; `status` lists no difference."""
    server = bare_metal(vtep.fabric, "gpu", 26, "10.188.0.254", 20)
    pod = guest(vtep.host, "guest", 26, "10.188.0.254", 10)
    eventually(lambda: pod.ping(server, count=1))
    eventually(lambda: differences(vtep.host) == [])
    return pod, server


def check_survives(story: Life, ends: tuple[Node, Node], command: str) -> None:
    """Run a command, and fail unless forwarding comes back by itself and `apply` repairs the rest.

    Each session may come up again once. If the command names one NIC, the session on the other NIC
    must not be reset.
    """
    pod, server = ends
    before = resets(story.host)
    with pod.pinging(server, interval=0.05) as running:
        story.sh(command)
        time.sleep(3)  # the effects of the command may begin after it ends
        eventually(lambda: pod.ping(server, count=3))
    story.say(f"{command[:60]}: {running.result}")
    eventually(lambda: differences(story.host) == [] or _apply_repairs(story))
    eventually(lambda: established(story.host) == UP)
    after = resets(story.host)
    story.say(f"{command[:60]}: sessions up, down: {before}, then {after}")
    for nic, (ups, _) in after.items():
        other_nics = UP - {nic}
        spared = nic not in command and any(other in command for other in other_nics)
        assert ups <= before[nic][0] + (not spared), (command, before, after)


def _apply_repairs(story: Life) -> bool:
    """Apply again, and say whether `status` then lists no difference."""
    story.say(f"apply repairs: {differences(story.host)}")
    story.host.evpn_host("apply", "-p", "/root/payload.json")
    return differences(story.host) == []


@pytest.mark.claim("17.4", "An operator's own apply, again and again, loses no traffic")
def test_the_operator_applies_again_and_again(
    story: Life, ends: tuple[Node, Node], repetitions: Callable[[str, int], int]
) -> None:
    """No packet is lost, no session is reset, and guests' ports stay on their bridges."""
    pod, server = ends
    applies = repetitions("EVPN_HOST_OPERATORS_APPLIES", 3)
    story.sh("ip tuntap add tap-vm mode tap && ip link set tap-vm up master nbr-26")
    ports = story.sh("ls /sys/class/net/nbr-26/brif")
    assert "tap-vm" in ports
    before = resets(story.host)
    with pod.pinging(server, interval=0.05) as running:
        for _ in range(applies):
            story.host.run(OPERATORS_APPLY[story.backend], timeout=300)
            assert story.sh("ls /sys/class/net/nbr-26/brif") == ports
    story.say(f"{applies} times {' '.join(OPERATORS_APPLY[story.backend])}: {running.result}")
    assert running.result, running.result
    assert resets(story.host) == before
    assert differences(story.host) == []
    change(story.lab, full_size(payload(DUAL, vnet(71, 33, "10.188.7.254/24"))))
    assert story.sh("ls /sys/class/net/nbr-26/brif") == ports  # our own apply keeps the ports too
    story.sh("ip link delete tap-vm")


@pytest.mark.claim(
    "17.5",
    "An uplink or its daemon is restarted: forwarding returns by itself; apply repairs the rest",
)
def test_an_uplink_is_reconfigured(story: Life, ends: tuple[Node, Node]) -> None:
    """Reconfigure uplinks with the backend's tools and by hand, and restart networkd."""
    for command in (
        *RECONFIGURED[story.backend],
        "ip link set ens5 down; sleep 1; ip link set ens5 up",
        "ip link set ens4 mtu 9000; ip link set ens4 mtu 9216",
        *RESTARTED[story.backend][: 1 if story.backend == "netplan" else 0],
    ):
        check_survives(story, ends, command)


@pytest.mark.claim(
    "17.6",
    "FRR or the backend is upgraded: forwarding returns by itself; apply repairs the rest",
)
def test_packages_are_upgraded(story: Life, ends: tuple[Node, Node]) -> None:
    """Upgrade by running the package's scripts as dpkg does, which call deb-systemd-invoke."""
    # A host in production runs the hook, which asks the leaves for router advertisements at once.
    story.host.evpn_host("install-units")
    story.sh("systemctl start evpn-host-failover")
    check_survives(story, ends, "systemctl restart frr")
    for package in ("frr", {"netplan": "netplan.io", "ifupdown": "ifupdown2"}[story.backend]):
        version = story.sh(f"dpkg-query --show --showformat '${{Version}}' {package}")
        scripts = f"/var/lib/dpkg/info/{package}"
        check_survives(
            story,
            ends,
            f"if [ -e {scripts}.prerm ]; then {scripts}.prerm upgrade {version}; fi;"
            f" if [ -e {scripts}.postinst ]; then DPKG_MAINTSCRIPT_PACKAGE={package}"
            f" DPKG_MAINTSCRIPT_NAME=postinst {scripts}.postinst configure {version}; fi",
        )


@pytest.mark.claim("17.7", "status names what others removed or added, and apply repairs it")
def test_devices_and_addresses_changed_by_hand(story: Life, ends: tuple[Node, Node]) -> None:
    """Change a V-Net by hand. Another V-Net loses no packet, then and during the repair."""
    pod, server = ends
    for command, expected in (
        ("ip link delete nbr-31", "nbr-31: is not there"),
        ("ip link delete vxlan31", "vxlan31: is not there"),
        ("ip link set vxlan31 nomaster", "vxlan31: master is none"),
        ("ip link set nbr-31 mtu 1300", "nbr-31: mtu is 1300"),
        ("ip link set nbr-31 down", "nbr-31: up is off"),
        ("ip address add 203.0.113.1/24 dev nbr-31", "nbr-31: has the address 203.0.113.1/24"),
        ("ip address delete 10.188.1.254/24 dev nbr-31", "nbr-31: has no address 10.188.1.254/24"),
        ("ip -6 address flush dev nbr-40 scope global", "nbr-40: has no address fd00:188:4::254"),
        ("ip link set nbr-31 address 02:00:00:00:00:31", "nbr-31: mac is 02:00:00:00:00:31"),
        ("ip route flush table 1033 type unreachable", "Vrf_33: has no unreachable default"),
    ):
        with pod.pinging(server, interval=0.05) as running:
            story.sh(command)
            listed = differences(story.host)
            repaired = command.endswith("nomaster") and not listed  # by networkd, at once
            matches = [text for text in listed if text.startswith(expected)]
            assert repaired or matches, (command, listed)
            story.host.evpn_host("apply", "-p", "/root/payload.json")
            eventually(lambda: differences(story.host) == [])
        story.say(f"{command}: {running.result}")
        assert running.result, (command, running.result)
    assert no_reload_pending(story.host)


@pytest.mark.claim("17.8", "If FRR missed an address, apply tells FRR again")
def test_an_address_that_frr_missed(story: Life, ends: tuple[Node, Node]) -> None:
    """apply repeats addresses that zebra 8.4.4 dropped while its thread for links was starved."""
    del ends
    new = [vnet(200 + n, 33, f"10.200.{n}.254/24", f"fd00:200:{n + 1:x}::254/64") for n in range(8)]
    expected = {gateway["prefix"] for each in new for gateway in each["gateways"]}
    story.sh("chrt --idle --pid 0 $(cat /run/frr/zebra.pid)")
    busy = story.host.start(["timeout", "10", "sh", "-c", "while :; do :; done"])
    messages = story.host.apply(full_size(payload(DUAL, *new))).err
    busy.stop()
    story.sh("chrt --other --pid 0 $(cat /run/frr/zebra.pid)")
    repairs = [line for line in messages.splitlines() if "does not know" in line]
    story.say(f"apply told FRR {len(repairs)} of {len(expected)} addresses again")
    devices = story.host.show("show interface vrf Vrf_33 json").values()
    known = {each["address"] for device in devices for each in device.get("ipAddresses", ())}
    assert expected <= known, expected - known
    assert differences(story.host) == []


@pytest.mark.claim("17.9", "If device creation is blocked for half a minute, apply still succeeds")
def test_a_host_that_is_too_busy(story: Life, ends: tuple[Node, Node]) -> None:
    """apply restarts a networkd that gave up devices of which it heard nothing for 25 s."""
    pod, server = ends
    new = [vnet(210 + n, 33, f"10.210.{n}.254/24") for n in range(8)]
    count_timeouts = "journalctl -u systemd-networkd --boot -o cat | grep -c 'timed out' || true"
    before = int(story.sh(count_timeouts))
    script = HELD_UP.format(maker=MAKER[story.backend], seconds=27)
    hold = story.host.start(["sh", "-c", script])
    with pod.pinging(server, interval=0.05) as running:
        messages = story.host.apply(full_size(payload(DUAL, *new)), "-v").err
    assert hold.wait().code == 0
    count = int(story.sh(count_timeouts)) - before
    story.say(f"networkd gave up {count} devices: {running.result}")
    assert bool(count) == (story.backend == "netplan")
    assert ("networkd gave up" in messages) == bool(count)
    assert running.result, running.result
    assert differences(story.host) == []


@pytest.mark.claim("17.10", "If FRR forgets a router MAC, status names it and apply repairs it")
def test_a_router_mac_that_frr_forgot(story: Life, ends: tuple[Node, Node]) -> None:
    """FRR forgets it with the last IPv6 host route of a VTEP; IPv4 then fails too (frr#16340).

    FRR 10.3 forgets it if an IPv6 route was the first one from that VTEP, 8.4.4 in any case. FRR
    10.4 does not forget it: with that version the test deletes the kernel's entries by hand.
    """
    del ends
    leaf, fabric = story.fabric.leaf("ns-leaf-0"), story.fabric
    six = fabric.server(
        "six", leaf=leaf.name, vni=40, ipv4="", ipv6="fd00:188:4::20/64",
        gateway="", gateway6="fd00:188:4::254",
    )  # fmt: skip
    routes = "ip -6 route show table 1033 proto bgp"
    eventually(lambda: six.ping("fd00:188:4::254", count=1, family=6))
    eventually(lambda: "fd00:188:4::20 via ::ffff:10.2.0.1" in story.sh(routes))
    server = fabric.server("four", leaf=leaf.name, ipv4="10.188.0.30/24")
    pod = guest(story.host, "other", 31, "10.188.1.254", 10)
    eventually(lambda: pod.ping(server, count=1))
    six.run(["ip", "-6", "address", "flush", "dev", "eth0"])
    leaf.run(["ip", "-6", "neigh", "delete", "fd00:188:4::20", "dev", "br-40"])
    if _version_of_frr(story.host) >= (10, 4):
        eventually(lambda: "fd00:188:4::20" not in story.sh(routes))
        assert pod.ping(server, count=3)
        assert differences(story.host) == []
        entries = story.sh("bridge fdb show dev l3vx-1033")
        [mac] = re.findall(r"^(\S+) dst 10\.2\.0\.1 ", entries, re.MULTILINE)
        for where in ("self", "master"):
            story.host.run(["bridge", "fdb", "delete", mac, "dev", "l3vx-1033", where])
    eventually(lambda: not pod.ping(server, count=1))
    expected = ["FRR: it has forgotten the router MAC of 10.2.0.1 on l3br-1033"]

    def is_named() -> bool:
        assert differences(story.host) == expected
        return True

    eventually(is_named)
    messages = story.host.evpn_host("apply", "-p", "/root/payload.json").err
    assert "forgotten the router MAC" in messages
    assert pod.ping(server, count=3)
    assert differences(story.host) == []


def _version_of_frr(host: Host) -> tuple[int, int]:
    text = host.run(["vtysh", "-c", "show version"]).out
    version = re.search(r"FRRouting (\d+)\.(\d+)", text)
    assert version, text
    return int(version[1]), int(version[2])


@pytest.mark.claim("15.3", "A second uninstall, after many changes, restores the first state too")
def test_uninstall_after_a_life(story: Life) -> None:
    """The product leaves nothing in the kernel or on the disk."""
    if not story.installed:
        story.bring_up()
    story.host.evpn_host("uninstall")
    state = story.snapshot()
    words = ("nbr-", "vxlan", "Vrf_33", "10.2.0.101", "l3mdev")
    kinds = ("links", "addresses", "rules-4", "rules-6", "routes-4", "routes-6")
    lines = [line for kind in kinds for line in state[kind]]
    assert not [line for line in lines if any(word in line for word in words)]
    assert not [line for line in state["files"] if "evpn-host" in line]
    rules = story.host.run(["ip", "-json", "rule"]).json
    assert [rule["priority"] for rule in rules if rule["table"] == "local"] == [0]
