"""`fleet-status` reads a folder of reports, whatever else is in it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from generator.desired.payload import load
from generator.errors import Refused
from generator.reporting.status import NOTHING_APPLIED, Status
from generator.verbs import fleet_status
from lab.result import Result
from tests.conftest import REPO

Command = Callable[..., Result]
FLEET = REPO / "examples/fleet.json"
NOW = 0.0  # of each test, see `now`
WELL = Status(
    health="ok",
    health_reason="",
    host="",
    generation=7,
    backend="netplan",
    applied="2026-11-23T00:33:22+00:00",
    ok=True,
    detail="",
    devices={"bridge": 4, "vxlan": 4, "vrf": 1},
    sessions=[],
    management=None,
    differences=[],
)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a test now, not when its module was read: a run of all tests takes long."""
    monkeypatch.setattr(f"{__name__}.NOW", time.time())


def post(folder: Path, host: str | None, *, file: str = "", minutes: float = 0, **but: Any) -> Path:
    """Store a host's report, as a controller does, so many minutes ago."""
    path = folder / (file or f"{host}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    report = msgspec.structs.replace(WELL, host=host, **but)
    path.write_bytes(msgspec.json.encode(report))
    os.utime(path, (NOW - 60 * minutes, NOW - 60 * minutes))
    return path


def look(folder: Path, fleet: Path | None = None) -> fleet_status.Fleet:
    payload = load(fleet.read_bytes()) if fleet else None
    return fleet_status.look(folder, payload, 15 * 60, NOW)


TABLE = """
10 hosts: 7 need a person (1 of a newer version, 1 failed, 1 down, 1 stale, 1 degraded, \
1 unconfirmed, 1 differs)
HOST   HEALTH              GENERATION  DIFFERENCES  LAST CONTACT  WHY
srv1   of a newer version  7           0            0 s ago       of a newer version
srv3   failed              7           0            0 s ago       failed: netplan failed
srv4   down                7           0            1 h ago       down: no session is left; stale
srv5   ok                  7           0            16 min ago    stale
srv6   degraded            7           0            0 s ago       degraded: ens5 is down
srv2   unconfirmed         7           0            0 s ago       unconfirmed
srv7   ok                  7           2            0 s ago       differs: no nbr-26 and 1 more
srv8   waiting             7           0            0 s ago       for the switch ports
srv9   ok                  7           0            0 s ago
srv10  ok                  7           0            0 s ago
"""


def test_who_needs_a_person_comes_first(tmp_path: Path) -> None:
    """Hosts are sorted by urgency, then by name with numbers by value."""
    post(tmp_path, "srv10")
    post(tmp_path, "srv9")
    post(tmp_path, "srv8", health="waiting", health_reason="for the switch ports")
    post(tmp_path, "srv7", differences=["no nbr-26", "no nbr-31"])
    post(tmp_path, "srv6", health="degraded", health_reason="ens5 is down")
    post(tmp_path, "srv5", minutes=16)
    post(tmp_path, "srv4", health="down", health_reason="no session is left", minutes=100)
    post(tmp_path, "srv3", health="failed", health_reason="netplan failed")
    post(tmp_path, "srv2", health="unconfirmed")
    post(tmp_path, "srv1", health="of a newer version")
    status = look(tmp_path)
    assert [row.host for row in status.hosts] == [
        *("srv1", "srv3", "srv4", "srv5", "srv6", "srv2", "srv7", "srv8", "srv9", "srv10")
    ]
    assert "\n".join(fleet_status.lines(status)) == TABLE.strip()
    assert not status.ok


def test_exit_code_0_when_all_is_well(evpn_host: Command, tmp_path: Path) -> None:
    """The exit code is 0 when all is well; a clock that is behind makes no report stale."""
    post(tmp_path, "srv1")
    post(tmp_path, "srv2", health="waiting", minutes=-30)
    result = evpn_host("fleet-status", tmp_path)
    assert result.code == 0
    assert result.out.startswith("2 hosts: none needs a person\n")
    assert json.loads(evpn_host("fleet-status", "--json", tmp_path).out)["ok"]


def test_an_old_report_is_stale(evpn_host: Command, tmp_path: Path) -> None:
    """A report is too old from the age that `--stale` gives."""
    post(tmp_path, "srv1", minutes=50)
    assert evpn_host("fleet-status", tmp_path).code == 1
    assert evpn_host("fleet-status", tmp_path, "--stale", "60").code == 0
    assert evpn_host("fleet-status", tmp_path, "--stale", "nan").code == 2


def test_reports_are_compared_with_a_fleet(evpn_host: Command, tmp_path: Path) -> None:
    """It names hosts without a report, with another generation, and not in the Fleet."""
    document = json.loads(FLEET.read_text()) | {"generation": 8}
    fleet = tmp_path / "fleet.json"
    fleet.write_text(json.dumps(document))
    reports = tmp_path / "reports"
    post(reports, "MGMT-SRV-01", left_alone="generation 8 is left alone: somebody went back")
    post(reports, "old", generation=9)
    status = look(reports, fleet)
    assert [(row.host, row.attention) for row in status.hosts] == [
        ("mgmt-srv-02", ["never reported"]),
        ("MGMT-SRV-01", ["behind"]),
        ("old", ["not in the fleet"]),
    ]
    first, _, never, behind, _ = fleet_status.lines(status)
    assert first == (
        "3 hosts, generation 8: 3 need a person (1 never reported, 1 behind, 1 not in the fleet)"
    )
    assert never.split()[1:] == ["-", "-", "-", "never", "never", "reported"]
    assert behind.endswith("behind; generation 8 is left alone: somebody went back")
    post(reports, "mgmt-srv-02", generation=9)
    assert look(reports, fleet).hosts[1].attention == ["ahead"]
    (reports / "old.json").unlink()
    for name in ("mgmt-srv-01", "mgmt-srv-02"):
        post(reports, name, file=f"{name.upper()}.json", generation=8)
    (reports / "mgmt-srv-02.json").unlink()
    result = evpn_host("fleet-status", reports, "-p", fleet)
    assert (result.code, result.err) == (0, "")


def test_a_report_without_a_host_is_named_by_its_file(tmp_path: Path) -> None:
    """A report from before the first apply names no host: its file's name does."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/srv1.json").write_bytes(msgspec.json.encode(NOTHING_APPLIED))
    (row,) = look(tmp_path).hosts
    assert (row.host, row.attention, row.generation) == ("srv1", ["nothing applied"], None)
    assert row.report == "a/srv1.json"


BROKEN = {
    "cut.json": b'{"host": "srv3", "health"',
    "no-utf8.json": b'{"host": "srv3", "health": "\xff"}',
    "list.json": b"[]",
    "empty.json": b"",
    "deep.json": b"[" * 100_000,
    "no-health.json": b'{"host": "srv3", "generation": 1}',
    "no host.json": b'{"host": null, "generation": null, "health": "ok"}',
    "bad-host.json": b'{"host": "../x", "generation": 1, "health": "ok"}',
    "number.json": b'{"host": "srv3", "generation": 1' + b"0" * 5000 + b', "health": "ok"}',
    "negative.json": b'{"host": "srv3", "generation": -1, "health": "ok"}',
    "huge.json": b" " * ((4 << 20) + 1),
    "esc\x1b[2J\n.json": b"\x1b[2J",
    "esc-\udcff.json": b"",
}


def test_damaged_files_are_named_and_hide_no_other(evpn_host: Command, tmp_path: Path) -> None:
    """Damaged files, links, a FIFO and old reports are named, and hide no other report."""
    for name, data in BROKEN.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "link.json").symlink_to("srv1.json")
    (tmp_path / "folder-link").symlink_to("/etc")
    (tmp_path / ".srv1.json.new").write_text("{")
    post(tmp_path, "srv1")
    post(tmp_path, "SRV1", file="twice.json", minutes=5, generation=3)
    post(tmp_path, "srv2", file="below/srv2")
    status = look(tmp_path)
    assert [(row.host, row.generation) for row in status.hosts] == [("srv1", 7), ("srv2", 7)]
    reasons = {each.report: each.reason for each in status.damaged}
    assert len(reasons) == len(BROKEN) + 4
    assert reasons["twice.json"] == "is of SRV1 too, and older than srv1.json"
    assert reasons["fifo.json"] == "can't be read: is not a regular file"
    assert "symbolic link" in reasons["link.json"]
    assert "symbolic link" in reasons["folder-link"]
    assert reasons["huge.json"] == "can't be read: is larger than 4096 KiB"
    assert reasons["no host.json"].endswith("it names no host, and neither does the file's name")
    assert not status.ok
    for options in ([], ["--json"]):
        result = evpn_host("fleet-status", tmp_path, *options)
        assert (result.code, result.err) == (1, "")
        assert "\x1b" not in result.out


def test_no_text_of_a_host_reaches_a_terminal_raw(tmp_path: Path) -> None:
    """A host's text can neither send control characters, nor make a line long, nor break it."""
    evil = "\x1b]0;x\x07\r\n\u202e\x9b31m" + "x" * 5000
    texts = {"health": evil, "health_reason": evil, "detail": evil, "left_alone": evil}
    report = msgspec.to_builtins(WELL) | texts | {"host": "srv1", "differences": [evil] * 50}
    (tmp_path / "srv1.json").write_text(json.dumps(report))
    status = look(tmp_path)
    for line in fleet_status.lines(status):
        assert line.isprintable(), ascii(line)
        assert len(line) < 1000
    shown = json.loads(msgspec.json.encode(status))["hosts"][0]
    assert len(shown["differences"]) == 10
    assert shown["difference_count"] == 50
    for text in (*(shown[name] for name in ("health", "reason")), *shown["differences"]):
        assert text.isprintable()


def test_exit_code_2_without_reports(evpn_host: Command, tmp_path: Path) -> None:
    """The exit code is 2 without reports, without a folder, and with a Fleet that is none."""
    with pytest.raises(Refused, match="there is no report in it"):
        look(tmp_path)
    for argv in ([tmp_path], [tmp_path / "none"], [tmp_path, "-p", tmp_path / "none"]):
        result = evpn_host("fleet-status", *argv)
        assert (result.code, result.out) == (2, "")
        assert result.err
    assert evpn_host("fleet-status", tmp_path, "-p", FLEET).code == 1


def test_the_page_shows_what_it_prints(tmp_path: Path) -> None:
    """docs/monitoring.md has the table of these reports and this Fleet."""
    document = json.loads(FLEET.read_text())
    (host,) = [each for each in document["hosts"] if each["server"]["name"] == "mgmt-srv-01"]
    hosts = []
    for number in (1, 7, 8, 42, 103):
        server = {"name": f"srv{number:04}", "mainAddress": f"10.2.1.{number}"}
        hosts.append({"server": host["server"] | server | {"asn": 4200001000 + number}})
        del hosts[-1]["server"]["mgmt"]
    fleet = tmp_path / "fleet.json"
    fleet.write_text(json.dumps(document | {"generation": 42, "hosts": hosts}))
    reports = tmp_path / "reports"
    recent = 1 / 3
    post(reports, "srv0001", generation=42, minutes=recent)
    post(reports, "srv0007", generation=41, minutes=190)
    differences = ["nbr-26: is not there", "nbr-31: is not there"]
    post(reports, "srv0008", generation=42, minutes=recent, differences=differences)
    lost = ["FRR: no session with ens4"]
    post(
        *(reports, "srv0042"),
        generation=42,
        minutes=recent,
        health="down",
        health_reason="no session is left",
        differences=lost,
    )
    (reports / "srv0009.json").write_text('{"host": "srv0009", ')
    text = "\n".join(fleet_status.lines(look(reports, fleet)))
    assert f"-p fleet.yaml\n{text}\n```" in (REPO / "docs/monitoring.md").read_text()


def test_reports_below_folders_are_read(tmp_path: Path) -> None:
    """Reports may be in any folder below; one that is too deep is named."""
    post(tmp_path, "srv1")
    post(tmp_path, "srv2", file="a/" * 16 + "srv2.json")
    post(tmp_path, "srv3", file="b/" * 17 + "srv3.json")
    status = look(tmp_path)
    assert [row.host for row in status.hosts] == ["srv1", "srv2"]
    assert [(each.report, each.reason) for each in status.damaged] == [
        ("b/" * 16 + "b", "is more than 16 folders deep")
    ]


MANY = """
import re, sys
from pathlib import Path
from generator.verbs import fleet_status
status = fleet_status.look(Path(sys.argv[1]), None, 900)
# Not ru_maxrss, which a process has from the one that started it.
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(len(status.hosts), peak[1])
"""


def test_memory_does_not_grow_with_what_hosts_send(tmp_path: Path) -> None:
    """Only a little of 200 reports of 1 MB each stays in memory."""
    for number in range(200):
        post(tmp_path, f"srv{number}", differences=["x" * 1000] * 1000)
    argv = [sys.executable, "-c", MANY, str(tmp_path)]
    result = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    hosts, kilobytes = map(int, result.stdout.split())
    assert hosts == 200
    assert kilobytes < 120_000
