"""Applying a part of a plan has the effect of applying all of it, by netplan's own files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from generator import __version__
from generator.activation import ifupdown, netplan
from generator.activation.partial import Partial, partial_of
from generator.desired import plan
from generator.desired.plan import Plan
from generator.state.changes import Change
from generator.state.record import Record
from lab.image import RELEASES, SUITES
from lab.root import Root
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


def make_plan(document: Json, backend: str) -> Plan:
    return plan.make(derived(document), backend)


def record_of(of: Plan) -> Record:
    return Record(
        version=__version__,
        number=1,
        time="",
        ok=True,
        activated=True,
        inputs="",
        target=plan.target(of),
    )


def change(root: Path, old: Plan, new: Plan) -> Partial | None:
    """Return the part of the new plan, where networkd has a file for each device of the old one."""
    for device in old.devices:
        file = root / f"run/systemd/network/10-netplan-{device.name}.network"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    changes = [
        Change(path, old.files.get(path), new.files.get(path))
        for path in sorted(old.files.keys() | new.files.keys())
        if old.files.get(path) != new.files.get(path)
    ]
    return partial_of(root, record_of(old), new, changes)


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("nothing", set()),
        ("another name", set()),
        ("one less", set()),
        ("one more", {"nbr-32", "vxlan32", "Vrf_33"}),
        ("another MTU", {"nbr-31", "vxlan31", "Vrf_33"}),
    ],
)
def test_a_part_has_only_the_devices_that_change(
    tmp_path: Path, backend: str, case: str, names: set[str]
) -> None:
    """It has their VRFs too."""
    partial = change(tmp_path, make_plan(OLD, backend), make_plan(CHANGES[case], backend))
    assert partial
    assert partial.names == names


def test_there_is_no_part_without_a_good_apply_before(tmp_path: Path, backend: str) -> None:
    """The previous apply has to be of this version and this backend, and without a failure."""
    new = make_plan(CHANGES["one more"], backend)
    previous = record_of(make_plan(OLD, backend))
    other = {"netplan": "ifupdown", "ifupdown": "netplan"}[backend]
    for record in (
        None,
        msgspec.structs.replace(previous, ok=False),
        msgspec.structs.replace(previous, version="0.0.1"),
        msgspec.structs.replace(
            previous, target=msgspec.structs.replace(previous.target, backend=other)
        ),
    ):
        assert partial_of(tmp_path, record, new, []) is None


def test_there_is_no_part_when_a_nic_of_ifupdown2_changes(tmp_path: Path) -> None:
    """Its file has more than our devices: where the rest changes, ifupdown2 reloads all of it."""
    old, new = make_plan(OLD, "ifupdown"), make_plan(OLD, "ifupdown")
    new.files[ifupdown.FILE] = old.files[ifupdown.FILE].replace("auto ens5", "auto ens5 ")
    assert change(tmp_path, old, new) is None


def test_a_part_has_the_device_of_a_removed_networkd_file(tmp_path: Path) -> None:
    """A part has a device whose file of networkd is missing, although the plan is the same."""
    old = make_plan(OLD, "netplan")
    change(tmp_path, old, old)
    (tmp_path / "run/systemd/network/10-netplan-vxlan40.network").unlink()
    partial = partial_of(tmp_path, record_of(old), old, [])
    assert partial
    assert partial.names == {"vxlan40", "nbr-40"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run netplan of each suite; that of testing only with `--all`."""
    if "tools" in metafunc.fixturenames:
        suites = SUITES if metafunc.config.getoption("all_of_it", False) else RELEASES
        metafunc.parametrize("tools", sorted(suites), indirect=True, scope="module")


@pytest.fixture(scope="module")
def tools(request: pytest.FixtureRequest, root_user: None) -> Iterator[Root]:
    """Make a distribution's tree, with its netplan."""
    del root_user
    with Root(request.param) as tree:
        yield tree


def generated(tools: Root, folder: Path, files: dict[str, str]) -> Path:
    """Return a tree with netplan's output for these files and an operator's."""
    operator = "network: {ethernets: {ens4: {addresses: [10.254.254.10/24]}}}\n"
    for path, text in {"etc/netplan/50-operator.yaml": operator, **files}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o600)
    names = " ".join(netplan.GENERATORS)
    script = f'for each in {names}; do [ ! -x $each ] || exec $each --root-dir "$1"; done'
    tools.run(["sh", "-c", script, "-", folder])
    return folder


@pytest.mark.parametrize("case", CHANGES)
def test_networkd_gets_the_same_files(tools: Root, tmp_path: Path, case: str) -> None:
    """networkd has the very same files after a part of the plan as after all of it."""
    old, new = make_plan(OLD, "netplan"), make_plan(CHANGES[case], "netplan")
    host_ = tmp_path / "host"
    netplan.sync_networkd(generated(tools, tmp_path / "old", old.files), host_, set(), set())
    partial = change(host_, old, new)
    assert partial
    left_out = {device.name for device in new.devices} - partial.names
    tree = generated(tools, tmp_path / "part", partial.files)
    changed = netplan.sync_networkd(tree, host_, set(), left_out)
    whole = generated(tools, tmp_path / "whole", new.files) / "run/systemd/network"
    actual = host_ / "run/systemd/network"
    assert {f.name: f.read_text() for f in actual.iterdir()} == {
        f.name: f.read_text() for f in whole.iterdir()
    }
    assert bool(changed) == (case not in {"nothing", "another name"})


def test_writes_the_file_of_a_stale_device_again(tmp_path: Path) -> None:
    """networkd reads a stale device's file again, although the part does not have the device."""
    file = tmp_path / "run/systemd/network/10-netplan-nbr-40.network"
    file.parent.mkdir(parents=True)
    file.write_text("[Match]\n")
    generated_ = tmp_path / "part/run/systemd/network/10-netplan-ens4.network"
    generated_.parent.mkdir(parents=True)
    generated_.touch()
    before = file.stat().st_ino
    changed = netplan.sync_networkd(tmp_path / "part", tmp_path, {"nbr-40"}, {"nbr-40"})
    assert file.name in changed
    assert file.stat().st_ino != before
    assert file.read_text() == "[Match]\n"
