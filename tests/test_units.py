"""The systemd units and the cron fragment, as install-units writes them and systemd judges them.

systemd-analyze runs in root trees of both distributions (lab/root.py), which needs root.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from generator.activation import units
from lab.result import Result
from lab.root import Root
from tests.conftest import REPO

Command = Callable[..., Result]

UNITS = sorted(file.name for file in (REPO / "packaging/systemd").iterdir())
SERVICES = [name for name in UNITS if name.endswith(".service")]
CRON = "etc/cron.d/evpn-host"
# The highest exposure that `systemd-analyze security` may show: a service with 0 can do nothing,
# one with 10 everything. docs/security.md has a reason for each exposure that remains.
EXPOSURE = {"evpn-host-failover.service": 2.5, "evpn-host.service": 3.5}


@pytest.fixture(scope="module", params=("bookworm", "trixie"))
def root(request: pytest.FixtureRequest, root_user: None) -> Iterator[Root]:
    """Make a distribution's root tree, with its systemd."""
    del root_user
    with Root(request.param) as tree:
        yield tree


HOMES = units._HOMES


@pytest.fixture(autouse=True)
def _checkout_in_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let these tests run from a checkout that lies in somebody's home."""
    monkeypatch.setattr(units, "_HOMES", ())


@pytest.fixture
def installed(evpn_host: Command, tmp_path: Path) -> Path:
    """Make a tree with the units and the cron fragment, as install-units writes them."""
    tree = tmp_path / "tree"
    evpn_host("install-units", "--cron", "--root", tree)
    return tree


def test_install_units_writes_once(evpn_host: Command, tmp_path: Path) -> None:
    """It writes all units with the command that runs it, and the cron fragment on request."""
    first = evpn_host("install-units", "--root", tmp_path)
    assert first.code == 0
    assert first.out.split() == [f"/etc/systemd/system/{name}" for name in UNITS]
    assert UNITS == [
        "evpn-host-failover.service",
        "evpn-host-nftables.service",
        "evpn-host.service",
        "evpn-host.timer",
    ]
    assert evpn_host("install-units", "--root", tmp_path).out == ""
    assert evpn_host("install-units", "--root", tmp_path, "--cron").out == f"/{CRON}\n"
    for name in SERVICES:
        text = (tmp_path / "etc/systemd/system" / name).read_text()
        if name == "evpn-host-nftables.service":  # it runs nft, also without evpn-host
            continue
        assert re.search(r"^ExecStart=/\S+( -m generator)? (apply|failover)", text, re.MULTILINE)
        assert "/usr/bin/evpn-host" not in text


def test_install_units_refuses_to_hide_units_of_the_package(
    evpn_host: Command, tmp_path: Path
) -> None:
    """Units below /etc would replace the package's, and run another command."""
    packaged = tmp_path / "usr/lib/systemd/system/evpn-host.service"
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    result = evpn_host("install-units", "--root", tmp_path)
    assert (result.code, result.out) == (1, "")
    assert "/usr/lib/systemd/system/evpn-host.service: the package's units are there" in result.err
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("home", ["/root", "/home/me"])
def test_install_units_refuses_a_command_in_a_home(
    evpn_host: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    """The units would fail with 203/EXEC, and the hook would start again each second."""
    monkeypatch.setattr(units, "_HOMES", HOMES)
    monkeypatch.setattr(units, "program", lambda: Path(home, "bin/evpn-host"))
    result = evpn_host("install-units", "--root", tmp_path)
    assert result.code == 1
    assert f"{home}/bin/evpn-host: the units can't run a command there" in result.err
    assert not list(tmp_path.iterdir())


def test_uninstall_removes_the_units(evpn_host: Command, installed: Path) -> None:
    """uninstall removes the units of install-units. An operator's unit of that name stays."""
    own = installed / "etc/systemd/system/evpn-host.timer"
    own.write_text("[Timer]\nOnCalendar=daily\n")
    removed = evpn_host("uninstall", "--root", installed).out.split()
    assert removed == [*(f"/etc/systemd/system/{name}" for name in SERVICES), f"/{CRON}"]
    assert [file for file in installed.rglob("etc/**/*") if file.is_file()] == [own]


def test_cron_can_read_the_fragment(installed: Path) -> None:
    """The fragment has one entry, for root, without an unescaped %, and ends with a line end."""
    text = (installed / CRON).read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line.split("=")[0] for line in lines[:-1]] == ["PATH"]
    assert re.match(r"(\S+ ){5}root \[ -e /etc/evpn-host/config.yaml \] && ", lines[-1])
    assert not re.search(r"(?<!\\)%", lines[-1])
    assert text.endswith("\n")
    assert (installed / CRON).stat().st_mode & 0o777 == 0o644


def test_systemd_accepts_the_units(root: Root, installed: Path) -> None:
    """`systemd-analyze verify` has no complaint about any of them."""
    program = "#!/bin/sh\n"
    root.run(["sh", "-c", 'printf "$1" > /usr/bin/evpn-host', "-", program])
    root.run(["chmod", "755", "/usr/bin/evpn-host"])
    for folder in (REPO / "packaging/systemd", installed / "etc/systemd/system"):
        for name in UNITS:
            file = f"/etc/systemd/system/{name}"
            text = re.sub(
                r"^ExecStart=\S+( -m generator)?",
                "ExecStart=/usr/bin/evpn-host",
                (folder / name).read_text(),
                flags=re.MULTILINE,
            )
            root.run(["sh", "-c", 'cat > "$1"', "-", file], input=text)
        result = root.run(["systemd-analyze", "verify", "--man=no", *UNITS], check=False)
        assert result == Result(0, "", "")


@pytest.mark.parametrize("name", EXPOSURE)
def test_the_exposure_of_a_service_is_bounded(root: Root, name: str) -> None:
    """systemd's figure for a service is within our bound, and is that of docs/security.md."""
    text = (REPO / "packaging/systemd" / name).read_text()
    root.run(["sh", "-c", 'cat > "/etc/systemd/system/$1"', "-", name], input=text)
    argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
    output = root.run([*argv, name]).out
    figure = re.search(r"Overall exposure level for \S+: ([\d.]+)", output)
    assert figure, output
    assert float(figure[1]) <= EXPOSURE[name], output
    assert f"{figure[1]} for" in (REPO / "docs/security.md").read_text()


def test_each_exposure_has_a_reason(root: Root) -> None:
    """docs/security.md names every setting that systemd counts against a service."""
    reasons = (REPO / "docs/security.md").read_text()
    for name in EXPOSURE:
        text = (REPO / "packaging/systemd" / name).read_text()
        root.run(["sh", "-c", 'cat > "/etc/systemd/system/$1"', "-", name], input=text)
        argv = ["systemd-analyze", "security", "--offline=yes", "--json=short"]
        for each in json.loads(root.run([*argv, name]).out):
            if float(each["exposure"] or 0):
                setting = each["name"].replace("|", r"\|")  # as in a table
                assert f"`{setting}`" in reasons, each
