"""`--root` and `-o` are a wall: nothing outside of the folder is read, written or removed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from generator.state import files, tree
from tests.strategies import LEAF1, encoded, host, tagged, vnet
from tests.test_apply import Command

OUTSIDE = "not yours\n"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a folder outside of every root, with a file in a folder in it."""
    folder = tmp_path / "victim"
    (folder / "precious").mkdir(parents=True)
    for name in ("frr.conf", "precious/file", "lock", "config.yaml"):
        (folder / name).write_text(OUTSIDE)
        (folder / name).chmod(0o604)
    return folder


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the mode and text of each file below a folder."""
    return {
        str(file.relative_to(folder)): (file.stat().st_mode, file.read_text())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


OPERATIONS: list[Callable[[Path], object]] = [
    lambda root: files.write(root, "link/new", b"", 0o777),
    lambda root: files.write(root, "link/below/new", b"", 0o777),
    lambda root: files.write_plain(root, "link/frr.conf", b"", 0o777),
    lambda root: files.copy(root, "own", "link/frr.conf"),
    lambda root: files.copy(root, "link/frr.conf", "copy"),
    lambda root: files.remove(root, "link/frr.conf"),
    lambda root: files.remove_tree(root, "link/precious"),
    lambda root: files.make_folder(root, "link/new"),
    lambda root: files.set_mode(root, "link", 0o777),
    lambda root: files.rename(root, "link/frr.conf", "other"),
    lambda root: files.read(root, "link/frr.conf"),
    lambda root: files.read(root, "file"),
    lambda root: tree.status(root, "link/frr.conf"),
    lambda root: tree.names(root, "link"),
    lambda root: tree.find(root, "*/*.conf"),
    lambda root: files.remove(root, "../victim/frr.conf"),
    lambda root: files.read(root, "a/../../victim/frr.conf"),
]


@pytest.mark.parametrize("operation", range(len(OPERATIONS)))
def test_no_link_and_no_dots_lead_out(operation: int, victim: Path, tmp_path: Path) -> None:
    """Each way to reach a file refuses a folder that is a link, and a path with `..`."""
    root, before = tmp_path / "root", contents(victim)
    (root / "a").mkdir(parents=True)
    (root / "own").write_text("ours\n")
    (root / "link").symlink_to(victim)
    (root / "file").symlink_to(victim / "frr.conf")
    with pytest.raises(OSError, match=r"is a symbolic link|leads out of the root"):
        OPERATIONS[operation](root)
    assert contents(victim) == before


def test_links_in_a_files_place_are_replaced(victim: Path, tmp_path: Path) -> None:
    """A link in a file's place is replaced, also a hard one, and its target stays."""
    root, before = tmp_path / "root", contents(victim)
    root.mkdir()
    for write in (files.write, files.write_plain):
        for name in ("symbolic", "hard"):
            (root / name).unlink(missing_ok=True)
        (root / "symbolic").symlink_to(victim / "frr.conf")
        (root / "hard").hardlink_to(victim / "frr.conf")
        for name in ("symbolic", "hard"):
            write(root, name, b"ours\n", 0o640)
            assert not (root / name).is_symlink()
            assert (root / name).read_text() == "ours\n"
    assert contents(victim) == before


def test_links_are_followed_on_the_machine_itself(victim: Path, tmp_path: Path) -> None:
    """An operator's own links of `/` are no wall."""
    (tmp_path / "link").symlink_to(victim)
    path = str(tmp_path / "link/frr.conf").lstrip("/")
    assert files.read(Path("/"), path) == OUTSIDE
    assert tree.is_file(Path("/"), path)
    assert tree.names(Path("/"), Path(path).parent) == sorted(os.listdir(victim))  # noqa: PTH208


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_apply_never_waits_for_a_fifo(kind: str, tmp_path: Path) -> None:
    """A FIFO without a writer would keep a reader waiting for ever."""
    place = tmp_path / "file"
    os.mkfifo(place) if kind == "fifo" else place.mkdir()
    with pytest.raises(OSError, match="is not a regular file"):
        files.read(tmp_path, "file")


def test_finds_as_a_shell_does(tmp_path: Path) -> None:
    """`*` stands for part of a name, but not for a dot at its begin."""
    for path in ("a/x.yaml", "a/.hidden.yaml", "a/y.txt", "b/x.d/own", "b/y.d/other"):
        files.write_plain(tmp_path, path, b"", 0o644)
    assert tree.find(tmp_path, "a/*.yaml") == ["a/x.yaml"]
    assert tree.find(tmp_path, "b/*.d/own") == ["b/x.d/own"]
    assert tree.find(tmp_path, "c/*.d/own") == []
    assert list(tree.walk(tmp_path, "b")) == ["b/x.d/own", "b/y.d/other"]


HOST = host(vnet(26, prefixes=["10.26.0.1/24"], ports=tagged(LEAF1)))


def link(root: Path, path: str, target: Path) -> None:
    """Make a link in the place of a file or folder of a tree."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(target)


HOSTILE = [
    "etc",
    "etc/frr",
    "etc/netplan",
    "etc/sysctl.d",
    "etc/systemd",
    "etc/evpn-host",
    "etc/evpn-host/config.yaml",
    "run",
    "run/evpn-host",
    "var",
    "var/lib/evpn-host",
    "var/lib/evpn-host/record.json",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_apply_and_uninstall_stay_below_the_root(
    evpn_host: Command, victim: Path, tmp_path: Path, path: str
) -> None:
    """Neither verb changes what is outside of a tree in which somebody has put a link."""
    root, before = tmp_path / "root", contents(victim)
    source = tmp_path / "payload.json"
    source.write_bytes(encoded(HOST))
    link(root, path, victim / "frr.conf" if "." in Path(path).name else victim)
    netplan = root / "etc/netplan"
    if not path.startswith("etc/netplan") and path != "etc":
        netplan.mkdir(parents=True, exist_ok=True)
        (netplan / "01-operator.yaml").write_text("network: {version: 2}\n")
    for argv in (["apply", "-b", "netplan", "-p", source], ["uninstall"]):
        result = evpn_host(argv[0], "--root", root, *argv[1:])
        assert "Traceback" not in result.err
        assert contents(victim) == before


def test_uninstall_puts_nothing_back_elsewhere(
    evpn_host: Command, victim: Path, tmp_path: Path
) -> None:
    """Neither a kept copy whose folder is a link, nor metrics in a path with `..`, lead out."""
    root, before = tmp_path / "root", contents(victim)
    link(root, "etc/x", victim)
    files.write(root, "var/lib/evpn-host/kept/etc/x/evil", b"* * * * * root id\n", 0o4755)
    path = "/../" * 30 + str(victim / "frr.conf")
    files.write(root, "etc/evpn-host/config.yaml", f"metrics: {path}\n".encode(), 0o600)
    result = evpn_host("uninstall", "--root", root)
    assert result.code == 4
    assert "/etc/x: is a symbolic link" in result.err
    assert contents(victim) == before
    (root / "etc/x").unlink()
    result = evpn_host("uninstall", "--root", root)
    assert "Traceback" not in result.err
    assert contents(victim) == before


FIFOS = ["etc/frr/frr.conf", "etc/frr/frr.conf.local", "etc/netplan/60-evpn-host.yaml"]


@pytest.mark.parametrize("path", [*FIFOS, "etc/netplan/01-x.yaml", "etc/evpn-host/config.yaml"])
def test_apply_waits_for_no_fifo(evpn_host: Command, tmp_path: Path, path: str) -> None:
    """A FIFO in a file's place is refused, or replaced where the file is ours."""
    root = tmp_path / "root"
    (root / path).parent.mkdir(parents=True)
    os.mkfifo(root / path)
    source = tmp_path / "payload.json"
    source.write_bytes(encoded(HOST))
    result = evpn_host("apply", "--root", root, "-b", "netplan", "-p", source)
    assert result.code in (0, 1)
    assert "is not a regular file" in result.err or result.code == 0


def test_render_and_guests_stay_in_their_folder(
    evpn_host: Command, victim: Path, tmp_path: Path
) -> None:
    """`-o` is a wall too: a link in it is refused, one in a file's place is replaced."""
    before = contents(victim)
    source, output = tmp_path / "payload.json", tmp_path / "output"
    source.write_bytes(encoded(HOST))
    link(output, "etc/frr", victim)
    result = evpn_host("render", "-p", source, "-o", output, "-b", "netplan")
    assert result.code == 1
    assert "/etc/frr: is a symbolic link" in result.err
    link(output, "nbr-26.xml", victim / "frr.conf")
    argv = ["--format", "libvirt", "-p", source, "-o", output]
    assert evpn_host("guests", *argv).code == 0
    assert not (output / "nbr-26.xml").is_symlink()
    assert contents(victim) == before
