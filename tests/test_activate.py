"""Steps that make a command from names, their time limits, and waiting for their effects."""

import re
import time
from pathlib import Path

import pytest

from generator.activation import commands, netplan, staging
from generator.activation.commands import Step, run, silent
from generator.activation.frr import forget_neighbors
from generator.errors import Refused


def test_forgetting_neighbors_touches_interfaces_of_unnumbered_sessions_only() -> None:
    """A numbered session has no lines in an interface of FRR's configuration."""
    argv = forget_neighbors(65001, ["10.9.9.1", "eth0.100", "fd00::1"]).argv
    assert set(argv[1::2]) == {"-c"}
    assert [line for line in argv if line.startswith("interface")] == ["interface eth0.100"]
    assert argv[-3::2] == ("no neighbor eth0.100", "no neighbor fd00::1")
    assert argv.index("router bgp 65001") > argv.index("no ipv6 nd ra-lifetime")


def test_clients_of_networkd_wait_as_long_as_the_step() -> None:
    """Without the setting they would give up after 25 s, whatever time limit the step has."""
    output = run(
        Step(("sh", "-c", "echo $SYSTEMD_BUS_TIMEOUT; echo $PATH"), "", timeout=90), silent
    )
    assert output.split("\n", 1)[0] == "90"
    assert output.split("\n")[1]


@pytest.mark.parametrize(
    ("counts", "remaining", "seconds"),
    [
        ([3, 3, 2, 2, 1, 1, 0], 0, 60),  # slow, but it ends
        ([3, 2], 2, 30),  # it stays at two
        ([2, 3, 2, 3], 2, 20),  # up and down is no progress
        ([0], 0, 0),
    ],
)
def test_until_gives_up_when_the_count_stops_falling(
    monkeypatch: pytest.MonkeyPatch, counts: list[int], remaining: int, seconds: int
) -> None:
    """The limit of 15 s is for the next fall of the count, not for the whole wait."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda _: clock.__setitem__(0, clock[0] + 10))
    upcoming = iter(counts)
    current = [0]

    def look() -> list[int]:
        current[0] = next(upcoming, current[0])
        return [1] * current[0]

    assert commands.until(look, 15) == [1] * remaining
    assert clock[0] == seconds


CONFIGURE, GENERATE, OLD_GENERATE = "configure", "generate", "old/generate"
RECORD = """#!/bin/sh
echo "$0 $* offline=${SYSTEMD_OFFLINE-}" >> "${0%/bin/*}/calls"
"""


def make_machine(folder: Path, monkeypatch: pytest.MonkeyPatch, *tools: str) -> None:
    """Make a machine with FRR and these generators of netplan; each call adds a line to `calls`."""
    names = (CONFIGURE, GENERATE, OLD_GENERATE)
    places = tuple(str(folder / "bin" / name) for name in names)
    monkeypatch.setattr(netplan, "GENERATORS", places)
    monkeypatch.setenv("PATH", f"{folder}/bin", prepend=":")
    for tool in ("vtysh", "netplan", "systemctl", *tools):
        file = folder / "bin" / tool
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(RECORD)
        file.chmod(0o755)


@pytest.mark.parametrize(
    ("generators", "expected"),
    [
        ((CONFIGURE, GENERATE), CONFIGURE),  # 1.2: `generate` is systemd's there
        ((GENERATE, OLD_GENERATE), GENERATE),  # Debian 12 has both
        ((GENERATE,), GENERATE),
        ((OLD_GENERATE,), OLD_GENERATE),
    ],
)
def test_runs_the_generator_that_the_machine_has(
    generators: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator writes the files, not the `netplan` command; no unit is reloaded."""
    make_machine(tmp_path, monkeypatch, *generators)
    tree = tmp_path / "tree"
    staging.check(tree, "netplan", 3, silent)
    _, call = (tmp_path / "calls").read_text().splitlines()
    assert call == f"{tmp_path}/bin/{expected} --root-dir {tree} offline=1"


def test_refuses_a_machine_without_a_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the places where a generator could be."""
    make_machine(tmp_path, monkeypatch)
    (tmp_path / "bin/configure").touch()  # not a program
    places = ", ".join(netplan.GENERATORS)
    with pytest.raises(Refused, match=re.escape(f"is not installed: none of {places} is there")):
        staging.check(tmp_path, "netplan", 3, silent)
