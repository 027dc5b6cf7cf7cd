"""Files that evpn-host writes or copies survive a power cut, with their modes."""

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from generator.state import files
from tests.conftest import in_namespace, unavailable

Events = list[tuple[str, str]]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """Record what is flushed to the disk (`sync`), renamed and removed, in order."""
    recorded: Events = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def record_fsync(descriptor: int) -> None:
        recorded.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def record_replace(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        recorded.append(("rename", target))
        replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def record_unlink(name: str, *, dir_fd: int | None = None) -> None:
        unlink(name, dir_fd=dir_fd)
        recorded.append(("remove", name))

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    monkeypatch.setattr(os, "unlink", record_unlink)
    return recorded


def test_a_file_is_on_the_disk_before_its_name(events: Events, tmp_path: Path) -> None:
    """The content is flushed, then the file gets its name, then the folder is flushed."""
    files.write(tmp_path, "folder/file", b"new", 0o644)
    assert events[-3:] == [("sync", ".file.new"), ("rename", "file"), ("sync", "folder")]
    assert ("sync", tmp_path.name) in events  # the folder is new, and has its own entry


def test_a_copy_is_on_the_disk_before_its_name(events: Events, tmp_path: Path) -> None:
    """The same holds for copies of an operator's files."""
    (tmp_path / "file").write_bytes(b"mine")
    files.copy(tmp_path, "file", "kept/file")
    assert events[-3:] == [("sync", ".file.new"), ("rename", "file"), ("sync", "kept")]
    assert (tmp_path / "kept/file").read_bytes() == b"mine"


def test_a_removal_is_flushed_to_the_disk(events: Events, tmp_path: Path) -> None:
    """The folder is flushed after a removal."""
    (tmp_path / "file").touch()
    files.remove(tmp_path, "file")
    assert events == [("remove", "file"), ("sync", tmp_path.name)]
    files.remove(tmp_path, "file")  # a missing one is no error


def test_a_copy_is_like_its_original(tmp_path: Path) -> None:
    """A copy has the mode and the times; a symbolic link stays a link."""
    source, link = tmp_path / "file", tmp_path / "link"
    source.write_bytes(b"mine")
    source.chmod(0o4601)
    os.utime(source, ns=(10**18, 10**18))
    link.symlink_to("nowhere")
    files.copy(tmp_path, "file", "kept/file")
    files.copy(tmp_path, "link", "kept/link")
    status = (tmp_path / "kept/file").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o4601, 10**18)
    assert (tmp_path / "kept/link").readlink() == Path("nowhere")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_folders_have_a_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """networkd reads our folders as a user of its own."""
    before = os.umask(umask)
    try:
        files.write(tmp_path, "a/b/file", b"", 0o644)
        files.copy(tmp_path, "a/b/file", "c/file")
    finally:
        os.umask(before)
    for folder in ("a", "a/b", "c"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o755


def _write(folder: Path) -> None:
    files.write(folder, "file", b"new", 0o644)


def _copy(folder: Path) -> None:
    (folder / "source").write_bytes(b"new")
    files.copy(folder, "source", "file")


@pytest.mark.parametrize("change", [_write, _copy])
def test_a_full_disk_leaves_the_old_file(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk is full, the old file stays and the unfinished new one is removed."""
    (tmp_path / "file").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        change(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))


def test_a_file_that_nobody_can_change(root_user: None, tmp_path: Path) -> None:
    """A file can't be changed if it has the attribute i, or if its folder has it."""
    del root_user
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/file").touch()
    assert files.unwritable(tmp_path, "etc/file") == ""
    assert files.unwritable(tmp_path, "etc/folder/file") == ""
    for name in ("etc/file", "etc"):
        descriptor = os.open(tmp_path / name, os.O_RDONLY)
        try:
            flags = fcntl.ioctl(descriptor, 0x80086601, bytes(8))
            immutable = int.from_bytes(flags, sys.byteorder) | 0x10
            fcntl.ioctl(descriptor, 0x40086602, immutable.to_bytes(8, sys.byteorder))
        except OSError:
            unavailable("the file system of temporary folders has no attribute i")
        try:
            assert "attribute i" in files.unwritable(tmp_path, "etc/file")
            assert bool(files.unwritable(tmp_path, "etc/folder/file")) == (name == "etc")
        finally:
            fcntl.ioctl(descriptor, 0x40086602, flags)
            os.close(descriptor)


READ_ONLY = """
import subprocess, sys
from pathlib import Path
from generator.state import files
root = Path(sys.argv[1])
print(files.unwritable(root, "etc/file"))
subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", root / "etc"], check=True)
print(files.unwritable(root, "etc/file"))
"""


def test_a_read_only_file_system(root_user: None, tmp_path: Path) -> None:
    """A file on a read-only file system can't be written, one elsewhere can."""
    del root_user
    (tmp_path / "etc").mkdir()
    printed = in_namespace("--mount", sys.executable, "-c", READ_ONLY, str(tmp_path))
    assert printed.splitlines() == ["", "is on a read-only file system"]
