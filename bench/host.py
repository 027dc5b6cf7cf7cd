"""Measures an apply on a real host with the real daemons: the lab's machine in its fabric.

    python bench/host.py [--suite trixie] [--backend netplan] [--sizes 10 100 500]

Needs root, and a computer that does nothing else. The times are those of a virtual machine with
one processor. The same run also measures the lower limit of a first apply: one `ip -batch` makes
the same devices in a fresh machine, until udev and zebra know all of them. Prints a Markdown table.
`--steps` lists instead the steps of an apply of one V-Net more with their times, `--frr` the ways
to configure one VPC more in FRR with their times.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.render import payload
from generator.desired.model import devices
from generator.desired.payload import load
from lab.by_hand import ip_lines
from lab.fabric import Lab, eventually

LEAVES = ("ns-leaf-0", "ns-leaf-1")
COLUMNS = (
    "limit: the devices by one `ip -batch`",
    "first apply",
    "… times the limit",
    "… until a guest's ping is answered",
    "nothing to do",
    "one V-Net more",
    "… until its guest's ping is answered",
    "one V-Net less",
    "one more, `--full`",
    "memory of the apply",
    "memory of the daemons",
)
# Runs the command, and prints its peak memory in KiB as the last word.
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(["evpn-host", *sys.argv[1:]]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
DAEMONS = "systemd-networkd zebra bgpd"


def documents(size: int) -> dict[str, dict[str, Any]]:
    """Return payloads of so many V-Nets, and of one more, for K8S01."""
    payloads = {}
    for name, count in (("few", size), ("more", size + 1)):
        text = json.dumps(payload(count)).replace("swp1@leaf", "swp9s1@ns-leaf-")
        text = text.replace("ns-leaf-1", "ns-leaf-0").replace("ns-leaf-2", "ns-leaf-1")
        payloads[name] = json.loads(text)
        for number, link in enumerate(payloads[name]["links"]):
            link["mtu"] = 9216
            link["remote"]["asn"] = 4200300001 + number
    return payloads


class Bench:
    """A lab with the host that is measured."""

    def __init__(self, lab: Lab) -> None:
        """Use a lab."""
        self.lab = lab
        self.generation = 0
        self.memory = 0

    def apply(self, document: dict[str, Any], *options: str) -> float:
        """Apply a payload; return the seconds that it took."""
        self.generation += 1
        text = json.dumps(document | {"generation": self.generation})
        self.lab.machine.write("/root/bench.json", text)
        return self.run(*options)

    def run(self, *options: str) -> float:
        """Apply the same payload again; return the seconds that it took."""
        start = time.perf_counter()
        argv = ["python3", "-c", MEASURED, "apply", "-p", "/root/bench.json", *options]
        result = self.lab.machine.run(argv, timeout=1800)
        seconds = time.perf_counter() - start
        self.memory = max(self.memory, int(result.out.split()[-1]))
        self.said = result.err
        return seconds

    def answered(self, document: dict[str, Any]) -> None:
        """Wait until a server behind another leaf answers a ping of a guest in the newest V-Net."""
        vnet = document["vnets"][-1]
        network, vni = vnet["gateways"][0]["prefix"].rsplit(".", 1)[0], vnet["vxlanID"]
        name, gateway = f"g{vni}", f"{network}.1"
        guest = self.lab.host.pod(name, f"nbr-{vni}", f"{network}.10/24", gateway)
        eventually(lambda: guest.ping(f"{network}.20", count=1), within=120)
        self.lab.host.run(["ip", "netns", "delete", name])

    def serve(self, document: dict[str, Any]) -> None:
        """Configure the newest V-Net of a payload in the fabric, with a server in it."""
        vnet = document["vnets"][-1]
        management = {"name": "Management", "vxlanID": 14}
        vpcs = [vpc for vpc in document["vpcs"] if vpc["id"] == vnet["vpc"]["id"]]
        self.lab.fabric.carry({"vpcs": vpcs, "vnets": [management, vnet]})
        network = vnet["gateways"][0]["prefix"].rsplit(".", 1)[0]
        self.lab.fabric.server(
            "bench", vni=vnet["vxlanID"], ipv4=f"{network}.20/24", gateway=f"{network}.1"
        )

    def daemons(self) -> str:
        """Return the resident memory of each daemon, in MB."""
        script = (
            f"for name in {DAEMONS}; do for pid in $(pidof $name); do"
            ' [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/1/ns/net)" ] &&'
            " echo $name $(awk '/VmRSS/ {print int($2 / 1024)}' /proc/$pid/status); done; done"
        )
        lines = self.lab.machine.run(["sh", "-c", script], check=False).out.splitlines()
        return ", ".join(f"{line.replace('systemd-', '')} MB" for line in lines)


def limit(suite: str, backend: str, document: dict[str, Any]) -> float:
    """Return the seconds of one `ip -batch`, until udev and zebra know a payload's devices."""
    [host] = load(json.dumps(document).encode()).hosts
    planned = list(devices(host))
    lines = "".join(f"{line}\n" for line in ip_lines(planned))
    with Lab(suite, backend) as lab:
        start = time.perf_counter()
        lab.host.run(["ip", "-batch", "-"], input=lines, timeout=1800)
        lab.host.run(["udevadm", "settle", "--timeout=1800"], timeout=1800)
        newest = f"show interface {planned[-1].name}"
        eventually(lambda: "Interface Type Vxlan" in lab.host.show(newest), within=600)
        return time.perf_counter() - start


def measure(suite: str, backend: str, size: int) -> list[str]:
    """Measure the values of COLUMNS."""
    payloads = documents(size)
    lower_limit = limit(suite, backend, payloads["few"])
    with Lab(suite, backend) as lab:
        bench = Bench(lab)
        bench.serve(payloads["few"])
        for leaf in LEAVES:
            lab.fabric.leaf(leaf).underlay(on=True)
        start = time.perf_counter()
        times = [bench.apply(payloads["few"])]
        bench.answered(payloads["few"])
        times.append(time.perf_counter() - start)
        times.append(bench.run())
        bench.serve(payloads["more"])
        start = time.perf_counter()
        times.append(bench.apply(payloads["more"]))
        bench.answered(payloads["more"])
        times.append(time.perf_counter() - start)
        daemons = bench.daemons()
        times.append(bench.apply(payloads["few"]))
        times.append(bench.apply(payloads["more"], "--full"))
        first, *others = [f"{each:.1f} s" for each in times]
        ratio = f"{times[0] / lower_limit:.1f}"
        return [
            f"{lower_limit:.1f} s",
            first,
            ratio,
            *others,
            f"{bench.memory / 1024:.0f} MB",
            daemons,
        ]


def steps(suite: str, backend: str, size: int) -> None:
    """Print each command of an apply of one V-Net more, and its time from the start."""
    payloads = documents(size)
    with Lab(suite, backend) as lab:
        bench = Bench(lab)
        bench.apply(payloads["few"])
        for document, options in (
            (payloads["more"], ()),
            (payloads["few"], ()),
            (payloads["more"], ("--full",)),
        ):
            bench.generation += 1
            text = json.dumps(document | {"generation": bench.generation})
            lab.machine.write("/root/bench.json", text)
            argv = ["evpn-host", "apply", "-v", "-p", "/root/bench.json", *options]
            running = lab.machine.start(argv)
            start, count = time.perf_counter(), 0
            while running.running:
                lines = running.errors.splitlines()
                for line in lines[count:]:
                    print(f"{time.perf_counter() - start:7.2f} s  {line[:120]}", flush=True)
                count = len(lines)
                time.sleep(0.02)
            print(f"{time.perf_counter() - start:7.2f} s  end\n", flush=True)


def frr(suite: str, backend: str, size: int) -> Iterator[tuple[str, float]]:
    """Yield each way to configure one VPC more in FRR, and the seconds that it takes."""
    script = "/usr/lib/frr/frr-reload.py --reload /etc/frr/frr.conf"
    payloads = documents(size)
    with Lab(suite, backend) as lab:
        bench = Bench(lab)
        bench.apply(payloads["few"])
        path, newest = "/etc/frr/frr.conf", payloads["few"]["vpcs"][-1]
        before = lab.machine.read(path)
        head = rf"(?:vrf|router bgp \d+ vrf) Vrf_{newest['id']}"
        stanzas = re.findall(rf"^{head}\n(?:.+\n)*?exit.*\n", before, re.MULTILINE)
        more = "".join(stanzas).replace(f"Vrf_{newest['id']}\n", "Vrf_4999\n")
        more = more.replace(f" vni {newest['vni']}\n", " vni 4999\n")
        lab.host.run("ip link add Vrf_4999 type vrf table 4999".split())
        lab.machine.write("/root/more.conf", more)
        for name, new, command in (
            ("`systemctl reload frr`, nothing new", "", "systemctl reload frr"),
            ("`frr-reload.py`, nothing new", "", script),
            ("`systemctl reload frr`, a VPC more", more, "systemctl reload frr"),
            ("… less", "", "systemctl reload frr"),
            ("`frr-reload.py`, a VPC more", more, script),
            ("… less", "", script),
            ("one `vtysh` with the lines of the VPC", "", "vtysh -f /root/more.conf"),
        ):
            lab.machine.write(path, before + new)
            start = time.perf_counter()
            lab.machine.run(command.split(), timeout=600)
            yield name, time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--backend", default="netplan")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--frr", action="store_true")
    options = parser.parse_args()
    if options.frr:
        for size in options.sizes:
            for way, seconds in frr(options.suite, options.backend, size):
                print(f"| {size} | {way} | {seconds:.1f} s |", flush=True)
        return
    if options.steps:
        for size in options.sizes:
            steps(options.suite, options.backend, size)
        return
    print(f"| V-Nets | {' | '.join(COLUMNS)} |\n|{' --- |' * (len(COLUMNS) + 1)}")
    for size in options.sizes:
        row = " | ".join(measure(options.suite, options.backend, size))
        print(f"| {size} | {row} |", flush=True)


if __name__ == "__main__":
    main()
