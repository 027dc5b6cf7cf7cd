"""The metrics for Prometheus: their text, and promtool's judgement of it."""

import subprocess
from pathlib import Path

import pytest

from generator.observed.frr import Session
from generator.reporting import metrics
from generator.reporting.status import NOTHING_APPLIED, Management, Status
from tests.debs import program

STATUS = Status(
    health="degraded",
    health_reason="no session any more with ens5",
    host="K8S01",
    generation=7,
    backend="netplan",
    applied="2026-11-23T00:33:22+00:00",
    ok=True,
    detail="",
    devices={"bridge": 4, "vxlan": 4, "vrf": 1},
    sessions=[
        Session("ens4", "Established", "Established"),
        Session("ens5", "Established", "Active"),
    ],
    management=Management(
        "10.12.0.101/16", ["nbr-14"], "ens4", "nbr-14", "since", "reason", moves=3, repairs=1
    ),
    differences=["vxlan26: is not there"],
)


def samples(file: Path) -> dict[str, float]:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_writes_each_figure_of_a_status(tmp_path: Path) -> None:
    """The file has each figure of a status; a failed run keeps the time of the last good one."""
    file = tmp_path / "evpn-host.prom"
    metrics.write(file.parent, file.name, STATUS, 1000.5, good=True)
    values = samples(file)
    assert values["evpn_host_last_success_timestamp_seconds"] == 1000.5
    assert values["evpn_host_generation"] == 7
    assert values["evpn_host_differences"] == 1
    assert values['evpn_host_devices{kind="vxlan"}'] == 4
    assert values['evpn_host_sessions{family="ipv4_unicast",state="Established"}'] == 2
    assert values['evpn_host_sessions{family="l2vpn_evpn",state="Active"}'] == 1
    assert values["evpn_host_management_on_bridge"] == 1
    assert values["evpn_host_management_moves_total"] == 3
    metrics.write(file.parent, file.name, STATUS, 2000, good=False)
    values = samples(file)
    assert values["evpn_host_last_success_timestamp_seconds"] == 1000.5
    assert values["evpn_host_last_run_timestamp_seconds"] == 2000
    assert values["evpn_host_last_run_success"] == 0
    assert file.stat().st_mode & 0o777 == 0o644
    file.write_bytes(b"\xff")
    metrics.write(file.parent, file.name, NOTHING_APPLIED, 3000, good=False)
    assert samples(file)["evpn_host_last_success_timestamp_seconds"] == 0


@pytest.fixture(scope="session")
def promtool(root_user: None) -> str:
    """Return promtool's path; Debian's package is too large to install for it."""
    del root_user
    return program("promtool", "prometheus")


@pytest.mark.parametrize("status", [STATUS, NOTHING_APPLIED], ids=["all", "nothing"])
def test_promtool_accepts_the_metrics(promtool: str, tmp_path: Path, status: Status) -> None:
    """`promtool check metrics` prints nothing about their form or their names."""
    file = tmp_path / "evpn-host.prom"
    metrics.write(file.parent, file.name, status, 1000.5, good=True)
    argv = [promtool, "check", "metrics"]
    result = subprocess.run(
        argv, input=file.read_text(), capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
