"""Measures time and memory of `evpn-host render`, as a whole process.

    python bench/render.py [--runs 5]
    python bench/render.py --hosts 1000 10000 [--vnets 50] [--folder DIR]

Prints a Markdown table, and the time of each part of the largest run. The exit code is 1 when the
time grows faster than the number of V-Nets. With `--hosts` it renders Fleets instead: into a new
folder, the same again, and with a V-Net more on three hosts. The exit code is then 1 when the time
grows faster than the number of hosts.
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
FLEET_LIMIT = 1.3
"""Limit of the time for a host in the largest Fleet, against that in the smallest."""
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


def fleet(hosts: int, vnets: int, more: int = 0) -> dict[str, Any]:
    """Return a Fleet whose hosts are in so many of 200 V-Nets, of which 4 are of a VPC.

    The first hosts, so many as `more`, are in a V-Net more.
    """
    members: dict[int, list[dict[str, str]]] = {number: [] for number in range(200)}
    management: list[dict[str, Any]] = []
    servers = []
    for host in range(hosts):
        ports = [{"name": f"swp{host % 32 + 1}@leaf{host // 32 * 2 + end}"} for end in (0, 1)]
        management += [port | {"untagged": True} for port in ports]
        for number in range(vnets - 1):
            members[(host * 7 + number) % 200] += ports
        servers.append(_fleet_host(host, ports))
    segments = [
        _vnet(number, ports) | {"vpc": {"id": 10 + number // 4}}
        for number, ports in members.items()
    ]
    if more:
        first = [{"name": link["remote"]["name"]} for s in servers[:more] for link in s["links"]]
        segments.append(_vnet(1000, first) | {"vpc": {"id": 10}})
    vpcs = [{"id": 10 + id_, "name": f"tenant-{id_}", "vni": 1000000 + id_} for id_ in range(50)]
    infrastructure = {"name": "Management", "vxlanID": 2, "vpc": {"id": 1}, "ports": management}
    return {
        "apiVersion": "evpn-host/v1",
        "kind": "Fleet",
        "generation": 1 + more,
        "vpcs": [{"id": 1, "name": "Infrastructure"}, *vpcs],
        "vnets": [infrastructure, *segments],
        "hosts": servers,
    }


def _fleet_host(number: int, ports: list[dict[str, str]]) -> dict[str, Any]:
    name, rest = f"srv{number:05d}", f"{number // 62500}.{number // 250 % 250}.{number % 250 + 2}"
    mgmt = {"vnet": "Management", "ifname": "ens4", "gateway": "10.127.255.254"}
    return {
        "server": {
            "name": name,
            "srvRole": "EVPN-VTEP",
            "asn": 4200000001 + number,
            "mainAddress": f"172.16{rest[1:]}",
            "mgmt": mgmt | {"ipv4": f"10.{rest}/9"},
        },
        "links": [
            {
                "local": {"name": f"eth{end}@{name}", "ifname": f"ens{end + 4}"},
                "remote": port | {"asn": 4100000000 + number // 32 * 2 + end},
            }
            for end, port in enumerate(ports)
        ],
    }


def run(argv: list[str]) -> tuple[float, float, int]:
    """Run a process; return wall and processor time in seconds, and peak memory in KiB."""
    start = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
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


def fleets(sizes: list[int], vnets: int, folder: Path) -> bool:
    """Measure Fleets of these sizes; return whether the time grows with the number of hosts."""
    print(f"| hosts, {vnets} V-Nets each | wall time | of it processor | peak memory | files |")
    print("| --- | --- | --- | --- | --- |")
    of_a_host = []
    for size in sizes:
        output, sources = folder / str(size), {}
        for more in (0, 3):
            sources[more] = folder / f"{size}-{more}.json"
            sources[more].write_text(json.dumps(fleet(size, vnets, more)))
        for label, more in (("new", 0), ("the same again", 0), ("one V-Net more on three", 3)):
            argv = [sys.executable, "-m", "generator", "render", "-p", str(sources[more])]
            seconds, busy, peak = run([*argv, "-o", str(output)])
            if label == "new":
                of_a_host.append(busy / size)
            files = sum(len(names) for _, _, names in os.walk(output))
            row = f"{seconds:.1f} s | {busy:.1f} s | {peak / 1024:.0f} MB | {files:,}"
            print(f"| {size:,}, {label} | {row} |", flush=True)
    growth = of_a_host[-1] / of_a_host[0]
    print(f"\nA host of the most: {growth:.2f} times one of the fewest, limit {FLEET_LIMIT:g}.")
    return growth <= FLEET_LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, the median counts")
    parser.add_argument("--hosts", type=int, nargs="+", help="sizes of Fleets")
    parser.add_argument("--vnets", type=int, default=50, help="V-Nets of a Fleet's host")
    parser.add_argument("--folder", type=Path, help="where to write [the system's temporary one]")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    if options.hosts:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            sys.exit(0 if fleets(options.hosts, options.vnets, Path(name)) else 1)
    print("| what | wall time | of it processor | peak memory | against the first line |")
    print("| --- | --- | --- | --- | --- |")
    base, busy, peak = measure([sys.executable, *BASELINE], options.runs)
    label = "`python -c 'import jinja2, click'`"
    print(f"| {label} | {base:.3f} s | {busy:.3f} s | {peak:.0f} MB | 1 |")
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
        result = subprocess.run(
            [sys.executable, "-c", PARTS, *arguments], capture_output=True, text=True, check=True
        )
        for line in result.stdout.splitlines():
            part, seconds = line.split("\t")
            print(f"| {part} | {float(seconds):.3f} s |")
    sys.exit(1 if growth > LIMIT else 0)


if __name__ == "__main__":
    main()
