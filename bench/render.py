"""Measures time and memory of `evpn-host render`, as a whole process.

    python bench/render.py [--runs 5]

Prints a Markdown table, and the time of each part of the largest run. The exit code is 1 when the
time grows faster than the number of V-Nets.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = (10, 1000, 4000)
LIMIT = 6.0
"""Limit of the last two sizes' ratio. Linear is 4, less the time to start; quadratic is 16."""
BASELINE = ("-c", "import jinja2, click")

PARTS = """
import sys, time
start = time.perf_counter()
marks = []
def mark(name):
    marks.append((name, time.perf_counter()))
from pathlib import Path
from generator import cli
from generator.desired import payload, plan
from generator.state import files
from generator.desired.payload import checks, decode, derive
from generator.desired.render import environment, render
mark("import")
data = Path(sys.argv[1]).read_bytes()
raw, problems = decode.parse(data)
mark("parse JSON")
loaded = payload.load(data)
mark("decode, check and derive (and parse again)")
for name in environment().list_templates(extensions=["j2"]):
    environment().get_template(name)
mark("compile templates")
texts = render(loaded.hosts[0], "netplan")
mark("render")
for path, text in texts.items():
    files.write_plain(Path(sys.argv[2]), path, text.encode(), plan.mode(path))
mark(f"write {len(texts)} files")
for name, at in marks:
    print(f"{name}\\t{at - start:.4f}")
    start = at
"""


def payload(vnets: int) -> dict[str, Any]:
    """Return a host with so many V-Nets, ten in each VPC, each tenth with an IPv6 gateway too."""
    ports = [{"name": "swp1@leaf1"}, {"name": "swp1@leaf2"}]
    management = {
        "name": "Management",
        "vxlanID": 2,
        "vpc": {"id": 1},
        "ports": [port | {"untagged": True} for port in ports],
    }
    tenants = [_vnet(number, ports) for number in range(vnets - 1)]
    vpcs = sorted({vnet["vpc"]["id"] for vnet in tenants})
    return {
        "apiVersion": "evpn-host/v1",
        "kind": "Host",
        "generation": 1,
        "server": {
            "name": "bench",
            "srvRole": "EVPN-VTEP",
            "asn": 4200000001,
            "mainAddress": "10.2.0.101",
            "mgmt": {
                "vnet": "Management",
                "ifname": "ens4",
                "ipv4": "192.0.2.101/24",
                "gateway": "192.0.2.1",
            },
        },
        "links": [
            {
                "local": {"name": f"eth{number}@bench", "ifname": f"ens{number + 3}"},
                "remote": {"name": f"swp1@leaf{number}", "asn": 4200300000 + number},
            }
            for number in (1, 2)
        ],
        "vpcs": [{"id": 1, "name": "Infrastructure"}]
        + [{"id": id_, "name": f"tenant-{id_}", "vni": 1000000 + id_} for id_ in vpcs],
        "vnets": [management, *tenants],
    }


def _vnet(number: int, ports: list[dict[str, Any]]) -> dict[str, Any]:
    gateways = [{"prefix": f"10.{number >> 8 & 255}.{number & 255}.1/24"}]
    if number % 10 == 0:
        gateways.append({"prefix": f"fd00:{number:x}::1/64"})
    return {
        "name": f"vnet-{number}",
        "vxlanID": 1000 + number,
        "vpc": {"id": 10 + number // 10},
        "macAddress": f"44:38:39:00:{number >> 8:02x}:{number & 255:02x}",
        "gateways": gateways,
        "ports": ports,
    }


def run(argv: list[str]) -> tuple[float, float, int]:
    """Run a process; return wall and processor time in seconds, and peak memory in KiB."""
    start = time.perf_counter()
    process = subprocess.Popen(argv)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(argv)} failed with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def measure(argv: list[str], runs: int, output: Path | None = None) -> tuple[float, float, float]:
    """Return medians of wall and processor time in seconds, and the largest peak in MB.

    Each run writes to a new folder of `output`.
    """
    results = [
        run([*argv, str(output / str(number))] if output else argv) for number in range(runs + 1)
    ]
    seconds, busy, peaks = zip(*results[1:], strict=True)  # the first fills the caches
    return statistics.median(seconds), statistics.median(busy), max(peaks) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, the median counts")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| what | wall time | of it processor | peak memory | against the first line |")
    print("| --- | --- | --- | --- | --- |")
    base, busy, peak = measure([sys.executable, *BASELINE], options.runs)
    what = "`python -c 'import jinja2, click'`"
    print(f"| {what} | {base:.3f} s | {busy:.3f} s | {peak:.0f} MB | 1 |")
    times = {}
    with tempfile.TemporaryDirectory() as name:
        for size in SIZES:
            source, output = Path(name, f"{size}.json"), Path(name, str(size))
            source.write_text(json.dumps(payload(size)))
            argv = [sys.executable, "-m", "generator", "render", "-p", str(source), "-o"]
            times[size], busy, peak = measure(argv, options.runs, output)
            row = f"{times[size]:.3f} s | {busy:.3f} s | {peak:.0f} MB | {times[size] / base:.1f}"
            print(f"| {size} V-Nets | {row} |")
        small, large = SIZES[1:]
        growth = times[large] / times[small]
        print(f"\n{small} to {large} V-Nets: {growth:.1f} times the time, limit {LIMIT:g}.\n")
        print(f"| part of {large} V-Nets | time |\n| --- | --- |")
        arguments = [str(source), str(Path(name, "parts"))]
        done = subprocess.run(
            [sys.executable, "-c", PARTS, *arguments], capture_output=True, text=True, check=True
        )
        for line in done.stdout.splitlines():
            part, seconds = line.split("\t")
            print(f"| {part} | {float(seconds):.3f} s |")
    sys.exit(1 if growth > LIMIT else 0)


if __name__ == "__main__":
    main()
