"""Commands of the native tools: steps as data, run one after the other. Nothing else runs any."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import msgspec

from generator.errors import ActivationFailed, NotInstalled, printable


class Step(msgspec.Struct, frozen=True):
    """A command, why it is run, and how long it may take (seconds)."""

    argv: tuple[str, ...]
    reason: str
    timeout: float = 60
    input: str = ""
    may_fail: bool = False

    def __str__(self) -> str:
        return f"{' '.join(self.argv)}  # {self.reason}"


# What makes networkd's files below a folder: 1.2 calls it `configure`, and has systemd's generator
# beside it; before it was `generate`, and Debian 12's netplan looks in /lib.
NETPLAN_GENERATORS = (
    "/usr/libexec/netplan/configure",
    "/usr/libexec/netplan/generate",
    "/lib/netplan/generate",
)

Log = Callable[[str], None]
T = TypeVar("T")


def run(step: Step, log: Log) -> str:
    """Run a step; its standard output. Raises `ActivationFailed` with what the tool said."""
    log(str(step))
    try:
        done = subprocess.run(
            step.argv,
            input=step.input,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=step.timeout,
            check=False,
            # networkd answers nobody while it looks at hundreds of devices, and whoever asked gives
            # up after 25 s unless told (SYSTEMD_BUS_TIMEOUT in systemd's docs/ENVIRONMENT.md).
            env={**os.environ, "SYSTEMD_BUS_TIMEOUT": f"{step.timeout:.0f}"},
        )
    except FileNotFoundError:
        raise NotInstalled(f"{step.argv[0]} is not installed ({step.reason})") from None
    except subprocess.TimeoutExpired:
        raise ActivationFailed(
            f"{' '.join(step.argv)} did not end within {step.timeout:.0f} s ({step.reason})"
        ) from None
    if done.returncode and not step.may_fail:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise ActivationFailed(
            f"{' '.join(step.argv)} failed with {done.returncode} ({step.reason})",
            *(f"  {printable(line, 200)}" for line in said),
        )
    return done.stdout


def run_all(steps: Iterable[Step], log: Log) -> None:
    """Run steps until one fails."""
    for step in steps:
        run(step, log)


def to_stderr(line: str) -> None:
    """The log of `-v`."""
    print(f"+ {line}", file=sys.stderr)


def silent(_: str) -> None:
    """The log without `-v`."""


def until(check: Callable[[], list[T]], patience: float, interval: float = 0.1) -> list[T]:
    """Check again and again until nothing is wrong; return what is still wrong at the end.

    It goes on as long as the list gets shorter, however long that takes in all. It gives up when
    the list has not become shorter for `patience` seconds.
    """
    fewest, end = sys.maxsize, 0.0
    while wrong := check():
        now = time.monotonic()
        if len(wrong) < fewest:
            fewest, end = len(wrong), now + patience
        if now > end:
            break
        time.sleep(interval)
        interval = min(interval * 1.5, 1.0)
    return wrong


def modules() -> Step:
    """The kernel modules that the devices need; at boot modules-load.d does it."""
    return Step(("modprobe", "-a", "vrf", "vxlan"), "kernel modules of VRF and VXLAN devices")


def sysctl(root: Path) -> Step:
    """Kernel settings now; at boot, and for each new device, systemd does it."""
    file = root / "etc/sysctl.d/90-evpn-host.conf"
    return Step(("/usr/lib/systemd/systemd-sysctl", str(file)), "kernel settings")


def rule_order() -> list[Step]:
    """Table `local` after the VRFs, in both families; the new rule first, then the old one goes.

    The kernel makes the VRFs' own rule with the first VRF of its life, and never again: where it is
    gone (uninstall takes it away) it is made here. `protocol kernel` keeps networkd from ever
    removing them.
    """
    steps = []
    for family in ("-4", "-6"):
        vrfs = f"ip {family} rule add pref 1000 l3mdev protocol kernel".split()
        add = f"ip {family} rule add pref 32765 table local protocol kernel".split()
        delete = f"ip {family} rule del pref 0".split()
        reason = "a tenant meets its own table before the host's addresses"
        steps += [
            Step(tuple(vrfs), reason, may_fail=True),
            Step(tuple(add), reason, may_fail=True),
            Step(tuple(delete), reason, may_fail=True),
        ]
    return steps


def delete_devices(names: list[str]) -> Step:
    """Remove devices, a missing one being no error."""
    lines = "".join(f"link delete dev {name}\n" for name in names)
    return Step(
        ("ip", "-force", "-batch", "-"),
        f"devices that are gone or can't be changed in place: {', '.join(names)}",
        timeout=60 + len(names) / 5,
        input=lines,
        may_fail=True,
    )


def delete_loopback(address: str) -> Step:
    """Remove a VTEP's address, which neither backend takes from a loopback without any other."""
    return Step(
        ("ip", "address", "delete", f"{address}/32", "dev", "lo"), "the VTEP goes", may_fail=True
    )


def delete_stand_in(address: str, device: str) -> Step:
    """Remove what FRR's start script has put on an uplink beside the operator's addresses."""
    argv = ("ip", "address", "delete", address, "peer", "169.254.0.1/32", "dev", device)
    return Step(argv, f"{device} is no uplink any more", may_fail=True)


def delete_numbered(address: str, device: str) -> Step:
    """Remove the host's end of a numbered link."""
    argv = ("ip", "address", "delete", address, "dev", device)
    return Step(argv, f"the session on {device} has no address of ours any more", may_fail=True)


def restore_rules() -> list[Step]:
    """The rules as the kernel makes them: its own for VRFs never goes by itself."""
    return [
        Step(
            ("ip", family, "rule", *words.split()), "rules as the kernel makes them", may_fail=True
        )
        for family in ("-4", "-6")
        for words in (
            "add pref 0 table local protocol kernel",
            "del pref 32765",
            "del pref 1000 l3mdev",
        )
    ]


def flush_tables(tables: list[int]) -> list[Step]:
    """Empty routing tables of VRFs that go: an unreachable route belongs to no device."""
    lines = "".join(f"route flush table {table}\n" for table in tables)
    return [
        Step(
            ("ip", family, "-force", "-batch", "-"),
            f"no routes in the tables of VRFs that go: {', '.join(map(str, tables))}",
            timeout=60 + len(tables) / 5,
            input=lines,
            may_fail=True,
        )
        for family in ("-4", "-6")
    ]


def put_back(lines: list[str], tool: str = "ip") -> Step:
    """Routes and neighbours that FRR believes to be in the kernel; addresses it did not hear of."""
    return Step(
        (tool, "-force", "-batch", "-"),
        f"the kernel and FRR do not agree: {'; '.join(lines)}",
        input="".join(f"{line}\n" for line in lines),
        may_fail=True,
    )


def restart_networkd(reason: str, devices: int) -> Step:
    """Have networkd read its own settings, and look at every device as if it were new."""
    argv = ("systemctl", "restart", "systemd-networkd.service")
    return Step(argv, reason, timeout=60 + devices)


def netplan_apply(devices: int) -> Step:
    """The whole of netplan's own way: it reconfigures every link."""
    return Step(("netplan", "apply"), "create and configure devices", timeout=120 + devices)


def networkd_reload(devices: int) -> Step:
    """Only what changed in networkd's files."""
    return Step(
        ("networkctl", "reload"), "networkd takes up the changed files", timeout=60 + devices
    )


def announce_again(groups: dict[str, str]) -> Step:
    """Have the kernel tell of devices that stay as they are, each (name) in its group.

    Where a bridge or VRF was deleted by hand and made again, networkd 252 loads it once more at its
    next reload, finds that it exists and waits for the kernel to tell of it; the ports that go into
    it wait with it, for ever. A group that is set is told of, also where it is the one that was.
    """
    lines = "".join(f"link set dev {name} group {group}\n" for name, group in groups.items())
    return Step(
        ("ip", "-force", "-batch", "-"),
        f"networkd up to 252 waits to hear of {', '.join(groups)}",
        input=lines,
        may_fail=True,
    )


def netplan_generate(root: Path, devices: int) -> Step:
    """netplan's own judgement of the files below `root`, and networkd's files made from them.

    Raises `ActivationFailed` where netplan is not installed.

    The generator is called without the command `netplan generate`. From 1.1 on that has systemd
    reload its units, which has netplan's generator write all files of networkd on the host itself
    anew, and networkd reconfigure every link; 1.2 runs a generator that it looks for below `root`.
    While the host boots the generator asks systemd to start networkd: SYSTEMD_OFFLINE keeps
    systemctl from it (systemd's docs/ENVIRONMENT.md).
    """
    reason = "netplan reads the new files"
    generator = next((path for path in NETPLAN_GENERATORS if os.access(path, os.X_OK)), None)
    if generator is None:
        places = ", ".join(NETPLAN_GENERATORS)
        raise NotInstalled(f"netplan is not installed: none of {places} is there ({reason})")
    return Step(
        ("env", "SYSTEMD_OFFLINE=1", generator, "--root-dir", str(root)),
        reason,
        timeout=60 + devices / 10,
    )


def frr_check(file: Path) -> Step:
    """FRR's own judgement of a configuration, without loading it."""
    return Step(("vtysh", "--dryrun", "--inputfile", str(file)), "FRR reads the new file")


def ifquery(file: Path, devices: int) -> Step:
    """ifupdown2's own judgement of a file."""
    return Step(
        ("ifquery", "--list", "-a", "-i", str(file)),
        "ifupdown2 reads the new file",
        timeout=60 + devices,
    )


def unit_state(unit: str) -> Step:
    """Whether a unit is enabled, and runs.

    Who enables one that is has systemd reload its units, which takes a second and has netplan's
    generator write all files of networkd anew, and on Debian 12 with its System V script two more.
    """
    argv = ("systemctl", "show", "--property=UnitFileState,ActiveState", unit)
    return Step(argv, f"{unit}: enabled, and running?")


def enable(unit: str, reason: str) -> Step:
    """Have systemd start a unit at every boot, and now."""
    return Step(("systemctl", "enable", "--now", unit), reason)


def frr_start() -> list[Step]:
    """Start FRR with its file, or restart it where only that takes a change up."""
    reason = "FRR starts with the new files"
    return [
        Step(("systemctl", "reset-failed", "frr.service"), reason, may_fail=True),
        Step(("systemctl", "restart", "frr.service"), reason, timeout=120),
    ]


def frr_processes() -> Step:
    """What FRR's service runs, asked of systemd: the service that we run in hides it in /proc.

    Among it, until the daemons have read their file, the script that started them: watchfrr counts
    as started when they answer, which is before (FRR's tools/frrcommon.sh.in, all_start).
    """
    words = ("status", "--lines=0", "--full", "--no-pager", "frr.service")
    return Step(("systemctl", *words), "is FRR still reading its file?", may_fail=True)


def frr_reload(devices: int, *, service: bool = False) -> Step:
    """FRR takes up what differs, sessions go on.

    By its reload script alone. As a service (`systemctl reload frr`) it also reads its file of
    daemons, and ends watchfrr and starts another, which takes a second or two; and where the script
    fails, systemd then stops FRR with all its sessions (252).
    """
    script = ("/usr/lib/frr/frr-reload.py", "--reload", "/etc/frr/frr.conf")
    argv = ("systemctl", "reload", "frr.service") if service else script
    return Step(argv, "FRR takes up the changed file", timeout=120 + devices / 2)


def forget_neighbors(asn: int, neighbors: list[str]) -> Step:
    """Take sessions that end out of FRR, whose reload can't.

    FRR 8.4.4's fails on a neighbor with more lines than one ("Specify remote-as first"). And none
    takes away what an interface says of router advertisements: frr-reload.py sends `no interface`,
    which FRR refuses while the kernel has it (#13644).
    """
    silent = ("no ipv6 nd ra-interval", "no ipv6 nd ra-lifetime")
    lines = [
        line
        for neighbor in neighbors
        if not _is_address(neighbor)
        for line in (f"interface {neighbor}", *silent)
    ]
    lines += [f"router bgp {asn}", *(f"no neighbor {neighbor}" for neighbor in neighbors)]
    return _configure(lines, "FRR ends sessions that are no longer wanted")


def advertise(stanzas: list[str]) -> Step:
    """Have FRR advertise itself on uplinks that are new, as the lines of its file say.

    FRR 8.4.4's frr-reload.py would say them twice, and the second time fail ("This ra-interval
    would conflict with configured ra-lifetime!").
    """
    return _configure(stanzas, "FRR advertises itself on new uplinks")


def map_vnis(stanzas: list[str]) -> Step:
    """Give VRFs that are new their VNI, as the lines of its file say.

    FRR 8.4.4's frr-reload.py says a new VRF after what is new of BGP, from where `vrf NAME` is
    taken for `vrf-policy`, and the VNI for one of the default VRF.
    """
    return _configure(stanzas, "FRR maps new VRFs to their VNIs")


def _is_address(neighbor: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ip_address(neighbor))
    return False


def forget_vrfs(names: list[str]) -> Step:
    """Take VRFs that are gone out of FRR, where each would stay as an empty stanza (#21245)."""
    return _configure([f"no vrf {name}" for name in names], "FRR forgets VRFs that are gone")


def _configure(lines: list[str], reason: str) -> Step:
    """Give FRR configuration lines; what it refuses is left to its reload and to the verdict."""
    words = [word for line in lines for word in ("-c", line)]
    return Step(("vtysh", "-c", "configure terminal", *words), reason, may_fail=True)


def ifreload(devices: int) -> Step:
    """ifupdown2's own way."""
    return Step(("ifreload", "-a"), "create and configure devices", timeout=120 + devices)


def ifup(names: list[str], reason: str = "create and configure what changed") -> Step:
    """ifupdown2 for some devices alone, in the order in which they need each other."""
    return Step(("ifup", *names), reason, timeout=120 + len(names))
