"""How long an apply takes on a real host with the real daemons: the lab's machine, no fabric.

    python bench/host.py [--suite trixie] [--sizes 10 100 500]

Needs root. Times are of a virtual machine with one processor, good for comparing one with another.
Prints a Markdown table.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.render import payload
from lab.fabric import Lab
from lab.machine import Machine

STEPS = ("first apply", "add a V-Net", "nothing to do", "remove a V-Net")


def measure(suite: str, size: int) -> list[float]:
    """Seconds for each of STEPS."""
    documents: dict[str, dict[str, Any]] = {"few": payload(size), "more": payload(size + 1)}
    for number, (name, document) in enumerate(documents.items()):
        documents[name] = json.loads(json.dumps(document).replace("swp1@leaf", "swp9s1@ns-leaf-"))
        for link, nic in zip(documents[name]["links"], ("ens4", "ens5"), strict=False):
            link["local"]["ifname"] = nic
        documents[name]["server"]["mgmt"]["ifname"] = "ens4"
        documents[name]["generation"] = number + 1
    documents["few again"] = documents["few"] | {"generation": 3}
    with Lab(suite) as lab:
        order = ("few", "more", "more", "few again")
        return [_apply(lab.machine, documents[name]) for name in order]


def _apply(machine: Machine, document: dict[str, Any]) -> float:
    machine.write("/root/bench.json", json.dumps(document))
    start = time.perf_counter()
    machine.run(["evpn-host", "apply", "-p", "/root/bench.json"], timeout=1200)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 500])
    options = parser.parse_args()
    print(f"| V-Nets | {' | '.join(STEPS)} |\n|{' --- |' * (len(STEPS) + 1)}")
    for size in options.sizes:
        times = " | ".join(f"{seconds:.1f} s" for seconds in measure(options.suite, size))
        print(f"| {size} | {times} |", flush=True)


if __name__ == "__main__":
    main()
