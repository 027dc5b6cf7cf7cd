"""A boot waits for nothing of ours, and no unit fails."""

from __future__ import annotations

from typing import Any

import pytest

from lab.fabric import Lab, eventually
from tests.lab.k8s01 import bring_up, established
from tests.lab.systems import SYSTEMS

NEEDS_NETWORK = """
[Unit]
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true

[Install]
WantedBy=multi-user.target
"""
ACTIVE = "systemctl is-active needs-network.service".split()


@pytest.fixture(scope="module", params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP, and a unit that needs the network."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    bring_up(lab)
    lab.machine.write("/etc/systemd/system/needs-network.service", NEEDS_NETWORK)
    lab.host.run(["systemctl", "enable", "needs-network.service"])
    return lab


@pytest.mark.claim("14.6", "What needs the network starts without a wait, and no unit fails")
def test_what_needs_the_network_starts_at_once(lab: Lab) -> None:
    """networkd's or ifupdown2's own unit waits for no VRF: it would give up after two minutes."""
    host = lab.host
    host.run(["sync"])
    lab.reboot()
    eventually(lambda: established(host) == {"ens4", "ens5"})
    eventually(lambda: host.run(ACTIVE, check=False).out == "active\n")
    assert host.run(["systemctl", "--failed", "--plain", "--no-legend"]).out == ""
