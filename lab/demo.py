"""Shows the main job: K8S01 becomes a VTEP, and its guest reaches a bare-metal server."""

import json
import sys
from pathlib import Path

import click

from lab import command
from lab.fabric import Lab, eventually

PAYLOAD = Path(__file__).parents[1] / "examples/k8s01.json"
COMMANDS = ("ip -4 a", "ip r", "vtysh -c 'show bgp summary'", "evpn-host status")


def _say(text: str) -> None:
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> int:
    """Show the main job: a server in the lab becomes a VTEP of a fabric.

    The exit code is 0 if all pings at the end are answered: between a guest of the server and a
    bare-metal server, in both directions, and from the server to the controller.
    """
    payload = json.loads(PAYLOAD.read_text())
    _say("building the lab (takes minutes, but only the first time) and booting it")
    with command.booted() as lab:
        return _show(lab, payload)


def _show(lab: Lab, payload: dict[str, object]) -> int:
    host, fabric = lab.host, lab.fabric
    _say("the fabric: leaves ns-leaf-0, ns-leaf-1 and ns-leaf-2 carry the V-Nets of the payload")
    fabric.carry(payload)
    fabric.wait()
    gpu = fabric.server("gpu01", vni=26, ipv4="10.188.0.20/24", gateway="10.188.0.254")

    _say("K8S01 is a plain server: evpn-host install-units; evpn-host apply -p k8s01.json")
    host.evpn_host("install-units")
    print(host.apply(payload).out, end="")

    _say("the controller sets both switch ports to underlay")
    for name in ("ns-leaf-0", "ns-leaf-1"):
        fabric.leaf(name).underlay(on=True)
    fabric.wait()

    _say("a guest on nbr-26 pings the bare-metal server gpu01 behind ns-leaf-2, and back")
    pod = host.pod("pod", bridge="nbr-26", ipv4="10.188.0.10/24", gateway="10.188.0.254")
    seconds = eventually(lambda: pod.ping(gpu, count=1), within=60)
    print(f"the first answer came {seconds:.1f} s after the ports were switched over")
    eventually(lambda: host.evpn_host("status", check=False).code == 0)
    from_guest, to_guest = pod.ping(gpu), gpu.ping(pod)
    print(f"guest to gpu01: {from_guest}\ngpu01 to guest: {to_guest}")

    _say("the management address follows the fabric, from ens4 to nbr-14")
    seconds = eventually(lambda: "10.12.0.101" in host.run(["ip", "address", "show", "nbr-14"]).out)
    eventually(lambda: host.ping(fabric.controller, count=1))
    controller = host.ping(fabric.controller)
    print(f"seen there {seconds:.1f} s later; K8S01 to the controller: {controller}")

    for line in COMMANDS:
        _say(f"K8S01# {line}")
        print(host.run(["sh", "-c", line], check=False).out, end="")
    return 0 if from_guest and to_guest and controller else 1


if __name__ == "__main__":
    command.run(main, "lab/demo")
