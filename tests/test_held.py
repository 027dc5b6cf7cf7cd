"""A timer leaves a payload alone that failed, or from which a person went back."""

import datetime
from pathlib import Path

import msgspec
import pytest

from generator.activation import commands
from generator.errors import ActivationFailed, Refused
from generator.state import held
from generator.verbs.options import Options
from generator.verbs.rollback import rollback
from tests.folders import apply, fail_once, generation
from tests.strategies import LEAF1, LEAF2, host, tagged, vnet

PORTS = tagged(LEAF1, LEAF2)
OLD = host(vnet(26, prefixes=["10.26.0.1/24"], ports=PORTS))
NEW = host(vnet(27, prefixes=["10.27.0.1/24"], ports=PORTS), generation=2)


@pytest.fixture
def options(folder_as_host: Path) -> Options:
    """Return a timer's options for a host that is a folder."""
    return Options(root=folder_as_host, backend="netplan")


def wait(options: Options, minutes: float) -> None:
    """Let time pass for the payload that is left alone."""
    entry = held.read(options.root)
    assert entry
    since = datetime.datetime.fromisoformat(entry.since) - datetime.timedelta(minutes=minutes)
    older = msgspec.structs.replace(entry, since=since.isoformat())
    (options.root / held.FILE).write_bytes(msgspec.json.encode(older))


def test_a_timer_tries_a_failed_payload_again_after_longer_each_time(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer waits 5, 15, 60 and 60 minutes: each try disturbs the host for a moment."""
    apply(OLD, options)
    for failures, minutes in enumerate((5, 15, 60, 60), start=1):
        fail_once(monkeypatch)
        with pytest.raises(ActivationFailed):
            apply(NEW, options)
        entry = held.read(options.root)
        assert entry
        assert entry.failures == failures
        wait(options, minutes - 1)
        outcome = apply(NEW, options)
        assert "ens4 is not Established" in outcome.left_alone
        assert generation(options) == 1
        wait(options, 1)
    assert apply(NEW, options).left_alone == ""
    assert generation(options) == 2
    assert held.read(options.root) is None


def test_another_payload_is_applied_at_once(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another payload than the one that failed is applied at once."""
    apply(OLD, options)
    fail_once(monkeypatch)
    with pytest.raises(ActivationFailed):
        apply(NEW, options)
    better = host(vnet(28, prefixes=["10.28.0.1/24"], ports=PORTS), generation=3)
    assert apply(better, options).left_alone == ""
    assert generation(options) == 3


def test_a_first_payload_that_failed_is_left_alone_too(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host without a record the refusal says why, and when it is tried again."""
    fail_once(monkeypatch)
    with pytest.raises(ActivationFailed):
        apply(OLD, options)
    with pytest.raises(Refused, match=r"left alone.*ens4 is not Established.*tried again at"):
        apply(OLD, options)


def test_a_persons_word_counts(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """`apply -p` applies a payload that failed, or from which a person went back."""
    apply(OLD, options)
    fail_once(monkeypatch)
    with pytest.raises(ActivationFailed):
        apply(NEW, options)
    assert apply(NEW, options, person=True).left_alone == ""
    assert generation(options) == 2
    rollback(None, options, commands.silent, commands.silent)
    files = (options.root / "etc/netplan/60-evpn-host.yaml").read_text()
    assert "nbr-26" in files
    wait(options, 10_000)
    assert "a person went back" in apply(NEW, options).left_alone
    assert apply(NEW, options, person=True).left_alone == ""
    assert "nbr-27" in (options.root / "etc/netplan/60-evpn-host.yaml").read_text()
