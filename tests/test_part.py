"""What an apply touches of a plan comes to the same as all of it, by netplan's own files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from generator import __version__, activate, part, plan, stage
from generator.part import Part
from generator.plan import Plan
from generator.record import Record
from lab.image import RELEASES, SUITES
from lab.result import LabUnavailable
from lab.root import Root
from tests.conftest import unavailable
from tests.strategies import LEAF1, LEAF2, Json, derived, host, tagged, vnet, vpc

PORTS = tagged(LEAF1, LEAF2)
VPCS = [vpc(26, name="Infrastructure"), vpc(33, vni=1033), vpc(50, vni=1050), vpc(51)]


def segment(number: int, vpc_id: int = 33, **fields: object) -> Json:
    prefixes = [f"10.{number}.0.1/24", f"fd00:{number}::1/64"]
    return vnet(number, vpc_id, prefixes=prefixes, ports=PORTS) | fields


def l2(number: int, **fields: object) -> Json:
    return vnet(number, ports=PORTS) | fields


OLD = host(segment(26), segment(31), l2(40), vpcs=VPCS)
CHANGES: dict[str, Json] = {
    "nothing": OLD,
    "one more": host(segment(26), segment(31), segment(32), l2(40), vpcs=VPCS),
    "one less": host(segment(26), l2(40), vpcs=VPCS),
    "another VPC": host(segment(26), segment(31, 50), l2(40), vpcs=VPCS),
    "a VPC without an L3VNI": host(segment(26), segment(31, 51), l2(40), vpcs=VPCS),
    "another MTU": host(segment(26), segment(31, mtu=1400), l2(40), vpcs=VPCS),
    "a gateway": host(segment(26), segment(31), segment(40), vpcs=VPCS),
    "another name": host(segment(26), segment(31, name="new"), l2(40), vpcs=VPCS),
    "no VPC left": host(l2(40), vpcs=VPCS),
}


def made(document: Json, backend: str) -> Plan:
    return plan.make(derived(document), backend)


def applied(of: Plan) -> Record:
    return Record(
        version=__version__,
        number=1,
        time="",
        ok=True,
        activated=True,
        inputs="",
        target=plan.target(of),
    )


def change(root: Path, old: Plan, new: Plan) -> Part | None:
    """The part of the new plan, on a host where networkd has a file for each device of the old."""
    for device in old.devices:
        file = root / f"run/systemd/network/10-netplan-{device.name}.network"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    found = [
        stage.Change(path, old.files.get(path), new.files.get(path))
        for path in sorted(old.files.keys() | new.files.keys())
        if old.files.get(path) != new.files.get(path)
    ]
    return part.of(root, applied(old), new, found)


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("nothing", set()),
        ("another name", set()),
        ("one less", set()),
        ("one more", {"nbr-32", "vxlan32", "Vrf_33"}),
        ("another MTU", {"nbr-31", "vxlan31", "Vrf_33"}),
    ],
)
def test_names(tmp_path: Path, backend: str, what: str, names: set[str]) -> None:
    """Only what is to be other than it was, with its VRF."""
    found = change(tmp_path, made(OLD, backend), made(CHANGES[what], backend))
    assert found
    assert found.names == names


def test_all_of_it(tmp_path: Path, backend: str) -> None:
    """Without an apply of this version that ended well, all of the plan is touched."""
    new = made(CHANGES["one more"], backend)
    last = applied(made(OLD, backend))
    other = {"netplan": "ifupdown", "ifupdown": "netplan"}[backend]
    for unsure in (
        None,
        msgspec.structs.replace(last, ok=False),
        msgspec.structs.replace(last, version="0.0.1"),
        msgspec.structs.replace(last, target=msgspec.structs.replace(last.target, backend=other)),
    ):
        assert part.of(tmp_path, unsure, new, []) is None


def test_a_nic_changes(tmp_path: Path) -> None:
    """ifupdown2's file has more than our devices: where that changes, all of it is reloaded."""
    old, new = made(OLD, "ifupdown"), made(OLD, "ifupdown")
    new.files[part.INTERFACES] = old.files[part.INTERFACES].replace("auto ens5", "auto ens5 ")
    assert change(tmp_path, old, new) is None


def test_a_file_of_networkd_is_gone(tmp_path: Path) -> None:
    """Someone removed it: its device is touched too."""
    old = made(OLD, "netplan")
    change(tmp_path, old, old)
    (tmp_path / "run/systemd/network/10-netplan-vxlan40.network").unlink()
    found = part.of(tmp_path, applied(old), old, [])
    assert found
    assert found.names == {"vxlan40", "nbr-40"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take each suite's netplan; testing's only where everything is asked for."""
    if "tools" in metafunc.fixturenames:
        suites = SUITES if metafunc.config.getoption("all_of_it", False) else RELEASES
        metafunc.parametrize("tools", sorted(suites), indirect=True, scope="module")


@pytest.fixture(scope="module")
def tools(request: pytest.FixtureRequest, root_user: None) -> Iterator[Root]:
    """A distribution's netplan."""
    del root_user
    try:
        with Root(request.param) as found:
            yield found
    except LabUnavailable as reason:
        unavailable(str(reason))


def generated(tools: Root, folder: Path, files: dict[str, str]) -> Path:
    """A tree with what netplan makes of files and of an operator's."""
    operator = "network: {ethernets: {ens4: {addresses: [10.254.254.10/24]}}}\n"
    for path, text in {"etc/netplan/50-operator.yaml": operator, **files}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o600)
    names = " ".join(activate.NETPLAN_GENERATORS)
    first = f'for each in {names}; do [ ! -x $each ] || exec $each --root-dir "$1"; done'
    tools.run(["sh", "-c", first, "-", folder])
    return folder


@pytest.mark.parametrize("what", CHANGES)
def test_networkd_gets_the_same_files(tools: Root, tmp_path: Path, what: str) -> None:
    """From a part, as from all of it: whichever way, networkd ends with the very same files."""
    old, new = made(OLD, "netplan"), made(CHANGES[what], "netplan")
    host_ = tmp_path / "host"
    stage.sync_networkd(generated(tools, tmp_path / "old", old.files), host_, set(), set())
    some = change(host_, old, new)
    assert some
    left_out = {device.name for device in new.devices} - some.names
    tree = generated(tools, tmp_path / "part", some.files)
    changed = stage.sync_networkd(tree, host_, set(), left_out)
    whole = generated(tools, tmp_path / "whole", new.files) / "run/systemd/network"
    used = host_ / "run/systemd/network"
    assert {f.name: f.read_text() for f in used.iterdir()} == {
        f.name: f.read_text() for f in whole.iterdir()
    }
    assert bool(changed) == (what not in {"nothing", "another name"})


def test_a_stale_device_is_written_again(tmp_path: Path) -> None:
    """networkd looks again at what someone changed, though the part does not have it."""
    used = tmp_path / "run/systemd/network/10-netplan-nbr-40.network"
    used.parent.mkdir(parents=True)
    used.write_text("[Match]\n")
    made_ = tmp_path / "part/run/systemd/network/10-netplan-ens4.network"
    made_.parent.mkdir(parents=True)
    made_.touch()
    before = used.stat().st_ino
    changed = stage.sync_networkd(tmp_path / "part", tmp_path, {"nbr-40"}, {"nbr-40"})
    assert used.name in changed
    assert used.stat().st_ino != before
    assert used.read_text() == "[Match]\n"
