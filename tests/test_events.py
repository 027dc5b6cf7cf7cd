"""What wakes the hook, and what does not, in a network namespace made for the test."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import unavailable

# Each line of `ip`, and whether it wakes who follows the devices 7 and 300.
STEPS = [
    ("link add mine index 7 type bridge", True),  # a new device may be one of ours by its name
    ("link add wide index 300 type bridge", True),
    ("link add other index 8 type bridge", True),
    ("link set other mtu 1400", False),
    ("link set other up", False),
    ("address add 192.0.2.9/32 dev other", False),
    ("route add 198.51.100.0/24 dev other", False),
    ("route add default dev other metric 7", True),
    ("route del default dev other metric 7", True),
    ("route add default dev other table 100", False),
    ("route add 198.51.100.0/24 dev other table 100", False),
    ("route del 198.51.100.0/24 dev other table 100", False),
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
FOLLOW = """
import subprocess, sys, time
from generator import events
with events.listen() as sock:
    for line in sys.argv[1:]:
        subprocess.run(["ip", *line.split()], check=True)
        events.watch(sock, [7, 300])
        print(int(events.wait(sock, 0.1, time.monotonic())))
"""


def test_what_wakes(root_user: None) -> None:
    """The devices that matter, default routes, and new devices; tenants' churn never."""
    del root_user
    possible = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    if possible.returncode:
        unavailable(f"no network namespace: {possible.stderr.decode().strip()}")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", FOLLOW, *(line for line, _ in STEPS)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert not done.returncode, done.stderr
    woke = zip(STEPS, done.stdout.split(), strict=True)
    assert [(line, seen == "1") for (line, _), seen in woke] == STEPS
