"""The management address follows the fabric: the published story, and what may go wrong in it.

On a machine each for netplan and ifupdown2. EVPN_HOST_TRANSITIONS=50 repeats the story so often and
gives each nuisance a minute; EVPN_HOST_FIGURES=1 writes what was measured into docs/failover.md.
EVPN_HOST_SUITE=bookworm takes the other suite.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from lab.fabric import Host, Lab, Router, eventually
from tests.lab.story import (
    ADDRESS,
    BRIDGE,
    CYCLES,
    HOOK,
    LONG,
    LOOP,
    NIC,
    PAYLOAD,
    SUITE,
    Story,
    Transition,
    summary,
    write_figures,
)


@pytest.fixture(scope="module", params=["netplan", "ifupdown"])
def story(request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]) -> Iterator[Story]:
    found = Story(fresh_lab(SUITE, request.param), request.param)
    found.provision()
    found.watch()
    yield found
    if os.environ.get("EVPN_HOST_FIGURES"):
        write_figures(request.param)


# --- The story ---

WAYS = (
    ("first port to underlay", ("ns-leaf-0",), BRIDGE, "Up"),
    ("second port to underlay", ("ns-leaf-0", "ns-leaf-1"), BRIDGE, ""),
    ("first port back", ("ns-leaf-1",), BRIDGE, ""),
    ("second port back", (), NIC, "Down"),
)


def test_the_published_story(story: Story) -> None:
    """To EVPN port by port and back: within a second, one place, the connection lives."""
    seen: dict[str, list[Transition]] = {what: [] for what, *_ in WAYS}
    twice, never = [], []
    place = NIC
    for _ in range(CYCLES):
        story.hook("restart")  # not the damping is measured here
        for what, names, device, way in WAYS:
            since = story.now()
            with story.controller.pinging(ADDRESS, interval=0.01) as pinging:
                story.underlay(*names)
                story.established(len(names))
                story.right(device)
                time.sleep(1.5)
            if way:
                eventually(lambda: story.sessions(since, way) and story.changes(since))  # noqa: B023
                session, moved = story.sessions(since, way)[0], story.changes(since)[-1][0]
                both, none = story.twofold(since, place)
                twice.append(both)
                never.append(none)
            else:
                session = moved = 0.0
                assert not story.changes(since)
            place = device
            seen[what].append(Transition(session, moved, pinging.result))
        story.carries_on()
    for what, rows in seen.items():
        story.figure(what, f"{summary(rows)}; TCP lives; {len(rows)} times")
        times = [row.took for row in rows]
        if LONG:  # the median of two would be that of whatever else this computer does
            assert statistics.median(times) <= 0.3
        assert max(times) <= 1
    text = f"{statistics.median(twice) * 1000:.0f} ms (median), {max(twice) * 1000:.0f} ms (worst)"
    story.figure("in two places", text)
    story.figure("in no place", f"{max(never) * 1000:.0f} ms at the longest")
    if LONG:
        assert statistics.median(twice) <= 0.1
    assert max(twice) <= 1  # on a computer that does other things too
    assert max(never) == 0


def test_nobody_takes_the_host_for_a_router(story: Story) -> None:
    """FRR's router advertisements reach the management V-Net while the port is an access port."""
    story.underlay()
    story.right(NIC)
    with story.controller.capture("eth0", "icmp6 and ip6[40] = 134", count=2) as seen:
        time.sleep(7)
    assert seen.text.count("router lifetime 0s") == 2
    assert not story.controller.run("ip -6 route show default".split()).out


def test_routes_come_back_as_they_were(story: Story) -> None:
    """The operator's default route has its own protocol and metric again, and his other routes."""
    shown = ("ip", "route", "show", "default")
    before = story.host.run(shown).out
    story.host.run("ip route replace default via 10.12.0.1 dev ens4 proto 77 mtu 1400".split())
    story.host.run("ip route add 198.51.100.0/24 via 10.254.254.1 dev ens4".split())
    mine = story.host.run(shown).out
    story.underlay("ns-leaf-0")
    story.right(BRIDGE)
    story.underlay()
    story.right(NIC)
    assert story.host.run(shown).out == mine
    assert "dev ens4" in story.host.run("ip route show 198.51.100.0/24".split()).out
    story.host.run("ip route delete 198.51.100.0/24".split())
    story.host.run(["ip", "route", "replace", *before.split()])


# --- Faults ---


def test_hook_killed_at_every_step(story: Story) -> None:
    """SIGKILL before, between and after the lines of a move, either way: the next hook ends it."""
    story.underlay("ns-leaf-0")
    story.right(BRIDGE)
    longest, points, worst = 1, 0, 0.0
    with story.fault("hook killed at each step of a move, either way") as said:
        with story.killing() as kill_after:
            while points <= longest:
                for off, device in ((True, NIC), (False, BRIDGE)):
                    kill_after(points)
                    story.shut(off)
                    longest = max(longest, story.killed())
                    worst = max(worst, story.right(device, reached=not off))
                points += 1
        said.append(f"{points} points; right {worst:.1f} s later, systemd starts it after 1 s")
    assert longest >= 4


def test_hook_hangs(story: Story) -> None:
    """systemd's watchdog ends one that does not go on, and another takes over."""
    story.underlay("ns-leaf-0")
    story.right(BRIDGE)
    folder = f"/run/systemd/system/{HOOK}.d"
    story.host.run(["mkdir", folder])
    story.lab.machine.write(f"{folder}/test.conf", "[Service]\nWatchdogSec=12\n")
    try:
        story.host.run(["systemctl", "daemon-reload"])
        story.hook("restart")
        began = time.monotonic()
        story.host.run(["systemctl", "kill", "--signal=STOP", HOOK])
        story.host.run(f"ip address replace {ADDRESS}/16 dev {NIC}".split())
        assert len(story.places()) == 2
        story.right(BRIDGE, within=60)
        text = f"right after {time.monotonic() - began:.0f} s"
        story.figure("hook hangs (watchdog set to 12 s, usually 60)", text)
    finally:
        story.host.run(["rm", "-r", folder])
        story.host.run(["systemctl", "daemon-reload"])
        story.hook("restart")
    story.right(BRIDGE)


def test_once(story: Story) -> None:
    """`failover --once`, for those who prefer a timer: the same, and twice comes to the same."""
    story.underlay()
    story.right(NIC)
    story.hook("stop")
    try:
        for names, device in ((("ns-leaf-0",), BRIDGE), ((), NIC)):
            story.underlay(*names)
            story.established(len(names))
            since = story.now()
            for _ in range(2):
                story.host.evpn_host("failover", "--once")
                assert story.places() == [device]
            eventually(lambda: len(story.changes(since)) == 2)  # noqa: B023
            story.right(device)
    finally:
        story.hook("start")
    story.right(NIC)


def test_status_says_where_and_why(story: Story) -> None:
    """Where, since when, why, how often; and a line in the journal for each move."""
    story.underlay()
    story.right(NIC)
    story.hook("restart")
    before, since = story.status(), story.now()
    story.underlay("ns-leaf-0")
    story.right(BRIDGE)
    eventually(lambda: story.moves() > before["moves"])  # it is said once it is done
    after = story.status()
    assert after["on"] == [BRIDGE]
    assert after["moves"] == before["moves"] + 1
    assert since <= datetime.fromisoformat(after["since"]).timestamp() <= story.now()
    assert after["reason"] == f"EVPN is Established with {NIC}"
    text = story.host.evpn_host("status", check=False).out
    assert f"{ADDRESS}/16: on {BRIDGE} since {after['since']}: {after['reason']}" in text
    story.underlay()
    story.right(NIC)
    argv = ["journalctl", "-u", HOOK, "-o", "cat", "--since", f"@{int(since)}", "-g", "^management"]
    eventually(lambda: f"on {NIC}:" in story.host.run(argv).out.splitlines()[-1])
    to_bridge, to_nic = story.host.run(argv).out.splitlines()[-2:]
    assert to_bridge == f"management address on {BRIDGE}: EVPN is Established with {NIC}"
    assert to_nic.startswith(f"management address on {NIC}: no EVPN session is Established: {NIC}")


def test_hook_stopped_and_started(story: Story) -> None:
    """Nothing moves, whether it is stopped, started, or killed."""
    for names, device in (((), NIC), (("ns-leaf-0", "ns-leaf-1"), BRIDGE)):
        story.underlay(*names)
        story.right(device)
        story.established(len(names))
        since = story.now()
        with story.fault(f"hook stopped, started, and killed six times, on {device}"):
            for verb in ("stop", "start"):
                story.hook(verb)
                story.right(device)
            for _ in range(6):
                story.host.run(["systemctl", "kill", "--signal=KILL", HOOK])
                time.sleep(0.3)
            active = ["systemctl", "is-active", HOOK]
            eventually(lambda: story.host.run(active, check=False).code == 0)  # noqa: B023
            story.right(device)
        assert not story.changes(since)


def test_frr_stopped(story: Story) -> None:
    """No answer counts as no session after a while, and not before."""
    story.underlay("ns-leaf-0", "ns-leaf-1")
    story.right(BRIDGE)
    with story.fault("FRR stopped, and started again") as said:
        stopping = story.now()
        story.host.run(["systemctl", "stop", "frr"])
        story.right(NIC, within=20, reached=False)
        eventually(lambda: len(story.changes(stopping)) == 2)
        took = story.changes(stopping)[0][0] - stopping
        assert took > 9
        said.append(f"on the NIC after {took:.1f} s")
        eventually(lambda: "no answer" in story.status()["reason"])
        story.host.run(["systemctl", "start", "frr"])
        story.right(BRIDGE, within=40)


@pytest.mark.parametrize("daemons", ["bgpd", "zebra bgpd bfdd staticd mgmtd watchfrr"])
def test_frr_killed(story: Story, daemons: str) -> None:
    """The address is where it belongs once FRR is back."""
    story.underlay("ns-leaf-0", "ns-leaf-1")
    story.right(BRIDGE)
    with story.fault("bgpd killed" if daemons == "bgpd" else "FRR killed") as said:
        started = time.monotonic()
        story.signal_frr("KILL", daemons)
        time.sleep(1)
        state = "vtysh -c 'show bgp summary json' | grep -q '\"state\":\"Established\"'"
        eventually(lambda: story.host.run(["sh", "-c", state], check=False).code == 0, 60)
        said.append(f"FRR has a session after {time.monotonic() - started:.1f} s")
        story.right(BRIDGE, within=40)


@pytest.mark.parametrize("what", ["port", "carriers"])
def test_flapping_uplinks(story: Story, what: str) -> None:
    """Two moves at once, then one in ten seconds at the most; right when it is over."""
    both = ("ns-leaf-0", "ns-leaf-1")
    story.underlay(*(both if what == "carriers" else ()))
    story.right(BRIDGE if what == "carriers" else NIC)
    story.hook("restart")
    before, begun = story.moves(), time.monotonic()
    names = {"port": "a port's underlay", "carriers": "both uplinks' carriers"}
    with story.fault(f"{names[what]} flapping for {LOOP * 2} s") as said:
        if what == "port":  # once for as long as a session takes to come up
            story.underlay("ns-leaf-1")
            eventually(lambda: story.moves() > before)
            story.underlay()
        while time.monotonic() < begun + LOOP * 2:
            if what == "port":
                story.underlay("ns-leaf-1")
                time.sleep(2)
                story.underlay()
            else:
                for way, pause in (("down", 1), ("up", 4)):
                    for name in both:
                        story.fabric.leaf(name).run(["ip", "link", "set", "swp9s1", way])
                    time.sleep(pause)
        moves = story.moves() - before
        assert 0 < moves <= 2 + (time.monotonic() - begun) / 10 + 1
        said.append(f"{moves} moves")
        story.underlay(*both)
        story.right(BRIDGE, within=40)


def test_switches_rebooted(story: Story) -> None:
    """One of two: nothing moves. Both: to the NIC and back."""
    leaves = [story.fabric.leaf(name) for name in ("ns-leaf-0", "ns-leaf-1")]
    story.underlay(*(leaf.name for leaf in leaves))
    story.established(2)
    story.right(BRIDGE)
    for count, what in ((1, "one switch rebooted"), (2, "both switches rebooted")):
        since = story.now()
        with story.fault(what):
            for leaf in leaves[:count]:
                leaf.power(on=False)
            if count == 1:
                time.sleep(5)
                assert not story.changes(since)
            else:
                story.right(NIC, reached=False)
            for leaf in leaves[:count]:
                leaf.power(on=True)
            story.established(2)
            story.right(BRIDGE, within=40)


@pytest.mark.claim(
    "6.2",
    "An uplink that silently drops everything: the other carries on, within the hold time or BFD's",
)
@pytest.mark.parametrize("bfd", [False, True], ids=["holdtime", "bfd"])
def test_an_uplink_that_silently_drops(story: Story, bfd: bool) -> None:
    """The other carries on as soon as the loss is noticed; nothing moves."""
    leaf = story.fabric.leaf("ns-leaf-0")
    story.underlay("ns-leaf-0", "ns-leaf-1")
    story.established(2)
    story.right(BRIDGE)
    if bfd:
        story.host.apply(_changed(story.next_generation(), bgp={"bfd": True}))
        leaf.configure(f"router bgp {leaf.asn}", "neighbor swp9s1 bfd")
        eventually(lambda: "Status: up" in story.host.show("show bfd peers"))
    since = story.now()
    with story.fault(f"an uplink silently drops all, {'BFD' if bfd else 'hold time 9 s'}") as said:
        for node, port in ((leaf, "swp9s1"), (story.host, NIC)):
            lossy = f"tc qdisc add dev {port} root netem loss 100% && date +%s.%N"
            silent = float(node.run(["sh", "-c", lossy]).out)
        story.established(1)
        eventually(lambda: story.sessions(since, "Down"))
        took = story.sessions(since, "Down")[0] - silent
        said.append(f"one session less after {took:.1f} s")
        time.sleep(1)
        for node, port in ((leaf, "swp9s1"), (story.host, NIC)):
            node.run(f"tc qdisc delete dev {port} root".split())
        story.established(2)
        story.right(BRIDGE)
    if bfd:
        leaf.configure(f"router bgp {leaf.asn}", "no neighbor swp9s1 bfd")
        story.host.apply(_changed(story.next_generation()))
    assert not story.changes(since)
    assert took < (2.5 if bfd else 12)


def _changed(generation: int, **server: Any) -> dict[str, Any]:
    return PAYLOAD | {"generation": generation, "server": PAYLOAD["server"] | server}


def test_bgpd_hangs(story: Story) -> None:
    """Hung for some seconds, nothing moves; for longer, to the NIC; back when it goes on."""
    story.underlay("ns-leaf-0", "ns-leaf-1")
    story.right(BRIDGE)
    since = story.now()
    story.signal_frr("STOP", "bgpd watchfrr")
    time.sleep(5)
    story.signal_frr("CONT", "bgpd watchfrr")
    assert not story.changes(since)
    story.signal_frr("STOP", "bgpd watchfrr")
    try:
        eventually(lambda: story.places() == [NIC], 26)
    finally:
        story.signal_frr("CONT", "bgpd watchfrr")
    story.right(BRIDGE, within=40)
    story.carries_on()


def test_nic_renamed(story: Story) -> None:
    """The hook knows the NIC by its index; what FRR had on it is mended by the next apply."""
    story.underlay("ns-leaf-0", "ns-leaf-1")
    story.right(BRIDGE)
    story.rename(NIC, "mgmt0")
    story.underlay()
    eventually(lambda: story.places() == ["mgmt0"], 30)
    story.rename("mgmt0", NIC)
    story.right(NIC)
    story.underlay("ns-leaf-0")
    eventually(lambda: story.places() == [BRIDGE], 30)
    story.host.apply(_changed(story.next_generation()))
    story.right(BRIDGE)
    story.carries_on()


def test_ipv6_moves_too(story: Story) -> None:
    """A second management address, of the other family, goes along and comes back."""
    story.underlay()
    story.right(NIC)
    mine, theirs = "fd00:12::101", "fd00:12::5"
    story.host.run(f"ip address add {mine}/64 dev {NIC} nodad".split())
    story.host.run(f"ip -6 route add default via fd00:12::1 dev {NIC} metric 77".split())
    story.controller.run(f"ip address replace {theirs}/64 dev eth0 nodad".split())
    management = PAYLOAD["server"]["mgmt"] | {"ipv6": f"{mine}/64", "gateway6": "fd00:12::1"}
    story.host.apply(_changed(story.next_generation(), mgmt=management))

    def there(device: str) -> bool:
        shown = json.loads(story.host.run("ip -6 -json route show default".split()).out)
        holds = mine in story.host.run(["ip", "-6", "address", "show", device]).out
        routed = [(route["dev"], route["metric"]) for route in shown] == [(device, 77)]
        return holds and routed and bool(story.controller.ping(mine, count=1))

    eventually(lambda: there(NIC), 10)
    story.underlay("ns-leaf-0")
    story.right(BRIDGE)
    eventually(lambda: there(BRIDGE), 10)
    story.underlay()
    story.right(NIC)
    eventually(lambda: there(NIC), 10)
    story.host.run(f"ip -6 route delete default dev {NIC}".split())
    story.host.run(f"ip address delete {mine}/64 dev {NIC}".split())
    story.host.apply(_changed(story.next_generation()))


def test_dhcp_lease(story: Story) -> None:
    """A lease on the NIC is renewed in either state: it stays, and the address where it is.

    One that ends takes nothing of ours along: dhclient's script takes all addresses with the NIC's
    name as their label, networkd is told to keep even the lease.
    """
    story.underlay()
    story.right(NIC)
    with story.leasing() as leases:
        for names, device in (((), NIC), (("ns-leaf-0", "ns-leaf-1"), BRIDGE)):
            story.underlay(*names)
            story.right(device)
            story.established(len(names))
            since, before = story.now(), leases.given()
            with story.fault(f"DHCP lease renewed, on {device}"):
                eventually(lambda: leases.given() > before, 60)  # noqa: B023
                time.sleep(1)
                story.right(device)
            assert not story.changes(since)
        leases.end()
        with story.fault("DHCP lease ended, on the bridge"):
            time.sleep(45)
            nic, kept = ["ip", "-4", "address", "show", NIC], story.backend == "netplan"
            eventually(lambda: ("10.254.254.10/24" in story.host.run(nic).out) == kept)
            assert "inet 10.2.0.101 peer 169.254.0.1/32" in story.host.run(nic).out
            hops = story.host.run("ip route show 10.2.0.3".split()).out
            assert f"dev {NIC}" in hops
    story.right(BRIDGE)


@pytest.mark.claim("17.2", "The management address survives netplan apply or ifreload in a loop")
def test_native_tool_in_a_loop(story: Story) -> None:
    """`netplan apply` or `ifreload -a` puts the address on the NIC again: put right at once."""
    story.underlay("ns-leaf-0", "ns-leaf-1")
    story.right(BRIDGE)
    argv = ["netplan", "apply"] if story.backend == "netplan" else ["ifreload", "-a"]
    since, end, times = story.now(), time.monotonic() + LOOP, 0
    with story.fault(f"{' '.join(argv)} for {LOOP} s") as said:
        while time.monotonic() < end:
            story.host.run(argv, timeout=120)
            times += 1
        story.right(BRIDGE)
        said += [f"{times} times", story.lapses(since)]
    both, none = story.twofold(since, BRIDGE)
    assert both <= 1
    assert none <= 1


@pytest.mark.claim(
    "17.3",
    "Addresses and routes of the management address changed by hand are right within 2 s",
)
def test_nuisances(story: Story) -> None:
    """An address put back, a route taken away, a carrier that flaps: right within a second."""
    story.underlay("ns-leaf-0", "ns-leaf-1")
    story.right(BRIDGE)
    by_hand = (
        f"ip address add {ADDRESS}/16 dev {NIC}",
        f"ip address delete {ADDRESS}/16 dev {BRIDGE}",
        "ip route delete default",
        f"ip route replace default via 10.12.0.1 dev {NIC} onlink",
    )
    native = {
        "netplan": (
            "networkctl reload",
            f"networkctl reconfigure {NIC}",
            f"networkctl reconfigure {BRIDGE}",
            "systemctl restart systemd-networkd",
        ),
        "ifupdown": (f"ifup --force {NIC}",),
    }
    since = story.now()
    with story.fault("addresses and routes changed by hand") as said:
        worst = 0.0
        for nuisance in by_hand:
            story.host.run(nuisance.split())
            worst = max(worst, story.right(BRIDGE, within=2))
        said += [f"right within {worst:.2f} s", story.lapses(since)]
    for nuisance in native[story.backend]:
        since = story.now()
        with story.fault(nuisance) as said:
            story.host.run(nuisance.split())
            time.sleep(1)
            story.right(BRIDGE)
            said.append(story.lapses(since))
    with story.fault("the NIC's carrier lost for a second"):
        story.host.run(["ip", "link", "set", NIC, "down"])
        time.sleep(1)
        story.host.run(["ip", "link", "set", NIC, "up"])
        story.right(BRIDGE)


@pytest.mark.claim(
    "14.2",
    "After a reboot the management address is where the fabric is, in EVPN and in Ethernet mode",
)
def test_reboot(story: Story) -> None:
    """In EVPN mode and in Ethernet mode."""
    for names, device in ((("ns-leaf-0", "ns-leaf-1"), BRIDGE), ((), NIC)):
        story.underlay(*names)
        story.right(device)
        story.lab.reboot()
        began = time.monotonic()
        story.right(device, within=60)
        mode = "EVPN" if names else "Ethernet"
        took = time.monotonic() - began
        story.figure(f"reboot in {mode} mode", f"right {took:.1f} s after the fabric is back")
    story.watch()


# In portions: a zebra that is given all at once loses events of the kernel, and routes with them.
CHURN = """
set -eu
portion() { seq $2 $(($2 + 499)) | awk -v what="$1" \
  '{printf "fdb %s 02:aa:00:00:%02x:%02x dev churn master static\\n", what, $1 / 256, $1 % 256}' |
  bridge -force -batch -; }
ip link add churn type dummy && ip link set churn master br-14 up
for first in $(seq 0 500 9999); do portion add $first || :; sleep 0.5; done
while true; do
  for first in $(seq 0 500 9999); do portion delete $first; sleep 0.5; portion add $first; done
done
"""


def test_idle_cost(story: Story) -> None:
    """Processor time and memory, amid 10,000 EVPN routes too; in the long form 500 V-Nets."""
    leaf = story.fabric.leaf("ns-leaf-2")
    count = 500 if LONG else 0
    amid = f", {count} V-Nets more" if count else ""
    with story.vnets(count):
        story.underlay()
        story.right(NIC)
        with story.lab.machine.hurry():  # what others take from it would count as its own
            _idle(story, f"idle on the NIC{amid}", 0.002 if LONG else 0.01)
        story.underlay("ns-leaf-0", "ns-leaf-1")
        story.right(BRIDGE)
        churn = leaf.start(["sh", "-c", CHURN])
        try:
            eventually(lambda: _macs(story.host) > 9400, 180)
            _idle(story, f"idle on the bridge, 10,000 EVPN routes coming and going{amid}", 0.002)
        finally:
            churn.stop()
            # An FRR may miss that one of so many goes; what a leaf knew goes with it.
            leaf.power(on=False)
            leaf.run(["ip", "link", "delete", "churn"])
            leaf.power(on=True)
            eventually(lambda: _macs(leaf) < 100, 60)
        eventually(lambda: _macs(story.host) < 100, 60)
    story.right(BRIDGE)


def _macs(router: Router | Host) -> int:
    return int(router.show("show evpn vni 14 json")["numMacs"])


def _idle(story: Story, what: str, bar: float) -> None:
    time.sleep(10)  # the events of making all this are over; what is told later still counts
    seconds = max(30, LOOP)
    before, _ = _cost(story)
    time.sleep(seconds)
    after, memory = _cost(story)
    share = (after - before) / 1e9 / seconds
    story.figure(what, f"{share:.2%} of a core, {memory / 2**20:.0f} MB")
    assert share < bar
    assert memory < 40 * 2**20


def _cost(story: Story) -> tuple[int, int]:
    shown = story.host.run(["systemctl", "show", "-p", "CPUUsageNSec", "-p", "MemoryCurrent", HOOK])
    values = dict(line.split("=") for line in shown.out.split())
    return int(values["CPUUsageNSec"]), int(values["MemoryCurrent"])


def test_management_vnet_gets_another_vni(story: Story) -> None:
    """The address goes from bridge to bridge, and back."""
    story.underlay("ns-leaf-0", "ns-leaf-1")
    story.right(BRIDGE)
    with story.fault("VNI changed on the leaves, then by apply, and back") as said:
        for vni in (15, 14):
            payload = json.loads(json.dumps(_changed(story.next_generation())))
            payload["vnets"][0]["vxlanID"] = vni
            servers = [server | {"vni": vni} for server in story.fabric.state["servers"]]
            since = story.now()
            story.fabric.change(vpcs=payload["vpcs"], vnets=payload["vnets"], servers=servers)
            story.host.apply(payload)
            applied = time.monotonic()
            # How long it took is said; neighbours are told for 45 s, should the leaves be slow.
            story.right(f"nbr-{vni}", within=60)
            took, old = time.monotonic() - applied, f"nbr-{29 - vni}"
            text = (
                f"to {vni}: reached {took:.1f} s after apply, which came after the leaves' change"
            )
            said.append(f"{text}; {story.lapses(since, old)}")
            assert story.twofold(since, old)[1] <= 1


def test_uninstall(story: Story) -> None:
    """In EVPN mode: the address is on the NIC as the operator had it."""
    story.underlay("ns-leaf-0", "ns-leaf-1")
    story.right(BRIDGE)
    story.host.evpn_host("uninstall")
    story.right(NIC, reached=False)
    story.underlay()
    # The hook is gone, and nobody tells the controller: it asks anew once it doubts what it knows.
    took = eventually(lambda: story.host.ping(story.controller, count=1), 90)
    story.figure("uninstalled on the bridge", f"reached {took:.0f} s after the ports are back")
    story.right(NIC)
    links = story.host.run(["ip", "-brief", "link"]).out
    assert "nbr-" not in links
    assert "10.2.0.101" not in story.host.run(["ip", "address"]).out
