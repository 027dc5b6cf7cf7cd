"""Steps whose command is made of names, and patience with what they set going."""

import re
import time
from pathlib import Path

import pytest

from generator import activate, stage
from generator.activate import Step, forget_neighbors, run, silent
from generator.errors import Refused


def test_sessions_that_end() -> None:
    """Of a numbered session no interface says anything."""
    argv = forget_neighbors(65001, ["10.9.9.1", "eth0.100", "fd00::1"]).argv
    assert set(argv[1::2]) == {"-c"}
    assert [line for line in argv if line.startswith("interface")] == ["interface eth0.100"]
    assert argv[-3::2] == ("no neighbor eth0.100", "no neighbor fd00::1")
    assert argv.index("router bgp 65001") > argv.index("no ipv6 nd ra-lifetime")


def test_who_asks_networkd_is_as_patient_as_the_step() -> None:
    """Its clients would give up after 25 s, whatever time the step has."""
    told = run(Step(("sh", "-c", "echo $SYSTEMD_BUS_TIMEOUT; echo $PATH"), "", timeout=90), silent)
    assert told.split("\n", 1)[0] == "90"
    assert told.split("\n")[1]


@pytest.mark.parametrize(
    ("looks", "left", "seconds"),
    [
        ([3, 3, 2, 2, 1, 1, 0], 0, 60),  # slow, and getting there
        ([3, 2], 2, 30),  # there it stays
        ([2, 3, 2, 3], 2, 20),  # up and down is not nearer
        ([0], 0, 0),
    ],
)
def test_until(monkeypatch: pytest.MonkeyPatch, looks: list[int], left: int, seconds: int) -> None:
    """Patience (15 s) is with what does not become less, not with how long all of it takes."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda _: clock.__setitem__(0, clock[0] + 10))
    seen = iter(looks)
    last = [0]

    def look() -> list[int]:
        last[0] = next(seen, last[0])
        return [1] * last[0]

    assert activate.until(look, 15) == [1] * left
    assert clock[0] == seconds


CONFIGURE, GENERATE, OLD_GENERATE = "configure", "generate", "old/generate"
RECORD = """#!/bin/sh
echo "$0 $* offline=${SYSTEMD_OFFLINE-}" >> "${0%/bin/*}/calls"
"""


def a_machine(folder: Path, monkeypatch: pytest.MonkeyPatch, *tools: str) -> None:
    """One that has these of netplan's generators, and FRR; what is run is a line of `calls`."""
    names = (CONFIGURE, GENERATE, OLD_GENERATE)
    places = tuple(str(folder / "bin" / name) for name in names)
    monkeypatch.setattr(activate, "NETPLAN_GENERATORS", places)
    monkeypatch.setenv("PATH", f"{folder}/bin", prepend=":")
    for tool in ("vtysh", "netplan", "systemctl", *tools):
        file = folder / "bin" / tool
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(RECORD)
        file.chmod(0o755)


@pytest.mark.parametrize(
    ("there", "used"),
    [
        ((CONFIGURE, GENERATE), CONFIGURE),  # 1.2: `generate` is systemd's there
        ((GENERATE, OLD_GENERATE), GENERATE),  # Debian 12 has both
        ((GENERATE,), GENERATE),
        ((OLD_GENERATE,), OLD_GENERATE),
    ],
)
def test_netplans_generator(
    there: tuple[str, ...], used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that the machine has makes the files, not the command, and no unit is reloaded."""
    a_machine(tmp_path, monkeypatch, *there)
    tree = tmp_path / "tree"
    stage.judge(tree, "netplan", 3, silent)
    _, called = (tmp_path / "calls").read_text().splitlines()
    assert called == f"{tmp_path}/bin/{used} --root-dir {tree} offline=1"


def test_no_generator_of_netplan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which places were looked at."""
    a_machine(tmp_path, monkeypatch)
    (tmp_path / "bin/configure").touch()  # not a program
    places = ", ".join(activate.NETPLAN_GENERATORS)
    with pytest.raises(Refused, match=re.escape(f"is not installed: none of {places} is there")):
        stage.judge(tmp_path, "netplan", 3, silent)
