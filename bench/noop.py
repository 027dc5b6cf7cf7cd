"""Measures an `evpn-host apply` that has nothing to do, as a whole process.

    python bench/noop.py [--vnets 1000] [--runs 5]

It works on a tree of its own, so that it needs no root: apply reads the payload, the record and
every file of ours. The payload comes from a file, and from a controller on loopback that answers
304 over TLS. With root it also measures what a host adds: it reads as many devices from the kernel,
in a network namespace of its own. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.render import payload

REPO = Path(__file__).parents[1]
KERNEL = """
import sys, time
from pathlib import Path
from generator.observed import devices, settings
from generator.desired.model import Device
root = Path(sys.argv[1])
text = (root / settings.FILE).read_text()
names = [line.split()[0].rstrip(":") for line in open("/proc/net/dev").read().splitlines()[2:]]
expected = [Device(name=n, kind="bridge") for n in names if n.startswith("nbr-")]
start, begun = time.perf_counter(), time.process_time()
kernel = devices.read()
devices.differences(expected, (), kernel)
settings.differences(root, kernel.links)
print(time.perf_counter() - start, time.process_time() - begun)
"""


def median_of(argv: list[str], runs: int) -> tuple[float, float]:
    """Return medians of a command's wall and CPU times in seconds; the first run does not count."""
    times = []
    for _ in range(runs + 1):
        start, times_before = time.perf_counter(), os.times()
        subprocess.run(argv, check=True, capture_output=True)
        times_after = os.times()
        cpu = times_after.children_user + times_after.children_system
        cpu -= times_before.children_user + times_before.children_system
        times.append((time.perf_counter() - start, cpu))
    wall, cpus = zip(*times[1:], strict=True)
    return statistics.median(wall), statistics.median(cpus)


@contextmanager
def controller(folder: Path, root: Path) -> Iterator[str]:
    """Serve a folder over HTTPS on loopback; let the host below `root` trust it; yield the URL."""
    ca = trustme.CA()
    pem = folder / "controller.pem"
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    settings = root / "etc/evpn-host"
    settings.mkdir(parents=True)
    ca.cert_pem.write_to_path(str(settings / "ca.pem"))
    (settings / "config.yaml").write_text("ca_file: /etc/evpn-host/ca.pem\n")
    argv = [sys.executable, str(REPO / "examples/controller.py"), str(folder), "--port", "0"]
    with subprocess.Popen(
        [*argv, "--certificate", str(pem)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process.stdout.readline().decode().strip() if process.stdout else ""
        finally:
            process.terminate()


def reading_the_kernel(vnets: int, root: Path) -> tuple[float, float]:
    """Return wall and CPU seconds to read and compare two devices and the settings of each V-Net.

    Below `root` there is the file of settings, to be compared with this machine's /proc/sys.
    """
    (root / "proc").symlink_to("/proc")
    lines = []
    for vni in range(2, vnets + 2):
        lines += [
            f"link add nbr-{vni} type bridge",
            f"link add vxlan{vni} type vxlan id {vni} local 127.0.0.1 dstport 4789 nolearning",
            f"link set vxlan{vni} master nbr-{vni}",
        ]
    script = f'ip -batch - && exec "{sys.executable}" -c "$1" "$2"'
    result = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", KERNEL, str(root)],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    wall, cpu = map(float, result.stdout.split())
    return wall, cpu


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
        apply = [*base, "apply", "--root", str(root), "-b", "netplan", "-p"]
        subprocess.run([*apply, str(document)], check=True, capture_output=True)
        rows = [
            ("`evpn-host --version`", median_of([*base, "--version"], options.runs)),
            (
                f"no-op apply of a file, {options.vnets:,} V-Nets",
                median_of([*apply, str(document)], options.runs),
            ),
        ]
        with controller(Path(folder), root) as url:
            refresh = median_of([*apply, f"{url}{document.name}"], options.runs)
        rows.append(("no-op refresh from a controller: TLS, one request, 304", refresh))
        if os.geteuid() == 0:
            times = reading_the_kernel(options.vnets, root)
            rows.append((f"… reading {2 * options.vnets:,} devices and their settings", times))
    print("| | wall time | CPU time |\n| --- | --- | --- |")
    for name, (wall, cpu) in rows:
        print(f"| {name} | {wall:.2f} s | {cpu:.2f} s |")


if __name__ == "__main__":
    main()
