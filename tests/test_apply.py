"""apply, diff and status on a tree: real files, no mocks, and whatever can go wrong with them."""

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from generator import files, plan, record
from generator.cli import main
from lab.result import Result
from tests.strategies import LEAF1, LEAF2, Json, encoded, host, server, tagged, vnet, vpc

Command = Callable[..., Result]
Tree = dict[str, bytes]

NETPLAN = "etc/netplan/60-evpn-host.yaml"
FRR = "etc/frr/frr.conf"
OPERATOR = "etc/netplan/50-operator.yaml"
PORTS = tagged(LEAF1, LEAF2)


def segment(number: int, **fields: object) -> Json:
    prefixes = [f"10.{number}.0.1/24", f"fd00:{number}::1/64"]
    return vnet(number, prefixes=prefixes, ports=PORTS) | fields


OLD = host(segment(26), segment(31))
NEW = host(segment(26, mtu=1400), segment(32), generation=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host's tree with an operator's own netplan file."""
    found = tmp_path / "root"
    operator = found / OPERATOR
    operator.parent.mkdir(parents=True)
    operator.write_text("network: {ethernets: {ens4: {addresses: [10.12.0.101/16]}}}\n")
    return found


@pytest.fixture
def apply(evpn_host: Command, root: Path, tmp_path: Path) -> Command:
    """`evpn-host apply` of a document to the tree."""

    def run(document: Json, *options: str) -> Result:
        return evpn_host("apply", "--root", root, "-p", given(tmp_path, document), *options)

    return run


def given(folder: Path, document: Json) -> Path:
    file = folder / "payload.json"
    file.write_bytes(encoded(document))
    return file


def owned(root: Path) -> Tree:
    """Every file below etc/, ours or not."""
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted((root / "etc").rglob("*"))
        if file.is_file()
    }


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    found = {file: file.stat() for file in root.rglob("*") if file.is_file()}
    return {str(file): (info.st_mtime_ns, info.st_ino) for file, info in found.items()}


def recorded(root: Path) -> Json:
    found: Json = json.loads((root / record.RECORD).read_bytes())
    return found


# --- What it writes ---


def test_writes_once(apply: Command, root: Path) -> None:
    """The first apply writes each file and names it; the second touches nothing at all."""
    first = apply(OLD)
    assert first.code == 0
    written = {line.lstrip("/") for line in first.out.splitlines()}
    assert written == owned(root).keys() - {OPERATOR}
    assert {NETPLAN, FRR} < written
    before = stamps(root)
    assert apply(OLD) == Result(0, "", "")
    assert stamps(root) == before


def test_same_content_of_a_higher_generation(apply: Command, root: Path) -> None:
    """A payload that differs in its generation only rewrites no file, and is recorded."""
    apply(OLD)
    before = {path: stamp for path, stamp in stamps(root).items() if "/etc/" in path}
    assert apply(OLD | {"generation": 5}).out == ""
    assert {path: stamp for path, stamp in stamps(root).items() if "/etc/" in path} == before
    assert recorded(root)["target"]["generation"] == 5


def test_lower_generation(apply: Command, root: Path) -> None:
    """A generation lower than the one applied is refused and changes nothing, unless forced."""
    apply(NEW)
    before = owned(root)
    refused = apply(OLD)
    assert refused.code == 1
    assert "generation: 1 is lower than the one applied, 2" in refused.err
    assert "--force" in refused.err
    assert owned(root) == before
    assert apply(OLD, "--force").code == 0
    assert recorded(root)["target"]["generation"] == 1


def test_keeps_an_operators_file(apply: Command, root: Path) -> None:
    """A frr.conf that was there before us is kept and told once, and never again overwritten."""
    (root / FRR).parent.mkdir(parents=True)
    (root / FRR).write_text("router bgp 65000\n")
    first = apply(OLD)
    assert f"/{FRR} was not ours: a copy is kept" in first.err
    kept = root / record.KEPT / FRR
    assert kept.read_text() == "router bgp 65000\n"
    (root / FRR).write_text("router bgp 65001\n")
    apply(NEW)
    assert kept.read_text() == "router bgp 65000\n"


def test_merges_the_operators_frr_lines(apply: Command, root: Path) -> None:
    """frr.conf.local is part of frr.conf, and a change in it alone is applied."""
    apply(OLD)
    (root / plan.FRR_LOCAL).write_text("ip prefix-list MINE seq 5 permit 192.0.2.0/24\n")
    assert apply(OLD).out == f"/{FRR}\n"
    assert "ip prefix-list MINE seq 5 permit 192.0.2.0/24\n" in (root / FRR).read_text()
    (root / plan.FRR_LOCAL).unlink()
    apply(OLD)
    assert "MINE" not in (root / FRR).read_text()


def test_a_vnet_that_is_gone(apply: Command, root: Path) -> None:
    """Its drop-ins go and their folders with them, but for one with an operator's drop-in."""
    apply(OLD)
    network = root / "etc/systemd/network"
    theirs = network / "10-netplan-nbr-31.network.d/operator.conf"
    theirs.write_text("[Network]\n")
    apply(NEW)
    left = {str(p.relative_to(network)) for p in network.rglob("*31*")}
    assert left == {"10-netplan-nbr-31.network.d"}
    assert [file.name for file in theirs.parent.iterdir()] == ["operator.conf"]
    assert (network / "10-netplan-vxlan32.network.d/evpn-host.conf").exists()


def test_foreign_files_stay(apply: Command, root: Path) -> None:
    """Files of others, beside ours and of names like ours, are byte for byte as before."""
    theirs = {
        OPERATOR: None,
        "etc/netplan/60-evpn-host.yaml.bak": b"mine\n",
        "etc/frr/vtysh.conf": b"\xff\xfe\n",
        "etc/sysctl.d/99-local.conf": b"net.ipv4.ip_forward = 0\n",
        "etc/systemd/network/10-netplan-ens4.network.d/zz.conf": b"[Link]\n",
        "etc/systemd/network/20-evpn-host.network": b"[Match]\n",
    }
    for path, content in theirs.items():
        if content is not None:
            files.write(root / path, content, 0o640)
    before = {path: owned(root)[path] for path in theirs}
    for document in (OLD, NEW, host(generation=3)):
        apply(document)
        assert {path: owned(root)[path] for path in theirs} == before


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_modes(apply: Command, root: Path, umask: int) -> None:
    """What may hold a secret is not for everybody, and what daemons read as others is readable."""
    old = os.umask(umask)
    try:
        apply(OLD | {"server": server(bgp={"password": "secret"})})
    finally:
        os.umask(old)
    for path in owned(root).keys() - {OPERATOR}:
        mode = (root / path).stat().st_mode & 0o777
        room = path.split("/")[1]
        assert mode == {"netplan": 0o600, "frr": 0o640}.get(room, 0o644), path
    for folder in (root / "etc/systemd").rglob("*.d"):
        assert folder.stat().st_mode & 0o777 == 0o755
    assert not (root / record.PAYLOAD).stat().st_mode & 0o077
    assert not (root / record.RECORD).stat().st_mode & 0o077


def test_repairs_what_someone_changed(apply: Command, root: Path) -> None:
    """A file of ours that was edited or removed is put right, though the payload is the same."""
    apply(OLD)
    before = owned(root)
    with (root / NETPLAN).open("a") as file:
        file.write("# edited\n")
    (root / FRR).unlink()
    assert sorted(apply(OLD).out.splitlines()) == [f"/{FRR}", f"/{NETPLAN}"]
    assert owned(root) == before


def test_changing_the_backend(apply: Command, root: Path) -> None:
    """With the other backend the files of the one before go."""
    apply(OLD)
    apply(OLD, "-b", "ifupdown")
    found = owned(root).keys()
    assert "etc/network/interfaces.d/evpn-host" in found
    assert not [path for path in found if "systemd" in path or path == NETPLAN]


# --- diff and status ---


def test_diff(evpn_host: Command, apply: Command, root: Path, tmp_path: Path) -> None:
    """diff ends with 1 and shows what apply would do; after it with 0 and nothing; else with 2."""

    def diff(document: Json) -> Result:
        return evpn_host("diff", "--root", root, "-p", given(tmp_path, document))

    first = diff(OLD)
    assert first.code == 1
    assert "--- /dev/null\n+++ b/etc/netplan/60-evpn-host.yaml\n" in first.out
    assert owned(root).keys() == {OPERATOR}
    apply(OLD)
    assert diff(OLD) == Result(0, "", "")
    changed = diff(NEW)
    assert changed.code == 1
    assert "+      mtu: 1400" in changed.out.splitlines()
    assert {"- device nbr-31 (bridge)", "- device vxlan31 (vxlan)"} <= set(changed.out.splitlines())
    trouble = diff(NEW | {"kind": "Nonsense"})
    assert (trouble.code, trouble.out) == (2, "")


def test_diff_shows_no_password(
    evpn_host: Command, apply: Command, root: Path, tmp_path: Path
) -> None:
    """A session's password is in no diff, neither the old nor the new one."""
    apply(OLD | {"server": server(bgp={"password": "older-secret"})})
    new = OLD | {"server": server(bgp={"password": "newer-secret", "bfd": True})}
    found = evpn_host("diff", "--root", root, "-p", given(tmp_path, new))
    assert found.code == 1
    assert " bfd" in found.out
    assert "secret" not in found.out + found.err


def test_status(evpn_host: Command, apply: Command, root: Path) -> None:
    """status names each file that is not as it was applied, in words and as JSON."""
    nothing = evpn_host("status", "--root", root)
    assert nothing.out == "nothing was applied yet\n"
    apply(OLD)
    (root / FRR).unlink()
    (root / NETPLAN).write_text("")
    found = evpn_host("status", "--root", root, "--json")
    assert found.code == 1
    shown = json.loads(found.out)
    assert shown["host"] == "K8S01"
    assert shown["devices"] == {"bridge": 4, "vxlan": 4, "vrf": 1}
    assert {f"/{FRR}: is gone", f"/{NETPLAN}: was changed by someone else"} <= set(
        shown["differences"]
    )
    assert f"differs: /{FRR}: is gone" in evpn_host("status", "--root", root).out


# --- Backends ---


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ({"etc/netplan/01.yaml": "", "etc/network/interfaces": ""}, NETPLAN),
        ({"etc/network/interfaces": "source /etc/network/interfaces.d/*\n"}, "interfaces.d"),
        ({"etc/network/interfaces": "source-directory interfaces.d\n"}, "interfaces.d"),
        ({"etc/network/interfaces": "auto lo\n"}, "does not source /etc/network/interfaces.d"),
        ({"etc/network/interfaces": "# source /etc/network/interfaces.d/*\n"}, "does not source"),
        ({}, "neither netplan nor ifupdown2"),
        ({NETPLAN: ""}, "neither netplan nor ifupdown2"),
    ],
)
def test_backend(evpn_host: Command, tmp_path: Path, there: dict[str, str], chosen: str) -> None:
    """The backend is the one in use on the tree; where none can be, that is said."""
    root = tmp_path / "other"
    for path, text in there.items():
        files.write(root / path, text.encode(), 0o644)
    found = evpn_host("apply", "--root", root, "-p", given(tmp_path, OLD))
    assert chosen in found.out + found.err
    assert found.code == (0 if found.out else 1)
    if found.code:
        assert record.read(root) is None


def test_a_nic_under_another_id(apply: Command, root: Path) -> None:
    """An operator's entry that matches an uplink under another id is refused, and named."""
    (root / OPERATOR).write_text(
        "network: {ethernets: {lan: {match: {macaddress: '02:00:00:00:00:01'}, set-name: ens4}}}\n"
    )
    found = apply(OLD)
    assert found.code == 1
    assert "ethernets.lan: is the uplink ens4 under another id" in found.err
    assert owned(root).keys() == {OPERATOR}


@pytest.mark.parametrize(
    ("above", "beside", "said"),
    [
        ("iface ens4 inet dhcp", "", ""),
        ("", "iface ens4 inet dhcp", ""),  # in a file that is read before ours
        ("iface ens6 inet dhcp", "", ""),  # no uplink
        ("", "", "interfaces: iface ens4 inet dhcp"),
    ],
)
def test_an_uplinks_dhcp_client(
    evpn_host: Command, tmp_path: Path, above: str, beside: str, said: str
) -> None:
    """ifupdown2 takes the first stanza's method: one that comes after ours is refused."""
    root, folder = tmp_path / "other", "etc/network/interfaces.d"
    below = "iface ens4 inet dhcp" if said else "iface ens6 inet dhcp"
    text = f"{above}\nsource /etc/network/interfaces.d/*\n  {below}\n"
    files.write(root / "etc/network/interfaces", text.encode(), 0o644)
    files.write(root / f"{folder}/50-cloud-init", f"{beside}\n".encode(), 0o644)
    found = evpn_host("apply", "--root", root, "-p", given(tmp_path, OLD))
    assert found.code == (1 if said else 0)
    assert said in found.err
    assert (root / f"{folder}/evpn-host").exists() == (not said)
    if said:
        assert "put it above the line that sources" in found.err


# --- What can go wrong ---


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"{}", b'{"format": 1', b"[" * 100000])
def test_unreadable_record(apply: Command, root: Path, content: bytes) -> None:
    """A record that can't be read is told with the way out, and the way out works."""
    apply(OLD)
    wanted = owned(root)
    (root / record.RECORD).write_bytes(content)
    told = apply(OLD)
    assert told.code == 1
    assert "record.json: can't be read" in told.err
    assert "--full" in told.err
    assert apply(OLD, "--full").code == 0
    assert owned(root) == wanted
    assert apply(OLD) == Result(0, "", "")


def child(run: Callable[[], None]) -> int:
    """Run something in a copy of this process; its exit code, negative for a signal."""
    pid = os.fork()
    if not pid:
        code = 70
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            run()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(step: int, root: Path) -> None:
    """End this process by SIGKILL just before its nth change to a file of the tree."""
    count = 0
    changing = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}

    def reached() -> None:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" and event not in changing:
            return
        path = str(arguments[0])
        below = path.startswith((f"{root}/etc", f"{root}/var"))
        if below and (event != "open" or int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR)):
            reached()

    fsync = os.fsync

    def sync(descriptor: Any) -> None:
        reached()
        fsync(descriptor)

    setattr(os, "fsync", sync)  # noqa: B010  # in a child that dies
    sys.addaudithook(audit)


def strays(root: Path) -> list[str]:
    """What a run made on its way and did not take away."""
    return [str(f) for f in root.rglob("*") if f.name.startswith((".", "stage-"))]


def test_killed_anywhere(apply: Command, root: Path, tmp_path: Path) -> None:
    """Killed at any write, each file is whole, old or new; the next run ends as an undisturbed one.

    Nothing is left lying about either.
    """
    (root / FRR).parent.mkdir(parents=True)
    (root / FRR).write_text("router bgp 65000\n")
    apply(OLD)
    start, old = tmp_path / "start", owned(root)
    shutil.copytree(root, start)
    apply(NEW)
    new, kept = owned(root), (root / record.KEPT / FRR).read_bytes()

    sys.argv = ["evpn-host", "apply", "--root", str(root), "-p", str(given(tmp_path, NEW))]
    step = 0
    while True:
        step += 1
        shutil.rmtree(root)
        shutil.copytree(start, root)

        def killed(step: int = step) -> None:
            die_at(step, root)
            main()

        code = child(killed)
        found = owned(root)
        for path in old.keys() | new.keys():
            assert found.get(path) in (old.get(path), new.get(path)), (step, path)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert apply(NEW).code == 0
        assert owned(root) == new, step
        assert (root / record.KEPT / FRR).read_bytes() == kept
        assert recorded(root)["target"]["generation"] == 2
        assert strays(root) == [], step
        assert apply(NEW).out == ""
    assert step > 40


@pytest.mark.parametrize("limit", [0, 100, 300, 500, 1000, 2000, 4000])
def test_no_room(apply: Command, root: Path, tmp_path: Path, limit: int) -> None:
    """A disk that takes so many bytes a file and no more: it is said, and the old files stay."""
    apply(OLD)
    old = owned(root)
    source = given(tmp_path, NEW)
    done = subprocess.run(
        [sys.executable, "-m", "generator", "apply", "--root", str(root), "-p", str(source)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode in (1, 3), done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert owned(root) == old
    assert apply(NEW).code == 0
    assert strays(root) == []


@pytest.fixture
def small_disk(root: Path, root_user: None) -> Iterator[Path]:
    """The tree on a file system of its own, with little room."""
    del root_user
    content = root.with_name("content")
    root.rename(content)
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", root], check=True)
    try:
        shutil.copytree(content, root, dirs_exist_ok=True)
        yield root
    finally:
        subprocess.run(["umount", root], check=True)


def test_full_disk(apply: Command, small_disk: Path) -> None:
    """On a disk that is full, or becomes so at any write, the old files stay and it is said."""
    root = small_disk
    apply(OLD)
    old = owned(root)
    filler = root / "filler"
    free, codes = 0, set()
    while 0 not in codes:
        info = os.statvfs(root)
        filler.write_bytes(bytes(info.f_bsize * max(0, info.f_bavail - free)))
        done = apply(NEW)
        filler.unlink()
        codes.add(done.code)
        if done.code:
            assert done.code in (1, 3), done.err
            assert "No space left on device" in done.err
            assert owned(root) == old
        free += 1
    assert codes & {1, 3}
    assert strays(root) == []


def wait_until_open(pid: int, path: Path) -> None:
    """Return when a process has opened a file: a minute is enough for a busy machine."""
    end = time.monotonic() + 60
    while not _has_open(pid, path):
        assert time.monotonic() < end, f"{path} was not opened"
        time.sleep(0.02)


def _has_open(pid: int, path: Path) -> bool:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            if descriptor.readlink() == path:
                return True
    return False


def test_lock(root: Path, tmp_path: Path) -> None:
    """A second run waits until the first is done, and then does its own work."""
    run = root / "run/evpn-host"
    run.mkdir(parents=True)
    argv = [sys.executable, "-m", "generator", "apply", "--root", str(root), "-p"]
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen([*argv, str(given(tmp_path, OLD))], stderr=subprocess.DEVNULL)
        wait_until_open(waiting.pid, run / "lock")
        time.sleep(1)  # in which it could write, if it did not wait
        assert waiting.poll() is None
        assert owned(root).keys() == {OPERATOR}
    assert waiting.wait(120) == 0
    assert FRR in owned(root)


def test_uninstalled_while_it_waited(root: Path, tmp_path: Path) -> None:
    """A run that waits for an uninstall does not undo it; nothing of it stays either."""
    run, state = root / "run/evpn-host", root / "var/lib/evpn-host"
    run.mkdir(parents=True)
    argv = [sys.executable, "-m", "generator", "apply", "--root", str(root), "-p"]
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [*argv, str(given(tmp_path, OLD))], stderr=subprocess.PIPE, text=True
        )
        wait_until_open(waiting.pid, run / "lock")
        assert waiting.poll() is None
        for folder in (run, state):
            shutil.rmtree(folder)
    _, said = waiting.communicate(timeout=120)
    assert waiting.returncode == 1
    assert "was uninstalled while this run waited" in said
    assert owned(root).keys() == {OPERATOR}
    assert not run.exists()
    assert not state.exists()


def test_vpc_with_everything_gone(apply: Command, root: Path) -> None:
    """From many V-Nets to none: no file of a device is left, and FRR knows no VRF."""
    apply(OLD)
    apply(host(generation=2, vpcs=[vpc(26)]))
    assert not [path for path in owned(root) if "nbr-2" in path or "Vrf_" in path]
    assert "vrf " not in (root / FRR).read_text()
