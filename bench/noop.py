"""How long an `evpn-host apply` takes that finds nothing to do, as a whole process.

    python bench/noop.py [--vnets 1000] [--runs 5]

On a tree of its own, so that no root is needed: reading the payload, the record and every file of
ours. With root also what a host adds, in a network namespace of its own with as many devices:
reading them all from the kernel. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.render import payload

KERNEL = """
import sys, time
from generator import kernel
from generator.model import Device
names = [line.split()[0] for line in open("/proc/net/dev").read().splitlines()[2:]]
expected = [Device(name=n.rstrip(":"), kind="bridge") for n in names if n.startswith("nbr-")]
start = time.perf_counter()
kernel.differences(expected)
print(time.perf_counter() - start)
"""


def median_of(argv: list[str], runs: int) -> float:
    """The median of the wall times of a command (seconds), after one that does not count."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def reading_the_kernel(vnets: int) -> float:
    """Seconds to read and compare a bridge and a VXLAN port for each V-Net."""
    lines = []
    for vni in range(2, vnets + 2):
        lines += [
            f"link add nbr-{vni} type bridge",
            f"link add vxlan{vni} type vxlan id {vni} local 127.0.0.1 dstport 4789 nolearning",
            f"link set vxlan{vni} master nbr-{vni}",
        ]
    script = f'ip -batch - && exec "{sys.executable}" -c "$1"'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", KERNEL],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vnets", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, document = Path(folder, "root"), Path(folder, "payload.json")
        (root / "etc/netplan").mkdir(parents=True)
        document.write_text(json.dumps(payload(options.vnets)))
        base = [sys.executable, "-m", "generator"]
        apply = [*base, "apply", "-p", str(document), "--root", str(root), "-b", "netplan"]
        subprocess.run(apply, check=True, capture_output=True)
        rows = [
            ("`evpn-host --version`", median_of([*base, "--version"], options.runs)),
            (f"no-op apply, {options.vnets:,} V-Nets", median_of(apply, options.runs)),
        ]
    if os.geteuid() == 0:
        rows.append((f"… reading {2 * options.vnets:,} devices", reading_the_kernel(options.vnets)))
    print("| | wall time |\n| --- | --- |")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.2f} s |")


if __name__ == "__main__":
    main()
