"""After any failure the host has all of the old state, or all of the new one."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import msgspec
import pytest

from generator.activation import before, commands, converge
from generator.activation.commands import Step
from generator.errors import ActivationFailed, Interrupted, Stranded
from generator.failover import hook
from generator.state import files, generations, record
from generator.verbs import apply as verb
from generator.verbs.options import Options
from generator.verbs.rollback import rollback
from generator.verbs.uninstall import uninstall
from tests.folders import apply, etc_files
from tests.strategies import LEAF1, LEAF2, encoded, host, mgmt, server, tagged, vnet

PORTS = tagged(LEAF1, LEAF2)
OLD = host(vnet(26, prefixes=["10.26.0.1/24"], ports=PORTS))
NEW = host(vnet(27, prefixes=["10.27.0.1/24"], ports=PORTS), generation=2)


@pytest.fixture
def options(folder_as_host: Path) -> Options:
    """Return options for a host that is a folder."""
    return Options(root=folder_as_host, backend="netplan")


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device", "/run/systemd/network/10-netplan-x.network")


def _stopped(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def _fault(*_: object) -> None:
    raise KeyError("x")


@pytest.mark.parametrize("trouble", [_full_disk, _stopped, _fault])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_failure_goes_back(
    options: Options, monkeypatch: pytest.MonkeyPatch, trouble: Callable[..., None], first: bool
) -> None:
    """A full disk, SIGTERM, a fault of ours: the files are as before, exit code 3."""
    if not first:
        apply(OLD, options)
    expected = etc_files(options.root)
    steps = iter([trouble])
    monkeypatch.setattr(converge, "converge", lambda *_: next(steps, lambda *_: [])() or [])
    with pytest.raises(ActivationFailed, match=r"No space left|stopped by SIGTERM|a fault"):
        apply(NEW, options)
    assert etc_files(options.root) == expected
    previous = record.read(options.root)
    assert (previous is None) == first
    assert previous is None or previous.target.generation == 1


def test_a_file_that_can_not_be_written(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as before, and so going back has nothing to write there: exit code 3, not 4."""
    apply(OLD, options)
    expected = etc_files(options.root)
    write = files.write

    def fail(root: Path, path: PurePath | str, content: bytes, mode: int) -> None:
        if str(path).endswith("90-evpn-host.conf"):
            raise OSError(1, "Operation not permitted", f"/{path}")
        write(root, path, content, mode)

    monkeypatch.setattr(files, "write", fail)
    with pytest.raises(ActivationFailed, match="Operation not permitted") as failed:
        apply(NEW, options)
    assert not isinstance(failed.value, Stranded)
    assert etc_files(options.root) == expected


def test_the_hook_reads_what_to_go_back_to(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record has the address that the host should have, also while apply goes back."""
    numbers = ["10.12.0.101/16", "10.12.0.77/16", "10.12.0.101/16", "10.12.0.77/16"]
    documents = [
        OLD | {"generation": number, "server": server(mgmt=mgmt(ipv4=address))}
        for number, address in enumerate(numbers, start=1)
    ]
    operator = options.root / "etc/netplan/50-operator.yaml"  # so that none is forgotten
    operator.parent.mkdir(parents=True, exist_ok=True)
    operator.write_text(f"network: {{ethernets: {{ens4: {{addresses: {numbers[:2]}}}}}}}\n")
    for document in documents[:3]:
        apply(document, options)
    during: list[record.Record | None] = []

    def fail_once(*_: object) -> list[str]:
        during.append(record.read(options.root))
        if len(during) == 1:
            raise ActivationFailed("the gateway does not answer")
        return []

    monkeypatch.setattr(converge, "converge", fail_once)
    with pytest.raises(ActivationFailed, match="the gateway"):
        apply(documents[3], options)
    first, second = (each and each.target.management for each in during)
    assert first
    assert first.ipv4 == numbers[3]
    assert second
    assert second.ipv4 == numbers[2]


def test_says_when_going_back_fails(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4 with both reasons, when the disk is still full as apply goes back."""
    apply(OLD, options)
    monkeypatch.setattr(converge, "converge", _full_disk)
    with pytest.raises(Stranded) as stranded:
        apply(NEW, options)
    assert str(stranded.value).count("No space left on device") == 2
    current = record.read(options.root)
    assert current
    assert not current.ok


@pytest.mark.parametrize("trouble", [_full_disk, _stopped, _fault])
def test_a_rollback_that_fails_ends_where_it_began(
    options: Options, monkeypatch: pytest.MonkeyPatch, trouble: Callable[..., None]
) -> None:
    """The files and the record are as before the rollback, exit code 3."""
    apply(OLD, options)
    apply(NEW, options)
    expected, before_it = etc_files(options.root), record.read(options.root)
    steps = iter([trouble])
    monkeypatch.setattr(converge, "converge", lambda *_: next(steps, lambda *_: [])() or [])
    with pytest.raises(ActivationFailed, match=r"No space left|stopped by SIGTERM|a fault"):
        rollback(None, options, commands.silent, commands.silent)
    assert etc_files(options.root) == expected
    assert record.read(options.root) == before_it


def test_a_generation_that_is_not_kept(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """apply succeeds if its generation can't be kept, and says that no rollback leads to it."""
    monkeypatch.setattr(generations, "keep", _full_disk)
    messages: list[str] = []
    verb.apply(encoded(OLD), options, commands.silent, messages.append)
    assert any("is not kept for a rollback" in message for message in messages)
    current = record.read(options.root)
    assert current
    assert current.ok


def test_a_running_tool_ends_with_us(tmp_path: Path) -> None:
    """SIGTERM ends the native tool that runs, before anything else happens."""
    pid = tmp_path / "pid"
    step = Step(("sh", "-c", f"echo $$ > {pid}; exec sleep 600"), "a tool that hangs")

    def stop() -> None:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Interrupted, match="SIGTERM"), commands.interruptible():
        commands.run(step, commands.silent)
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_tool_that_starts_ends_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM while the tool starts ends it as well."""
    processes = []

    class Interrupting(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            processes.append(self)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Interrupting)
    step = Step(("sleep", "600"), "a tool that hangs")
    with pytest.raises(Interrupted, match="SIGTERM"), commands.interruptible():
        commands.run(step, commands.silent)
    assert [process.returncode for process in processes] == [-signal.SIGKILL]


def test_a_tool_that_can_not_be_run(tmp_path: Path) -> None:
    """A program without permission to run is a failed activation, and no fault of ours."""
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    with pytest.raises(ActivationFailed, match="can't be run: Permission denied"):
        commands.run(Step((str(tool),), "a tool"), commands.silent)


def test_uninstall_says_that_it_did_not_end(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4 when uninstall removed only some files; a second run removes the rest."""
    on_a_tree = msgspec.structs.replace(options, activate=False)
    apply(OLD, on_a_tree)
    with monkeypatch.context() as full:
        full.setattr(before, "remove_folders", _full_disk)
        with pytest.raises(Stranded, match=r"No space left.*\n.*run uninstall again"):
            uninstall(on_a_tree, commands.silent, commands.silent)
    half = record.read(options.root)
    assert half
    assert (half.ok, half.detail) == (False, "uninstall begun, not ended")
    uninstall(on_a_tree, commands.silent, commands.silent)
    assert not etc_files(options.root)
    assert record.read(options.root) is None


def test_signals_do_nothing_while_it_goes_back() -> None:
    """Signals do nothing while it goes back, and native tools do not inherit that."""
    with commands.uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        ignored = commands.run(
            Step(("sh", "-c", "grep SigIgn /proc/self/status"), "which signals it ignores"),
            commands.silent,
        )
    mask = int(ignored.split()[1], 16)
    assert not mask & 1 << (signal.SIGTERM - 1)
    assert not mask & 1 << (signal.SIGINT - 1)


class _Killed(BaseException):
    """Ends a verb at once: it is no exception that a verb handles."""


def _killed(*_: object) -> None:
    raise _Killed


def test_a_rollback_that_was_killed_is_ended_by_the_next(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run leads to the same generation, not to an earlier one."""
    for vni in (26, 27, 28):
        apply(host(vnet(vni, ports=PORTS), generation=vni), options)
    with monkeypatch.context() as kill:
        kill.setattr(converge, "converge", _killed)
        with pytest.raises(_Killed):
            rollback(None, options, commands.silent, commands.silent)
    for expected in ("vxlan27", "vxlan26"):
        rollback(None, options, commands.silent, commands.silent)
        assert expected.encode() in etc_files(options.root)["etc/netplan/60-evpn-host.yaml"]


@pytest.mark.parametrize("verb_", ["apply", "rollback"])
def test_a_beginning_that_is_not_durable(
    options: Options, monkeypatch: pytest.MonkeyPatch, verb_: str
) -> None:
    """The record is in place, but its folder can't be synced: refused, and the record stays."""
    apply(OLD, options)
    apply(NEW, options)
    expected = etc_files(options.root), record.read(options.root)
    write, calls = files.write, iter([True])

    def write_first(root: Path, path: PurePath, content: bytes, mode: int) -> None:
        write(root, path, content, mode)
        if path == record.RECORD and next(calls, False):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "write", write_first)
    runs: dict[str, Callable[[], object]] = {
        "apply": lambda: apply(OLD | {"generation": 3}, options),
        "rollback": lambda: rollback(None, options, commands.silent, commands.silent),
    }
    with pytest.raises(OSError, match="Input/output error"):
        runs[verb_]()
    assert (etc_files(options.root), record.read(options.root)) == expected


def test_an_end_that_is_not_recorded(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback goes back too when its record can't be written at its end."""
    apply(OLD, options)
    apply(NEW, options)
    expected = etc_files(options.root)
    monkeypatch.setattr("generator.verbs.rollback._done", lambda *_, **__: _full_disk())
    with pytest.raises(ActivationFailed, match="No space left"):
        rollback(None, options, commands.silent, commands.silent)
    assert etc_files(options.root) == expected


def test_a_signal_after_the_end(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM while the generation is kept or the stage removed: all is done, exit code 0."""
    rmdir = os.rmdir

    def signalled(*arguments: Any, **keywords: Any) -> None:
        _stop()
        rmdir(*arguments, **keywords)

    monkeypatch.setattr(generations, "keep", _stop)
    monkeypatch.setattr(os, "rmdir", signalled)
    apply(OLD, options)
    current = record.read(options.root)
    assert current
    assert current.ok
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def _stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_stage_that_can_not_be_removed(
    options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The host is as planned all the same."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "rmdir", _full_disk)
    apply(OLD, options)
    assert list(tmp_path.rglob("evpn-host-stage-*"))
    current = record.read(options.root)
    assert current
    assert current.ok


def test_uninstall_replaces_ours_by_what_was_there(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FRR has a file at any instant of uninstall: ours, then the operator's."""
    on_a_tree = msgspec.structs.replace(options, activate=False)
    conf = options.root / "etc/frr/frr.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("hostname x\n")
    apply(OLD, on_a_tree)
    monkeypatch.setattr(files, "copy", _killed)
    with pytest.raises(_Killed):
        uninstall(on_a_tree, commands.silent, commands.silent)
    assert conf.exists()


def test_an_empty_folder_of_a_killed_run_goes(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was killed after it removed a drop-in; the next run removes the empty folder."""
    apply(OLD, options)
    drop_ins = options.root / "etc/systemd/network"
    monkeypatch.setattr(verb, "_as_planned", lambda previous, _: previous.ok)
    with monkeypatch.context() as kill:
        kill.setattr(files, "remove_folder", _killed)
        with pytest.raises(_Killed):
            apply(NEW, options)
    assert [folder for folder in drop_ins.iterdir() if not any(folder.iterdir())]
    apply(NEW, options)
    assert not [folder for folder in drop_ins.iterdir() if not any(folder.iterdir())]


def test_a_look_of_the_hook_that_can_not_be_written_down(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, not 1: the address may have moved."""
    apply(OLD, options)
    monkeypatch.setattr(hook.Hook, "settle", _full_disk)
    with pytest.raises(ActivationFailed, match="No space left"):
        hook.once(options.root, commands.silent)


def test_a_drop_ins_folder_that_can_not_be_removed(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3 for an empty folder that can't be removed. A folder with files stays."""
    apply(OLD, options)
    expected = etc_files(options.root)
    rmdir = os.rmdir
    failures = iter([OSError(30, "Read-only file system")])

    def fail_once(name: str, *, dir_fd: int) -> None:
        for failure in failures:
            raise failure
        rmdir(name, dir_fd=dir_fd)

    with monkeypatch.context() as faults:
        faults.setattr(os, "rmdir", fail_once)
        with pytest.raises(ActivationFailed, match="Read-only"):
            apply(NEW, options)
    assert etc_files(options.root) == expected
    [folder] = (options.root / "etc/systemd/network").glob("10-netplan-vxlan26.*.d")
    (folder / "theirs.conf").write_text("[Link]\n")
    apply(NEW, msgspec.structs.replace(options, person=True))
    assert list(folder.iterdir()) == [folder / "theirs.conf"]
