"""apply, diff and status on a tree: real files, no mocks, and whatever can go wrong with them."""

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from generator.activation import staging
from generator.cli import main
from generator.state import files, generations, record, tree
from generator.state.changes import Change
from generator.state.lock import STAGE
from generator.verbs.planning import FRR_LOCAL
from lab.result import Result
from tests.folders import etc_files
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
    """Make a host's tree with an operator's own netplan file."""
    root = tmp_path / "root"
    operator = root / OPERATOR
    operator.parent.mkdir(parents=True)
    operator.write_text("network: {ethernets: {ens4: {addresses: [10.12.0.101/16]}}}\n")
    return root


@pytest.fixture
def apply(evpn_host: Command, root: Path, tmp_path: Path) -> Command:
    """Run `evpn-host apply` of a document on the tree."""

    def run(document: Json, *options: str) -> Result:
        return evpn_host("apply", "--root", root, "-p", payload_file(tmp_path, document), *options)

    return run


def payload_file(folder: Path, document: Json) -> Path:
    """Write a document to a file; return the file's path."""
    file = folder / "payload.json"
    file.write_bytes(encoded(document))
    return file


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    infos = {file: file.stat() for file in root.rglob("*") if file.is_file()}
    return {str(file): (info.st_mtime_ns, info.st_ino) for file, info in infos.items()}


def recorded(root: Path) -> Json:
    data: Json = json.loads((root / record.RECORD).read_bytes())
    return data


# --- What it writes ---


def test_second_apply_writes_nothing(apply: Command, root: Path) -> None:
    """The first apply writes each file and names it; the second touches nothing."""
    first = apply(OLD)
    assert first.code == 0
    written = {line.lstrip("/") for line in first.out.splitlines()}
    assert written == etc_files(root).keys() - {OPERATOR}
    assert {NETPLAN, FRR} < written
    before = stamps(root)
    assert apply(OLD) == Result(0, "", "")
    assert stamps(root) == before


def test_records_a_higher_generation_of_the_same_content(apply: Command, root: Path) -> None:
    """A payload that differs only in its generation is recorded and rewrites no file."""
    apply(OLD)
    before = {path: stamp for path, stamp in stamps(root).items() if "/etc/" in path}
    older = recorded(root) | {"time": "2026-11-27T10:00:00+00:00"}
    (root / record.RECORD).write_text(json.dumps(older))
    assert apply(OLD | {"generation": 5}).out == ""
    assert {path: stamp for path, stamp in stamps(root).items() if "/etc/" in path} == before
    new = recorded(root)
    assert new["target"].pop("generation") == 5
    assert older["target"].pop("generation") == 1
    different = {name for name in new if new[name] != older[name]}
    assert different == {"inputs"}  # the time is that of the last change too


def test_first_lines_of_older_versions_are_ours(
    apply: Command, evpn_host: Command, root: Path
) -> None:
    """They are no difference, are not kept as an operator's, and are removed like ours."""
    apply(OLD)
    for path in recorded(root)["target"]["files"]:
        mark, _, body = (root / path).read_text().partition(" Written by evpn-host;")
        (root / path).write_text(f"{mark} Written by evpn-host from payload generation 7;{body}")
    before = etc_files(root)
    assert apply(OLD | {"generation": 2}).out == ""
    assert etc_files(root) == before
    assert apply(NEW | {"generation": 3}).code == 0
    assert not (root / record.KEPT).exists()
    removed = before.keys() - etc_files(root).keys()
    assert any("vxlan31" in path for path in removed)
    assert evpn_host("uninstall", "--root", root).code == 0
    assert etc_files(root).keys() == {OPERATOR}


def test_refuses_a_lower_generation(apply: Command, root: Path) -> None:
    """A generation lower than the applied one changes nothing, unless it is forced."""
    apply(NEW)
    before = etc_files(root)
    refused = apply(OLD)
    assert refused.code == 1
    assert "generation: 1 is lower than the one applied, 2" in refused.err
    assert "--force" in refused.err
    assert etc_files(root) == before
    assert apply(OLD, "--force").code == 0
    assert recorded(root)["target"]["generation"] == 1


def test_keeps_a_copy_of_an_operators_file(apply: Command, root: Path) -> None:
    """The first apply copies an operator's frr.conf and says so; no later one changes the copy."""
    (root / FRR).parent.mkdir(parents=True)
    (root / FRR).write_text("hostname mine\n")
    first = apply(OLD)
    assert f"/{FRR} was not ours: a copy is kept" in first.err
    copy = root / record.KEPT / FRR
    assert copy.read_text() == "hostname mine\n"
    (root / FRR).write_text("hostname other\n")
    apply(NEW)
    assert copy.read_text() == "hostname mine\n"


def test_merges_the_operators_frr_lines(apply: Command, root: Path) -> None:
    """frr.conf.local becomes a part of frr.conf; apply acts on a change in it alone."""
    apply(OLD)
    (root / FRR_LOCAL).write_text("ip prefix-list MINE seq 5 permit 192.0.2.0/24\n")
    assert apply(OLD).out == f"/{FRR}\n"
    assert "ip prefix-list MINE seq 5 permit 192.0.2.0/24\n" in (root / FRR).read_text()
    (root / FRR_LOCAL).unlink()
    apply(OLD)
    assert "MINE" not in (root / FRR).read_text()


def test_removes_the_drop_ins_of_a_removed_vnet(apply: Command, root: Path) -> None:
    """Their folders are removed too, except a folder with an operator's drop-in."""
    apply(OLD)
    network = root / "etc/systemd/network"
    theirs = network / "10-netplan-nbr-31.network.d/operator.conf"
    theirs.write_text("[Network]\n")
    apply(NEW)
    remaining = {str(p.relative_to(network)) for p in network.rglob("*31*")}
    assert remaining == {"10-netplan-nbr-31.network.d"}
    assert [file.name for file in theirs.parent.iterdir()] == ["operator.conf"]
    assert (network / "10-netplan-vxlan32.network.d/evpn-host.conf").exists()


def test_foreign_files_stay(apply: Command, root: Path) -> None:
    """Files of others stay byte for byte as they were, beside ours and with names like ours."""
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
            files.write(root, path, content, 0o640)
    before = {path: etc_files(root)[path] for path in theirs}
    for document in (OLD, NEW, host(generation=3)):
        apply(document)
        assert {path: etc_files(root)[path] for path in theirs} == before


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "en_US.ISO-8859-1"])
def test_bytes_that_are_not_utf8(
    apply: Command, evpn_host: Command, root: Path, monkeypatch: pytest.MonkeyPatch, locale: str
) -> None:
    """frr.conf.local is copied byte for byte, whatever the locale."""
    monkeypatch.setenv("LC_ALL", locale)
    mine = b"! Stra\xdfe, \xc3\xa4\r\nline vty\n"
    (root / FRR_LOCAL).parent.mkdir(parents=True)
    (root / FRR_LOCAL).write_bytes(mine)
    assert apply(OLD).code == 0
    assert mine in (root / FRR).read_bytes()
    assert apply(OLD) == Result(0, "", "")
    (root / FRR_LOCAL).write_bytes(b"! \x1b[31m \xff\n")
    result = evpn_host("diff", "--root", root, "-p", root.parent / "payload.json")
    assert result.code == 1
    assert "\x1b" not in result.out
    assert "\\x1b[31m" in result.out


def test_does_not_end_an_operators_bgp_unasked(
    apply: Command, evpn_host: Command, root: Path, tmp_path: Path
) -> None:
    """apply names the BGP instance that it would end, and refuses until a person insists."""
    (root / FRR).parent.mkdir(parents=True)
    text = "router bgp 65001\n neighbor 192.0.2.1 remote-as external\n neighbor\nexit\n"
    (root / FRR).write_text(text)
    refused = apply(OLD)
    assert refused.code == 1
    assert "router bgp 65001" in refused.err
    assert "192.0.2.1" in refused.err
    assert "--replace-frr" in refused.err
    assert (root / FRR).read_text() == text
    source = payload_file(tmp_path, OLD)
    assert evpn_host("apply", "--root", root, "-p", source, "--replace-frr").code == 0
    assert (root / record.KEPT / FRR).read_text() == text
    assert apply(NEW).code == 0  # the file is ours now


def test_line_ends_are_compared(apply: Command, root: Path) -> None:
    """A file of ours in which somebody changed the line ends is written anew."""
    apply(OLD)
    before = (root / FRR).read_bytes()
    (root / FRR).write_bytes(before.replace(b"\n", b"\r\n"))
    assert apply(OLD).out == f"/{FRR}\n"
    assert (root / FRR).read_bytes() == before


def test_repairs_modes_and_owners(apply: Command, root: Path) -> None:
    """The next apply of the same payload restores the modes of our files and drop-in folders."""
    apply(OLD)
    [drop_in] = (root / "etc/systemd/network").glob("10-netplan-nbr-26.network.d")
    (root / NETPLAN).chmod(0o644)
    (root / FRR).chmod(0o600)
    drop_in.chmod(0o700)
    apply(OLD)
    assert (root / NETPLAN).stat().st_mode & 0o777 == 0o600
    assert (root / FRR).stat().st_mode & 0o777 == 0o640
    assert drop_in.stat().st_mode & 0o777 == 0o755
    assert apply(OLD) == Result(0, "", "")


def test_uninstall_restores_modes_and_links(
    apply: Command,
    evpn_host: Command,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An operator's file has its mode again, and a symbolic link is one again.

    Only links of `/` are followed: the test takes this tree for it.
    """
    monkeypatch.setattr(tree, "no_follow", lambda _: 0)
    (root / FRR).parent.mkdir(parents=True)
    (tmp_path / "mine").write_text("! mine\n")
    (root / FRR).symlink_to(tmp_path / "mine")
    daemons = root / "etc/frr/daemons"
    daemons.write_text("bgpd=no\n")
    daemons.chmod(0o600)
    assert apply(OLD).code == 0
    assert not (root / FRR).is_symlink()
    assert evpn_host("uninstall", "--root", root).code == 0
    assert (root / FRR).readlink() == tmp_path / "mine"
    assert (tmp_path / "mine").read_text() == "! mine\n"
    assert daemons.stat().st_mode & 0o777 == 0o600


def test_going_back_keeps_what_an_operator_wrote_since(root: Path, apply: Command) -> None:
    """A kept copy is the file before the first apply, not a later one."""
    (root / FRR).parent.mkdir(parents=True)
    (root / FRR).write_text("! first\n")
    apply(OLD)
    (root / FRR).write_text("! second\n")
    changes = staging.changes(root, {FRR: "! Written by evpn-host; edits are lost.\n"})
    [change] = [each for each in changes if each.path == FRR]
    staging.commit(root, [change])
    staging.commit(root, [Change(FRR, change.new, change.old)])
    assert (root / FRR).read_text() == "! second\n"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_rollback_under_any_umask(
    apply: Command, evpn_host: Command, root: Path, umask: int
) -> None:
    """Files and folders that come back have the same modes as after an apply."""
    apply(OLD)
    modes = {file: file.stat().st_mode for file in (root / "etc").rglob("*")}
    applied = record.read(root)
    assert applied
    texts = {path: (root / path).read_text() for path in applied.target.files}
    # Otherwise only an activated generation is kept.
    generations.keep(root, msgspec.structs.replace(applied, ok=True), texts, 20)
    apply(NEW)
    before = os.umask(umask)
    try:
        assert evpn_host("rollback", "--root", root).code == 0
    finally:
        os.umask(before)
    assert {file: file.stat().st_mode for file in (root / "etc").rglob("*")} == modes


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_file_modes_do_not_depend_on_the_umask(apply: Command, root: Path, umask: int) -> None:
    """A file that may hold a secret is closed to others; the daemon's user can read it."""
    previous = os.umask(umask)
    try:
        apply(OLD | {"server": server(bgp={"password": "secret"})})
    finally:
        os.umask(previous)
    for path in etc_files(root).keys() - {OPERATOR}:
        mode = (root / path).stat().st_mode & 0o777
        part = path.split("/")[1]
        assert mode == {"netplan": 0o600, "frr": 0o640}.get(part, 0o644), path
    for folder in (root / "etc/systemd").rglob("*.d"):
        assert folder.stat().st_mode & 0o777 == 0o755
    assert not (root / record.PAYLOAD).stat().st_mode & 0o077
    assert not (root / record.RECORD).stat().st_mode & 0o077


def test_repairs_files_that_someone_changed(apply: Command, root: Path) -> None:
    """An edited or removed file of ours is written again, although the payload is the same."""
    apply(OLD)
    before = etc_files(root)
    with (root / NETPLAN).open("a") as file:
        file.write("# edited\n")
    (root / FRR).unlink()
    assert sorted(apply(OLD).out.splitlines()) == [f"/{FRR}", f"/{NETPLAN}"]
    assert etc_files(root) == before


def test_changing_the_backend_removes_the_files_of_the_old_one(apply: Command, root: Path) -> None:
    """Files of ifupdown2 replace those of netplan."""
    apply(OLD)
    apply(OLD, "-b", "ifupdown")
    paths = etc_files(root).keys()
    assert "etc/network/interfaces.d/evpn-host" in paths
    assert not [path for path in paths if "systemd" in path or path == NETPLAN]


# --- diff and status ---


def test_diff_shows_what_apply_would_do(
    evpn_host: Command, apply: Command, root: Path, tmp_path: Path
) -> None:
    """The exit code is 1 before an apply, 0 with no output after it, and 2 after a failure."""

    def diff(document: Json) -> Result:
        return evpn_host("diff", "--root", root, "-p", payload_file(tmp_path, document))

    first = diff(OLD)
    assert first.code == 1
    assert "--- /dev/null\n+++ b/etc/netplan/60-evpn-host.yaml\n" in first.out
    assert etc_files(root).keys() == {OPERATOR}
    apply(OLD)
    assert diff(OLD) == Result(0, "", "")
    changed = diff(NEW)
    assert changed.code == 1
    assert "+      mtu: 1400" in changed.out.splitlines()
    assert {"- device nbr-31 (bridge)", "- device vxlan31 (vxlan)"} <= set(changed.out.splitlines())
    failure = diff(NEW | {"kind": "Nonsense"})
    assert (failure.code, failure.out) == (2, "")


def test_diff_begins_with_a_summary(
    evpn_host: Command, apply: Command, root: Path, tmp_path: Path
) -> None:
    """V-Nets, sessions and the like, then a total; `--stat` and `--json` end there."""
    apply(OLD)
    source = payload_file(tmp_path, NEW)
    lines = [
        "~ V-Net vnet-26: MTU 1500 → 1400",
        "- V-Net vnet-31 (VNI 31, 10.31.0.1/24, fd00:31::1/64, VPC coke)",
        "+ V-Net vnet-32 (VNI 32, 10.32.0.1/24, fd00:32::1/64, VPC coke)",
    ]
    argv = ["diff", "--root", root, "-p", source]
    whole = evpn_host(*argv).out.splitlines()
    assert whole[:4] == [*lines, "1 added, 1 changed, 1 removed"]
    assert evpn_host(*argv, "--stat").out.splitlines() == whole[:4]
    shown = json.loads(evpn_host(*argv, "--json").out)
    assert shown["summary"] == lines
    assert {"path": f"/{NETPLAN}", "change": "changed"} in shown["files"]
    assert shown["removed_devices"] == ["nbr-31", "vxlan31"]


def test_diff_shows_no_password(
    evpn_host: Command, apply: Command, root: Path, tmp_path: Path
) -> None:
    """A diff shows neither the old nor the new password of a session."""
    apply(OLD | {"server": server(bgp={"password": "older-secret"})})
    new = OLD | {"server": server(bgp={"password": "newer-secret", "bfd": True})}
    result = evpn_host("diff", "--root", root, "-p", payload_file(tmp_path, new))
    assert result.code == 1
    assert " bfd" in result.out
    assert "secret" not in result.out + result.err


def test_status_names_changed_files(evpn_host: Command, apply: Command, root: Path) -> None:
    """status names each file that is not as apply wrote it, in words and as JSON."""
    nothing = evpn_host("status", "--root", root)
    assert nothing.out == "nothing was applied yet\n"
    apply(OLD)
    (root / FRR).unlink()
    (root / NETPLAN).write_text("")
    result = evpn_host("status", "--root", root, "--json")
    assert result.code == 1
    shown = json.loads(result.out)
    assert shown["host"] == "K8S01"
    assert shown["devices"] == {"bridge": 4, "vxlan": 4, "vrf": 1}
    assert {f"/{FRR}: is gone", f"/{NETPLAN}: was changed by someone else"} <= set(
        shown["differences"]
    )
    assert f"differs: /{FRR}: is gone" in evpn_host("status", "--root", root).out


# --- Backends ---


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"etc/netplan/01.yaml": "", "etc/network/interfaces": ""}, NETPLAN),
        ({"etc/network/interfaces": "source /etc/network/interfaces.d/*\n"}, "interfaces.d"),
        # ifupdown2 3.0 reads none of these.
        ({"etc/network/interfaces": "source-directory /etc/network/interfaces.d\n"}, "not source"),
        ({"etc/network/interfaces": "source interfaces.d/*\n"}, "does not source"),
        ({"etc/network/interfaces": "source /etc/network/interfaces.d\n"}, "does not source"),
        ({"etc/network/interfaces": "source /etc/network/interfaces.d/*.cfg\n"}, "not source"),
        ({"etc/network/interfaces": "auto lo\n"}, "does not source /etc/network/interfaces.d"),
        ({"etc/network/interfaces": "# source /etc/network/interfaces.d/*\n"}, "does not source"),
        ({}, "neither netplan nor ifupdown2"),
        ({NETPLAN: ""}, "neither netplan nor ifupdown2"),
    ],
)
def test_chooses_the_backend_in_use(
    evpn_host: Command, tmp_path: Path, texts: dict[str, str], expected: str
) -> None:
    """apply takes the backend that the tree uses, and says so where it can't use one."""
    root = tmp_path / "other"
    for path, text in texts.items():
        files.write(root, path, text.encode(), 0o644)
    result = evpn_host("apply", "--root", root, "-p", payload_file(tmp_path, OLD))
    assert expected in result.out + result.err
    assert result.code == (0 if result.out else 1)
    if result.code:
        assert record.read(root) is None


def test_an_uplink_under_another_id(apply: Command, root: Path) -> None:
    """Our part of the uplink is a drop-in of the file that netplan generates for the operator."""
    (root / OPERATOR).write_text(
        "network: {ethernets: {lan: {match: {macaddress: '02:00:00:00:00:01'}, set-name: ens4}}}\n"
    )
    assert apply(OLD).code == 0
    drop_ins = {path for path in etc_files(root) if "network/10-netplan-" in path}
    assert "etc/systemd/network/10-netplan-lan.network.d/evpn-host.conf" in drop_ins
    assert "etc/systemd/network/10-netplan-ens4.network.d/evpn-host.conf" not in drop_ins
    assert "ens4" not in (root / NETPLAN).read_text()


@pytest.mark.parametrize(
    ("above", "beside", "message"),
    [
        ("iface ens4 inet dhcp", "", ""),
        ("", "iface ens4 inet dhcp", ""),  # ifupdown2 reads this file before ours
        ("iface ens6 inet dhcp", "", ""),  # not an uplink
        ("", "", "interfaces: iface ens4 inet dhcp"),
    ],
)
def test_refuses_an_uplinks_dhcp_client_below_our_file(
    evpn_host: Command, tmp_path: Path, above: str, beside: str, message: str
) -> None:
    """ifupdown2 takes the method of the first stanza, so it would ignore one after ours."""
    root, folder = tmp_path / "other", "etc/network/interfaces.d"
    below = "iface ens4 inet dhcp" if message else "iface ens6 inet dhcp"
    text = f"{above}\nsource /etc/network/interfaces.d/*\n  {below}\n"
    files.write(root, "etc/network/interfaces", text.encode(), 0o644)
    files.write(root, f"{folder}/50-cloud-init", f"{beside}\n".encode(), 0o644)
    result = evpn_host("apply", "--root", root, "-p", payload_file(tmp_path, OLD))
    assert result.code == (1 if message else 0)
    assert message in result.err
    assert (root / f"{folder}/evpn-host").exists() == (not message)
    if message:
        assert "put it above the line that sources" in result.err


# --- Failures ---


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"{}", b'{"format": 1', b"[" * 100000])
def test_refuses_an_unreadable_record_but_with_full(
    apply: Command, root: Path, content: bytes
) -> None:
    """The message names --full, and --full then works."""
    apply(OLD)
    before = etc_files(root)
    (root / record.RECORD).write_bytes(content)
    refused = apply(OLD)
    assert refused.code == 1
    assert "record.json: can't be read" in refused.err
    assert "--full" in refused.err
    assert apply(OLD, "--full").code == 0
    assert etc_files(root) == before
    assert apply(OLD) == Result(0, "", "")


def child(run: Callable[[], None]) -> int:
    """Run a function in a fork of this process; return its exit code, negative for a signal."""
    pid = os.fork()
    if not pid:
        code = 70
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            run()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(step: int, root: Path) -> None:
    """Kill this process just before its change number `step` to a file of the tree.

    Files of a tree are opened relative to their folder, all others by an absolute path.
    """
    count = 0
    changing = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}

    def count_change() -> None:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" and event not in changing:
            return
        path = str(arguments[0])
        inside = not path.startswith("/") or path.startswith((f"{root}/etc", f"{root}/var"))
        if inside and (event != "open" or int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR)):
            count_change()

    fsync = os.fsync

    def sync(descriptor: Any) -> None:
        count_change()
        fsync(descriptor)

    setattr(os, "fsync", sync)  # noqa: B010  # the child dies anyway
    sys.addaudithook(audit)


def strays(root: Path) -> list[str]:
    """Return the temporary files and folders that a run left behind."""
    return [str(f) for f in root.rglob("*") if f.name.startswith((".", STAGE))]


def test_killed_anywhere(
    apply: Command, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed at any write leaves each file whole, old or new.

    The next run ends as an undisturbed one would, and no temporary file is left.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a killed run leaves its stage there
    (root / FRR).parent.mkdir(parents=True)
    (root / FRR).write_text("hostname mine\n")
    apply(OLD)
    start, old = tmp_path / "start", etc_files(root)
    shutil.copytree(root, start)
    apply(NEW)
    new, copy = etc_files(root), (root / record.KEPT / FRR).read_bytes()

    sys.argv = ["evpn-host", "apply", "--root", str(root), "-p", str(payload_file(tmp_path, NEW))]
    step = 0
    while True:
        step += 1
        shutil.rmtree(root)
        shutil.copytree(start, root)

        def apply_and_die(step: int = step) -> None:
            die_at(step, root)
            main()

        code = child(apply_and_die)
        current = etc_files(root)
        for path in old.keys() | new.keys():
            assert current.get(path) in (old.get(path), new.get(path)), (step, path)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert apply(NEW).code == 0
        assert etc_files(root) == new, step
        assert (root / record.KEPT / FRR).read_bytes() == copy
        assert recorded(root)["target"]["generation"] == 2
        assert strays(root) == [], step
        assert apply(NEW).out == ""
    assert step > 40


@pytest.mark.parametrize("limit", [0, 100, 300, 500, 1000, 2000, 4000])
def test_a_file_that_can_not_be_written_keeps_the_old_files(
    apply: Command, root: Path, tmp_path: Path, limit: int
) -> None:
    """When a file can't have more than so many bytes, apply says so and the old files stay."""
    apply(OLD)
    old = etc_files(root)
    source = payload_file(tmp_path, NEW)
    result = subprocess.run(
        [sys.executable, "-m", "generator", "apply", "--root", str(root), "-p", str(source)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert result.returncode in (1, 3), result.stderr
    assert re.search("File too large|No usable temporary directory", result.stderr)
    assert "Traceback" not in result.stderr
    assert etc_files(root) == old
    assert apply(NEW).code == 0
    assert strays(root) == []


@pytest.fixture
def small_disk(root: Path, root_user: None) -> Iterator[Path]:
    """Put the tree on a small file system of its own."""
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


def test_full_disk_keeps_the_old_files(apply: Command, small_disk: Path) -> None:
    """A disk is full, or becomes full at any write: apply says so, and the old files stay."""
    root = small_disk
    apply(OLD)
    old = etc_files(root)
    filler = root / "filler"
    free, codes = 0, set()
    while 0 not in codes:
        info = os.statvfs(root)
        filler.write_bytes(bytes(info.f_bsize * max(0, info.f_bavail - free)))
        result = apply(NEW)
        filler.unlink()
        codes.add(result.code)
        if result.code:
            assert result.code in (1, 3), result.err
            assert "No space left on device" in result.err
            assert etc_files(root) == old
        free += 1
    assert codes & {1, 3}
    assert strays(root) == []


def wait_until_open(pid: int, path: Path) -> None:
    """Wait until a process has opened a file; a minute is enough on a busy machine."""
    end = time.monotonic() + 60
    while not _has_open(pid, path):
        assert time.monotonic() < end, f"{path} was not opened"
        time.sleep(0.02)


def _has_open(pid: int, path: Path) -> bool:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            if descriptor.readlink() == path:
                return True
    return False


def test_a_document_is_checked_outside_the_lock(apply: Command, root: Path) -> None:
    """Nobody waits for a run that works on a large or hostile document."""
    run = root / "run/evpn-host"
    run.mkdir(parents=True)
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = apply(host(vnet(70_000_000, ports=PORTS)))
    assert result.code == 1
    assert "vxlanID: 70000000" in result.err


def test_second_run_waits_for_the_lock(root: Path, tmp_path: Path) -> None:
    """The second run does its own work when the first run has ended."""
    run = root / "run/evpn-host"
    run.mkdir(parents=True)
    argv = [sys.executable, "-m", "generator", "apply", "--root", str(root), "-p"]
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [*argv, str(payload_file(tmp_path, OLD))], stderr=subprocess.DEVNULL
        )
        wait_until_open(waiting.pid, run / "lock")
        time.sleep(1)  # a run that does not wait would write meanwhile
        assert waiting.poll() is None
        assert etc_files(root).keys() == {OPERATOR}
    assert waiting.wait(120) == 0
    assert FRR in etc_files(root)


def test_a_run_that_waited_for_an_uninstall_changes_nothing(root: Path, tmp_path: Path) -> None:
    """It does not undo the uninstall, and leaves no folder behind."""
    run, state = root / "run/evpn-host", root / "var/lib/evpn-host"
    run.mkdir(parents=True)
    argv = [sys.executable, "-m", "generator", "apply", "--root", str(root), "-p"]
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [*argv, str(payload_file(tmp_path, OLD))], stderr=subprocess.PIPE, text=True
        )
        wait_until_open(waiting.pid, run / "lock")
        assert waiting.poll() is None
        for folder in (run, state):
            shutil.rmtree(folder)
    _, error = waiting.communicate(timeout=120)
    assert waiting.returncode == 1
    assert "was uninstalled while this run waited" in error
    assert etc_files(root).keys() == {OPERATOR}
    assert not run.exists()
    assert not state.exists()


def test_a_payload_without_vnets_removes_all_device_files(apply: Command, root: Path) -> None:
    """No file of a device is left, and frr.conf has no VRF."""
    apply(OLD)
    apply(host(generation=2, vpcs=[vpc(26)]))
    assert not [path for path in etc_files(root) if "nbr-2" in path or "Vrf_" in path]
    assert "vrf " not in (root / FRR).read_text()


POLICY = "etc/network/ifupdown2/policy.d/operator.json"


@pytest.mark.parametrize(
    ("policy", "vpc_id", "allowed"),
    [
        (None, 4000, True),
        (None, 4001, False),
        ('{"vrf": {"module_globals": {"vrf-table-id-end": 70000}}}', 69000, True),
        ('{"vrf": {"module_globals": {"vrf-table-id-end": 70000}}}', 69001, False),
        ('{"vrf": {"module_globals": {"vrf-table-id-start": 2000}}}', 4000, True),
        ('{"vrf": {"module_globals": {"vrf-table-id-start": 2000}}}', 999, False),
        ('{"bridge": {"defaults": {}}, "vrf": {"defaults": {}}}', 4001, False),
        ("{", 4001, False),
    ],
)
def test_refuses_a_vrf_that_ifupdown2_does_not_make(
    evpn_host: Command, tmp_path: Path, policy: str | None, vpc_id: int, allowed: bool
) -> None:
    """ifupdown2 fails on a table outside of its policy's range; netplan has no such range."""
    if policy:
        (tmp_path / POLICY).parent.mkdir(parents=True)
        (tmp_path / POLICY).write_text(policy)
    segment = vnet(26, vpc_id, prefixes=["10.26.0.1/24"], ports=tagged(LEAF1, LEAF2))
    payload = tmp_path / "payload.json"
    payload.write_bytes(encoded(host(segment, vpcs=[vpc(26), vpc(vpc_id)])))
    for verb in ("diff", "apply"):
        argv = [verb, "-p", payload, "--root", tmp_path]
        result = evpn_host(*argv, "-b", "ifupdown")
        expected = {("diff", True): 1, ("diff", False): 2, ("apply", True): 0, ("apply", False): 1}
        assert result.code == expected[verb, allowed], result.err
        refused = f"evpn-host: VPC {vpc_id}: VRF table {1000 + vpc_id} is not in "
        assert (refused in result.err) is not allowed
    assert evpn_host("diff", "-p", payload, "--root", tmp_path, "-b", "netplan").code == 1
