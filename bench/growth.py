"""Measures whether time grows faster than the number of V-Nets.

    python bench/growth.py [--runs 5]

Prints a Markdown table: each time, that of a fourth of the work, their ratio and its limit. The
exit code is 1 when a ratio is over its limit. tests/test_payload.py and tests/test_guests.py count
what Python does for the same work; only time shows what a function in C does within one call.
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
from generator.desired.payload import load
from generator.errors import Refused
from generator.verbs import guests
from generator.verbs.guests import Vnet

FEW, MANY = 1000, 4000
LIMIT = 6.0
"""Linear growth is 4, quadratic 16. Data beyond a processor's cache takes longer per V-Net."""

# Faults by name: a text of the payload, and the text that replaces it.
PAYLOADS = {
    "a sound payload": ("", ""),
    "one name wrong": ('"name": "vnet-100"', '"name": 5'),
    "every MAC wrong": ("44:38", "01:38"),
    "every key twice": ('"id": ', '"id": 0, "id": 1'),
}


class Case(NamedTuple):
    """A piece of work, in two sizes."""

    name: str
    few: Callable[[], object]
    many: Callable[[], object]


def answer(data: bytes) -> None:
    """Load a payload, or make the text of its refusal."""
    try:
        load(data)
    except Refused as refused:
        str(refused)


def repeated_key(count: int) -> bytes:
    """Return an object with so many keys, of which one stands there twice."""
    keys = ", ".join(f'"k{number}": 0' for number in range(count))
    return f'{{"kind": "Fleet", {keys}, "k0": 1}}'.encode()


def cases() -> Iterator[Case]:
    """Yield all pieces of work."""
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
    """Return the least processor time of each work; other programs can only make it longer."""
    least = [float("inf")] * len(works)
    for _ in range(runs):
        for number, work in enumerate(works):
            gc.collect()
            start = time.process_time()
            work()
            least[number] = min(least[number], time.process_time() - start)
    return least


def main() -> None:
    """Measure and print; end with 1 when a ratio is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, the fastest counts")
    options = parser.parse_args()
    gc.disable()
    failed = False
    print(f"| what | {FEW:,} V-Nets | {MANY:,} V-Nets | ratio | limit |")
    print("| --- | --- | --- | --- | --- |")
    for case in cases():
        few, many = seconds((case.few, case.many), options.runs)
        failed |= many > LIMIT * few
        print(f"| {case.name} | {few:.4f} s | {many:.4f} s | {many / few:.1f} | {LIMIT:g} |")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
