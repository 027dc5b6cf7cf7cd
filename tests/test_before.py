"""Uninstall restores what the host had before us: kernel settings, folders, files."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from generator.activation import before
from generator.activation.before import Before
from generator.activation.commands import silent
from generator.activation.ifupdown import VRF_TABLES
from generator.desired import plan
from generator.desired.payload import load
from generator.desired.plan import Plan
from generator.errors import Refused
from lab.result import Result
from tests.strategies import LEAF1, LEAF2, encoded, host, tagged, vnet

OPERATORS = {
    "netplan": "etc/netplan/50-operator.yaml",
    "ifupdown": "etc/network/interfaces",
}
TEXTS = {
    "netplan": "network: {ethernets: {ens4: {addresses: [10.12.0.101/16]}}}\n",
    "ifupdown": "source /etc/network/interfaces.d/*\n",
}


def tree(root: Path) -> list[str]:
    """Return every folder, and every file with its content."""
    entries = []
    for folder, _, names in os.walk(root):
        entries += [f"{Path(folder, name)} {Path(folder, name).read_text()}" for name in names]
        entries.append(folder)
    return sorted(entries)


def plan_of(texts: dict[str, str]) -> Plan:
    """Return a plan with these files alone."""
    whole = plan.make(load(encoded(host())).host(None), "ifupdown")
    return msgspec.structs.replace(whole, files=texts)


def test_uninstall_leaves_the_tree_as_it_was(
    evpn_host: Callable[..., Result], tmp_path: Path, backend: str
) -> None:
    """A folder of the operator stays, even an empty one; a folder that we made is removed."""
    root, payload = tmp_path / "root", tmp_path / "payload.json"
    operators = root / OPERATORS[backend]
    operators.parent.mkdir(parents=True)
    operators.write_text(TEXTS[backend])
    for folder in ("etc/network/interfaces.d", "etc/sysctl.d", "run", "var/lib"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    original = tree(root)
    for prefix in ("10.26.0.1/24", "10.27.0.1/24"):
        prefixes = [prefix, "fd00:26::1/64"]
        document = host(vnet(26, prefixes=prefixes, ports=tagged(LEAF1, LEAF2)))
        payload.write_bytes(encoded(document))
        result = evpn_host("apply", "--root", root, "-p", payload, "-b", backend)
        assert result.code == 0, result.err
    assert tree(root) != original
    assert evpn_host("uninstall", "--root", root).code == 0
    assert tree(root) == original


def test_restores_only_settings_that_differ(tmp_path: Path) -> None:
    """Settings with another value are written, and none of a device that no longer exists."""
    known = Before(
        sysctl={
            "net/ipv4/ip_forward": "0",
            "net/ipv4/conf/ens4/rp_filter": "1",
            "net/ipv4/conf/gone/rp_filter": "1",
        }
    )
    base = tmp_path / "proc/sys"
    for key, value in {"net/ipv4/ip_forward": "1", "net/ipv4/conf/ens4/rp_filter": "1"}.items():
        (base / key).parent.mkdir(parents=True, exist_ok=True)
        (base / key).write_text(f"{value}\n")
    messages: list[str] = []
    before.restore(tmp_path, known, messages.append)
    assert messages == ["net/ipv4/ip_forward = 0  # as it was"]
    assert (base / "net/ipv4/ip_forward").read_text() == "0"
    assert (base / "net/ipv4/conf/ens4/rp_filter").read_text() == "1\n"
    assert not (base / "net/ipv4/conf/gone").exists()


def test_removes_the_list_of_vrfs_though_its_folder_stays(tmp_path: Path) -> None:
    """On Debian 12 it stays. ifupdown2 wrote the list for us; an older list is not removed."""
    folder = tmp_path / VRF_TABLES
    folder.mkdir(parents=True)
    known = folder / "ifupdown2_vrf_map.conf"
    before.remember(tmp_path, plan_of({}), silent, running=False)
    known.write_text("# by ifupdown2\n1033 Vrf_33\n")
    before.remember(tmp_path, plan_of({}), silent, running=False)  # our next apply
    before.remove_folders(tmp_path, before.read(tmp_path))
    assert folder.is_dir()
    assert not known.exists()

    (tmp_path / before.FILE).unlink()
    known.write_text("# by ifupdown2\n1001 blue\n")
    before.remember(tmp_path, plan_of({}), silent, running=False)
    before.remove_folders(tmp_path, before.read(tmp_path))
    assert known.exists()


def test_a_later_apply_only_adds_to_the_record(tmp_path: Path) -> None:
    """A later apply records the folders that it makes as ours, not as the operator's."""
    texts = {"etc/frr/frr.conf": ""}
    before.remember(tmp_path, plan_of(texts), silent, running=False)
    assert before.read(tmp_path).folders == [
        "etc",
        "etc/frr",
        "etc/iproute2",
        "etc/iproute2/rt_tables.d",
    ]
    (tmp_path / "etc/frr").mkdir(parents=True)
    before.remember(tmp_path, plan_of(texts | {"etc/netplan/x": ""}), silent, running=False)
    assert before.read(tmp_path).folders[-1] == "etc/netplan"
    assert "etc/frr" in before.read(tmp_path).folders
    (tmp_path / before.FILE).write_bytes(b"{")
    with pytest.raises(Refused, match="can't be read"):
        before.read(tmp_path)
