"""Units that a host needs and somebody has disabled, masked or stopped are named."""

from pathlib import Path

import pytest

from generator.activation import services
from generator.desired import payload, plan
from generator.desired.target import Target
from generator.observed import boot
from generator.observed.management import HOOK
from generator.verbs import preflight

EXAMPLE = Path(__file__).parents[1] / "examples/k8s01.json"
WANTS = "etc/systemd/system/multi-user.target.wants"


@pytest.fixture
def target() -> Target:
    host = payload.load(EXAMPLE.read_bytes()).hosts[0]
    return plan.target(plan.make(host, "netplan", generation=1))


def host(root: Path, *units: str) -> Path:
    """A host that systemd has booted, with these units."""
    for folder in ("run/systemd/system", "usr/lib/systemd/system", WANTS):
        (root / folder).mkdir(parents=True)
    for unit in units:
        (root / "usr/lib/systemd/system" / unit).touch()
    return root


def test_a_disabled_unit_is_named(target: Target, tmp_path: Path) -> None:
    """A disabled unit is named, unless it is not installed or systemd did not boot the host."""
    assert boot.disabled(target, tmp_path) == []
    root = host(tmp_path, boot.FRR, boot.FILTER)
    assert boot.disabled(target, root) == [boot.FRR, boot.FILTER]
    (root / WANTS / boot.FRR).symlink_to(f"/usr/lib/systemd/system/{boot.FRR}")
    assert boot.differences(target, root) == [f"{boot.FILTER}: does not start at boot"]
    packaged = root / "usr/lib/systemd/system/sysinit.target.requires"
    packaged.mkdir()
    (packaged / boot.FILTER).symlink_to(f"../{boot.FILTER}")
    assert boot.differences(target, root) == []


def test_a_stopped_hook_is_named(target: Target, tmp_path: Path) -> None:
    """A stopped hook is named if it is installed."""
    root = host(tmp_path)
    assert boot.stopped(target, root) == []
    (root / "usr/lib/systemd/system" / HOOK).touch()
    assert boot.stopped(target, root) == [
        f"{HOOK} does not run: the management address stays where it is"
    ]
    (root / "sys/fs/cgroup/system.slice" / HOOK).mkdir(parents=True)
    assert boot.stopped(target, root) == []


@pytest.mark.parametrize("unit", [boot.FRR, boot.FILTER, HOOK, "systemd-networkd.service"])
def test_a_masked_unit_stops_an_apply(tmp_path: Path, unit: str) -> None:
    """preflight names each masked unit that the host needs, and how to unmask it."""
    planned = plan.make(payload.load(EXAMPLE.read_bytes()).hosts[0], "netplan", generation=1)
    root = host(tmp_path)
    assert preflight.masked_units(root, planned) == []
    (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    [finding] = preflight.masked_units(root, planned)
    assert (finding.what, finding.stops) == (f"{unit} is masked", True)
    assert finding.remedy == f"systemctl unmask {unit}"


def test_masked_units_are_found(tmp_path: Path) -> None:
    """A link to /dev/null masks a unit, unless it is in /run and /etc has the unit."""
    root = host(tmp_path)
    (root / "etc/systemd/system/a.service").symlink_to("/dev/null")
    (root / "run/systemd/system/b.service").symlink_to("/dev/null")
    (root / "etc/systemd/system/c.service").symlink_to("/usr/lib/systemd/system/d.service")
    (root / "etc/systemd/system/e.service").touch()
    (root / "run/systemd/system/e.service").symlink_to("/dev/null")
    names = ["a.service", "b.service", "c.service", "d.service", "e.service"]
    assert services.masked(names, root) == {
        "a.service": "systemctl unmask a.service",
        "b.service": "systemctl unmask --runtime b.service",
    }
