"""Boot the lab and let a person run commands in it, line by line: `lab/shell [trixie|bookworm]`."""

from __future__ import annotations

import json
import sys

from lab.build import REPO
from lab.fabric import Lab
from lab.result import LabError

WELCOME = """\
This is K8S01, with the fabric around it. The repository is /opt/repo, `evpn-host` is installed.
  ip netns exec controller ping 10.12.0.1                         another node's view
  vtysh --vty_socket /run/lab/ns-leaf-0 -c 'show bgp summary'     a leaf's FRR
  :carry PAYLOAD, :underlay ns-leaf-0 on|off, :reboot             what a controller does
"""


def main() -> None:
    """Read, run, print."""
    with Lab(*sys.argv[1:]) as lab:
        print(WELCOME)
        while True:
            try:
                line = input("K8S01# ").strip()
                _obey(lab, line)
            except EOFError:
                return
            except (KeyboardInterrupt, LabError, OSError, ValueError, LookupError) as error:
                print(error, file=sys.stderr)


def _obey(lab: Lab, line: str) -> None:
    match line.split():
        case []:
            return
        case [":carry", payload]:
            lab.fabric.carry(json.loads((REPO / payload).read_text()))
        case [":underlay", leaf, state]:
            lab.fabric.leaf(leaf).underlay(on=state == "on")
        case [":reboot"]:
            print(f"{lab.reboot():.1f} s")
        case _:
            done = lab.machine.run(["sh", "-c", line], check=False, timeout=600)
            print(done.out, end="")
            print(done.err, end="", file=sys.stderr)


if __name__ == "__main__":
    main()
