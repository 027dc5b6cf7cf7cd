"""A damaged file of our state, or anything in its place, gives a message, no traceback."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from generator.activation import before
from generator.activation.commands import silent
from generator.controller import source
from generator.desired.comparison import target_of
from generator.desired.payload import load
from generator.desired.target import Target
from generator.errors import Refused
from generator.failover.hook import Hook
from generator.state import placement, record
from lab.result import Result
from tests.conftest import REPO
from tests.folders import etc_files

K8S01 = REPO / "examples/k8s01.json"

Command = Callable[..., Result]


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(content)


def _huge(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate((64 << 20) + 1)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "deep list": (_bytes(b"[" * 100_000), "can't be read"),
    # Where a field of any kind is skipped, and where an object is expected.
    "deep field": (_bytes(b'{"x":' + b"[" * 100_000), "it is nested too deep"),
    "deep objects": (_bytes(b'{"x":' * 100_000), "it is nested too deep"),
    "no UTF-8": (_bytes(b"\xff\xfe{}"), "can't be read"),
    "Latin-1": (_bytes('{"format": 2, "version": "Größe"}'.encode("latin-1")), "can't be read"),
    "cut short": (_bytes(b'{"format": 2, "vers'), "can't be read"),
    "empty": (_bytes(b""), "can't be read"),
    "a list": (_bytes(b"[]"), "can't be read"),
    "a huge number": (_bytes(b'{"format": ' + b"9" * 5000 + b"}"), "can't be read"),
    "huge": (_huge, "is larger than 65536 KiB"),
    "a FIFO": (os.mkfifo, "is not a regular file"),
    "a folder": (Path.mkdir, "can't be read"),
}
OF_A_RECORD = {"Latin-1", "a huge number"}
"""What only a record has a field for: elsewhere the field is unknown and skipped."""


def damage(kind: str, file: Path) -> str:
    """Put something else in a file's place; return a part of the message about it."""
    spoil, message = DAMAGES[kind]
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    spoil(file)
    return message


@pytest.fixture
def applied(evpn_host: Command, tmp_path: Path) -> Path:
    """Return the root of a host on which a payload was applied twice."""
    payload = tmp_path / "payload.json"
    document = json.loads(K8S01.read_text())
    for generation in (1, 2):
        payload.write_text(json.dumps(document | {"generation": generation}))
        result = evpn_host("apply", "-p", payload, "-b", "ifupdown", "--root", tmp_path / "root")
        assert result.code == 0, result.err
    return tmp_path / "root"


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_record_is_refused(kind: str, applied: Path, evpn_host: Command) -> None:
    """Each verb that reads it says so and changes nothing; `apply --full` writes a new one."""
    file = applied / record.RECORD
    message = damage(kind, file)
    before_ = etc_files(applied)
    apply = ["apply", "-p", K8S01, "-b", "ifupdown", "--force"]
    for argv, code in (
        (["status"], 1),
        (["diff", "-p", K8S01, "-b", "ifupdown"], 2),
        (apply, 1),
        (["rollback"], 1),
        (["uninstall"], 1),
        (["guests", "--format", "nad"], 1),
    ):
        result = evpn_host(*argv, "--root", applied)
        assert result.code == code, (argv, result)
        assert f"/{record.RECORD}: " in result.err, argv
        assert message in result.err, argv
        assert "apply --full writes a new one" in result.err, argv
    assert etc_files(applied) == before_
    if kind == "a folder":
        file.rmdir()
    result = evpn_host(*apply, "--full", "--root", applied)
    assert result.code == 0, result.err
    assert evpn_host("status", "--root", applied).err == ""


@pytest.mark.parametrize("kind", sorted(DAMAGES.keys() - OF_A_RECORD))
def test_a_damaged_note_of_before_is_refused(kind: str, applied: Path, evpn_host: Command) -> None:
    """A damaged note of the old state is never overwritten: uninstall needs it."""
    message = damage(kind, applied / before.FILE)
    before_ = etc_files(applied)
    other = applied.parent / "other.json"
    other.write_text(K8S01.read_text().replace("4200000001", "4200000009"))
    apply = ["apply", "-p", other, "-b", "ifupdown", "--force", "--root", applied]
    for argv in (apply, ["uninstall", "--root", applied]):
        result = evpn_host(*argv)
        assert result.code == 1, (argv, result)
        assert f"/{before.FILE}: " in result.err
        assert message in result.err
    assert etc_files(applied) == before_
    remove = shutil.rmtree if kind == "a folder" else os.unlink
    remove(applied / before.FILE)
    assert evpn_host("uninstall", "--root", applied).code == 0


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_generation_is_not_kept(kind: str, applied: Path, evpn_host: Command) -> None:
    """rollback does not count a damaged generation, and lists the good ones."""
    damage(kind, applied / record.GENERATIONS / "1/record.json")
    result = evpn_host("rollback", "1", "--root", applied)
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "is no entry of the history" in result.err


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_memory_is_none(kind: str, tmp_path: Path) -> None:
    """Without its memory the hook looks anew, and the controller is asked without an ETag."""
    damage(kind, tmp_path / placement.FILE)
    damage(kind, tmp_path / record.ORIGIN)
    assert placement.read(tmp_path) in (None, placement.Placement())
    assert Hook(tmp_path, silent).placement == placement.Placement()
    assert source._origin(tmp_path) is None


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_hook_goes_on_after_a_damaged_record(kind: str, tmp_path: Path) -> None:
    """The hook names a damaged record, and tries again."""
    damage(kind, tmp_path / record.RECORD)
    with pytest.raises(Refused, match=r"record\.json"):
        Hook(tmp_path, silent).settle()


def test_a_target_comes_back_as_it_was(accepted: Path) -> None:
    """A target of any payload comes back from a record unchanged."""
    for host in load(accepted.read_bytes()).hosts:
        target = target_of(host)
        assert msgspec.json.decode(msgspec.json.encode(target), type=Target) == target
