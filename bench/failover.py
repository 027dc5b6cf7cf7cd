"""Measures whether the management address moves as fast as docs/failover.md promises.

    python bench/failover.py [--suite trixie] [--backend netplan] [--times 20] [--write]

Needs root, and a computer that does nothing else: it says so when it is busy. Boots the lab and
prints a Markdown table: each promise, the measured value and, from the same run, a value to compare
it with. The exit code is 1 when a promise was not kept. `--write` puts the figures into
docs/failover.md.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab.fabric import Lab, Leaf, eventually
from tests.lab.story import (
    BRIDGE,
    BY_HAND,
    HOOK,
    LEAVES,
    MANY,
    NATIVE,
    NIC,
    WAYS,
    WITHIN,
    Story,
    Transition,
    summary,
    write_figures,
)

# The least that any hook could cost: a Python that wakes each 10 s and does nothing.
BARE = "import time\nwhile True: time.sleep(10)"


class Promise(NamedTuple):
    """A row of the table."""

    title: str
    limit: float
    measured: float
    unit: str
    beside: str = ""

    @property
    def kept(self) -> bool:
        """Whether the measured value is within the limit."""
        return self.measured <= self.limit

    def __str__(self) -> str:
        """Give the row."""
        limit, measured = (self._say(number) for number in (self.limit, self.measured))
        measured = measured if self.kept else f"**{measured}**"
        return f"| {self.title} | {limit} | {measured} | {self.beside} |"

    def _say(self, number: float) -> str:
        if self.unit == "%":
            return f"{number:.3%}"
        return f"{number:.3f} s" if self.unit == "s" else f"{number:.0f} {self.unit}"


def moves(story: Story, times: int) -> Iterator[Promise]:
    """Yield the promises about the published story, which runs so many times."""
    transitions: dict[str, list[Transition]] = {title: [] for title, *_ in WAYS}
    twice, nowhere = [], 0
    story.underlay()
    story.right(NIC)
    for _ in range(times):
        story.hook("restart")  # otherwise the damping would be measured too
        for title, names, device, way in WAYS:
            [place] = story.places()
            transition = story.transition(names, device, way)
            transitions[title].append(transition)
            if way:
                twice.append(story.twofold(transition.begun, place)[0])
                nowhere += story.nowhere(transition.begun, place)
        story.carries_on()
    for title, names, device, way in WAYS:
        rows = transitions[title]
        story.figure(title, f"{summary(rows, story.interval)}; TCP lives; {len(rows)} times")
        if not way:
            continue
        durations = [row.took for row in rows]
        own = statistics.median(row.session - row.begun for row in rows)
        gap = statistics.median(row.pings.longest_gap_s for row in rows)
        beside = f"{own:.2f} s from the port's change to FRR's own; gap {gap:.2f} s (median)"
        to = "the bridge" if names else "the NIC"
        name = f"session {way} until the address is on {to}"
        yield Promise(f"{name}, median of {times}", 0.3, statistics.median(durations), "s", beside)
        yield Promise(f"{name}, worst", 1, max(durations), "s", f"on {device} then")
    text = f"{statistics.median(twice) * 1000:.0f} ms (median), {max(twice) * 1000:.0f} ms (worst)"
    story.figure("in two places", text)
    yield Promise("address in two places in a move, median", 0.1, statistics.median(twice), "s")
    yield Promise("address in two places in a move, worst", 1, max(twice), "s")
    yield Promise("address taken from its only place", 0, nowhere, "times")


def put_right(story: Story) -> Iterator[Promise]:
    """Yield the promises about addresses and routes that others change."""
    story.underlay(*LEAVES)
    story.established(2)
    story.right(BRIDGE)
    for command in BY_HAND:
        since, start = story.now(), time.monotonic()
        story.host.run(command.split())
        own = time.monotonic() - start
        start = time.monotonic()
        story.right(BRIDGE)
        took = time.monotonic() - start
        beside = f"the command itself {own:.2f} s; {story.lapses(since)}"
        yield Promise(f"right after `{command}`", 2, took, "s", beside)
    for command in NATIVE[story.backend]:
        since, start = story.now(), time.monotonic()
        story.host.run(command.split())
        own = time.monotonic() - start
        time.sleep(2)  # networkd only begins then: the kernel knows what it did
        story.right(BRIDGE)
        took = max(story.twofold(since, BRIDGE))
        beside = f"the command itself {own:.2f} s; {story.lapses(since)}"
        yield Promise(f"wrong after `{command}`", 2, took, "s", beside)


def uplinks(story: Story) -> Iterator[Promise]:
    """Yield the promises about a lost uplink, lost in each way; the worse uplink counts."""
    story.underlay(*LEAVES)
    story.established(2)
    story.right(BRIDGE)
    moves = 0
    for title, detection, gap, way, setting in (
        ("without carrier", 3.0, 3.0, story.unplugged, nullcontext),
        ("silent, hold time 9 s", 12.0, 12.0, story.silent, nullcontext),
        ("silent, BFD 3 × 300 ms", 2.5, 4.0, story.silent, story.bfd),
    ):
        # Switching BFD off resets both sessions, which moves the address: this is not counted.
        with setting():
            time.sleep(1)  # the hook counts a move after the address has moved
            before = story.moves()
            losses = [_lose(story, story.fabric.leaf(name), way) for name in LEAVES]
            moves += story.moves() - before
        after, loss, back = (max(each) for each in zip(*losses, strict=True))
        yield Promise(f"uplink {title}: session gone", detection, after, "s", "by FRR's own log")
        yield Promise(f"uplink {title}: longest gap", gap, loss, "s", f"session gone {after:.2f} s")
        yield Promise(f"uplink {title}: gap when it is back", 3, back, "s")
    yield Promise("moves of the address meanwhile", 0, moves, "times")


def _lose(
    story: Story, leaf: Leaf, way: Callable[[Leaf], AbstractContextManager[float]]
) -> tuple[float, float, float]:
    """Lose an uplink and get it back.

    Returns the seconds until the session ended, and the longest gap of the loss and of the return.
    """
    start = story.now()
    with ExitStack() as loss:
        with story.pinging() as pinging:
            since = loss.enter_context(way(leaf))
            story.established(1)
            eventually(lambda: story.sessions(start, "Down"), WITHIN)
            time.sleep(1)
        with story.pinging() as returning:
            loss.close()
            story.established(2)
            time.sleep(1)
    story.right(BRIDGE)
    story.carries_on()
    down = story.sessions(start, "Down")[0].at - since
    return down, pinging.result.longest_gap_s, returning.result.longest_gap_s


def silent_frr(story: Story) -> Iterator[Promise]:
    """Yield the promise about a silent FRR: after 10 s it counts as no session."""
    story.underlay(*LEAVES)
    story.right(BRIDGE)
    since, start = story.now(), time.monotonic()
    with story.stopped("frr"):
        duration = time.monotonic() - start
        story.right(NIC, reached=False)
        eventually(lambda: story.changes(since), WITHIN)
        took = story.changes(since)[0][0] - since
    story.right(BRIDGE)
    beside = f"patience of 10 s; `systemctl stop frr` took {duration:.1f} s"
    yield Promise("FRR stopped until the address is on the NIC", 22, took, "s", beside)


def idle(story: Story, seconds: int, vnets: int) -> Iterator[Promise]:
    """Yield what the idle hook costs: on the NIC, and on the bridge while EVPN routes change."""
    amid = f", {vnets} V-Nets more" if vnets else ""
    unit = "bench-bare"
    bare = ["systemd-run", f"--unit={unit}", "-pCPUAccounting=yes", "-pMemoryAccounting=yes"]
    story.host.run([*bare, "python3", "-c", BARE])
    try:
        with story.vnets(vnets):
            story.underlay()
            story.right(NIC)
            yield from _cost(story, f"idle on the NIC{amid}", seconds, unit)
            story.underlay(*LEAVES)
            story.right(BRIDGE)
            with story.routes_coming_and_going(MANY):
                title = f"idle on the bridge, {MANY:,} EVPN routes coming and going{amid}"
                yield from _cost(story, title, seconds, unit)
    finally:
        story.host.run(["systemctl", "stop", unit], check=False)


def _cost(story: Story, title: str, seconds: int, bare: str) -> Iterator[Promise]:
    units = (HOOK, bare, "frr.service")
    time.sleep(50)  # the hook announces the address until 45 s after a move
    before = [_used(story, unit)[0] for unit in units]
    start = story.now()
    time.sleep(seconds)
    after = [_used(story, unit) for unit in units]
    duration = (story.now() - start) * 1e9
    shares = [(now - then) / duration for then, (now, _) in zip(before, after, strict=True)]
    memory = [used / 2**20 for _, used in after]
    beside = f"a Python that does nothing {shares[1]:.3%}, FRR {shares[2]:.3%}"
    yield Promise(f"{title}: share of a core", 0.002, shares[0], "%", beside)
    times = memory[0] / memory[1]
    beside = f"{times:.1f} times a Python that does nothing, {memory[1]:.0f} MB"
    yield Promise(f"{title}: memory", 40, memory[0], "MB", beside)
    story.figure(title, f"{shares[0]:.2%} of a core, {memory[0]:.0f} MB")


def _used(story: Story, unit: str) -> tuple[int, int]:
    """Return the processor time of a unit in nanoseconds, and its memory in bytes."""
    result = story.host.run(["systemctl", "show", "-pCPUUsageNSec", "-pMemoryCurrent", unit])
    values = dict(line.split("=") for line in result.out.split())
    return int(values["CPUUsageNSec"]), int(values["MemoryCurrent"])


def busy() -> float:
    """Return the share of this computer's processors that other programs use now."""

    def look() -> tuple[int, int]:
        numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]

    before = look()
    time.sleep(2)
    total, idle = (now - then for then, now in zip(before, look(), strict=True))
    return 1 - idle / total


def main() -> int:
    """Measure and print. Returns 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--backend", default="netplan")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=60, help="for how long idling is watched")
    parser.add_argument("--vnets", type=int, default=0, help="V-Nets more while idling")
    parser.add_argument("--write", action="store_true", help="put figures into docs/failover.md")
    options = parser.parse_args()
    if (share := busy()) > 0.1:
        print(f"{share:.0%} of this computer is in use: figures will be too high", file=sys.stderr)
    with Lab(options.suite, options.backend) as lab:
        story = Story(lab, options.backend, interval=0.01)
        story.ready()
        rows = []
        for part in (
            moves(story, options.times),
            put_right(story),
            uplinks(story),
            silent_frr(story),
            idle(story, options.seconds, options.vnets),
        ):
            rows += list(part)
    print(f"\n{options.suite}, {options.backend}\n")
    print("| what | limit | measured | beside it, in the same run |\n| --- | --- | --- | --- |")
    for row in rows:
        print(row)
    if options.write:
        write_figures(options.backend)
    return int(not all(row.kept for row in rows))


if __name__ == "__main__":
    sys.exit(main())
