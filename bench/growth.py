"""Whether time grows with the number of V-Nets, and no faster.

    python bench/growth.py [--runs 5]

Prints a Markdown table: each time beside that of a fourth of the work, their ratio and its limit.
The exit code is 1 when a ratio is over its limit. tests/test_payload.py and tests/test_guests.py
count what Python does for the same; only time shows what a function in C does within one call.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.render import payload
from generator import guests
from generator.errors import Refused
from generator.guests import Vnet
from generator.payload import load

FEW, MANY = 1000, 4000
LIMIT = 6.0
"""Linear is 4, quadratic 16; what does not fit into a processor's cache takes longer each."""

# By what is wrong: a text of the payload, and what comes in its place.
PAYLOADS = {
    "a sound payload": ("", ""),
    "one name wrong": ('"name": "vnet-100"', '"name": 5'),
    "every MAC wrong": ("44:38", "01:38"),
    "every key twice": ('"id": ', '"id": 0, "id": 1'),
}


class Case(NamedTuple):
    """Some work, in two sizes."""

    name: str
    few: Callable[[], object]
    many: Callable[[], object]


def answer(data: bytes) -> None:
    """Load a payload, or have it refused in words."""
    try:
        load(data)
    except Refused as refused:
        str(refused)


def repeated_key(count: int) -> bytes:
    """An object of so many keys, and one of them once more."""
    keys = ", ".join(f'"k{number}": 0' for number in range(count))
    return f'{{"kind": "Fleet", {keys}, "k0": 1}}'.encode()


def cases() -> Iterator[Case]:
    """All that is measured."""
    few, many = (json.dumps(payload(count)) for count in (FEW, MANY))
    for name, (right, wrong) in PAYLOADS.items():
        spoilt = [partial(answer, text.replace(right, wrong).encode()) for text in (few, many)]
        yield Case(f"check: {name}", *spoilt)
    keys = [partial(answer, repeated_key(25 * count)) for count in (FEW, MANY)]
    yield Case(f"check: a repeated key among {25 * MANY:,}", *keys)
    for platform, (text_of, *_) in guests.FORMATS.items():
        vnets = [Vnet(vni, f"nbr-{vni}", 1500, f"name {vni}") for vni in range(1, MANY + 1)]
        yield Case(f"guests: {platform}", partial(text_of, vnets[:FEW]), partial(text_of, vnets))


def seconds(works: tuple[Callable[[], object], ...], runs: int) -> list[float]:
    """The least processor time of each work, of several runs in turn: others only ever add."""
    least = [float("inf")] * len(works)
    for _ in range(runs):
        for number, work in enumerate(works):
            gc.collect()
            begun = time.process_time()
            work()
            least[number] = min(least[number], time.process_time() - begun)
    return least


def main() -> None:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, the fastest counts")
    options = parser.parse_args()
    gc.disable()
    missed = False
    print(f"| what | {FEW:,} V-Nets | {MANY:,} V-Nets | ratio | limit |")
    print("| --- | --- | --- | --- | --- |")
    for case in cases():
        few, many = seconds((case.few, case.many), options.runs)
        missed |= many > LIMIT * few
        print(f"| {case.name} | {few:.4f} s | {many:.4f} s | {many / few:.1f} | {LIMIT:g} |")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
