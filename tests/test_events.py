"""The events that wake the hook, in a network namespace of the test's own."""

import sys

from tests.conftest import in_namespace

# Each command of `ip`, and whether it wakes a hook that watches the devices 7 and 300.
STEPS = [
    ("link add mine index 7 type bridge", True),  # the name of a new device may be one of ours
    ("link add wide index 300 type bridge", True),
    ("link add other index 8 type bridge", True),
    ("link set other mtu 1400", False),
    ("link set other up", False),
    ("address add 192.0.2.9/32 dev other", False),
    ("route add 198.51.100.0/24 dev other proto bgp", False),
    ("route add 203.0.113.0/24 dev other", True),  # an operator's
    ("route del 203.0.113.0/24 dev other", True),
    ("route add 203.0.113.0/24 dev other proto static table 101", True),
    ("route add default dev other metric 7", True),
    ("route del default dev other metric 7", True),
    ("route add default dev other table 100 proto bgp", False),
    ("route add 198.51.100.0/24 dev other table 100 proto bgp", False),
    ("route del 198.51.100.0/24 dev other table 100 proto bgp", False),
    ("address del 192.0.2.9/32 dev other", False),
    ("link set mine mtu 1400", True),
    ("link set mine up", True),
    ("address add 192.0.2.1/32 dev mine", True),
    ("address del 192.0.2.1/32 dev mine", True),
    ("address add 192.0.2.2/32 dev wide", True),
    ("link set mine down", True),
    ("link set mine name renamed", True),
    ("link delete other", False),
    ("link delete wide", True),
]
WATCH = """
import subprocess, sys, time
from generator.failover import events
with events.listen() as sock:
    for line in sys.argv[1:]:
        subprocess.run(["ip", *line.split()], check=True)
        events.watch(sock, [7, 300])
        print(int(events.wait(sock, 0.1, time.monotonic())))
"""


def test_the_hook_wakes_for_its_devices_and_default_routes(root_user: None) -> None:
    """Changes of its devices and of default routes wake the hook; those of tenants do not."""
    del root_user
    output = in_namespace(sys.executable, "-c", WATCH, *(line for line, _ in STEPS))
    answers = zip(STEPS, output.split(), strict=True)
    assert [(line, answer == "1") for (line, _), answer in answers] == STEPS
