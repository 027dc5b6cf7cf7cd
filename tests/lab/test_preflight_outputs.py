"""docs/operations.md has the output of `preflight` on hosts of several kinds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.fabric import PAYLOAD, Lab, eventually
from tests.lab import figures, leases
from tests.lab.k8s01 import payload
from tests.lab.test_neighbours import LISTEN

SYSTEMS = (("trixie", "netplan"),)
# The file of Debian 13's cloud image, and the one of cloud-init for the NIC of its instance.
CLOUD_IMAGE = """
network:
  version: 2
  ethernets:
    all-en:
      match: {name: "en*"}
      dhcp4: true
      dhcp6: true
    all-eth:
      match: {name: "eth*"}
      dhcp4: true
      dhcp6: true
"""
CLOUD_INIT = """
network:
  version: 2
  ethernets:
    ens4:
      match: {macaddress: "52:54:00:00:00:04"}
      dhcp4: true
      set-name: ens4
"""
# A hardening role for the CIS benchmark, which writes all of its settings into one file.
CIS = """
net.ipv4.ip_forward = 0
net.ipv4.conf.all.send_redirects = 0
net.ipv4.conf.all.accept_redirects = 0
net.ipv4.conf.all.rp_filter = 1
net.ipv4.conf.default.rp_filter = 1
net.ipv6.conf.all.forwarding = 0
net.ipv6.conf.all.disable_ipv6 = 1
net.ipv6.conf.default.disable_ipv6 = 1
"""


@pytest.fixture(params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A server to which nothing was applied yet."""
    lab: Lab = fresh_lab(*request.param)
    lab.machine.write(PAYLOAD, json.dumps(payload()))
    return lab


def test_a_cloud_image(lab: Lab) -> None:
    """preflight on a cloud image: one file for all NICs, a lease, and cloud-init."""
    leases.serve(lab)
    lab.host.run(["rm", "/etc/netplan/50-operator.yaml"])
    lab.machine.write("/etc/netplan/90-default.yaml", CLOUD_IMAGE, 0o600)
    lab.machine.write("/etc/netplan/50-cloud-init.yaml", CLOUD_INIT, 0o600)
    leases.take_up(lab)
    check_output(lab, "a cloud image", code=1)


def test_a_hardened_host(lab: Lab) -> None:
    """preflight on a hardened host: settings that are read after ours."""
    lab.machine.write("/etc/sysctl.d/99-cis.conf", CIS)
    check_output(lab, "a hardened host", code=0)


def test_another_bgp_speaker(lab: Lab) -> None:
    """preflight beside Calico's BGP speaker, with its rule for incoming packets."""
    speaker = lab.host.start(["python3", "-c", LISTEN, "bird", "SOCK_STREAM", "179"])
    eventually(lambda: "ready" in speaker.output)
    check_output(lab, "another BGP speaker", code=1)


def check_output(lab: Lab, name: str, code: int) -> None:
    """Run preflight and compare its output with the page; fail if it changed anything."""
    result = lab.host.evpn_host("preflight", "-p", PAYLOAD, check=False)
    assert result.code == code, result.err
    figures.shown(name, result.out)
