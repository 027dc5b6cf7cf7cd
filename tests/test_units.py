"""The systemd units and the cron fragment: what install-units writes, and systemd's own judgement.

systemd-analyze runs in root trees of both distributions (lab/root.py), which needs root.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.result import LabUnavailable, Result
from lab.root import Root
from tests.conftest import REPO, unavailable

Command = Callable[..., Result]

UNITS = sorted(file.name for file in (REPO / "packaging/systemd").iterdir())
SERVICES = [name for name in UNITS if name.endswith(".service")]
CRON = "etc/cron.d/evpn-host"
# What `systemd-analyze security` may say at most: 0 is a service that can do nothing, 10 one that
# can do everything. docs/security.md has a reason for each exposure that is left.
EXPOSURE = {"evpn-host-failover.service": 2.5, "evpn-host.service": 3.5}


@pytest.fixture(scope="module", params=("bookworm", "trixie"))
def root(request: pytest.FixtureRequest, root_user: None) -> Iterator[Root]:
    """A distribution's root tree, with its systemd."""
    del root_user
    try:
        with Root(request.param) as found:
            yield found
    except LabUnavailable as reason:
        unavailable(str(reason))


@pytest.fixture
def installed(evpn_host: Command, tmp_path: Path) -> Path:
    """A tree with the units, and the cron fragment, as install-units writes them."""
    tree = tmp_path / "tree"
    evpn_host("install-units", "--cron", "--root", tree)
    return tree


def test_install_units(evpn_host: Command, tmp_path: Path) -> None:
    """All units are written once, with the command that runs; the cron fragment on request."""
    first = evpn_host("install-units", "--root", tmp_path)
    assert first.code == 0
    assert first.out.split() == [f"/etc/systemd/system/{name}" for name in UNITS]
    assert UNITS == ["evpn-host-failover.service", "evpn-host.service", "evpn-host.timer"]
    assert evpn_host("install-units", "--root", tmp_path).out == ""
    assert evpn_host("install-units", "--root", tmp_path, "--cron").out == f"/{CRON}\n"
    for name in SERVICES:
        text = (tmp_path / "etc/systemd/system" / name).read_text()
        assert re.search(r"^ExecStart=/\S+( -m generator)? (apply|failover)", text, re.MULTILINE)
        assert "/usr/bin/evpn-host" not in text


def test_no_units_before_those_of_the_package(evpn_host: Command, tmp_path: Path) -> None:
    """Below /etc they would hide the package's, and run another command."""
    packaged = tmp_path / "usr/lib/systemd/system/evpn-host.service"
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    done = evpn_host("install-units", "--root", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert "/usr/lib/systemd/system/evpn-host.service: the package's units are there" in done.err
    assert not (tmp_path / "etc").exists()


def test_uninstall_takes_the_units_along(evpn_host: Command, installed: Path) -> None:
    """What install-units wrote goes; a unit of that name that an operator wrote stays."""
    own = installed / "etc/systemd/system/evpn-host.timer"
    own.write_text("[Timer]\nOnCalendar=daily\n")
    gone = evpn_host("uninstall", "--root", installed).out.split()
    assert gone == [*(f"/etc/systemd/system/{name}" for name in SERVICES), f"/{CRON}"]
    assert [file for file in installed.rglob("etc/**/*") if file.is_file()] == [own]


def test_cron(installed: Path) -> None:
    """The fragment has one entry, for root, of a form that cron takes: no bare %, a line end."""
    text = (installed / CRON).read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line.split("=")[0] for line in lines[:-1]] == ["PATH"]
    assert re.match(r"(\S+ ){5}root \[ -e /etc/evpn-host/config.yaml \] && ", lines[-1])
    assert not re.search(r"(?<!\\)%", lines[-1])
    assert text.endswith("\n")
    assert (installed / CRON).stat().st_mode & 0o777 == 0o644


def test_systemd_takes_the_units(root: Root, installed: Path) -> None:
    """`systemd-analyze verify` has nothing to say about any of them."""
    stand_in = "#!/bin/sh\n"
    root.run(["sh", "-c", 'printf "$1" > /usr/bin/evpn-host', "-", stand_in])
    root.run(["chmod", "755", "/usr/bin/evpn-host"])
    for folder in (REPO / "packaging/systemd", installed / "etc/systemd/system"):
        for name in UNITS:
            there = f"/etc/systemd/system/{name}"
            text = re.sub(
                r"^ExecStart=\S+( -m generator)?",
                "ExecStart=/usr/bin/evpn-host",
                (folder / name).read_text(),
                flags=re.MULTILINE,
            )
            root.run(["sh", "-c", 'cat > "$1"', "-", there], input=text)
        done = root.run(["systemd-analyze", "verify", "--man=no", *UNITS], check=False)
        assert done == Result(0, "", "")


@pytest.mark.parametrize("name", EXPOSURE)
def test_exposure(root: Root, name: str) -> None:
    """What a service could do beyond its job is within bounds, by systemd's own figure."""
    text = (REPO / "packaging/systemd" / name).read_text()
    root.run(["sh", "-c", 'cat > "/etc/systemd/system/$1"', "-", name], input=text)
    argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
    said = root.run([*argv, name]).out
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= EXPOSURE[name], said
    assert f"{found[1]} for" in (REPO / "docs/security.md").read_text()


def test_each_exposure_has_a_reason(root: Root) -> None:
    """docs/security.md names every setting that systemd counts against a service."""
    reasons = (REPO / "docs/security.md").read_text()
    for name in EXPOSURE:
        text = (REPO / "packaging/systemd" / name).read_text()
        root.run(["sh", "-c", 'cat > "/etc/systemd/system/$1"', "-", name], input=text)
        argv = ["systemd-analyze", "security", "--offline=yes", "--json=short"]
        for each in json.loads(root.run([*argv, name]).out):
            if float(each["exposure"] or 0):
                setting = each["name"].replace("|", r"\|")  # in a table
                assert f"`{setting}`" in reasons, each
