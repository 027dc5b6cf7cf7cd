"""Routes move with the management address, on this computer's kernel, in a network namespace."""

import json
import sys

import pytest

from tests.conftest import in_namespace

SETUP = """
link set lo up
link add ens4 type veth peer name leaf4
link add nbr-14 type bridge
link add port type veth peer name leaf14
link set port master nbr-14
link set ens4 up
link set leaf4 up
link set nbr-14 up
link set port up
link set leaf14 up
address add 10.2.0.101/32 dev lo
address add 10.12.0.101/16 brd + dev ens4
address add 10.12.0.50/16 brd + dev ens4 label ens4:vip noprefixroute preferred_lft 0
address add 10.12.0.60/32 dev ens4
address add 10.254.254.10/24 dev ens4
"""
# Of the addresses in the management subnet, the operator's file sets these.
INTERFACES = """
iface ens4
    address 10.12.0.101/16
    address 10.12.0.50/16
"""
# The operator's, each after `ip route replace`. The last two do not belong to the address.
ROUTES = """
default via 10.12.0.1 dev ens4 proto static
default via 10.12.0.2 dev ens4 proto dhcp metric 300
198.51.100.0/24 via 10.12.0.1 dev ens4 metric 77 mtu lock 1400 src 10.12.0.101 proto static
203.0.113.0/24 via 10.12.0.5 dev ens4 onlink realms 3/4 rto_min 300ms advmss 1300
203.0.113.0/24 tos 0x10 via 10.12.0.6 dev ens4 proto 77 initcwnd 20 congctl reno
192.0.2.0/25 dev ens4 src 10.12.0.101
198.51.101.0/24 via 10.12.0.6 dev ens4 src 10.12.0.50
192.0.3.0/25 dev ens4 src 10.12.0.50
10.12.0.0/16 dev ens4 table 1101
default via 10.12.0.1 dev ens4 table 1101
192.0.2.128/25 via 10.254.254.1 dev ens4
10.254.254.0/24 dev ens4 table 1101
"""
SCRIPT = """
import json, pathlib, subprocess, sys
from generator.desired.model import Management
from generator.failover import further, memory, place
from generator.observed import companions
from generator.observed import management as observing
from generator.state.placement import Original
setup, routes = sys.argv[1].strip().splitlines(), sys.argv[2].strip().splitlines()
root = pathlib.Path(sys.argv[3])
management = Management("ens4", "nbr-14", "10.12.0.101/16", "10.12.0.1", None, None)
devices = {"ens4", "nbr-14"}
original, at = Original(), None
def ip(lines):
    text = "".join(line + chr(10) for line in lines)
    done = subprocess.run(["ip", "-force", "-batch", "-"], input=text, text=True, check=False)
def show():
    argv = "ip -4 route show table all".split()
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    # The kernel may not have noticed yet that the cables are there.
    words = ([each for each in line.split() if each != "linkdown"] for line in lines
             if "table local" not in line and "proto kernel" not in line)
    print(json.dumps(sorted(map(" ".join, words))))
    argv = "ip -4 -o address".split()
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    print(json.dumps([" ".join(line.split()[1:]) for line in lines if " 10.12." in line]))
def look(to, device, first=99):
    global original, at
    observed = observing.observe(devices)
    observed = companions.observe(root, management, observed, original.companions)
    original = memory.remember(original, management, observed, (), (at, to))
    others = sorted(devices - {device})
    move = place.Move(management, to, device, others, "10.2.0.101", original)
    lines = place.steps(move, observed)
    ip(lines[:first])
    at = to if first > len(lines) else at
    return len(lines)
ip([*setup, *("route replace " + line for line in routes)])
ip(["rule add from 10.12.0.101 table 1101"])
show()
look("nic", "ens4")
look("bridge", "nbr-14")
show()
ip(["address replace 10.12.0.101/16 brd + dev ens4",  # the operator's tools
    "address replace 10.12.0.50/16 brd + dev ens4 label ens4:vip noprefixroute preferred_lft 0"])
ip("route replace " + line for line in routes)
look("bridge", "nbr-14")
show()
count, killed = 1, 0
while killed < count:  # a move, either way, that ends after so many lines
    for to, device in (("nic", "ens4"), ("bridge", "nbr-14")):
        count = max(count, look(to, device, killed))
        look(to, device)
    killed += 1
show()
look("nic", "ens4")
show()
"""


@pytest.fixture(scope="module")
def shown(root_user: None, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Return five states: at first, on the bridge, after the operator's tools, after kills, last.

    Each time the routes, and then the addresses of the management subnet.
    """
    del root_user
    root = tmp_path_factory.mktemp("root")
    (root / "etc/network").mkdir(parents=True)
    (root / "etc/network/interfaces").write_text(INTERFACES)
    script = 'mount -t sysfs none /sys && exec "$@"'
    argv = [sys.executable, "-c", SCRIPT, SETUP, ROUTES, str(root)]
    output = in_namespace("--mount", "sh", "-c", script, "-", *argv)
    return [json.loads(line) for line in output.splitlines()]


def test_routes_move_word_for_word(shown: list[list[str]]) -> None:
    """Routes keep all attributes on the bridge, and on the NIC in the end."""
    before, moved, after_tools, after_kills, back = shown[::2]
    assert len(before) == len(ROUTES.split("\n")) - 2
    staying = ("10.254.254.",)
    expected = [
        line if any(each in line for each in staying) else line.replace("ens4", "nbr-14")
        for line in before
    ]
    assert moved == sorted(expected)
    assert after_tools == moved
    assert after_kills == moved
    assert back == before


def test_an_address_of_the_operators_file_moves_along(shown: list[list[str]]) -> None:
    """An address of the file moves with label, flags and lifetime; others stay."""
    before, moved, after_tools, after_kills, back = shown[1::2]
    stays = [line for line in before if "10.12.0.60/32" in line]
    assert len(before) == 3
    assert any("deprecated noprefixroute ens4:vip" in line for line in before)
    assert sorted(line.split()[:3] for line in moved) == sorted(
        [*(line.split()[:3] for line in stays)]
        + [["nbr-14", "inet", each] for each in ("10.12.0.101/16", "10.12.0.50/16")]
    )
    assert any("10.12.0.50/16" in line and "deprecated" in line for line in moved)
    assert after_tools == moved
    assert sorted(after_kills) == sorted(moved)
    assert sorted(back) == sorted(before)
