"""`--confirm`: the host goes back unless somebody confirms in time."""

from pathlib import Path

import msgspec
import pytest

from generator.activation import commands, converge
from generator.activation.commands import Step
from generator.controller.config import Config
from generator.errors import ActivationFailed, Interrupted, Refused, Stranded
from generator.reporting import report, status
from generator.state import held, record, unconfirmed
from generator.verbs import confirm as confirming
from generator.verbs import history
from generator.verbs.awaiting import TIMER
from generator.verbs.options import Options
from generator.verbs.rollback import rollback
from generator.verbs.uninstall import uninstall
from tests.folders import apply, etc_files, fail_once, generation
from tests.strategies import LEAF1, LEAF2, host, tagged, vnet

PORTS = tagged(LEAF1, LEAF2)
OLD = host(vnet(26, prefixes=["10.26.0.1/24"], ports=PORTS))
NEW = host(vnet(27, prefixes=["10.27.0.1/24"], ports=PORTS), generation=2)
NEWER = host(vnet(28, prefixes=["10.28.0.1/24"], ports=PORTS), generation=3)
BOOT = "etc/systemd/system/evpn-host.service"


@pytest.fixture
def options(folder_as_host: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Return a person's options for a host that is a folder and has the boot service."""
    (folder_as_host / BOOT).parent.mkdir(parents=True)
    (folder_as_host / BOOT).touch()
    monkeypatch.setattr(report, "_publish", lambda *_, **__: None)
    return Options(
        root=folder_as_host, backend="ifupdown", person=True, started_by="ada", confirm=60
    )


@pytest.fixture
def steps(options: Options, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which each command is added that runs."""
    del options
    ran: list[str] = []

    def run(step: Step, log: object) -> str:
        del log
        ran.append(step.command)
        return ""

    monkeypatch.setattr(commands, "run", run)
    return ran


def expire(options: Options) -> bool:
    return confirming.expire(options, Config(), commands.silent, commands.silent)


def pass_time(options: Options) -> None:
    """Let the time for a confirmation end."""
    waiting = unconfirmed.read(options.root)
    assert waiting
    unconfirmed.write(options.root, msgspec.structs.replace(waiting, deadline=0.0))


def test_a_confirmed_apply_stays(options: Options, steps: list[str]) -> None:
    """A confirmed apply never goes back, and systemd's timer ends."""
    apply(OLD, options, confirm=None)
    apply(NEW, options)
    assert [s for s in steps if s.startswith("systemd-run") and f"--unit={TIMER}" in s]
    assert "systemctl enable evpn-host.service" in steps
    assert status.status(options.root).health == "unconfirmed"
    assert history.entries(options.root)[0].outcome == "unconfirmed"
    steps.clear()
    assert confirming.confirm(options, commands.silent).number == 2
    assert steps == [f"systemctl stop {TIMER}.timer", "systemctl disable evpn-host.service"]
    assert not expire(options)
    assert generation(options) == 2
    assert status.status(options.root).health == "ok"
    assert history.entries(options.root)[0].outcome == "current"
    with pytest.raises(Refused, match="nothing waits to be confirmed"):
        confirming.confirm(options, commands.silent)


def test_an_unconfirmed_apply_goes_back(options: Options) -> None:
    """Without a confirmation the old files come back, and the timer leaves the payload alone."""
    apply(OLD, options, confirm=None)
    before = etc_files(options.root)
    apply(NEW, options)
    assert not expire(options)  # not yet
    assert generation(options) == 2
    pass_time(options)
    assert expire(options)
    assert etc_files(options.root) == before
    assert generation(options) == 1
    assert not expire(options)
    outcome = apply(NEW, options, person=False, confirm=None)
    assert held.UNCONFIRMED in outcome.left_alone
    with pytest.raises(Refused, match=held.UNCONFIRMED):
        confirming.confirm(options, commands.silent)
    apply(NEW, options, confirm=None)
    assert generation(options) == 2


def test_an_unconfirmed_first_apply_leaves_no_record(options: Options) -> None:
    """A first apply without a confirmation leaves the operator's file, no record, and our units."""
    conf = options.root / "etc/frr/frr.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("hostname theirs\n")
    before = etc_files(options.root)
    apply(OLD, options)
    assert conf.read_text() != "hostname theirs\n"
    pass_time(options)
    assert expire(options)
    assert etc_files(options.root) == before
    assert record.read(options.root) is None
    with pytest.raises(Refused, match=held.UNCONFIRMED):  # the timer's apply
        apply(OLD, options, person=False, confirm=None)
    apply(OLD, options, confirm=None)
    assert generation(options) == 1


@pytest.mark.parametrize("reboots", [False, True])
def test_a_killed_process_goes_back_in_time(
    options: Options, monkeypatch: pytest.MonkeyPatch, reboots: bool
) -> None:
    """A process that was killed between two files goes back in time, or at the next boot."""
    apply(OLD, options, confirm=None)
    before = etc_files(options.root)

    def killed(*_: object) -> list[str]:
        raise SystemExit  # no `except` of ours sees it: as after SIGKILL, nothing is cleaned up

    with monkeypatch.context() as patch:
        patch.setattr(converge, "converge", killed)
        with pytest.raises(SystemExit):
            apply(NEW, options)
    with pytest.raises(Refused, match="entry 2: has not ended well"):
        confirming.confirm(options, commands.silent)
    if reboots:
        monkeypatch.setattr(unconfirmed, "boot_id", lambda: "another")
    else:
        pass_time(options)
    assert expire(options)
    assert etc_files(options.root) == before
    applied = record.read(options.root)
    assert applied
    assert applied.ok


def test_a_second_apply_is_refused(options: Options) -> None:
    """A second apply is refused and names the first. The timer leaves the host alone."""
    apply(OLD, options, confirm=None)
    apply(NEW, options)
    for confirm in (None, 60.0):
        with pytest.raises(Refused, match=r"apply by ada: entry 2 is not confirmed") as refused:
            apply(NEWER, options, confirm=confirm)
        assert "evpn-host confirm keeps it" in str(refused.value)
    outcome = apply(NEWER, options, person=False, confirm=None)
    assert "entry 2 is not confirmed" in outcome.left_alone
    assert generation(options) == 2


def test_rollback_goes_back_at_once(options: Options, steps: list[str]) -> None:
    """A person's rollback goes back at once and ends the wait."""
    apply(OLD, options, confirm=None)
    apply(NEW, options)
    with pytest.raises(Refused, match="entry 2 is not confirmed"):
        rollback(None, options, commands.silent, commands.silent)  # with --confirm
    steps.clear()
    chosen = msgspec.structs.replace(options, confirm=None)
    rollback(None, chosen, commands.silent, commands.silent)
    assert f"systemctl stop {TIMER}.timer" in steps
    assert unconfirmed.read(options.root) is None
    assert generation(options) == 1


def test_an_unconfirmed_rollback_is_undone(options: Options) -> None:
    """A rollback that nobody confirms is undone, and the payload before it counts again."""
    apply(OLD, options, confirm=None)
    apply(NEW, options, confirm=None)
    after = etc_files(options.root)
    rollback(1, options, commands.silent, commands.silent)
    assert generation(options) == 1
    pass_time(options)
    assert expire(options)
    assert etc_files(options.root) == after
    assert generation(options) == 2
    assert held.read(options.root) is None


def test_a_failed_apply_waits_for_nobody(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """An apply that fails has gone back: there is nothing to confirm."""
    apply(OLD, options, confirm=None)
    fail_once(monkeypatch)
    with pytest.raises(ActivationFailed):
        apply(NEW, options)
    assert unconfirmed.read(options.root) is None
    assert generation(options) == 1


def test_going_back_is_tried_again(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """If going back fails, a minute later it is tried again."""
    apply(OLD, options, confirm=None)
    apply(NEW, options)
    pass_time(options)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> list[str]:
            raise ActivationFailed("the disk is full")

        patch.setattr(converge, "converge", fail)
        with pytest.raises(Stranded):
            expire(options)
    assert not expire(options)
    pass_time(options)
    assert expire(options)
    assert generation(options) == 1


def test_an_apply_without_a_change_waits_for_nobody(options: Options) -> None:
    """An apply that changes nothing does not wait for a confirmation."""
    apply(OLD, options, confirm=None)
    apply(OLD, options)
    apply(OLD, options, full=True)
    assert unconfirmed.read(options.root) is None


def test_confirm_needs_the_boot_service(options: Options) -> None:
    """Without the boot service `--confirm` is refused: after a reboot nothing would go back."""
    (options.root / BOOT).unlink()
    with pytest.raises(Refused, match="install-units writes it"):
        apply(OLD, options)
    assert record.read(options.root) is None


def test_confirm_needs_systemd_run(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd-run `--confirm` is refused, and nothing waits."""

    def run(step: Step, log: object) -> str:
        del log
        if step.argv[0] == "systemd-run":
            raise ActivationFailed("systemd-run can't be run")
        return ""

    monkeypatch.setattr(commands, "run", run)
    with pytest.raises(Refused, match="systemd-run can't be run"):
        apply(OLD, options)
    assert record.read(options.root) is None
    assert unconfirmed.read(options.root) is None


def test_sigterm_before_a_change_leaves_nothing(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM while the timer starts: nothing was changed, and nothing waits."""
    apply(OLD, options, confirm=None)

    def run(step: Step, log: object) -> str:
        del log
        if step.argv[:2] == ("systemctl", "enable"):
            raise Interrupted("stopped by SIGTERM")
        return ""

    monkeypatch.setattr(commands, "run", run)
    with pytest.raises(Interrupted):
        apply(NEW, options)
    assert unconfirmed.read(options.root) is None
    assert generation(options) == 1


def test_a_damaged_note_stops_apply_alone(options: Options) -> None:
    """With a damaged note nothing is applied; a rollback goes back and removes the note."""
    apply(OLD, options, confirm=None)
    apply(NEW, options, confirm=None)
    (options.root / unconfirmed.FILE).write_text("{")
    with pytest.raises(Refused, match=r"unconfirmed.json: can't be read"):
        apply(NEWER, options)
    chosen = msgspec.structs.replace(options, confirm=None)
    rollback(None, chosen, commands.silent, commands.silent)
    assert generation(options) == 1


def test_uninstall_ends_the_wait(options: Options, steps: list[str]) -> None:
    """After uninstall nothing goes back."""
    apply(OLD, options, confirm=None)
    apply(NEW, options)
    uninstall(options, commands.silent, commands.silent)
    assert f"systemctl stop {TIMER}.timer" in steps
    assert not expire(options)
    assert unconfirmed.read(options.root) is None
