"""Every apply that changes something is an entry of the history, to which one can go back."""

import json
from pathlib import Path

import pytest

from generator.activation import commands, converge
from generator.errors import ActivationFailed, Refused, Stranded
from generator.state import generations, record
from generator.verbs import apply as verb
from generator.verbs import history
from generator.verbs.options import Options
from generator.verbs.rollback import rollback
from tests.folders import apply, etc_files, fail_once
from tests.strategies import LEAF1, LEAF2, Json, host, link, server, tagged, vnet
from tests.test_apply import Command

PORTS = tagged(LEAF1, LEAF2)
RED = vnet(26, name="red", prefixes=["10.26.0.1/24"], ports=PORTS)
BOTH = [link("ens4", LEAF1), link("ens5", LEAF2)]


@pytest.fixture
def options(folder_as_host: Path) -> Options:
    """Return a person's options for a host that is a folder."""
    return Options(root=folder_as_host, backend="ifupdown", person=True, started_by="ada", keep=4)


def back(options: Options, number: int | None = None) -> int:
    """Go back; return the number of the entry that is current again."""
    _, entry = rollback(number, options, commands.silent, commands.silent)
    return entry.number


def renumbered(generation: int) -> Json:
    """Return a payload with another management address alone: no file changes."""
    document = host(RED, links=BOTH, generation=generation, server=server())
    document["server"]["mgmt"]["ipv4"] = document["server"]["mgmt"]["ipv4"].replace(".101", ".77")
    return document


@pytest.fixture
def applied(options: Options) -> Options:
    """Apply four payloads: an uplink goes and comes back, then the address changes."""
    apply(host(RED, links=BOTH), options)
    one = host(RED, links=BOTH[:1], generation=2)
    one["server"] = server()
    apply(one, options)
    apply(host(RED, links=BOTH, generation=3), options)
    apply(renumbered(4), options)
    return options


def test_an_apply_that_changes_no_file_is_an_entry(applied: Options) -> None:
    """A change of the management address, which no file has, is an entry too."""
    listed = history.entries(applied.root)
    assert [each.number for each in listed] == [4, 3, 2, 1]
    assert [each.outcome for each in listed] == ["current", "applied", "applied", "applied"]
    assert {each.started_by for each in listed} == {"ada"}
    assert listed[0].summary[0].startswith("~ management address")
    assert listed[1].summary == ["+ uplink ens5 (swp1@leaf2)"]
    assert listed[2].summary == ["- uplink ens5 (swp1@leaf2)"]
    assert "+ V-Net red (VNI 26, 10.26.0.1/24, VPC coke)" in listed[3].summary


def test_each_rollback_goes_back_by_one(applied: Options) -> None:
    """Each rollback goes back by one entry; the record says what the host has."""
    assert back(applied) == 3
    current = record.read(applied.root)
    assert current
    assert (current.number, current.origin, current.target.generation) == (5, 3, 3)
    assert current.target.sessions == ["ens4", "ens5"]
    assert back(applied) == 2
    current = record.read(applied.root)
    assert current
    assert current.target.sessions == ["ens4"]
    # The oldest entries are removed, except the one whose files the host has.
    assert [each.number for each in generations.entries(applied.root)][-1] == 2


def test_any_entry_can_be_gone_back_to(applied: Options) -> None:
    """rollback takes a number, also forward again; a refusal lists the known numbers."""
    back(applied, 1)
    assert back(applied, 4) == 4
    current = record.read(applied.root)
    assert current
    assert current.target.management
    assert current.target.management.ipv4.endswith(".77/16")
    with pytest.raises(Refused, match=r"77 is no entry of the history \(there are: "):
        back(applied, 77)


def test_the_previous_entry_is_what_the_host_had(applied: Options) -> None:
    """After a rollback and an apply, the previous entry is the one that the host had."""
    back(applied, 2)
    apply(host(links=BOTH, generation=9), applied)
    assert back(applied) == 5  # the rollback to 2


def test_an_apply_without_a_change_is_no_entry(applied: Options) -> None:
    """The current entry gets the new generation of a payload with the same content."""
    apply(renumbered(5), applied)
    assert [each.generation for each in history.entries(applied.root)] == [5, 3, 2, 1]
    assert [each.number for each in history.entries(applied.root)] == [4, 3, 2, 1]
    current = record.read(applied.root)
    assert current
    assert current.target.generation == 5


def test_a_failed_apply_is_listed_with_its_reason(
    applied: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed apply is listed with its reason, and no rollback leads to it."""
    fail_once(monkeypatch)
    with pytest.raises(ActivationFailed):
        apply(host(links=BOTH, generation=9), applied)
    newest = history.entries(applied.root)[0]
    assert (newest.number, newest.outcome) == (5, "failed")
    assert "ens4" in newest.detail
    with pytest.raises(Refused, match="an apply that failed"):
        back(applied, 5)
    assert back(applied) == 3


def test_history_prints_a_line_for_each_entry(applied: Options, evpn_host: Command) -> None:
    """`history` prints a line for each entry, its changes below; as JSON a list of objects."""
    shown = evpn_host("history", "--root", applied.root)
    assert shown.code == 0
    assert shown.out.splitlines()[0].startswith("4  2")
    assert "    - uplink ens5 (swp1@leaf2)" in shown.out.splitlines()
    objects = json.loads(evpn_host("history", "--root", applied.root, "--json").out)
    assert [each["number"] for each in objects] == [4, 3, 2, 1]
    assert evpn_host("history", "--root", applied.root / "other").out == "nothing was applied yet\n"


def test_the_duration_always_has_one_decimal() -> None:
    """A second is 1.0 s: a script that reads the table finds one form."""
    entry = history.Entry(
        number=2,
        time="2026-11-29T04:14:34+00:00",
        generation=2,
        started_by="root",
        outcome="current",
        seconds=1.0,
        summary=["+ VPC coke"],
    )
    assert "  1.0 s  root\n" in history.text([entry])


def test_ten_times_the_same_leave_nothing_behind(options: Options) -> None:
    """A V-Net that comes and goes ten times leaves no file, and a bounded history."""
    plain = host(links=BOTH)
    apply(plain, options)
    etc = {f: f.read_bytes() for f in (options.root / "etc").rglob("*") if f.is_file()}
    for generation in range(2, 22, 2):
        apply(host(RED, links=BOTH, generation=generation), options)
        apply(plain | {"generation": generation + 1}, options)
    now = {f: f.read_bytes() for f in (options.root / "etc").rglob("*") if f.is_file()}
    assert {f: b.partition(b"\n")[2] for f, b in now.items()} == {
        f: b.partition(b"\n")[2] for f, b in etc.items()
    }
    assert len(history.entries(options.root)) == options.keep


def test_a_record_of_an_older_version_has_no_history(applied: Options) -> None:
    """Entries of an older version are listed, and rollback reaches them."""
    file = applied.root / record.GENERATIONS / "2/record.json"
    entry = json.loads(file.read_text())
    for name in ("origin", "started_by", "seconds", "summary"):
        del entry[name]
    del entry["target"]["names"]
    file.write_text(json.dumps(entry))
    assert back(applied, 2) == 2
    [old] = [each for each in history.entries(applied.root) if each.number == 2]
    assert (old.summary, old.started_by) == ([], "")


def test_a_repair_leaves_the_entry_as_it_is(
    applied: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair, good or failed, keeps what the entry changed, and its files."""
    back(applied, 1)
    entry, texts = generations.entries(applied.root)[0], etc_files(applied.root)
    monkeypatch.setattr(verb, "_as_planned", lambda *_: False)  # a device is gone
    apply(host(RED, links=BOTH), applied)
    assert generations.entries(applied.root)[0] == entry
    current = record.read(applied.root)
    assert current
    assert (current.number, current.origin, current.summary) == (5, 1, entry.summary)

    def fail(*_: object) -> list[str]:
        raise ActivationFailed("the devices are not as planned")

    monkeypatch.setattr(converge, "converge", fail)
    with pytest.raises(Stranded):
        apply(host(RED, links=BOTH), applied)
    assert generations.entries(applied.root)[0] == entry
    assert generations.texts(applied.root, entry).keys() == texts.keys()


def test_failures_take_no_place_of_what_was_good(
    applied: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A payload that fails for days removes no good entry."""
    fails = True

    def fail_first(*_: object) -> list[str]:
        nonlocal fails
        fails = not fails
        if not fails:
            raise ActivationFailed("guard: no session")
        return []

    monkeypatch.setattr(converge, "converge", fail_first)
    for generation in range(5, 15):
        with pytest.raises(ActivationFailed):
            apply(host(links=BOTH, generation=generation), applied)
    outcomes = [each.outcome for each in history.entries(applied.root)]
    assert outcomes.count("failed") == applied.keep
    assert [each.number for each in generations.entries(applied.root) if each.ok] == [4, 3, 2, 1]
