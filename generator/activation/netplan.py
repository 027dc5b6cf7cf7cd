"""The backend netplan, with systemd-networkd: its files, its check, its two ways, its remedies."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from collections.abc import Set as Names
from pathlib import Path

import msgspec

from generator.activation import commands, devices, management, netplan_nics
from generator.activation.backend import Activation, Remedy
from generator.activation.commands import Log, Step
from generator.desired import plan
from generator.desired.model import Host
from generator.desired.plan import Plan
from generator.errors import ActivationFailed, NotInstalled, Problem
from generator.observed import netlink, netplan, networkd
from generator.state import files, tree
from generator.state.changes import Change
from generator.state.lock import STAGE

FILE = "etc/netplan/60-evpn-host.yaml"
NETWORKD_CONF = "etc/systemd/networkd.conf.d/90-evpn-host.conf"
_FOLDER = "etc/netplan"
_NETWORKD_DROP_INS = "etc/systemd/network"
_GENERATED = Path("run/systemd/network")  # networkd's files, which netplan makes
_PREFIX = netplan.PREFIX  # of their names
# What makes networkd's files below a folder. 1.2 calls it `configure`, and has systemd's generator
# beside it. Before 1.2 it was `generate`, which Debian 12's netplan looks for in /lib.
GENERATORS = (
    "/usr/libexec/netplan/configure",
    "/usr/libexec/netplan/generate",
    "/lib/netplan/generate",
)


_OPTIONAL_VRF = (
    b"network: {version: 2, vrfs: {Vrf_1: {table: 1001, interfaces: [], optional: true}}}"
)


class Netplan:
    """See `backend.Backend`."""

    name = "netplan"
    file = FILE
    files = (FILE, NETWORKD_CONF)
    drop_ins = f"{_NETWORKD_DROP_INS}/*.*.d/evpn-host.conf"
    foreign_files = tuple(f"{folder}/*.yaml" for folder in netplan.FOLDERS)
    nic_files = (*foreign_files, "etc/systemd/network/*.network")
    folders = ()
    notes = ()
    unit = "systemd-networkd"

    @property
    def remedies(self) -> Sequence[Remedy]:
        return (_announce_masters, _restart_networkd)

    def is_used(self, root: Path) -> bool:
        """Whether there are other netplan files, or networkd runs."""
        if any(path != FILE for path in tree.find(root, f"{_FOLDER}/*.yaml")):
            return True
        # systemd's own file system says so: no command is run.
        unit = Path("/sys/fs/cgroup/system.slice/systemd-networkd.service")
        return root == Path("/") and unit.is_dir()

    def placed(self, root: Path, host: Host) -> Host:
        """Return the host with the files that decide for its NICs, and with what netplan knows."""
        on_nics = netplan_nics.placed(host, netplan_nics.read(root, FILE, host))
        if not host.vrfs or root != Path("/"):  # of another machine nobody knows the netplan
            return on_nics
        return msgspec.structs.replace(on_nics, optional_vrfs=self._knows_optional_vrfs())

    def _knows_optional_vrfs(self) -> bool:
        """Whether netplan takes `optional` for a VRF.

        From 1.1 on a boot waits for each device that is not optional to be `degraded`, which a VRF
        never is: whatever needs the network would start after two minutes. Debian 12's 0.106
        refuses the whole file for this key, and lets no boot wait. So it is asked.
        """
        with tempfile.TemporaryDirectory(prefix=STAGE) as folder:
            stage = Path(folder)
            files.write(stage, FILE, _OPTIONAL_VRF, 0o600)
            with contextlib.suppress(ActivationFailed):
                commands.run(self.check(stage, 1), commands.silent)
                return True
        return False

    def conflicts(self, root: Path, host: Host) -> list[Problem]:
        """Return why NICs can't be taken as the operator has them."""
        return list(netplan_nics.problems(host, netplan_nics.read(root, FILE, host)))

    def lease(self, root: Path, host: Host) -> str | None:
        """Return "" where the management NIC asks for a lease: our files make it optional."""
        del root
        return None if host.lease is None else ""

    def digest(self, root: Path) -> str:
        """Return a digest of the files of netplan and networkd that are not ours."""
        own = [path for path in netplan.paths(root) if path != FILE]
        kinds = ("nbr-", "vxlan", "Vrf_", "l3br-", "l3vx-")
        made = tuple(f"{_PREFIX}{kind}" for kind in kinds)
        # Another netplan may know more.
        stamps = [networkd.stamp(root, path.lstrip("/")) for path in GENERATORS]
        stamps += [networkd.stamp(root, path) for path in own]
        return plan.digest(*stamps, networkd.digest(root, made, _PREFIX))

    def refuse_devices(self, root: Path, host: Host) -> None:
        """Refuse nothing: netplan makes each device that a payload can ask for."""

    def check(self, stage: Path, devices: int) -> Step:
        """Have netplan read the files below `stage`, and make networkd's files from them there.

        The generator is called without the command `netplan generate`. From 1.1 on that has systemd
        reload its units. netplan's generator then writes all files of networkd on the host itself
        anew, and networkd reconfigures every link. 1.2 runs a generator that it looks for below
        `stage`. While the host boots the generator asks systemd to start networkd: SYSTEMD_OFFLINE
        keeps systemctl from doing so (systemd's docs/ENVIRONMENT.md).
        """
        reason = "netplan reads the new files"
        generator = next((path for path in GENERATORS if os.access(path, os.X_OK)), None)
        if generator is None:
            places = ", ".join(GENERATORS)
            raise NotInstalled(f"netplan is not installed: none of {places} is there ({reason})")
        argv = ("env", "SYSTEMD_OFFLINE=1", generator, "--root-dir", str(stage))
        return Step(argv, reason, timeout=60 + devices / 10)

    def whole(self, devices: int) -> Step:
        """`netplan apply`: it reconfigures every link."""
        return Step(("netplan", "apply"), "create and configure devices", timeout=120 + devices)

    def activate(self, activation: Activation, log: Log) -> None:
        """Take up what changed: networkd's files that differ, or with `whole` all of them."""
        if NETWORKD_CONF in activation.changed_files:
            reason = "networkd must leave FRR's routes alone, and reads that only at its start"
            commands.run(_restart(reason, activation.size), log)
        devices.delete_unchangeable(activation.target, log)
        if activation.whole:
            devices.delete(activation.removed, log)
            commands.run(self.whole(activation.size), log)
            return
        stale = {difference.device for difference in activation.differences()}
        left_out: set[str] = set()
        if activation.partial is not None:
            left_out = {device.name for device in activation.target.devices} - activation.partial
        changed = sync_networkd(activation.stage, activation.root, stale, left_out)
        paths = activation.changed_files
        if changed or any(path.startswith(f"{_NETWORKD_DROP_INS}/") for path in paths):
            commands.run(_reload(activation.size), log)
        management.wait_for_hook(activation)
        devices.delete(activation.removed, log)

    def remove_notes(self, root: Path) -> None:
        """Do nothing: there are none."""

    def touched(
        self, root: Path, plan: Plan, changes: list[Change], known: Names[str]
    ) -> set[str] | None:
        """Return devices whose drop-in changes, and those without a file of networkd."""
        del known
        return _with_drop_ins(changes) | _without_file(root, plan)


def _restart(reason: str, devices: int) -> Step:
    """Have networkd read its own settings, and look at every device as if it were new."""
    argv = ("systemctl", "restart", "systemd-networkd.service")
    return Step(argv, reason, timeout=60 + devices)


def _reload(devices: int) -> Step:
    """Have networkd take up its files that changed."""
    reason = "networkd takes up the changed files"
    return Step(("networkctl", "reload"), reason, timeout=60 + devices)


def _announce_masters(activation: Activation, log: Log) -> None:
    """Have the kernel announce again bridges and VRFs into which devices are still to go.

    If a bridge or VRF was deleted by hand and made again, networkd 252 loads it once more at its
    next reload, finds that it exists, and waits for the kernel to announce it. Ports that go into
    it wait with it, for ever. The kernel announces a device whose group is set, even to the group
    that it has.
    """
    late = {difference.device for difference in activation.differences()}
    links = netlink.links()
    masters = {d.master for d in activation.target.devices if d.name in late and d.master in links}
    folder = Path("/sys/class/net")
    if groups := {
        name: (folder / name / "netdev_group").read_text().strip()
        for name in sorted(name for name in masters if name)
    }:
        lines = "".join(f"link set dev {name} group {group}\n" for name, group in groups.items())
        reason = f"networkd up to 252 waits to hear of {', '.join(groups)}"
        argv = ("ip", "-force", "-batch", "-")
        commands.run(Step(argv, reason, input=lines, may_fail=True), log)


def _restart_networkd(activation: Activation, log: Log) -> None:
    """Have networkd look at all devices anew.

    On a busy host networkd may not hear within 25 s that a device was made. It then takes the
    device for failed for as long as it runs, and what goes into it waits for ever (252, 257).
    """
    commands.run(_restart("networkd gave up devices that are there", activation.size), log)


# --- networkd's files ---


def sync_networkd(stage: Path, root: Path, stale: set[str], left_out: set[str]) -> list[str]:
    """Copy those of networkd's files that netplan made in `stage` and that differ on the host.

    Returns the names of the files that changed. Devices that are `left_out` keep their files.
    Files of `stale` devices are written although they are the same: networkd then looks at these
    devices again. Raises `ActivationFailed`.

    `netplan generate` on the host itself would write every file, and networkd would reconfigure
    each link whose file is new: FRR's routes over an uplink would be lost.
    """
    source, target = stage / _GENERATED, root / _GENERATED
    target.mkdir(parents=True, exist_ok=True)
    new = {file.name: file.read_bytes() for file in source.glob(f"{_PREFIX}*") if file.is_file()}
    if not new:
        raise ActivationFailed("netplan made no files for networkd")
    kept = _file_names(left_out)
    rewritten = _file_names(stale)
    new |= {n: f.read_bytes() for n in rewritten & kept if (f := target / n).exists()}
    changed = []
    for file in target.glob(f"{_PREFIX}*"):
        if file.name not in new and file.name not in kept:
            file.unlink()
            changed.append(file.name)
    for name, content in sorted(new.items()):
        file = target / name
        if name in rewritten or not file.exists() or file.read_bytes() != content:
            files.write(root, _GENERATED / name, content, 0o640)
            with contextlib.suppress(LookupError):
                shutil.chown(file, group="systemd-network")
            changed.append(name)
    return changed


def _file_names(names: Iterable[str]) -> set[str]:
    return {f"{_PREFIX}{name}.{kind}" for name in names for kind in ("netdev", "network")}


def _with_drop_ins(changes: list[Change]) -> set[str]:
    """Return the devices of which a drop-in for networkd changes."""
    folders = [Path(change.path).parent.name for change in changes]
    return {f.removeprefix(_PREFIX).rsplit(".", 2)[0] for f in folders if f.startswith(_PREFIX)}


def _without_file(root: Path, plan: Plan) -> set[str]:
    """Return the devices for which networkd has no file, whoever removed it."""
    present = {file.name for file in (root / _GENERATED).glob(f"{_PREFIX}*.network")}
    return {d.name for d in plan.devices if f"{_PREFIX}{d.name}.network" not in present}
