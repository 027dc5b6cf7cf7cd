"""Starts and reloads FRR, works around faults of its reload, and checks that FRR is as planned."""

import contextlib
from collections.abc import Set as Names
from ipaddress import ip_address
from pathlib import Path

import msgspec

from generator.activation import advertisements, commands, devices, services
from generator.activation.backend import Activation
from generator.activation.commands import Log, Step
from generator.errors import ActivationFailed
from generator.observed import boot, comparison, frr, routes, running
from generator.observed.routes import Loss
from generator.observed.running import Drift
from generator.state import files, reloaded
from generator.state.reloaded import Reloaded

CONF = "etc/frr/frr.conf"
DAEMONS = "etc/frr/daemons"
_SERVICE = boot.FRR
_RELOAD = "/usr/lib/frr/frr-reload.py"
_running = Step(
    ("vtysh", "-c", "show running-config"), "what FRR advertises to guests", may_fail=True
)
_TO_DO = "Lines To "  # what `frr-reload.py --test` prints before lines that it would change
_PATIENCE = 3.0  # seconds until all of FRR's daemons have the lines of a reload


def check(stage: Path) -> Step:
    """Have FRR read the configuration below `stage` without loading it."""
    argv = ("vtysh", "--dryrun", "--inputfile", str(stage / CONF))
    return Step(argv, "FRR reads the new file")


def activate(activation: Activation, log: Log, say: Log) -> list[str]:
    """Have FRR run with its files, and wait until it is as planned.

    Returns what was repaired: lines that others had changed, and differences between FRR and the
    kernel. Raises `ActivationFailed`.
    """
    try:
        repaired = _take_up_files(activation, log, say)
        repaired += _settle(activation, log, say)
        _agree(activation, log, say)
    except frr.Silent as silent:
        raise ActivationFailed(str(silent)) from None
    return repaired


def restart(reason: str, log: Log) -> None:
    """Restart FRR; a failure is no error."""
    commands.run(Step(("systemctl", "restart", _SERVICE), reason, may_fail=True), log)


# --- Start and reload ---


def _take_up_files(activation: Activation, log: Log, say: Log) -> list[str]:
    """Start FRR, or reload it if that is enough; return lines that others had added or removed.

    Raises `frr.Silent` or `ActivationFailed`.
    """
    root = activation.root
    _wait_for_start(activation)  # the host may have just booted
    # A reload can't remove a BGP instance that has VNIs, so another AS number needs a restart.
    if (
        activation.first
        or not _answers(root)
        or frr.local_as(root) not in (None, activation.target.asn)
    ):
        say("FRR is started with its new files")
        _start(activation, log)
        return []
    drift = _drift(root)
    changed = bool({CONF, DAEMONS} & activation.changed_files)
    if not changed and not drift:
        return []

    def unknown() -> list[str]:
        known = frr.ask("zebra", "show vrf", root)
        return [name for name in devices.vrfs(activation.target) if f"vrf {name} id" not in known]

    if left := commands.until(unknown, 15):
        raise ActivationFailed(f"FRR does not see the VRFs {', '.join(left)}")
    if ended := sorted(activation.previous_sessions - set(activation.target.sessions)):
        commands.run(forget_neighbors(activation.target.asn, ended), log)
    _forget_foreign(drift, root, log)
    # A reload may not undo all that others have typed. Then `_agree` says so.
    _reload(activation, log, may_fail=not changed)
    # Each would stay as an empty stanza (FRRouting/frr#21245).
    if removed := [device.name for device in activation.removed if device.kind == "vrf"]:
        reason = "FRR forgets removed VRFs"
        commands.run(_configure([f"no vrf {name}" for name in removed], reason), log)
    return [] if changed else drift.texts


def _answers(root: Path) -> bool:
    try:
        for daemon in ("zebra", "bgpd", "bfdd"):
            frr.ask(daemon, "show version", root)
    except frr.Silent:
        return False
    return True


def _start(activation: Activation, log: Log) -> None:
    """Start FRR with its file, or restart it."""
    reason = "FRR starts with the new files"
    steps = [
        Step(("systemctl", "reset-failed", _SERVICE), reason, may_fail=True),
        Step(("systemctl", "restart", _SERVICE), reason, timeout=120),
    ]
    commands.run_all(steps, log)
    services.enable(_SERVICE, "FRR at every boot", log)
    _wait_for_start(activation)


def _wait_for_start(activation: Activation) -> None:
    """Wait until FRR has read its file, which may take long: before that, lines are missing.

    We ask systemd for FRR's processes, because our own service hides them in /proc. The script that
    starts the daemons is among them until the daemons have read their file. The service counts as
    started earlier, when they answer (FRR's tools/frrcommon.sh.in, all_start).
    """
    argv = ("systemctl", "status", "--lines=0", "--full", "--no-pager", _SERVICE)
    step = Step(argv, "is FRR still reading its file?", may_fail=True)

    def starting() -> list[str]:
        output = commands.run(step, commands.silent)
        return [line for line in output.splitlines() if "/watchfrr.sh " in line]

    commands.until(starting, 120 + activation.size / 2)


def _reload(activation: Activation, log: Log, *, may_fail: bool = False) -> None:
    """Have FRR reload its file, but first configure what the reload gets wrong.

    FRR 8.4.4's frr-reload.py sends the lines of a new uplink's advertisements twice, and the second
    time fails ("This ra-interval would conflict with configured ra-lifetime!"). It sends a new VRF
    after the new lines of BGP, where FRR reads `vrf NAME` as `vrf-policy`, and its VNI as one of
    the default VRF. So both are configured first. Raises `frr.Silent`.
    """
    sessions, vnis = comparison.missing_in_frr(activation.target, activation.root)
    conf = files.read(activation.root, CONF)
    if lines := _stanzas(conf, {f"interface {name}" for name in sessions}):
        commands.run(_configure(lines, "FRR advertises itself on new uplinks"), log)
    if lines := _stanzas(conf, {f"vrf {vni.vrf}" for vni in vnis if vni.type == "L3"}):
        commands.run(_configure(lines, "FRR maps new VRFs to their VNIs"), log)
    running = commands.run(_running, log)
    if lines := advertisements.changes(running, conf):
        commands.run(_configure(lines, "FRR's advertisements to guests change"), log)
    service = activation.whole or DAEMONS in activation.changed_files
    step = _reload_step(activation.size, service=service)
    commands.run(msgspec.structs.replace(step, may_fail=may_fail), log)


def _reload_step(devices: int, *, service: bool) -> Step:
    """Have FRR take up the lines that differ; sessions stay up.

    The reload script alone is enough for frr.conf. The service (`systemctl reload frr`) also reads
    the file of daemons, and replaces watchfrr, which takes a second or two. If the script fails,
    systemd then stops FRR with all its sessions (252).
    """
    script = (_RELOAD, "--reload", f"/{CONF}")
    argv = ("systemctl", "reload", _SERVICE) if service else script
    return Step(argv, "FRR takes up the changed file", timeout=120 + devices / 2)


def _stanzas(conf: str, heads: Names[str]) -> list[str]:
    """Return the lines of the stanzas of frr.conf whose first line is one of these."""
    lines: list[str] = []
    inside = False
    for line in conf.splitlines():
        inside |= line in heads
        if inside:
            lines.append(line)
        if line.startswith("exit"):
            inside = False
    return lines


def forget_neighbors(asn: int, neighbors: list[str]) -> Step:
    """Remove neighbors from FRR, because its reload can't.

    The reload of FRR 8.4.4 fails on a neighbor with more than one line ("Specify remote-as first").
    No version removes an interface's lines of router advertisements: frr-reload.py sends `no
    interface`, which FRR refuses while the kernel has the interface (#13644).
    """
    silent = ("no ipv6 nd ra-interval", "no ipv6 nd ra-lifetime")
    lines = [
        line
        for neighbor in neighbors
        if not _is_address(neighbor)
        for line in (f"interface {neighbor}", *silent)
    ]
    lines += [f"router bgp {asn}", *(f"no neighbor {neighbor}" for neighbor in neighbors)]
    return _configure(lines, "FRR ends sessions that are no longer planned")


def _is_address(neighbor: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ip_address(neighbor))
    return False


def _configure(lines: list[str], reason: str) -> Step:
    """Configure FRR with these lines. The reload and the check after it find what FRR refuses."""
    words = [word for line in lines for word in ("-c", line)]
    return Step(("vtysh", "-c", "configure terminal", *words), reason, may_fail=True)


# --- What others have typed into FRR ---


def _drift(root: Path) -> Drift:
    """Return how FRR's running configuration differs from its file. Raises `frr.Silent`."""
    drift = running.drift(root)
    return Drift([], []) if drift.digest == reloaded.read(root).same else drift


def _forget_foreign(drift: Drift, root: Path, log: Log) -> None:
    """Remove neighbors that are not in FRR's file, see `forget_neighbors`."""
    lines = [
        line
        for instance, neighbor in running.foreign_neighbors(drift, root)
        for line in (instance, f"no neighbor {neighbor}")
    ]
    if lines:
        commands.run(_configure(lines, "FRR ends sessions that its file does not have"), log)


def _agree(activation: Activation, log: Log, say: Log) -> None:
    """Wait until FRR's running configuration is that of its file, or warn that it is not.

    Raises `frr.Silent`.
    """
    root = activation.root
    commands.until(lambda: _drift(root).texts, _PATIENCE)
    if not (drift := _drift(root)):
        return
    known = reloaded.read(root)
    argv = (_RELOAD, "--test", f"/{CONF}")
    reason = "does FRR only spell these lines differently?"
    step = Step(argv, reason, timeout=120 + activation.size / 2)
    with contextlib.suppress(ActivationFailed):
        if _TO_DO not in commands.run(step, log):
            _note(root, msgspec.structs.replace(known, same=drift.digest))
            return
    _note(root, msgspec.structs.replace(known, lasting=drift.digest))
    say("warning: FRR's reload does not put this right, a restart of FRR would:")
    for text in drift.texts:
        say(f"  {text}")


def _note(root: Path, known: Reloaded) -> None:
    """Keep an answer of frr-reload.py. Without it the next run asks again."""
    with contextlib.suppress(OSError):
        reloaded.write(root, known)


# --- What FRR and the kernel lost ---


def repair(root: Path, log: Log) -> list[str]:
    """Restore what FRR has installed and the kernel has lost; return it. Raises `frr.Silent`."""
    lost = routes.losses(root)
    _restore(lost, root, log)
    return [each.text for each in lost]


def _settle(activation: Activation, log: Log, say: Log) -> list[str]:
    """Wait until FRR is as planned; return what was repaired. Raises `ActivationFailed`."""
    repaired: list[str] = []
    unknown_before: list[Loss] = []

    def left() -> list[str]:
        nonlocal unknown_before
        try:
            wrong, lost, unknown = comparison.compare_frr(activation.target, activation.root)
            # Unknown twice: FRR may be about to learn a new address.
            lost += [each for each in unknown if each in unknown_before]
            _restore(lost, activation.root, log)
        except frr.Silent as silent:
            return [str(silent)]
        unknown_before = unknown
        repaired.extend(each.text for each in lost)
        return wrong + [f"FRR: {each.text}" for each in dict.fromkeys(lost + unknown)]

    commands.note("waiting until FRR is as planned", log)
    wrong = commands.until(left, activation.patience / 2)
    if wrong:
        say("FRR is not as planned: it reloads its file")
        try:
            _reload(activation, log)
        except frr.Silent:
            _start(activation, log)
        wrong = commands.until(left, activation.patience)
    if wrong:
        raise ActivationFailed("FRR is not as planned:", *(f"  {text}" for text in wrong))
    return list(dict.fromkeys(repaired))


def _restore(lost: list[Loss], root: Path, log: Log) -> None:
    """Restore next hops' neighbours, then routes, and announce addresses again.

    Raises `frr.Silent`.
    """
    if lines := [each.line for each in lost if each.line]:
        commands.run(_batch(lines), log)
    if entries := [entry for each in lost for entry in each.entries]:
        commands.run(_batch(entries, "bridge"), log)
    if not lines:
        return
    # FRR does not remove a route that it withdrew in between: it believes the kernel lacks it.
    installed = routes.installed_prefixes(root)
    if undo := [each.undo for each in lost if each.undo and each.prefix not in installed]:
        commands.run(_batch(undo), log)


def _batch(lines: list[str], tool: str = "ip") -> Step:
    return Step(
        (tool, "-force", "-batch", "-"),
        f"the kernel and FRR do not agree: {'; '.join(lines)}",
        input="".join(f"{line}\n" for line in lines),
        may_fail=True,
    )
