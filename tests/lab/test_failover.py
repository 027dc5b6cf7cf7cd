"""The management address follows the fabric: the published story, and faults during it.

The tests judge counts: moves, changes of the address while it must not change, sessions that were
reset. They print times; bench/failover.py judges those. `--all` lets each disturbance last 20 s.
EVPN_HOST_TRANSITIONS=50 repeats the story 50 times. EVPN_HOST_FIGURES=1 writes the figures into
docs/failover.md; nothing else may run on this computer then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime

import pytest

from lab.fabric import Lab, Leaf, eventually
from tests.lab.story import (
    ADDRESS,
    BRIDGE,
    BY_HAND,
    HOOK,
    LEAVES,
    MANY,
    NATIVE,
    NIC,
    PAYLOAD,
    WAYS,
    WITHIN,
    Story,
    Transition,
    summary,
    write_figures,
)
from tests.lab.systems import SYSTEMS


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def story(request: pytest.FixtureRequest, fresh_lab: Callable[..., Lab]) -> Iterator[Story]:
    suite, backend = request.param
    yield Story(fresh_lab(suite, backend), backend)
    if os.environ.get("EVPN_HOST_FIGURES"):
        write_figures(backend)


@pytest.fixture(autouse=True)
def _ready(story: Story) -> None:
    """Begin each test with a server that is provisioned and watched."""
    story.ready()


@pytest.fixture(scope="module")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether `--all` allows the long variants."""
    return bool(request.config.getoption("all_of_it", False))


@pytest.fixture(scope="module")
def cycles(long: bool) -> int:
    """Return how often the published story is repeated."""
    return int(os.environ.get("EVPN_HOST_TRANSITIONS", "3" if long else "1"))


@pytest.fixture(scope="module")
def loop(long: bool, cycles: int) -> int:
    """Return how many seconds each disturbance lasts."""
    return 60 if cycles > 10 else 20 if long else 10


# --- The story ---


@pytest.mark.claim(
    "14.5", "The management address moves to EVPN with the first session, and back with the last"
)
def test_the_address_follows_the_fabric(story: Story, cycles: int) -> None:
    """Port by port and back: one move each way, never on no device, and the connection lives."""
    transitions: dict[str, list[Transition]] = {title: [] for title, *_ in WAYS}
    story.underlay()
    story.right(NIC)
    for _ in range(cycles):
        story.hook("restart")  # ends the damping, which this test does not check
        for title, names, device, way in WAYS:
            transitions[title].append(story.transition(names, device, way))
        story.carries_on()
    for title, rows in transitions.items():
        text = summary(rows, story.interval)
        story.figure(title, f"{text}; TCP lives; {len(rows)} times")


def test_nobody_takes_the_host_for_a_router(story: Story) -> None:
    """FRR's router advertisements announce no default router to the management V-Net.

    They reach it while the port is an access port.
    """
    story.underlay()
    story.right(NIC)
    advertisements = "icmp6 and ip6[40] = 134"
    with story.controller.capture("eth0", advertisements, count=2, timeout=WITHIN) as capture:
        pass  # the capture ends after two advertisements
    assert capture.text.count("router lifetime 0s") == 2
    assert not story.controller.run("ip -6 route show default".split()).out


def test_routes_come_back_as_they_were(story: Story) -> None:
    """After a move and back the operator's default route has its attributes; other routes stay."""
    story.underlay()
    story.right(NIC)
    show_default = ("ip", "route", "show", "default")
    before = story.host.run(show_default).out
    try:
        story.host.run("ip route replace default via 10.12.0.1 dev ens4 proto 77 mtu 1400".split())
        story.host.run("ip route add 198.51.100.0/24 via 10.254.254.1 dev ens4".split())
        operators = story.host.run(show_default).out
        story.underlay("ns-leaf-0")
        story.right(BRIDGE)
        story.underlay()
        story.right(NIC)
        assert story.host.run(show_default).out == operators
        assert "dev ens4" in story.host.run("ip route show 198.51.100.0/24".split()).out
    finally:
        story.underlay()
        story.right(NIC)
        story.host.run("ip route delete 198.51.100.0/24".split(), check=False)
        story.host.run(["ip", "route", "replace", *before.split()])


# --- Faults ---


@pytest.mark.long
def test_hook_killed_at_every_step(story: Story) -> None:
    """SIGKILL before, between and after the lines of a move: the next hook completes the move.
    `longest` is the number of lines of the longest move, `points` the lines before the kill.
    """
    story.underlay("ns-leaf-0")
    story.right(BRIDGE)
    longest, points, worst = 1, 0, 0.0
    with story.fault("hook killed at each step of a move, either way") as notes:
        try:
            with story.killing() as kill_after:
                while points <= longest:
                    for off, device in ((True, NIC), (False, BRIDGE)):
                        kill_after(points)
                        story.shut(off)
                        longest = max(longest, story.killed())
                        worst = max(worst, story.right(device, reached=not off))
                    points += 1
        finally:
            story.shut(off=False)
        notes.append(f"{points} points; right {worst:.1f} s later, systemd starts it after 1 s")
    assert longest >= 4


def test_hook_hangs(story: Story) -> None:
    """systemd's watchdog ends a hook that hangs, and starts another, which repairs the address."""
    story.underlay("ns-leaf-0")
    story.right(BRIDGE)
    folder = f"/run/systemd/system/{HOOK}.d"
    try:
        story.lab.machine.write(f"{folder}/test.conf", "[Service]\nWatchdogSec=12\n")
        story.host.run(["systemctl", "daemon-reload"])
        story.hook("restart")
        start = time.monotonic()
        story.host.run(["systemctl", "kill", "--signal=STOP", HOOK])
        story.host.run(f"ip address replace {ADDRESS}/16 dev {NIC}".split())
        assert len(story.places()) == 2
        story.right(BRIDGE)
        text = f"right after {time.monotonic() - start:.0f} s"
        story.figure("hook hangs (watchdog set to 12 s, usually 60)", text)
    finally:
        story.host.run(["rm", "-r", folder])
        story.host.run(["systemctl", "daemon-reload"])
        story.hook("restart")
    story.right(BRIDGE)


def test_once(story: Story) -> None:
    """`failover --once`, for users of a timer, moves the address; a second run changes nothing."""
    story.underlay()
    story.right(NIC)
    with story.stopped(HOOK):
        for names, device in ((("ns-leaf-0",), BRIDGE), ((), NIC)):
            story.underlay(*names)
            story.established(len(names))
            since = story.now()
            for _ in range(2):
                story.host.evpn_host("failover", "--once")
                assert story.places() == [device]
            eventually(lambda: len(story.changes(since)) == 2, WITHIN)  # noqa: B023
            story.right(device)
    story.right(NIC)


def test_status_says_where_and_why(story: Story) -> None:
    """`status` names device, time, reason and number of moves; the journal has a line for each."""
    story.underlay()
    story.right(NIC)
    story.hook("restart")
    before, since = story.status(), story.now()
    story.underlay("ns-leaf-0")
    story.right(BRIDGE)
    eventually(lambda: story.moves() > before["moves"], WITHIN)  # the hook reports a finished move
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
    eventually(lambda: f"on {NIC}:" in story.host.run(argv).out.splitlines()[-1], WITHIN)
    to_bridge, to_nic = story.host.run(argv).out.splitlines()[-2:]
    assert to_bridge == f"management address on {BRIDGE}: EVPN is Established with {NIC}"
    assert to_nic.startswith(f"management address on {NIC}: no EVPN session is Established: {NIC}")


def test_hook_stopped_and_started(story: Story) -> None:
    """The address does not move when the hook is stopped, started or killed."""
    for names, device in (((), NIC), (LEAVES, BRIDGE)):
        story.underlay(*names)
        story.right(device)
        story.established(len(names))
        since = story.now()
        with story.fault(f"hook stopped, started, and killed six times, on {device}"):
            with story.stopped(HOOK):
                story.right(device)
            story.right(device)
            for _ in range(6):
                story.host.run(["systemctl", "kill", "--signal=KILL", HOOK])
                time.sleep(0.3)
            active = ["systemctl", "is-active", HOOK]
            eventually(lambda: story.host.run(active, check=False).code == 0, WITHIN)  # noqa: B023
            story.right(device)
        assert not story.changes(since)


def test_frr_stopped(story: Story) -> None:
    """If FRR does not answer for about 10 s this counts as no session, and not before."""
    story.underlay(*LEAVES)
    story.right(BRIDGE)
    with story.fault("FRR stopped, and started again") as notes:
        stopping = story.now()
        with story.stopped("frr"):
            story.right(NIC, reached=False)
            eventually(lambda: len(story.changes(stopping)) == 2, WITHIN)
            took = story.changes(stopping)[0][0] - stopping
            assert took > 9  # a busy computer can only make it longer
            notes.append(f"on the NIC after {took:.1f} s")
            eventually(lambda: "no answer" in story.status()["reason"], WITHIN)
        story.right(BRIDGE)


@pytest.mark.parametrize("daemons", ["bgpd", "zebra bgpd bfdd staticd mgmtd watchfrr"])
def test_frr_killed(story: Story, daemons: str) -> None:
    """The address is on the bridge again once FRR is back."""
    story.underlay(*LEAVES)
    story.right(BRIDGE)
    with story.fault("bgpd killed" if daemons == "bgpd" else "FRR killed") as notes:
        started = time.monotonic()
        story.signal_frr("KILL", daemons)
        time.sleep(1)
        state = "vtysh -c 'show bgp summary json' | grep -q '\"state\":\"Established\"'"
        eventually(lambda: story.host.run(["sh", "-c", state], check=False).code == 0, WITHIN)
        notes.append(f"FRR has a session after {time.monotonic() - started:.1f} s")
        story.right(BRIDGE)


@pytest.mark.long
@pytest.mark.parametrize("title", ["port", "carriers"])
def test_flapping_uplinks(story: Story, title: str, loop: int) -> None:
    """At most two moves at once, then one in ten seconds; at the end the bridge has the address."""
    story.underlay(*(LEAVES if title == "carriers" else ()))
    story.right(BRIDGE if title == "carriers" else NIC)
    story.hook("restart")
    before, start = story.moves(), time.monotonic()
    names = {"port": "a port's underlay", "carriers": "both uplinks' carriers"}
    with story.fault(f"{names[title]} flapping for {loop * 2} s") as notes:
        if title == "port":  # first wait until a session is up, so that there is at least one move
            story.underlay("ns-leaf-1")
            eventually(lambda: story.moves() > before, WITHIN)
            story.underlay()
        with story.carriers() as carriers:
            while time.monotonic() < start + loop * 2:
                if title == "port":
                    story.underlay("ns-leaf-1")
                    time.sleep(2)
                    story.underlay()
                else:
                    carriers("down")
                    time.sleep(1)
                    carriers("up")
                    time.sleep(4)
        moves = story.moves() - before
        # The limit grows with the time that the loop really took, which may exceed the plan.
        assert 0 < moves <= 2 + (time.monotonic() - start) / 10 + 1
        notes.append(f"{moves} moves")
        story.underlay(*LEAVES)
        story.right(BRIDGE)


def test_switches_rebooted(story: Story) -> None:
    """The address stays when one of two leaves is off, and moves to the NIC when both are."""
    leaves = [story.fabric.leaf(name) for name in LEAVES]
    story.underlay(*LEAVES)
    story.established(2)
    story.right(BRIDGE)
    for count, title in ((1, "one switch rebooted"), (2, "both switches rebooted")):
        since, before = story.now(), story.moves()
        with story.fault(title):
            with story.off(*leaves[:count]):
                story.established(2 - count)
                # networkd removes the operator's own address when the NIC has no carrier. So the
                # full check, with `reached`, would fail here.
                story.right(BRIDGE if count == 1 else NIC, reached=False)
                if count == 1:
                    eventually(lambda: story.controller.ping(ADDRESS, count=1), WITHIN)
                    assert not story.changes(since)
            story.established(2)
            story.right(BRIDGE)
        assert not story.nowhere(since)
        moves = 0 if count == 1 else 2
        eventually(lambda: story.moves() == before + moves, WITHIN)  # noqa: B023


@pytest.mark.claim(
    "6.2",
    "An uplink silently drops everything: hold time or BFD notices, and the other takes over",
)
@pytest.mark.parametrize("bfd", [False, True], ids=["holdtime", "bfd"])
def test_an_uplink_that_silently_drops(story: Story, bfd: bool) -> None:
    """One session ends and the address stays; the session's reason is BFD only where BFD runs."""
    story.underlay(*LEAVES)
    story.established(2)
    story.right(BRIDGE)
    with story.bfd() if bfd else nullcontext():
        since = story.now()
        detection = "BFD" if bfd else "hold time 9 s"
        with story.fault(f"an uplink silently drops all, {detection}") as notes:
            with story.silent(story.fabric.leaf("ns-leaf-0")) as silent:
                story.established(1)
                eventually(lambda: story.sessions(since, "Down"), WITHIN)
                [down] = story.sessions(since, "Down")
                assert NIC in down.message, down
                shown = story.host.show(f"show bgp neighbors {NIC} json")[NIC]
                why = str({key: text for key, text in shown.items() if key.startswith("last")})
                assert ("BFD" in why) == bfd, why
                notes.append(f"one session less after {down.at - silent:.1f} s")
                story.right(BRIDGE)
            story.established(2)
            story.right(BRIDGE)
        assert len(story.sessions(since, "Down")) == 1
        assert not story.changes(since)


def test_bgpd_hangs(story: Story) -> None:
    """The address stays while bgpd hangs for 4 s, and moves to the NIC when it hangs for longer."""
    story.underlay(*LEAVES)
    story.right(BRIDGE)
    since = story.now()
    story.hang("bgpd watchfrr", 4)
    story.established(2)
    assert not story.changes(since)
    with story.hung("bgpd watchfrr"):
        eventually(lambda: story.places() == [NIC], WITHIN)
    story.right(BRIDGE)
    story.carries_on()


def test_nic_renamed(story: Story) -> None:
    """The hook knows the NIC by its index. The next apply repairs FRR's settings of the NIC."""
    story.underlay(*LEAVES)
    story.right(BRIDGE)
    try:
        with story.renamed("mgmt0"):
            # FRR 8.4.4 on a leaf crashes when its neighbor is deleted while the session ends. So
            # wait until the session has ended.
            leaf = story.fabric.leaf("ns-leaf-0")
            eventually(lambda: not _established(leaf), WITHIN)
            time.sleep(2)
            story.underlay()
            eventually(lambda: story.places() == ["mgmt0"], WITHIN)
        story.right(NIC)
        story.underlay("ns-leaf-0")
        eventually(lambda: story.places() == [BRIDGE], WITHIN)
    finally:
        story.apply()
    story.right(BRIDGE)
    story.carries_on()


def _established(leaf: Leaf) -> bool:
    """Return whether a leaf has a session with the host."""
    peers = leaf.show("show bgp summary json")["ipv4Unicast"]["peers"]
    return bool(peers["swp9s1"]["state"] == "Established")


def test_ipv6_moves_too(story: Story) -> None:
    """A second management address, of IPv6, moves together with the IPv4 address, and back."""
    story.underlay()
    story.right(NIC)
    address, controllers = "fd00:12::101", "fd00:12::5"
    management = PAYLOAD["server"]["mgmt"] | {"ipv6": f"{address}/64", "gateway6": "fd00:12::1"}

    def is_on(device: str) -> bool:
        """Whether the device has the address and the route, and the controller reaches it."""
        routes = json.loads(story.host.run("ip -6 -json route show default".split()).out)
        holds = address in story.host.run(["ip", "-6", "address", "show", device]).out
        routed = [(route["dev"], route["metric"]) for route in routes] == [(device, 77)]
        return holds and routed and bool(story.controller.ping(address, count=1))

    try:
        story.host.run(f"ip address add {address}/64 dev {NIC} nodad".split())
        story.host.run(f"ip -6 route add default via fd00:12::1 dev {NIC} metric 77".split())
        story.controller.run(f"ip address replace {controllers}/64 dev eth0 nodad".split())
        story.apply(mgmt=management)
        eventually(lambda: is_on(NIC), WITHIN)
        for names, device in ((("ns-leaf-0",), BRIDGE), ((), NIC)):
            story.underlay(*names)
            story.right(device)
            eventually(lambda: is_on(device), WITHIN)  # noqa: B023
    finally:
        story.underlay()
        story.right(NIC)
        for words in (
            f"-6 route delete default dev {NIC}",
            f"address delete {address}/64 dev {NIC}",
        ):
            story.host.run(["ip", *words.split()], check=False)
        story.controller.run(f"ip address delete {controllers}/64 dev eth0".split(), check=False)
        story.apply()


@pytest.mark.long
def test_dhcp_lease(story: Story) -> None:
    """A DHCP lease on the NIC is renewed in either state; the management address does not move.

    When a lease ends, our own addresses on the NIC stay. dhclient's script would remove all
    addresses that have the NIC's name as their label. networkd keeps even the lease's own address,
    because our configuration says so.
    """
    story.underlay()
    story.right(NIC)
    with story.leasing() as leases:
        for names, device in (((), NIC), (LEAVES, BRIDGE)):
            story.underlay(*names)
            story.right(device)
            story.established(len(names))
            since, before = story.now(), leases.acknowledgements()
            with story.fault(f"DHCP lease renewed, on {device}"):
                eventually(lambda: leases.acknowledgements() > before, WITHIN)  # noqa: B023
                time.sleep(1)
                story.right(device)
            assert not story.changes(since)
        leases.end()
        with story.fault("DHCP lease ended, on the bridge"):
            time.sleep(45)
            show, keeps = ["ip", "-4", "address", "show", NIC], story.backend == "netplan"
            eventually(lambda: ("10.254.254.10/24" in story.host.run(show).out) == keeps, WITHIN)
            assert "inet 10.2.0.101 peer 169.254.0.1/32" in story.host.run(show).out
            hops = story.host.run("ip route show 10.2.0.3".split()).out
            assert f"dev {NIC}" in hops
    story.right(BRIDGE)


@pytest.mark.claim("17.2", "The management address survives netplan apply or ifreload in a loop")
def test_native_tool_in_a_loop(story: Story, loop: int) -> None:
    """`netplan apply` or `ifreload -a` adds the address to the NIC; the hook removes it at once."""
    story.underlay(*LEAVES)
    story.right(BRIDGE)
    argv = ["netplan", "apply"] if story.backend == "netplan" else ["ifreload", "-a"]
    since, end, times = story.now(), time.monotonic() + loop, 0
    with story.fault(f"{' '.join(argv)} for {loop} s") as notes:
        while time.monotonic() < end:
            story.host.run(argv, timeout=120)
            times += 1
        story.right(BRIDGE)
        notes += [f"{times} times", story.lapses(since)]
    assert times
    assert not story.nowhere(since)


@pytest.mark.claim(
    "17.3",
    "The hook restores addresses and routes of the management address changed by hand",
)
def test_nuisances(story: Story) -> None:
    """The hook repairs changed addresses and routes, also after a lost carrier, without a move."""
    story.underlay(*LEAVES)
    story.right(BRIDGE)
    since, moves = story.now(), story.moves()
    with story.fault("addresses and routes changed by hand") as notes:
        worst = 0.0
        for nuisance in BY_HAND:
            story.host.run(nuisance.split())
            worst = max(worst, story.right(BRIDGE))
        notes += [f"right within {worst:.2f} s", story.lapses(since)]
    assert story.nowhere(since) == 1  # the second command of BY_HAND deleted it
    for nuisance in NATIVE[story.backend]:
        since = story.now()
        with story.fault(nuisance) as notes:
            story.host.run(nuisance.split())
            time.sleep(1)
            story.right(BRIDGE)
            notes.append(story.lapses(since))
        assert not story.nowhere(since), nuisance
    with story.fault("the NIC's carrier lost for a second"):
        try:
            story.host.run(["ip", "link", "set", NIC, "down"])
            time.sleep(1)
        finally:
            story.host.run(["ip", "link", "set", NIC, "up"])
        story.right(BRIDGE)
    assert story.moves() == moves


@pytest.mark.claim(
    "14.2",
    "After a reboot the management address is where the fabric is, in EVPN and in Ethernet mode",
)
def test_reboot(story: Story) -> None:
    """After a reboot the address is where it was: on the bridge in EVPN mode, else on the NIC."""
    for names, device in ((LEAVES, BRIDGE), ((), NIC)):
        story.underlay(*names)
        story.right(device)
        story.reboot()
        start = time.monotonic()
        story.right(device)
        mode = "EVPN" if names else "Ethernet"
        took = time.monotonic() - start
        story.figure(f"reboot in {mode} mode", f"right {took:.1f} s after the fabric is back")


# --- Idle ---


@pytest.mark.long
def test_nothing_is_done_while_nothing_happens(story: Story, long: bool) -> None:
    """An idle hook runs no command, writes no file, looks each 10 s. EVPN routes do not wake it."""
    story.underlay()
    story.right(NIC)
    _is_idle(story)
    story.underlay("ns-leaf-0")
    story.right(BRIDGE)
    with story.routes_coming_and_going(MANY if long else 1000):
        _is_idle(story)
    story.right(BRIDGE)


# Waits until the hook has finished its earlier work, then watches it. Prints how often the hook
# slept, in how many seconds, and whether it started no command (it counts the page faults of child
# processes) and wrote no file in that time.
IDLE = """
import os, sys, time
def work():
    stat = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    files = [(each.name, each.stat().st_mtime_ns) for each in os.scandir("/run/evpn-host")]
    return stat[8], stat[10], sorted(files)
def sleeps():
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return int(dict(line.split(":") for line in lines)["voluntary_ctxt_switches"])
pid, seconds = sys.argv[1], float(sys.argv[2])
before = None
while before != work():
    before = work()
    time.sleep(2)
times, start = sleeps(), time.monotonic()
time.sleep(seconds)
print(sleeps() - times, time.monotonic() - start, before == work())
"""


def _is_idle(story: Story) -> None:
    """Fail unless the hook is idle."""
    pid = story.host.run(["systemctl", "show", "--value", "-p", "MainPID", HOOK]).out.strip()
    words = story.host.run(["python3", "-c", IDLE, pid, "15"]).out.split()
    sleeps, seconds, unchanged = int(words[0]), float(words[1]), words[2]
    print(f"slept {sleeps} times in {seconds:.0f} s")
    assert unchanged == "True"
    # It asks FRR each 10 s, and announces the address now and then until 45 s after a move.
    assert sleeps <= 20 * (seconds / 10 + 1)


@pytest.mark.long
def test_management_vnet_gets_another_vni(story: Story) -> None:
    """The address moves from the old bridge to the new one, and back."""
    story.underlay(*LEAVES)
    story.right(BRIDGE)
    with story.fault("VNI changed on the leaves, then by apply, and back") as notes:
        for vni in (15, 14):
            since = story.now()
            story.another_vni(vni)
            applied = time.monotonic()
            story.right(f"nbr-{vni}")
            took, old = time.monotonic() - applied, f"nbr-{29 - vni}"
            text = (
                f"to {vni}: reached {took:.1f} s after apply, which came after the leaves' change"
            )
            notes.append(f"{text}; {story.lapses(since, old)}")
            assert not story.nowhere(since, old)


def test_uninstall(story: Story) -> None:
    """Uninstall in EVPN mode puts the address on the NIC again, as the operator configured it."""
    story.underlay(*LEAVES)
    story.right(BRIDGE)
    story.uninstall()
    story.right(NIC, reached=False)
    story.underlay()
    # Without the hook nobody announces the address's new place. The controller learns it when its
    # neighbour entry gets stale and it asks again.
    took = eventually(lambda: story.host.ping(story.controller, count=1), 90)
    story.figure("uninstalled on the bridge", f"reached {took:.0f} s after the ports are back")
    story.right(NIC)
    links = story.host.run(["ip", "-brief", "link"]).out
    assert "nbr-" not in links
    assert "10.2.0.101" not in story.host.run(["ip", "address"]).out
