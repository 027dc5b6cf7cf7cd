"""A command that can't delete something fails: no record would name it any more."""

from pathlib import Path

import pytest

from generator.activation import commands, devices, units
from generator.activation.commands import Log, Step
from generator.desired.model import UPLINK_PEERS, Device
from generator.errors import ActivationFailed, Stranded
from generator.observed import netlink
from generator.state import files, record
from generator.state.lock import lock
from generator.verbs.apply import apply
from generator.verbs.options import Options
from generator.verbs.uninstall import uninstall
from tests.strategies import LEAF1, LEAF2, encoded, host, tagged, vnet

VTEP = "10.2.0.101"
BRIDGE = Device(name="nbr-80", kind="bridge")
PORT = Device(name="vxlan80", kind="vxlan", local=VTEP)
PEER = min(UPLINK_PEERS)


class Kernel:
    """A bridge, and the VTEP's address on an uplink. `ip` deletes both, or nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, obeys: bool) -> None:
        """Replace netlink and `ip`."""
        self.obeys = obeys
        link = netlink.Link(3, "nbr-80", up=True, mtu=1500, mac="", master=0, kind="bridge")
        nic = netlink.Link(2, "ens4", up=True, mtu=1500, mac="", master=0, kind="")
        self.links, self.peers = {"nbr-80": link, "ens4": nic}, [(2, VTEP, PEER)]
        monkeypatch.setattr(netlink, "links", lambda: self.links)
        monkeypatch.setattr(netlink, "peers", lambda: self.peers)
        monkeypatch.setattr(netlink, "addresses", dict)
        monkeypatch.setattr(commands, "run", self._run)
        monkeypatch.setattr(commands, "run_all", lambda steps, _: [*map(self._run, steps)])

    def _run(self, step: Step, log: Log = commands.silent) -> str:
        del log
        if self.obeys and "nbr-80" in (step.input or ""):
            del self.links["nbr-80"]
        elif self.obeys and VTEP in step.argv:
            self.peers.clear()
        return ""


@pytest.mark.parametrize("obeys", [True, False])
def test_a_device_that_stays_is_a_failure(monkeypatch: pytest.MonkeyPatch, obeys: bool) -> None:
    """A bridge that `ip` could not delete is a failure."""
    kernel = Kernel(monkeypatch, obeys=obeys)
    if obeys:
        devices.delete([BRIDGE], commands.silent)
        assert "nbr-80" not in kernel.links
        return
    with pytest.raises(ActivationFailed, match="device nbr-80: is still there"):
        devices.delete([BRIDGE], commands.silent)


@pytest.mark.parametrize("obeys", [True, False])
def test_an_address_that_stays_is_a_failure(monkeypatch: pytest.MonkeyPatch, obeys: bool) -> None:
    """An address that `ip` could not remove, which FRR's start script had added, is a failure."""
    kernel = Kernel(monkeypatch, obeys=obeys)
    if obeys:
        devices.remove_all_addresses([PORT], commands.silent)
        assert not kernel.peers
        return
    with pytest.raises(ActivationFailed, match=f"address {VTEP} peer {PEER}/32 dev ens4"):
        devices.remove_all_addresses([PORT], commands.silent)


def test_half_a_file_goes_with_the_file(tmp_path: Path) -> None:
    """Half a file of a killed run is removed together with the file."""
    (tmp_path / ".why.json.new").write_text("{")
    files.remove(tmp_path, "why.json")
    assert not list(tmp_path.iterdir())


def test_the_lock_sweeps_the_state(tmp_path: Path) -> None:
    """The next run removes half a record; files that are written without the lock stay."""
    half, origin, other = (
        tmp_path / record.STATE / name
        for name in (".record.json.new", files.partial_of(record.ORIGIN.name), "notes")
    )
    half.parent.mkdir(parents=True)
    for path in (half, origin, other):
        path.write_text("{")
    with lock(tmp_path):
        assert not half.exists()
        assert origin.exists()
        assert other.exists()


def test_uninstall_says_what_it_could_not_remove(
    folder_as_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uninstall fails, and names a folder or a state file that it could not remove."""
    options = Options(root=folder_as_host, backend="netplan", activate=False)
    document = encoded(host(vnet(26, prefixes=["10.26.0.1/24"], ports=tagged(LEAF1, LEAF2))))
    apply(document, options, commands.silent, commands.silent)
    with monkeypatch.context() as full:
        full.setattr(files, "remove_folder", _full_disk)
        with pytest.raises(Stranded, match=r"No space left.*\n.*run uninstall again"):
            uninstall(options, commands.silent, commands.silent)
    apply(document, options, commands.silent, commands.silent)
    with monkeypatch.context() as full:
        full.setattr(files, "remove_tree", lambda *_: None)
        with pytest.raises(Stranded, match=r"/var/lib/evpn-host/record\.json: is still there"):
            uninstall(options, commands.silent, commands.silent)
    uninstall(options, commands.silent, commands.silent)
    assert not (folder_as_host / record.STATE).exists()


def test_a_unit_that_stays_enabled_is_found(tmp_path: Path) -> None:
    """A unit of ours that is still enabled is known by its link."""
    folder = tmp_path / units.UNITS / "timers.target.wants"
    folder.mkdir(parents=True)
    (folder / "other.timer").symlink_to("/none")
    assert units.enabled(tmp_path) == []
    (folder / "evpn-host.timer").symlink_to("/none")
    assert units.enabled(tmp_path) == [str(units.UNITS / "timers.target.wants/evpn-host.timer")]


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device", "/etc/iproute2/rt_tables.d")
