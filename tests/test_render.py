"""`render` makes a folder exactly what the payload says, and leaves files of others alone."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from generator.desired import payload
from generator.desired.model import Host
from generator.desired.payload.derive import derive
from generator.desired.payload.document import Server
from generator.errors import Refused
from generator.verbs import workers
from lab.result import Result
from tests.conftest import REPO
from tests.strategies import encoded, fleet, host, link, mgmt, server, tagged, untagged, vnet

Command = Callable[..., Result]
Json = dict[str, Any]

NETPLAN, FRR = "etc/netplan/60-evpn-host.yaml", "etc/frr/frr.conf"
DROP_IN = "etc/systemd/network/10-netplan-vxlan{}.network.d/evpn-host.conf"
LINE = "# Written by evpn-host; edits are lost.\n"


def a_fleet(*numbers: int, members: Sequence[int] = (), **fields: Any) -> Json:
    """Return a Fleet of these hosts, some of them members of the V-Net 26."""
    hosts = [
        {
            "server": server(
                name=f"srv{number}",
                asn=4200000000 + number,
                mainAddress=f"10.2.0.{number}",
                mgmt=mgmt(ipv4=f"10.12.1.{number}/16"),
            ),
            "links": [link("ens4", f"swp{number}@leaf1")],
        }
        for number in numbers
    ]
    ports = untagged(*(f"swp{number}@leaf1" for number in numbers))
    tenant = vnet(
        26,
        prefixes=["10.26.0.1/24"],
        ports=tagged(*(f"swp{number}@leaf1" for number in members)),
    )
    management = vnet(14, 26, name="Management", ports=ports)
    return fleet(*hosts, **({"vnets": [management, tenant]} | fields))


@pytest.fixture
def render(evpn_host: Command, tmp_path: Path) -> Command:
    """Render a document into `tmp_path/out`."""

    def run(document: Json, *options: object) -> Result:
        source = tmp_path / "payload.json"
        source.write_bytes(encoded(document))
        return evpn_host("render", "-p", source, "-o", tmp_path / "out", *options)

    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the time and the inode of each file, by its path."""
    return {
        str(file.relative_to(folder)): (file.lstat().st_mtime_ns, file.lstat().st_ino)
        for file in sorted(folder.rglob("*"))
        if not file.is_dir() or file.is_symlink()
    }


def last(result: Result) -> str:
    return str(result.out.splitlines()[-1])


# --- Exactly what the payload says ---


def test_counts_and_names_what_changed(render: Command, out: Path) -> None:
    """Each changed host is a line; the last line counts hosts and files."""
    first = render(a_fleet(1, 2, 3))
    assert first.out.splitlines()[:-1] == ["+ srv1", "+ srv2", "+ srv3"]
    count = len(stamps(out))
    assert last(first) == (
        "hosts: 3 new, 0 changed, 0 removed, 0 the same; "
        f"files: {count} new, 0 changed, 0 removed, 0 the same"
    )
    again = render(a_fleet(2, 3, 4, members=[3]))
    assert again.out.splitlines()[:-1] == ["- srv1", "~ srv3", "+ srv4"]
    assert last(again).startswith("hosts: 1 new, 1 changed, 1 removed, 1 the same; files: ")
    assert sorted(each.name for each in out.iterdir()) == ["srv2", "srv3", "srv4"]
    assert again.err == ""


def test_json_has_hosts_and_counts(render: Command) -> None:
    """`--json` has the names of the hosts, and the counts of the files."""
    bare_metal = {"server": {"name": "gpu1", "srvRole": "generic"}}
    document = a_fleet(1, 2)
    document["hosts"].append(bare_metal)
    render(a_fleet(2, 3))
    result = json.loads(render(document, "--json").out)
    hosts = {"new": ["srv1"], "changed": [], "removed": ["srv3"], "same": ["srv2"]}
    assert result["hosts"] == hosts
    assert result["files"]["new"] == result["files"]["removed"] == result["files"]["same"] > 5
    assert result["left_out"] == ["gpu1"]


def test_the_same_is_not_written(render: Command, out: Path) -> None:
    """The same payload, or one with a higher generation, writes nothing."""
    render(a_fleet(1, 2, members=[1]))
    before = stamps(out)
    assert " 2 the same; files: 0 new, 0 changed, 0 removed" in last(
        render(a_fleet(1, 2, members=[1]))
    )
    assert render(a_fleet(1, 2, members=[1], generation=9)).out.count("\n") == 1
    assert stamps(out) == before


def test_a_change_of_one_host_touches_no_other(render: Command, out: Path) -> None:
    """A new V-Net on one host changes some files of that host, and no other file."""
    render(a_fleet(1, 2))
    before = stamps(out)
    result = render(a_fleet(1, 2, members=[2], generation=2))
    after = stamps(out)
    assert result.out.splitlines()[0] == "~ srv2"
    changed = {path for path in after if after[path] != before.get(path)}
    assert f"srv2/{FRR}" in changed
    assert f"srv2/{DROP_IN.format(26)}" in changed
    assert {path.partition("/")[0] for path in changed} == {"srv2"}
    assert before.keys() & after.keys() - changed


def test_files_and_folders_of_a_vnet_that_is_gone_go(render: Command, out: Path) -> None:
    """The files of a removed V-Net go, and the folder in which its drop-in was alone."""
    render(a_fleet(1, members=[1]))
    assert (out / "srv1" / DROP_IN.format(26)).exists()
    render(a_fleet(1))
    assert not (out / "srv1" / DROP_IN.format(26)).parent.exists()
    assert (out / "srv1" / DROP_IN.format(14)).exists()


def test_the_other_backends_files_go(render: Command, out: Path) -> None:
    """The other backend's files go: the folder is like a new one."""
    render(a_fleet(1), "-b", "netplan")
    render(a_fleet(1), "-b", "ifupdown")
    files = stamps(out).keys()
    render(a_fleet(1), "-b", "ifupdown", "-o", out.with_name("new"))
    assert files == stamps(out.with_name("new")).keys()
    assert not (out / "srv1/etc/netplan").exists()


def test_a_fleet_a_host_and_one_of_a_fleet(render: Command, out: Path) -> None:
    """A Host's files replace a Fleet's, and the other way; -H leaves other hosts alone."""
    render(a_fleet(1, 2))
    two = stamps(out / "srv2")
    result = render(a_fleet(1, 2), "-H", "SRV1")
    assert result.out.splitlines()[0] == "+ srv1"
    assert stamps(out / "srv2") == two
    assert (out / FRR).read_bytes() == (out / "srv1" / FRR).read_bytes()
    assert ", 2 the same; " in last(render(a_fleet(1, 2)))
    assert not (out / "etc").exists()
    result = render(host())
    assert result.out.splitlines()[:-1] == ["+ K8S01", "- srv1", "- srv2"]
    assert [each.name for each in out.iterdir()] == ["etc"]


def test_files_of_older_versions_are_ours(render: Command, out: Path) -> None:
    """Files whose first line names a generation are ours: they are updated, or go."""
    render(a_fleet(1, 2))
    for file in out.rglob("*.conf"):
        mark, _, body = file.read_text().partition(" Written by evpn-host;")
        file.write_text(f"{mark} Written by evpn-host from payload generation 7;{body}")
    assert render(a_fleet(1)).out.splitlines()[:-1] == ["~ srv1", "- srv2"]
    assert [each.name for each in out.iterdir()] == ["srv1"]
    assert not any("generation" in file.read_text() for file in out.rglob("*.conf"))


def test_modes_are_repaired_without_writing(render: Command, out: Path) -> None:
    """Modes are repaired without a write: a checkout of Git has files that all can read."""
    render(a_fleet(1, members=[1]))
    before = stamps(out)
    modes = {path: (out / path).stat().st_mode for path in before}
    for path in before:
        (out / path).chmod(0o666)
    assert "1 the same; files: 0 new, 0 changed, 0 removed" in last(render(a_fleet(1, members=[1])))
    assert stamps(out) == before
    assert {path: (out / path).stat().st_mode for path in before} == modes


# --- What is not ours ---


def test_files_of_others_stay(render: Command, out: Path) -> None:
    """A file is ours only if both its name and its first line are."""
    render(a_fleet(1, 2, members=[1, 2]))
    mine = {
        "README.md": "mine\n",
        "notes/etc/frr/frr.conf": "! mine, in a folder that could be a host's\n",
        "host_vars/etc/frr/frr.conf": LINE,  # the folder's name can't be a host's
        "srv2/etc/netplan/01-operator.yaml": "mine\n",
        "srv2/etc/frr/frr.conf.orig": LINE,  # a copy of ours
        "srv2/etc/frr/daemons": "mine since\n",
        "srv1/etc/frr/frr.conf.local": "! mine\n",
        "etc/frr/frr.conf": "! mine\n",
    }
    for path, text in mine.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text)
    (out / "srv2/empty").mkdir()
    result = render(a_fleet(1))
    assert result.out.splitlines()[:-1] == ["~ srv1", "- srv2"]
    ours = {path for path in stamps(out) if path not in mine}
    assert {path.partition("/")[0] for path in ours} == {"srv1"}
    assert {path: (out / path).read_text() for path in mine} == mine
    assert (out / "srv2/empty").is_dir()
    assert not (out / "srv2/etc/systemd").exists()


def test_no_link_is_followed(render: Command, out: Path, tmp_path: Path) -> None:
    """A link in place of a host's folder is refused; one in place of a file is replaced."""
    render(a_fleet(1, 2, 3))
    elsewhere = (out / "srv1").rename(tmp_path / "elsewhere")
    before = stamps(elsewhere)
    (out / "srv1").symlink_to(elsewhere)
    result = render(a_fleet(1, 2, 3))
    assert result.code == 1
    assert f"{out}/srv1: is a symbolic link, which is not followed" in result.err
    result = render(a_fleet(2, 3))  # the payload has no srv1, and the link is somebody's
    assert result.code == 0
    assert (out / "srv1").is_symlink()
    (out / "srv2" / FRR).unlink()
    (out / "srv2" / FRR).symlink_to(elsewhere / FRR)
    frr = (out / "srv3/etc/frr").rename(tmp_path / "frr")
    (out / "srv3/etc/frr").symlink_to(frr)
    files = stamps(frr)
    assert render(a_fleet(2)).code == 0
    assert not (out / "srv2" / FRR).is_symlink()
    assert (out / "srv3/etc/frr").is_symlink()
    assert (stamps(frr), stamps(elsewhere)) == (files, before)


def test_what_is_no_file_is_replaced_or_named(render: Command, out: Path) -> None:
    """A FIFO in place of a file is replaced; a folder is named."""
    render(a_fleet(1))
    (out / "srv1" / FRR).unlink()
    os.mkfifo(out / "srv1" / FRR)
    assert ", 1 changed, 0 removed, " in last(render(a_fleet(1))).partition("; ")[2]
    assert (out / "srv1" / FRR).is_file()
    (out / "srv1" / FRR).unlink()
    (out / "srv1" / FRR).mkdir()
    result = render(a_fleet(1))
    assert (result.code, result.err) == (1, f"evpn-host: {out}/srv1/{FRR}: Is a directory\n")
    assert not (out / "srv1/etc/frr/.frr.conf.new").exists()


# --- Whole files ---


def test_a_file_is_never_half(render: Command, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the old file is there as it was, and nothing beside it."""
    render(a_fleet(1))
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if b"hostname" in data:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:100])

    monkeypatch.setattr(os, "write", full)
    result = render(a_fleet(1, members=[1]))
    assert result.code == 1
    assert result.err == f"evpn-host: {out}/srv1/{FRR}: No space left on device\n"
    assert (out / "srv1" / FRR).read_bytes() == before[out / "srv1" / FRR]
    assert not list(out.rglob(".*"))
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:100]))
    assert render(a_fleet(1, members=[1])).code == 0
    monkeypatch.undo()
    assert " 1 the same; files: 0 new, 0 changed, 0 removed" in last(
        render(a_fleet(1, members=[1]))
    )


def test_what_a_killed_run_has_left_goes(render: Command, out: Path) -> None:
    """Temporary files of a killed run go; a file of others with such a name stays."""
    render(a_fleet(1, 2))
    halves = [f"srv1/{DROP_IN.format(14)}", f"srv1/{FRR}", f"srv2/{NETPLAN}", f"srv2/{FRR}"]
    for path, text in zip(halves, [LINE, "", LINE, ""], strict=True):
        (out / path).with_name(f".{Path(path).name}.new").write_text(text)
    mine = out / "srv1/etc/netplan/.60-evpn-host.yaml.new"
    mine.write_text("mine\n")
    render(a_fleet(1))
    assert list(out.rglob(".*")) == [mine]
    assert [each.name for each in out.iterdir()] == ["srv1"]


# --- All processors ---


def by_processors(count: int, *argv: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own that believes in so many processors."""
    code = f"import os; os.sched_getaffinity = lambda _: set(range({count}))\n"
    code += "from generator.cli import main; main()"
    words = [sys.executable, "-c", code, *map(str, argv)]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=REPO, timeout=120)


def test_processes_write_the_same_as_one(tmp_path: Path) -> None:
    """The tree and the answer do not depend on the number of processors."""
    source = tmp_path / "fleet.json"
    source.write_bytes(encoded(a_fleet(*range(1, 101), members=range(3, 90))))
    answers = []
    for count in (1, 3):
        out = tmp_path / str(count)
        result = by_processors(count, "render", "-p", source, "-o", out)
        assert result.returncode == 0, result.stderr
        answers.append(
            (result.stdout, {p: (out / p).read_bytes() for p in stamps(out)}),
        )
    assert answers[0] == answers[1]
    assert answers[0][0].startswith("+ srv1\n+ srv10\n+ srv100\n")


def test_a_failure_in_a_process_is_told(tmp_path: Path) -> None:
    """A failure in a process is reported with its place, and no traceback."""
    source, out = tmp_path / "fleet.json", tmp_path / "out"
    source.write_bytes(encoded(a_fleet(*range(1, 61))))
    out.mkdir()
    (out / "srv59").symlink_to(tmp_path)
    result = by_processors(2, "render", "-p", source, "-o", out)
    assert result.returncode == 1
    last = f"evpn-host: {out}/srv59: is a symbolic link, which is not followed"
    assert result.stderr.splitlines()[-1] == last
    assert "Traceback" not in result.stderr


def test_a_killed_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process is reported, without a wait for the others."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    def die(number: int) -> int:
        if number == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(Refused, match=r"a process was killed.*memory"):
        list(workers.spread(die, range(100)))


def test_processes_end_with_the_one_that_forked_them(tmp_path: Path) -> None:
    """A killed `render` leaves nothing that still writes."""
    source, out = tmp_path / "fleet.json", tmp_path / "out"
    source.write_bytes(encoded(a_fleet(*range(1, 61))))
    code = (
        "import os, time; os.sched_getaffinity = lambda _: {0, 1}\n"
        "from generator.state import rendered\n"
        "rendered.write_tree = lambda *_: (print(os.getpid(), flush=True), time.sleep(600))\n"
        "from generator.cli import main; main()"
    )
    argv = [sys.executable, "-c", code, "render", "-p", str(source), "-o", str(out)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=REPO) as process:
        assert process.stdout
        forked = [int(process.stdout.readline()) for _ in range(2)]
        assert process.pid not in forked
        process.kill()
        # The pipe ends when the last process that holds it has ended.
        assert process.stdout.read() == ""


def test_a_host_is_derived_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is derived when it is needed, so memory does not grow with all hosts."""
    derived: list[str] = []

    def watched(server: Server, *others: Any) -> Host:
        derived.append(server.name)
        return derive(server, *others)

    monkeypatch.setattr(payload, "derive", watched)
    loaded = payload.load(encoded(a_fleet(1, 2, 3)))
    assert (loaded.names, derived) == (["srv1", "srv2", "srv3"], [])
    assert loaded.host("SRV2").name == "srv2"
    assert derived == ["srv2"]
